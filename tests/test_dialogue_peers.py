"""The transcripts in tests/dialogues/ against a real Postfix and a stock aiosmtpd, with a table of differences.

Postfix must give the same replies, word for word. aiosmtpd has its own texts: it must give the same reply codes. The
tables list each known difference with its reason. A difference that no longer exists fails the test. Our class under
aiosmtpd's Controller must have the same differences as aiosmtpd.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Sink

from postillion.aiosmtpd import SMTP
from support import mta
from support.dialogue import DIRECTORY, Dialogue, read
from support.peers import peer, root
from support.ports import free_port

REPLY_MAX_S = 60.0
MORE_MAX_S = 2.0
Same = Callable[[list[str], list[str]], "tuple[str, str] | None"]
TRANSCRIPTS = sorted(DIRECTORY.glob("*.smtp"))
EHLO_OF_POSTFIX = {
    "ETRN": "our smtpd has no ETRN",
    "DSN": "our smtpd announces DSN once it sends reports of success",
}
"""Keywords that only Postfix announces."""
POSTFIX_MAIN_CF = {
    "relay_domains": "relay.example",
    "relay_recipient_maps": "",
    "local_recipient_maps": "inline:{ user=x postmaster=x }",
    "alias_maps": "",
    "smtpd_error_sleep_time": "0",
    # Postfix 3.7 has these parameters of 3.9, with other defaults.
    "smtpd_forbid_bare_newline": "normalize",
    "smtpd_forbid_bare_newline_exclusions": "",
    "smtpd_forbid_unauth_pipelining": "yes",
    "defer_transports": "local",
}
POSTFIX_DIFFERS: dict[str, tuple[str, str]] = {
    "bare_newline_spared": (
        "an excluded client may end a message at any lone dot; here the exclusion only suppresses the refusal",
        "500 5.5.2 Error: command not recognized\n500 5.5.2 Error: bad syntax\n"
        "221 2.7.0 Error: I can break rules, too. Goodbye.",
    ),
    "bdat_errors": ("smtpd of 3.7.11 dies of signal 11 at BDAT LAST twice after an error", ""),
    "helo_required": (
        "it lets VRFY pass before HELO",
        "550 5.1.1 <user>: Recipient address rejected: no mail leaves this machine",
    ),
    "hops": ("its hops are counted by cleanup, which has another hopcount_limit here", "250 2.0.0 Ok: queued as <ID>"),
    "long_command": ("it cuts a long line, and takes what is left", "250 2.0.0 Ok"),
    "not_implemented": ("it has ETRN, without its flush service here", "459 <example.org>: service unavailable"),
    "syntax": ("it remembers a SIZE that was refused for the next MAIL", "552 5.3.4 Message size exceeds fixed limit"),
}
"""By transcript: the reason, and the first Postfix reply that differs. Later replies are not compared."""
AIOSMTPD_DIFFERS: dict[str, tuple[str, str]] = {
    "bdat": ("it has no BDAT", "500"),
    "bdat_dots": ("it has no BDAT", "500"),
    "bdat_lost": ("it has no BDAT", "500"),
    "bdat_wrong_size": ("it has no BDAT", "500"),
    "data_before_354": ("it accepts content before 354", "250 354 250"),
    "dsn": ("it knows no parameters of DSN", "555"),
    "early_without_ehlo": ("it accepts pipelined commands from every client", "250 250"),
    "header_as_command": ("it does not recognize clients of other protocols", "500"),
    "not_implemented": ("it has STARTTLS, but no certificate here", "454"),
    "order": ("it refuses DATA without recipients as out of order, not as a failed transaction", "503"),
    "pipelined": ("it knows no users, so it accepts an unknown one", "250 250 250 354"),
    "web_browser": ("it does not disconnect clients of other protocols", "500 500 500 503"),
}
"""The same for aiosmtpd, with a list of reply codes. It does not play transcripts with parameters of main.cf."""


class Peer:
    """A client of a peer; it sends the octets of a transcript.

    `differs`: the peer may send fewer replies than the transcript has, so the wait ends `MORE_MAX_S` after a reply.
    """

    def __init__(self, port: int, *, differs: bool) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), REPLY_MAX_S)
        self._more_max_s = MORE_MAX_S if differs else REPLY_MAX_S
        self._rest = b""

    def replies(self, expected: int) -> list[str]:
        """Return the lines of `expected` replies, or fewer when the peer sends no more."""
        return self._read(rb"(?:\d{3}-.*\r\n)*\d{3} .*\r\n" * expected)

    def more(self) -> list[str]:
        """Shut down the sending side; return all lines until the peer closes."""
        self._shut_down()
        return self._read(None)

    def _shut_down(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def _read(self, pattern: bytes | None) -> list[str]:
        self.socket.settimeout(REPLY_MAX_S)
        found = None
        while pattern is None or (found := re.match(pattern, self._rest)) is None:
            try:
                piece = self.socket.recv(65536)
            except ConnectionResetError:
                break
            except TimeoutError:
                if pattern is None:
                    raise
                # The peer sends its remaining replies before it closes.
                return self.more()
            if not piece:
                break
            self._rest += piece
            if pattern is not None:
                self.socket.settimeout(self._more_max_s)
        end = len(self._rest) if found is None else found.end()
        text, self._rest = self._rest[:end], self._rest[end:]
        return text.decode().replace("\r\n", "\n").splitlines()


def play(dialogue: Dialogue, port: int, same: Same, *, differs: bool) -> tuple[str, str] | None:
    """Play a transcript against a peer; return the first difference: the expected reply, and the reply."""
    with contextlib.closing((client := Peer(port, differs=differs)).socket):
        for step in dialogue.steps:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.socket.sendall(step.sends)
            expected = sum(1 for line in step.replies if line[3:4] == " ")
            got = client.replies(expected) if expected else []
            if step.closes or step.leaves:
                # Further replies are a difference as well.
                got += client.more()
            difference = same(step.replies, got)
            if difference is not None:
                return difference
    return None


def compare_text(expected: list[str], got: list[str]) -> tuple[str, str] | None:
    """Compare replies word for word, except for queue IDs and keywords that only Postfix announces."""

    def plain(lines: list[str]) -> list[str]:
        kept = [line for line in lines if line[:3] != "250" or line[4:] not in EHLO_OF_POSTFIX]
        return [line[:3] + " " + re.sub(r"queued as \S+", "queued as <ID>", line[4:]) for line in kept]

    return None if plain(expected) == plain(got) else ("\n".join(plain(expected)), "\n".join(plain(got)))


def compare_codes(expected: list[str], got: list[str]) -> tuple[str, str] | None:
    """Compare reply codes only."""

    def plain(lines: list[str]) -> str:
        return " ".join(line[:3] for line in lines if line[3:4] == " ")

    return None if plain(expected) == plain(got) else (plain(expected), plain(got))


def check(path: Path, difference: tuple[str, str] | None, known: dict[str, tuple[str, str]]) -> None:
    """Check that the difference is the one in the table, or that there is none."""
    if path.stem in known:
        assert difference is not None, f"{path.stem} no longer differs: {known[path.stem][0]}"
        assert difference[1] == known[path.stem][1]
    else:
        assert difference is None, f"expected:\n{difference[0]}\ngot:\n{difference[1]}"


FROM_HERE = [path for path in TRANSCRIPTS if read(path).address == "127.0.0.1"]
PLAIN = [path for path in FROM_HERE if not read(path).options]


@pytest.fixture(scope="module")
def postfix_ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """Run one Postfix; yield its ports by transcript. Each has its own smtpd with the transcript's parameters."""
    peer("postfix")
    root()
    ports = {path.stem: free_port() for path in FROM_HERE}
    services = []
    for path in FROM_HERE:
        options = "".join(f" -o {{ {option} }}" for option in read(path).options)
        services.append(f"127.0.0.1:{ports[path.stem]} inet n - n - - smtpd{options}\n")
    site = mta.Site(tmp_path_factory.mktemp("postfix"), main_cf=POSTFIX_MAIN_CF, master_cf="".join(services))
    with mta.running(site, "postfix"):
        yield ports


