"""A server that offers AUTH: it answers the lines of an exchange by a script, and takes all mail."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
from collections.abc import Callable, Sequence

from support.scripted import Scripted

Reply = str | Callable[[str], str] | None
"""A reply to a line of an exchange, what makes it from the line, or None: close the connection."""


def challenge(text: str | bytes) -> str:
    """Return the reply with a challenge."""
    octets = text.encode() if isinstance(text, str) else text
    return f"334 {base64.b64encode(octets).decode()}"


class AuthServer:
    """The server. `keywords`: those of EHLO; `replies`: to AUTH and to the lines after a challenge, in order.

    `heard`: the lines of each connection outside messages.
    """

    def __init__(self, keywords: Sequence[str], replies: Sequence[Reply] = ()) -> None:
        self._keywords = keywords
        self._replies = replies
        self.heard: list[list[str]] = []
        self._server = Scripted(self._serve)
        self.port = self._server.port

    def close(self) -> None:
        """Stop listening, and close every connection."""
        self._server.close()

    def _serve(self, connection: socket.socket) -> None:
        replies, heard = list(self._replies), list[str]()
        self.heard.append(heard)
        lines = connection.makefile("rb")

        def say(*texts: str) -> None:
            connection.sendall("".join(f"{text}\r\n" for text in texts).encode())

        say("220 sink.example ESMTP")
        in_exchange = False
        while line := lines.readline().decode().rstrip("\r\n"):
            heard.append(line)
            verb = line.split()[0].upper()
            if verb == "AUTH" or in_exchange:
                reply = replies.pop(0) if replies else None
                text = reply(line) if callable(reply) else reply
                if text is None:
                    return
                say(text)
                in_exchange = text.startswith("334")
            elif verb in ("EHLO", "LHLO"):
                say("250-sink.example", *(f"250-{keyword}" for keyword in self._keywords), "250 HELP")
            elif verb == "DATA":
                say("354 go")
                while lines.readline() not in (b".\r\n", b""):
                    pass
                say("250 2.0.0 taken")
            else:
                say("221 2.0.0 bye" if verb == "QUIT" else "250 2.0.0 fine")
            if verb == "QUIT":
                return


class Scram:
    """The server's side of SCRAM-SHA-256 for the password `pass`.

    `iterations`: the count that it names. `signature`: its last message, the right one by default. `nonce`: goes before
    the client's. `last`: its reply in place of the signature.
    """

    SALT = b"0123456789abcdef"
    HASH = "sha256"

    def __init__(
        self, iterations: str = "4096", *, signature: str = "", nonce: str = "", last: str | None = None
    ) -> None:
        self._iterations = iterations
        self._nonce = nonce
        self._signature = signature
        self._last = last

    @property
    def replies(self) -> list[Reply]:
        """The replies of an exchange."""
        return [self.first, self.final, "235 2.7.0 welcome"]

    def first(self, line: str) -> str:
        """Return the reply to `AUTH SCRAM-SHA-256` with its initial response."""
        self._bare = base64.b64decode(line.split()[-1]).decode().removeprefix("n,,")
        nonce = self._bare.partition("r=")[2]
        salt = base64.b64encode(self.SALT).decode()
        self._said = f"r={self._nonce}{nonce}more,s={salt},i={self._iterations}"
        return challenge(self._said)

    def final(self, line: str) -> str:
        """Return the reply to the client's proof."""
        if line == "*":
            return "501 5.7.0 cancelled"
        bare, _, proof = base64.b64decode(line).decode().partition(",p=")
        exchange = ",".join([self._bare, self._said, bare]).encode()
        salted = hashlib.pbkdf2_hmac(self.HASH, b"pass", self.SALT, max(1, int(self._iterations)))
        key = hmac.digest(salted, b"Client Key", self.HASH)
        mask = hmac.digest(hashlib.new(self.HASH, key).digest(), exchange, self.HASH)
        if base64.b64decode(proof) != bytes(a ^ b for a, b in zip(key, mask, strict=True)):
            return "535 5.7.8 wrong proof"
        if self._last is not None:
            return self._last
        signature = hmac.digest(hmac.digest(salted, b"Server Key", self.HASH), exchange, self.HASH)
        return challenge(self._signature or "v=" + base64.b64encode(signature).decode())
