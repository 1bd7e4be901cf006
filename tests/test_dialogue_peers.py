"""The transcripts in tests/dialogues/ against a real Postfix and a stock aiosmtpd, with the differences by name.

Postfix must give the same replies, word for word. aiosmtpd has its own words: it must give the same reply codes. Where
a peer differs, the table says with what, and why; a difference that is gone fails the test. Our class for aiosmtpd's
Controller must differ where aiosmtpd does.
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
    # Postfix 3.7 has these of 3.9, with other defaults.
    "smtpd_forbid_bare_newline": "normalize",
    "smtpd_forbid_bare_newline_exclusions": "",
    "smtpd_forbid_unauth_pipelining": "yes",
    "defer_transports": "local",
}
POSTFIX_DIFFERS: dict[str, tuple[str, str]] = {
    "bare_newline_spared": (
        "a client among the exclusions may end a message at any lone dot there, here it is only spared the refusal",
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
"""By transcript: why, and Postfix's answer where ours is another. What follows is not compared."""
AIOSMTPD_DIFFERS: dict[str, tuple[str, str]] = {
    "bdat": ("it has no BDAT", "500"),
    "bdat_dots": ("it has no BDAT", "500"),
    "bdat_lost": ("it has no BDAT", "500"),
    "bdat_wrong_size": ("it has no BDAT", "500"),
    "data_before_354": ("it takes content that is sent before 354", "250 354 250"),
    "dsn": ("it knows no parameters of DSN", "555"),
    "early_without_ehlo": ("it takes pipelined commands from whoever sends them", "250 250"),
    "header_as_command": ("it does not tell another protocol's client from one that errs", "500"),
    "not_implemented": ("it has STARTTLS, but no certificate here", "454"),
    "order": ("DATA without recipients is out of order for it, not a failed transaction", "503"),
    "pipelined": ("it knows no users, so it takes an unknown one", "250 250 250 354"),
    "web_browser": ("it goes on with another protocol's client", "500 500 500 503"),
}
"""The same for aiosmtpd, whose answer is a list of codes. Transcripts with parameters of main.cf are not for it."""


class Peer:
    """A client of a peer, that says what the transcript's client says.

    `differs`: the peer may say less than the transcript, so silence of `MORE_MAX_S` behind a reply ends the wait.
    """

    def __init__(self, port: int, *, differs: bool) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), REPLY_MAX_S)
        self._more_max_s = MORE_MAX_S if differs else REPLY_MAX_S
        self._rest = b""

    def replies(self, wanted: int) -> list[str]:
        """Return the lines of so many replies; fewer when no more come."""
        return self._read(rb"(?:\d{3}-.*\r\n)*\d{3} .*\r\n" * wanted)

    def more(self) -> list[str]:
        """Say nothing more; return what the peer says to the end of the session."""
        self._say_no_more()
        return self._read(None)

    def _say_no_more(self) -> None:
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
                # Whatever the peer still has to say comes before it closes its side.
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
    """Play a transcript against a peer; return the first answer that differs: what was expected, and what came."""
    with contextlib.closing((client := Peer(port, differs=differs)).socket):
        for step in dialogue.steps:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.socket.sendall(step.says)
            wanted = sum(1 for line in step.answers if line[3:4] == " ")
            got = client.replies(wanted) if wanted else []
            if step.closes or step.leaves:
                # Nothing more than that, either.
                got += client.more()
            difference = same(step.answers, got)
            if difference is not None:
                return difference
    return None


def words(expected: list[str], got: list[str]) -> tuple[str, str] | None:
    """Compare word for word, but for queue IDs and the keywords that are Postfix's alone."""

    def plain(lines: list[str]) -> list[str]:
        kept = [line for line in lines if line[:3] != "250" or line[4:] not in EHLO_OF_POSTFIX]
        return [line[:3] + " " + re.sub(r"queued as \S+", "queued as <ID>", line[4:]) for line in kept]

    return None if plain(expected) == plain(got) else ("\n".join(plain(expected)), "\n".join(plain(got)))


def codes(expected: list[str], got: list[str]) -> tuple[str, str] | None:
    """Compare the code of each reply."""

    def plain(lines: list[str]) -> str:
        return " ".join(line[:3] for line in lines if line[3:4] == " ")

    return None if plain(expected) == plain(got) else (plain(expected), plain(got))


def check(path: Path, difference: tuple[str, str] | None, known: dict[str, tuple[str, str]]) -> None:
    """Is the difference the one that the table names, or is there none in both?"""
    if path.stem in known:
        assert difference is not None, f"{path.stem} differs no more: {known[path.stem][0]}"
        assert difference[1] == known[path.stem][1]
    else:
        assert difference is None, f"expected:\n{difference[0]}\ngot:\n{difference[1]}"


FROM_HERE = [path for path in TRANSCRIPTS if read(path).address == "127.0.0.1"]
PLAIN = [path for path in FROM_HERE if not read(path).options]


@pytest.fixture(scope="module")
def postfix_ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """The ports of one Postfix, by transcript: each has its own smtpd service with the transcript's parameters."""
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
def test_postfix_says_the_same(path: Path, postfix_ports: dict[str, int]) -> None:
    differs = path.stem in POSTFIX_DIFFERS
    check(path, play(read(path), postfix_ports[path.stem], words, differs=differs), POSTFIX_DIFFERS)


class OurController(Controller):
    """A Controller with our class."""

    def factory(self) -> SMTP:
        return SMTP(self.handler, **self.SMTP_kwargs)


@pytest.fixture(scope="module", params=[Controller, OurController], ids=["stock", "ours"])
def aiosmtpd_port(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of an aiosmtpd, stock or with our class."""
    port = free_port()
    controller = request.param(Sink(), "127.0.0.1", port, server_hostname="mx.example.org", enable_SMTPUTF8=True)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


@pytest.mark.parametrize("path", PLAIN, ids=[path.stem for path in PLAIN])
def test_aiosmtpd_gives_the_same_codes(path: Path, aiosmtpd_port: int) -> None:
    differs = path.stem in AIOSMTPD_DIFFERS
    check(path, play(read(path), aiosmtpd_port, codes, differs=differs), AIOSMTPD_DIFFERS)


def test_the_tables_name_transcripts_that_are_played() -> None:
    assert POSTFIX_DIFFERS.keys() <= {path.stem for path in FROM_HERE}
    assert AIOSMTPD_DIFFERS.keys() <= {path.stem for path in PLAIN}
    assert all(reason for reason, _ in [*POSTFIX_DIFFERS.values(), *AIOSMTPD_DIFFERS.values()])
