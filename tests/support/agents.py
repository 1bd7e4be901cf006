"""A queue manager's socket, messages in segments, and servers that follow a script, for tests of delivery agents."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from postillion._core.log import Log
from postillion.config import Config
from support.queue_files import FRAME_VERSION, SEGMENT_HEADER_OCTETS, Message, frame, optional, text, write_segment

DELIVER, RESULT, AGENT = 6, 5, 4
OUTCOMES = ("sent", "deferred", "bounced")
WAIT_S = 60.0
MAIN_CF = """
myhostname = mx.example.org
queue_directory = {directory}
maillog_file = /dev/null
inet_protocols = ipv4
smtp_host_lookup = native
"""


@dataclass
class Status:
    """How a recipient fared, as the agent says."""

    outcome: str
    dsn: str
    text: str
    remote: str | None


@dataclass
class Result:
    """An agent's answer to a job."""

    job: int
    site: Status | None
    recipients: dict[int, Status]

    @property
    def only(self) -> Status:
        """The status of the one recipient."""
        (status,) = self.recipients.values()
        return status


class _Take:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def numbers(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return values

    def text(self) -> str:
        (length,) = self.numbers("I")
        self.at += length
        return self.data[self.at - length : self.at].decode()

    def status(self) -> Status:
        outcome, level, subject, detail = self.numbers("BBHH")
        said = self.text()
        remote = self.text() if self.numbers("B")[0] else None
        return Status(OUTCOMES[outcome], f"{level}.{subject}.{detail}", said, remote)


def read_result(payload: bytes) -> Result:
    """Decode a Result frame's payload."""
    take = _Take(payload)
    job, _ = take.numbers("QQ")
    site = take.status() if take.numbers("B")[0] else None
    (count,) = take.numbers("I")
    recipients = {}
    for _ in range(count):
        (index,) = take.numbers("I")
        recipients[index] = take.status()
    return Result(job, site, recipients)


@dataclass
class Mail(Message):
    """A message with everything that an envelope may say."""

    body: int = 0
    smtputf8: bool = False
    ret: int = 0
    envid: str | None = None
    orcpt: str | None = None

    def envelope(self) -> bytes:
        """Return the encoded envelope, without recipients, as a job has it."""
        head = struct.pack("<QQ", self.number, self.usec) + text(self.sender)
        head += struct.pack("<BBB", self.body, self.smtputf8, self.ret) + optional(self.envid)
        return head + struct.pack("<QI", len(self.content) - self.content.count(b"\r\n"), 0) + struct.pack("<I", 0)

    def job_recipients(self) -> bytes:
        """Return the recipients as a job has them."""
        parts = [struct.pack("<I", len(self.recipients))]
        for index, address in enumerate(self.recipients):
            parts.append(struct.pack("<I", index) + text(address) + optional(None) + optional(self.orcpt))
            parts.append(bytes([self.notify, 0]))
        return b"".join(parts)


class Hub:
    """The queue manager's end: jobs out, results in."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.numbers = itertools.count(1)
        self.waiting: dict[int, asyncio.Future[Result]] = {}
        self.registered = asyncio.Event()
        self.capacities: list[int] = []
        self.writer: asyncio.StreamWriter
        self.usec = int(time.time() * 1e6)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speak with the agent until it goes."""
        self.writer = writer
        try:
            while True:
                (length,) = struct.unpack("<I", await reader.readexactly(4))
                body = await reader.readexactly(length)
                assert body[0] == FRAME_VERSION
                if body[1] == AGENT:
                    take = _Take(body[2:])
                    take.text()
                    self.capacities.append(take.numbers("II")[1])
                    self.registered.set()
                elif body[1] == RESULT:
                    result = read_result(body[2:])
                    self.waiting.pop(result.job).set_result(result)
        except asyncio.IncompleteReadError:
            writer.close()

    def job(self, nexthop: str, mail: Mail | None = None, transport: str = "smtp") -> tuple[int, bytes]:
        """Return the number and the frame of a job; its message stands in a segment of its own."""
        number = next(self.numbers)
        self.usec += 1
        mail = mail or Mail(0, ["rcpt@example.com"])
        mail.usec = self.usec
        write_segment(self.directory, number, [mail])
        path = f"incoming/{number:016X}"
        octets = (self.directory / path).stat().st_size - SEGMENT_HEADER_OCTETS
        payload = struct.pack("<QB", number, 0) + text(path)
        payload += struct.pack("<QQQ", number, SEGMENT_HEADER_OCTETS, octets)
        payload += text(transport) + text(nexthop) + struct.pack("<Q", self.usec)
        return number, frame(DELIVER, payload + mail.envelope() + mail.job_recipients())

    def send(self, *jobs: tuple[int, bytes]) -> list[asyncio.Future[Result]]:
        """Send jobs in one write; a future for each result."""
        futures = []
        for number, _ in jobs:
            self.waiting[number] = asyncio.get_running_loop().create_future()
            futures.append(self.waiting[number])
        self.writer.write(b"".join(data for _, data in jobs))
        return futures

    async def deliver(self, nexthop: str, mail: Mail | None = None) -> Result:
        """Send a job and wait for its result."""
        return await asyncio.wait_for(self.send(self.job(nexthop, mail))[0], WAIT_S)


class FakeDaemon:
    """What an agent needs of a Daemon."""

    def __init__(self, directory: Path, more: str = "", service: str = "smtp") -> None:
        (directory / "main.cf").write_text(MAIN_CF.format(directory=directory) + more)
        self.service = service
        self.config = Config.load(str(directory))
        self.log = Log("mx", "postfix", "smtp", 1, 0, "memory:")
        self.stopping = asyncio.Event()
        self.draining = asyncio.Event()
        self.listeners: list[socket.socket] = []
        self.session_limit = 0
        self.lines: list[str] = []

    def logged(self) -> list[str]:
        """All lines so far."""
        self.lines += self.log.take_lines()
        return self.lines


@asynccontextmanager
async def serving(directory: Path, agent: Callable[[Any], Any], daemon: FakeDaemon) -> AsyncIterator[Hub]:
    """An agent at work in `directory`, and the queue manager's end of it."""
    os.chdir(directory)
    (directory / "private").mkdir(exist_ok=True)
    hub = Hub(directory)
    server = await asyncio.start_unix_server(hub.serve, "private/qmgr")
    work = asyncio.create_task(agent(daemon).serve())
    try:
        await asyncio.wait_for(hub.registered.wait(), WAIT_S)
        yield hub
    finally:
        daemon.stopping.set()
        await asyncio.wait_for(work, WAIT_S)
        server.close()


@dataclass
class Script:
    """A server that answers each command by a table of verbs; what it has no answer for gets `250 2.0.0 Ok`.

    An answer may be a text (sent as it is, CRLF added), or a function of the server that does something else.
    `received`: the messages, as they came over the wire. `commands`: every line outside messages.
    """

    answers: dict[str, Any] = field(default_factory=dict)
    keywords: tuple[str, ...] = ("PIPELINING", "SIZE 10240000", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES")
    greeting: Any = "220 sink.example.com ESMTP"
    received: list[bytes] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        try:
            await self._say(self.greeting, reader, writer)
            while line := await reader.readline():
                command = line.decode("utf-8", "replace").rstrip("\r\n")
                self.commands.append(command)
                verb = command.split(" ")[0].split(":")[0].upper()
                answer: Any = self.answers.get(command, self.answers.get(verb))
                if answer is None and verb in ("EHLO", "LHLO"):
                    answer = "\r\n".join(f"250-{word}" for word in ("sink.example.com", *self.keywords[:-1]))
                    answer += f"\r\n250 {self.keywords[-1]}" if self.keywords else "\r\n250 sink"
                elif answer is None and verb == "DATA":
                    answer = "354 go"
                elif answer is None:
                    answer = "221 2.0.0 Bye" if verb == "QUIT" else "250 2.0.0 Ok"
                said = await self._say(answer, reader, writer)
                if verb == "DATA" and said.startswith("354"):
                    message = bytearray()
                    while line != b".\r\n":
                        line = await reader.readline()
                        if not line:
                            raise ConnectionResetError
                        message += line
                    self.received.append(bytes(message))
                    await self._say(self.answers.get(".", "250 2.0.0 Ok: queued as X"), reader, writer)
                if verb == "QUIT":
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _say(self, answer: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if callable(answer):
            done: Awaitable[None] = answer(reader, writer)
            await done
            return ""
        data = answer if isinstance(answer, bytes) else answer.encode() + b"\r\n"
        writer.write(data)
        await writer.drain()
        return data.decode("utf-8", "replace")


async def drop(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close the connection in place of an answer."""
    writer.close()
    raise ConnectionResetError


async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Never answer."""
    await reader.read()
    raise ConnectionResetError


@asynccontextmanager
async def server(script: Script, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Script]:
    """A server on a free port."""
    listening = await asyncio.start_server(script.talk, host, port, limit=2**26)
    script.port = listening.sockets[0].getsockname()[1]
    try:
        yield script
    finally:
        listening.close()
