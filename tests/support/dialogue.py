r"""Transcripts in tests/dialogues/: read from files, and played against the server step by step.

    O: smtpd_helo_required = yes      a parameter of main.cf
    A: 192.0.2.1                      the client's address; the default is 127.0.0.1
    W: whole                          play it whole only: splitting would change its meaning
    C: EHLO client.example            the client sends a line; consecutive lines go out together
    C~: half a line                   the same without a line end
    S: 250 2.1.0 Ok                   the server's whole reply to the lines above; <ID> is any queue ID
    X:                                the client closes the connection
    E:                                the server closes the connection
    L: disconnect from ...            a line in the log, in this order among the L lines

`\xNN`, `\r` and `\n` in C lines stand for octets.
"""

from __future__ import annotations

import asyncio
import fcntl
import re
import select
import socket
import termios
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from postillion._core.log import Log
from postillion._core.queue import Journal
from postillion._core.smtpd import SmtpdSession
from postillion.checks.check import Answer, NoDialogue, Verdict
from postillion.checks.reply import Reply
from postillion.config import Config
from postillion.handler.handler import Handler
from postillion.program import cleanup
from postillion.smtpd import setup
from postillion.smtpd.connection import Connection
from postillion.smtpd.counts import Counts
from postillion.smtpd.mode import modes
from postillion.smtpd.service import Service
from postillion.tables.answers import Batch

DIRECTORY = Path(__file__).parent.parent / "dialogues"
QUEUE_DIRECTORIES = ("incoming", "deferred", "active", "corrupt", "maildrop", "public", "private")
MAIN_CF = """\
compatibility_level = 3.11
queue_directory = {directory}/queue
myhostname = mx.example.org
mydomain = example.org
mydestination = example.org, localhost
relay_domains = relay.example
relay_recipient_maps =
inet_interfaces = 127.0.0.1
mynetworks = 127.0.0.0/8
local_recipient_maps = inline:{{ user=x postmaster=x }}
alias_maps =
smtpd_peername_lookup = no
smtpd_error_sleep_time = 0
"""


@dataclass
class ClientFacts:
    """A client without a connection."""

    address: str = "192.0.2.1"
    name: str = "unknown"
    reverse_name: str = "unknown"
    trusted: bool = False
    inside: bool = False


def answered(answer: Answer) -> Verdict:
    """Return a verdict that was given at once."""
    assert isinstance(answer, Verdict)
    return answer


@dataclass
class AtRcpt(NoDialogue):
    """A dialogue at RCPT, without a connection."""

    helo: str | None = "client.example"
    sender: str | None = "a@example.com"
    recipient: str | None = None
    recipient_count: int = 0
    talked_early: bool = False
    authenticated: bool = False


@dataclass
class Step:
    """The client's octets, and the server's replies before the client sends again."""

    sends: bytes = b""
    leaves: bool = False
    replies: list[str] = field(default_factory=list)
    closes: bool = False


@dataclass
class Dialogue:
    """A transcript."""

    options: list[str] = field(default_factory=list)
    address: str = "127.0.0.1"
    whole_only: bool = False
    steps: list[Step] = field(default_factory=list)
    log: list[str] = field(default_factory=list)


def read(path: Path) -> Dialogue:
    """Return the transcript in a file. Raises `ValueError` for an unknown kind of line."""
    dialogue = Dialogue()
    step = Step()
    sending = False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        kind, sign, text = line.partition(":")
        text = text.removeprefix(" ")
        if not sign or kind not in ("O", "A", "W", "C", "C~", "S", "X", "E", "L"):
            raise ValueError(f"{path.name}:{number}: {line!r}")
        if kind in ("C", "C~", "X") and not sending:
            dialogue.steps.append(step)
            step = Step()
        sending = kind in ("C", "C~")
        if kind == "O":
            dialogue.options.append(text)
        elif kind == "A":
            dialogue.address = text
        elif kind == "W":
            dialogue.whole_only = True
        elif kind in ("C", "C~"):
            octets = re.sub(r"\\(x[0-9a-f]{2}|r|n)", lambda found: _octet(found[1]), text).encode("latin-1")
            step.sends += octets + (b"\r\n" if kind == "C" else b"")
        elif kind == "S":
            step.replies.append(text)
        elif kind == "X":
            step.leaves = True
        elif kind == "E":
            step.closes = True
        else:
            dialogue.log.append(text)
    dialogue.steps.append(step)
    return dialogue


def _octet(escape: str) -> str:
    return {"r": "\r", "n": "\n"}.get(escape) or chr(int(escape[1:], 16))


def site(directory: Path, options: list[str] | None = None) -> Config:
    """Make a small site with a queue in `directory`; return its configuration."""
    for name in QUEUE_DIRECTORIES:
        (directory / "queue" / name).mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{option}\n" for option in options or [])
    (directory / "main.cf").write_text(MAIN_CF.format(directory=directory) + lines)
    return Config.load(str(directory))


