"""Ask Postfix's trivial-rewrite(8) over its socket: the peer of `postillion.address`.

One Postfix instance has a `trivial-rewrite` service for each configuration: the parameters are `-o` words of its line
in master.cf. So a table of many small configurations needs one start.
"""

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

REPLY_MAX_OCTETS = 65536
TIMEOUT_S = 60.0
ROUTED, MALFORMED, FAILED = 1 << 1, 1 << 2, 1 << 3
"""Flags of a reply: the local part routes on, the address is none, a table failed."""
CLASSES = {1 << 8: "local", 1 << 9: "virtual alias", 1 << 10: "virtual", 1 << 11: "relay", 1 << 12: "default"}
"""Address classes by their flag in a reply."""


class Resolved(NamedTuple):
    """A reply to `resolve`."""

    transport: str
    nexthop: str
    recipient: str
    flags: int

    @property
    def kind(self) -> str:
        """The class of the address."""
        return next((name for flag, name in CLASSES.items() if self.flags & flag), "")


def services(configurations: Sequence[Mapping[str, str]]) -> str:
    """Return a line of master.cf for each configuration; its service is `rewrite0`, `rewrite1` and so on."""
    lines = []
    for number, parameters in enumerate(configurations):
        options = "".join(f"\n    -o {{ {name} = {value} }}" for name, value in parameters.items())
        lines.append(f"rewrite{number} unix - - n - 1 trivial-rewrite{options}\n")
    return "".join(lines)


class TrivialRewrite:
    """A connection to one service."""

    def __init__(self, queue: Path, service: str = "rewrite") -> None:
        """Connect. `queue`: the queue directory."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(TIMEOUT_S)
        self._socket.connect(str(queue / "private" / service))
        self._received = b""
        greeting = self._attributes()
        assert greeting == [("protocol", "trivial_rewrite_protocol")], greeting

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def rewrite(self, address: str, rule: str = "local") -> str:
        """Return the rewritten form of an address, both with the quotes that they need. `rule`: local or remote."""
        reply = self._ask(("request", "rewrite"), ("rule", rule), ("address", address))
        return dict(reply)["address"]

    def resolve(self, address: str, sender: str = "") -> Resolved:
        """Return the route of an address without quotes."""
        reply = self._ask(("request", "resolve"), ("sender", sender), ("address", address))
        found = dict(reply[1:])
        return Resolved(found["transport"], found["nexthop"], found["recipient"], int(found["flags"]))

    def _ask(self, *attributes: tuple[str, str]) -> list[tuple[str, str]]:
        words = [word for attribute in attributes for word in attribute]
        self._socket.sendall(b"".join(word.encode() + b"\0" for word in words) + b"\0")
        return self._attributes()

    def _attributes(self) -> list[tuple[str, str]]:
        """Read attributes up to the empty name that ends them."""
        found = []
        while (name := self._word()) != "":
            found.append((name, self._word()))
        return found

    def _word(self) -> str:
        while b"\0" not in self._received:
            more = self._socket.recv(4096)
            if not more or len(self._received) > REPLY_MAX_OCTETS:
                raise ConnectionError(f"no reply, but {self._received!r}")
            self._received += more
        word, _, self._received = self._received.partition(b"\0")
        return word.decode("utf-8", "surrogateescape")
