"""anvil(8): counts connections and requests of each client, across all processes of a service.

Requests and answers are lines on the service's socket; a process uses one connection for all its requests.

| line | effect | answer |
|---|---|---|
| `connect ID` | counts a new connection | `COUNT RATE`: connections now, and in this time unit |
| `hold ID` | counts a connection that is older than this program | none |
| `disconnect ID` | counts the end of a connection | none |
| `mail ID`, `rcpt ID` | counts a request | `RATE` |

ID is the service and the client (`smtpd:192.0.2.1`). Rates are per anvil_rate_time_unit. The end of a process's
connection removes the client connections that it counted, so a crashed process leaves none behind.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple, cast

from postillion._core.log import Log
from postillion.program.daemon import Daemon, run, start

LINE_MAX_BYTES: Final = 512
CLIENTS_MAX: Final = 100_000
"""Maximum number of clients with a rate; above it, clients without a connection are dropped."""
SWEEP_PARTS: Final = 2
"""Number of sweeps of idle clients in each time unit."""
VERBS: Final = ("connect", "mail", "rcpt")


class Record:
    """One client: its open connections, and its events since `since`."""

    __slots__ = ("connections", "events", "since")

    def __init__(self, since: float) -> None:
        self.connections = 0
        self.since = since
        self.events: Counter[str] = Counter()


class ClientCounts:
    """The counts of all clients. Times are monotonic seconds."""

    def __init__(self, time_unit_s: float) -> None:
        self._time_unit_s = time_unit_s
        self._clients: dict[str, Record] = {}
        self.most: dict[str, tuple[int, str]] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def event(self, verb: str, client: str, now: float) -> tuple[int, int]:
        """Count an event; return the client's connections and its events of that kind in this time unit."""
        record = self._record(client, now)
        record.events[verb] += 1
        if verb == "connect":
            record.connections += 1
            self._note("connection count", record.connections, client)
        rate = record.events[verb]
        self._note(f"{'connection' if verb == 'connect' else verb} rate", rate, client)
        return record.connections, rate

    def hold(self, client: str, now: float) -> None:
        """Count a connection without an event."""
        self._record(client, now).connections += 1

    def release(self, client: str) -> None:
        """Count the end of a connection."""
        record = self._clients.get(client)
        if record is not None and record.connections > 0:
            record.connections -= 1

    def sweep(self, now: float) -> None:
        """Drop the clients without connections whose time unit is over."""
        over = now - self._time_unit_s
        idle = [client for client, record in self._clients.items() if not record.connections and record.since <= over]
        for client in idle:
            del self._clients[client]

    def _record(self, client: str, now: float) -> Record:
        record = self._clients.get(client)
        if record is None:
            if len(self._clients) >= CLIENTS_MAX:
                self._clients = {name: found for name, found in self._clients.items() if found.connections}
            record = self._clients[client] = Record(now)
        elif now - record.since >= self._time_unit_s:
            record.since = now
            record.events.clear()
        return record

    def _note(self, what: str, count: int, client: str) -> None:
        if count > self.most.get(what, (0, ""))[0]:
            self.most[what] = (count, client)


class Session(asyncio.Protocol):
    """The connection of one process."""

    def __init__(self, counts: ClientCounts, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self._counts = counts
        self._log = log
        self._clock = clock
        self._held: Counter[str] = Counter()
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport for answers."""
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer every complete line; an invalid line ends the connection."""
        assert self._transport is not None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        answers = bytearray()
        for line in lines:
            answer = self._answer(line)
            if answer is None:
                self._buffer = b""
                break
            answers += answer
        else:
            if len(self._buffer) <= LINE_MAX_BYTES:
                if answers:
                    self._transport.write(bytes(answers))
                return
        # A single trigger byte is valid, so it causes no warning.
        if lines or self._buffer != b"W":
            self._log.warning(f"bad request: {bytes(data[:80])!r}")
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connections that this process counted."""
        for client, connections in self._held.items():
            for _ in range(connections):
                self._counts.release(client)
        self._held.clear()

    def _answer(self, line: bytes) -> bytes | None:
        try:
            verb, _, client = line.decode("ascii").partition(" ")
        except UnicodeDecodeError:
            return None
        if not client or len(line) > LINE_MAX_BYTES:
            return None
        if verb in VERBS:
            connections, rate = self._counts.event(verb, client, self._clock())
            if verb != "connect":
                return b"%d\n" % rate
            self._held[client] += 1
            return b"%d %d\n" % (connections, rate)
        if verb == "hold":
            self._held[client] += 1
            self._counts.hold(client, self._clock())
            return b""
        if verb == "disconnect":
            if self._held[client] > 0:
                self._held[client] -= 1
                self._counts.release(client)
            if not self._held[client]:
                del self._held[client]
            return b""
        return None


class Times(NamedTuple):
    """The time unit of rates, and the interval of the log lines, in seconds."""

    unit_s: float
    update_s: float


def prepare(daemon: Daemon) -> Times:
    """Return the service's times. Raises `ConfigError`."""
    config = daemon.config
    return Times(config.seconds("anvil_rate_time_unit"), config.seconds("anvil_status_update_time"))


async def serve(daemon: Daemon, times: Times) -> None:
    """Answer until the service stops; log the highest counts every anvil_status_update_time."""
    loop = asyncio.get_running_loop()
    time_unit_s = times.unit_s
    counts = ClientCounts(time_unit_s)
    servers = [
        await loop.create_unix_server(lambda: Session(counts, daemon.log), sock=listener)
        for listener in daemon.listeners
    ]
    tasks = [
        loop.create_task(_sweep(counts, time_unit_s)),
        loop.create_task(_report(counts, daemon.log, times.update_s)),
    ]
    ends = [loop.create_task(daemon.stopping.wait()), loop.create_task(daemon.draining.wait())]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for task in (*tasks, *ends):
        task.cancel()
    for server in servers:
        server.close()
    report(counts, daemon.log)


async def _sweep(counts: ClientCounts, time_unit_s: float) -> None:
    while True:
        await asyncio.sleep(time_unit_s / SWEEP_PARTS)
        counts.sweep(time.monotonic())


async def _report(counts: ClientCounts, log: Log, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        report(counts, log)


def report(counts: ClientCounts, log: Log) -> None:
    """Log the highest counts since the last report, as Postfix does."""
    for what, (count, client) in sorted(counts.most.items()):
        log.info(f"statistics: max {what} {count} for ({client})")
    counts.most.clear()


def main() -> None:
    """Run as master's program `anvil`."""
    run(start("anvil", sys.argv[1:]), prepare, serve)


if __name__ == "__main__":
    main()