class Server:
    """A server as smtpd builds it from main.cf, with a log in memory. Create it in a running event loop."""

    def __init__(
        self, config: Config, *, counts: Counts | None = None, handler: object = None, session_limit: int = 0
    ) -> None:
        self.log = Log("mx", "postfix", "smtpd", 1, 0, "memory:")
        both = modes(config, self.log.warning)
        self.journal = Journal(config.text("queue_directory"))
        hooks = None
        if handler is not None:
            timeout_s, refusal = config.seconds("smtpd_python_handler_timeout"), Reply(451, "4.3.0", "No policy")
            hooks = Handler(handler, timeout_s=timeout_s, default=refusal, log=self.log)
        settings = cleanup.settings(config)
        calm, stressed = (
            setup.server_config(mode.config, mode.access, self.log, settings, self.journal, hooks, mode.tls)
            for mode in both
        )
        self.service = Service(
            calm,
            both[0],
            counts,
            self.log,
            self.journal,
            timeout_s=config.seconds("smtpd_timeout"),
            handler=hooks,
            stressed=(stressed, both[1]),
            session_limit=session_limit,
        )

    def connect(self, address: str = "127.0.0.1", kind: int = socket.SOCK_STREAM) -> Client:
        """Connect a client from that address, and return it."""
        return Client(self, address, kind)

    def finish_commits(self, client: Client) -> None:
        """Wait until the client has no open commit."""
        while (core := client.core) is not None and core.committing:
            select.select([self.journal.fileno()], [], [], 10)
            self.service.collect()
            self.service.finish()
            client.receive()


class Client:
    """A client, and the octets it received. The server runs whenever the client sends or receives."""

    def __init__(self, server: Server, address: str, kind: int) -> None:
        self.server = server
        self.written = bytearray()
        self.reads = 0
        self.closed = False
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, kind)
        self._socket.setblocking(False)
        service = server.service
        with theirs:
            self.key, requests = service.core.adopt(theirs, address, 4025, service.loop.time())
        service.handle(requests)
        self.receive()

    @property
    def core(self) -> SmtpdSession | None:
        """The client's session; None after its end."""
        return self.server.service.core.session(self.key)

    @property
    def connection(self) -> Connection | None:
        """The client's connection, if something was to be decided about it."""
        return self.server.service.connections.get(self.key)

    @property
    def task(self) -> asyncio.Future[Any] | None:
        """The task of the pending decision about the client; None while it waits for lookups."""
        task = None if self.connection is None else self.connection.task
        return None if isinstance(task, Batch) else task

    def send(self, octets: bytes) -> int:
        """Send octets and receive the replies; return the number of octets that the server did not read."""
        while octets and not self.closed:
            try:
                sent = self._socket.send(octets)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.closed = True
                break
            octets = octets[sent:]
            if not self.receive() and not sent:
                break
        return len(octets) + self.unread()

    def receive(self) -> bool:
        """Run the server and read its output; return whether there was any."""
        received = False
        while True:
            self.server.service.poll()
            try:
                octets = self._socket.recv(1 << 20)
            except BlockingIOError:
                if select.select([self.server.service.core.fileno()], [], [], 0)[0]:
                    continue
                return received
            except OSError:
                octets = b""
            received = True
            self.reads += 1
            self.written += octets
            if not octets:
                self.closed = True
                return received

    def unread(self) -> int:
        """Return the number of octets that the server has not read, as the kernel counts them."""
        return 0 if self.closed else int.from_bytes(fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4)), "little")

    def leave(self) -> None:
        """Close the connection."""
        self._socket.close()
        self.closed = True
        self.server.service.poll()


async def play(dialogue: Dialogue, directory: Path, step_octets: int | None) -> None:
    """Play a transcript, with the client's octets in pieces of `step_octets`."""
    server = Server(site(directory, dialogue.options))
    client = server.connect(dialogue.address)
    for step in dialogue.steps:
        pieces = len(step.sends) if step_octets is None else step_octets
        for at in range(0, len(step.sends), max(pieces, 1)):
            if client.closed:
                break
            client.send(step.sends[at : at + max(pieces, 1)])
            server.finish_commits(client)
        if step.leaves:
            client.leave()
        reply = bytes(client.written).decode()
        client.written.clear()
        expected = "".join(f"{line}\n" for line in step.replies)
        pattern = re.escape(expected).replace("<ID>", r"[0-9A-F]{10,20}")
        assert reply == "" or reply.endswith("\r\n")
        got = reply.replace("\r\n", "\n")
        assert re.fullmatch(pattern, got), f"after {step.sends!r}\nexpected:\n{expected}\ngot:\n{got}"
        assert client.closed == (step.closes or step.leaves)
    client.leave()
    _check_log(dialogue.log, server.log.take_lines())
    server.journal.close()


def _check_log(expected: list[str], lines: list[str]) -> None:
    remaining = iter(lines)
    for text in expected:
        pattern = re.escape(text).replace("<ID>", r"[0-9A-F]{10,20}")
        assert any(re.fullmatch(pattern, line) for line in remaining), f"no {text!r} in\n" + "\n".join(lines)
