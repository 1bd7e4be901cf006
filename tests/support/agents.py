"""Test doubles for delivery agents: a queue manager's socket, messages in segments, and scripted servers."""

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
from typing import Any, Literal

from postillion._core.log import Log
from postillion.config import Config
from support.queue_files import FRAME_VERSION, SEGMENT_HEADER_OCTETS, Message, frame, optional, text, write_segment

DELIVER, RESULT, AGENT, TRACED, TOLD = 6, 5, 4, 11, 12
PROBE = 4
"""The kind of a job that delivers nothing."""
ACTIONS = ("delivered", "relayed", "expanded", "delayed", "failed", "deliverable", "undeliverable")
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
    """The delivery status of a recipient, as the agent reports it."""

    outcome: str
    dsn: str
    text: str
    remote: str | None


@dataclass
class Result:
    """An agent's result for a job."""

    job: int
    site: Status | None
    recipients: dict[int, Status]

    @property
    def only(self) -> Status:
        """The status of the only recipient."""
        (status,) = self.recipients.values()
        return status


class _Decoder:
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
        reason = self.text()
        remote = self.text() if self.numbers("B")[0] else None
        return Status(OUTCOMES[outcome], f"{level}.{subject}.{detail}", reason, remote)


def read_result(payload: bytes) -> Result:
    """Decode a Result frame's payload."""
    decoder = _Decoder(payload)
    job, _ = decoder.numbers("QQ")
    site = decoder.status() if decoder.numbers("B")[0] else None
    (count,) = decoder.numbers("I")
    recipients = {}
    for _ in range(count):
        (index,) = decoder.numbers("I")
        recipients[index] = decoder.status()
    return Result(job, site, recipients)


def read_traced(payload: bytes) -> list[tuple[int, str, str, str, Status]]:
    """Decode a Traced frame's payload: index, address, action, relay and status of each line."""
    decoder = _Decoder(payload)
    _, count = decoder.numbers("QI")
    lines = []
    for _ in range(count):
        (index,) = decoder.numbers("I")
        address = decoder.text()
        (action,) = decoder.numbers("B")
        lines.append((index, address, ACTIONS[action], decoder.text(), decoder.status()))
    return lines