@pytest.mark.parametrize("path", FROM_HERE, ids=[path.stem for path in FROM_HERE])
def test_postfix_gives_the_same_replies(path: Path, postfix_ports: dict[str, int]) -> None:
    differs = path.stem in POSTFIX_DIFFERS
    check(path, play(read(path), postfix_ports[path.stem], compare_text, differs=differs), POSTFIX_DIFFERS)


class OurController(Controller):
    """A Controller with our class."""

    def factory(self) -> SMTP:
        return SMTP(self.handler, **self.SMTP_kwargs)


@pytest.fixture(scope="module", params=[Controller, OurController], ids=["stock", "ours"])
def aiosmtpd_port(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run aiosmtpd, stock or with our class; yield its port."""
    port = free_port()
    controller = request.param(Sink(), "127.0.0.1", port, server_hostname="mx.example.org", enable_SMTPUTF8=True)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


@pytest.mark.parametrize("path", PLAIN, ids=[path.stem for path in PLAIN])
def test_aiosmtpd_gives_the_same_reply_codes(path: Path, aiosmtpd_port: int) -> None:
    differs = path.stem in AIOSMTPD_DIFFERS
    check(path, play(read(path), aiosmtpd_port, compare_codes, differs=differs), AIOSMTPD_DIFFERS)


def test_difference_tables_name_existing_transcripts() -> None:
    assert POSTFIX_DIFFERS.keys() <= {path.stem for path in FROM_HERE}
    assert AIOSMTPD_DIFFERS.keys() <= {path.stem for path in PLAIN}
    assert all(reason for reason, _ in [*POSTFIX_DIFFERS.values(), *AIOSMTPD_DIFFERS.values()])