@dataclass
class Mail(Message):
    """A message with every field of an envelope."""

    body: int = 0
    smtputf8: bool = False
    ret: int = 0
    envid: str | None = None
    orcpt: str | None = None
    trace: Literal["", "record", "probe"] = ""
    requiretls: bool = False
    waives_tls: bool = False
    """It has the header `TLS-Required: no`."""

    def envelope(self) -> bytes:
        """Return the encoded envelope of a job, without recipients."""
        head = struct.pack("<QQ", self.number, self.usec) + text(self.sender)
        flags = self.smtputf8 | (2 if self.trace == "probe" else 0) | (4 if self.requiretls else 0)
        head += struct.pack("<BBB", self.body, flags, self.ret) + optional(self.envid)
        head += struct.pack("<QI", len(self.content) - self.content.count(b"\r\n"), 0)
        waived = text("tls_required") + text("no") if self.waives_tls else b""
        return head + struct.pack("<I", bool(self.trace) + self.waives_tls) + waived + self.trace_flags()

    def trace_flags(self) -> bytes:
        """Return the encoded attribute of a probe, or of a message whose first attempt is reported."""
        flags = {"record": "1024", "probe": "512"}
        return text("trace_flags") + text(flags[self.trace]) if self.trace else b""

    def job_recipients(self) -> bytes:
        """Return the encoded recipients of a job."""
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
        self.traced: list[tuple[int, str, str, str, Status]] = []
        self.writer: asyncio.StreamWriter
        self.usec = int(time.time() * 1e6)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve the agent until it disconnects."""
        self.writer = writer
        try:
            while True:
                (length,) = struct.unpack("<I", await reader.readexactly(4))
                body = await reader.readexactly(length)
                assert body[0] == FRAME_VERSION
                if body[1] == AGENT:
                    decoder = _Decoder(body[2:])
                    decoder.text()
                    self.capacities.append(decoder.numbers("II")[1])
                    self.registered.set()
                elif body[1] == TRACED:
                    self.traced += read_traced(body[2:])
                elif body[1] in (RESULT, TOLD):
                    result = read_result(body[2:])
                    self.waiting.pop(result.job).set_result(result)
        except asyncio.IncompleteReadError:
            writer.close()

    def job(self, nexthop: str, mail: Mail | None = None, transport: str = "smtp") -> tuple[int, bytes]:
        """Return the number and the frame of a job. Its message has its own segment."""
        number = next(self.numbers)
        self.usec += 1
        mail = mail or Mail(0, ["rcpt@example.com"])
        mail.usec = self.usec
        write_segment(self.directory, number, [mail])
        path = f"incoming/{number:016X}"
        octets = (self.directory / path).stat().st_size - SEGMENT_HEADER_OCTETS
        payload = struct.pack("<QB", number, PROBE if mail.trace == "probe" else 0) + text(path)
        payload += struct.pack("<QQQ", number, SEGMENT_HEADER_OCTETS, octets)
        payload += text(transport) + text(nexthop) + struct.pack("<Q", self.usec)
        return number, frame(DELIVER, payload + mail.envelope() + mail.job_recipients())

    def send(self, *jobs: tuple[int, bytes]) -> list[asyncio.Future[Result]]:
        """Send jobs in one write; return a future for each result."""
        futures = []
        for number, _ in jobs:
            self.waiting[number] = asyncio.get_running_loop().create_future()
            futures.append(self.waiting[number])
        self.writer.write(b"".join(data for _, data in jobs))
        return futures

    async def deliver(self, nexthop: str, mail: Mail | None = None) -> Result:
        """Send a job and return its result."""
        return await asyncio.wait_for(self.send(self.job(nexthop, mail))[0], WAIT_S)


class FakeDaemon:
    """The part of a `Daemon` that an agent needs."""

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
        """Return all log lines so far."""
        self.lines += self.log.take_lines()
        return self.lines


@asynccontextmanager
async def serving(directory: Path, agent: Callable[[Any], Any], daemon: FakeDaemon) -> AsyncIterator[Hub]:
    """Run an agent in `directory`; yield the queue manager's end of its connection."""
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
    """A server with a table of replies by verb. Other commands get `250 2.0.0 Ok`.

    A reply is a text (sent unchanged, with CRLF), a list of replies, or a coroutine function that uses the connection.
    `received`: the messages as sent on the wire. `commands`: every line outside messages.
    """

    replies: dict[str, Any] = field(default_factory=dict)
    keywords: tuple[str, ...] = ("PIPELINING", "SIZE 10240000", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES")
    greeting: Any = "220 sink.example.com ESMTP"
    received: list[bytes] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        try:
            await self._send(self.greeting, reader, writer)
            while line := await reader.readline():
                command = line.decode("utf-8", "replace").rstrip("\r\n")
                self.commands.append(command)
                verb = command.split(" ")[0].split(":")[0].upper()
                reply: Any = self.replies.get(command, self.replies.get(verb))
                if reply is None and verb in ("EHLO", "LHLO"):
                    reply = "\r\n".join(f"250-{word}" for word in ("sink.example.com", *self.keywords[:-1]))
                    reply += f"\r\n250 {self.keywords[-1]}" if self.keywords else "\r\n250 sink"
                elif reply is None and verb == "DATA":
                    reply = "354 go"
                elif reply is None:
                    reply = "221 2.0.0 Bye" if verb == "QUIT" else "250 2.0.0 Ok"
                sent = await self._send(reply, reader, writer)
                if verb == "DATA" and sent.startswith("354"):
                    message = bytearray()
                    while line != b".\r\n":
                        line = await reader.readline()
                        if not line:
                            raise ConnectionResetError
                        message += line
                    self.received.append(bytes(message))
                    await self._send(self.replies.get(".", "250 2.0.0 Ok: queued as X"), reader, writer)
                if verb == "QUIT":
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _send(self, reply: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        if isinstance(reply, list):
            reply = reply.pop(0) if len(reply) > 1 else reply[0]
        if callable(reply):
            done: Awaitable[None] = reply(reader, writer)
            await done
            return ""
        data = reply if isinstance(reply, bytes) else reply.encode() + b"\r\n"
        writer.write(data)
        await writer.drain()
        return data.decode("utf-8", "replace")


async def drop(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close the connection instead of replying."""
    writer.close()
    raise ConnectionResetError


async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Never reply."""
    await reader.read()
    raise ConnectionResetError


@asynccontextmanager
async def server(script: Script, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Script]:
    """Run a scripted server; port 0 is a free port."""
    listening = await asyncio.start_server(script.serve, host, port, limit=2**26)
    script.port = listening.sockets[0].getsockname()[1]
    try:
        yield script
    finally:
        listening.close()
