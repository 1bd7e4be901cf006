"""Do two thousand clients that send an octet a second slow down an honest client?

    2,000 x "one octet a second" ──> smtpd <── one honest client, message after message

Each slow client opens a session and sends its commands one octet a second, so it never gets far and is never idle.
The honest client sends messages one after the other. Its latency is the time from connect to the `221` after QUIT.
Output: the slow clients still connected at the end, the honest client's latencies, and the server's memory before
and with the slow clients. `correct`: every slow client got the greeting, and every honest message was queued.

-o sets parameters: with `-o smtpd_per_request_deadline=yes -o smtpd_timeout=10s` the server disconnects slow clients.
Needs no privilege.
"""

import argparse
import asyncio
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import test_smtpd

COMMANDS = (
    b"EHLO slow.example\r\nMAIL FROM:<slow@example.com>\r\nRCPT TO:<user@example.org>\r\nDATA\r\n" + b"x" * 100_000
)
CONNECTS_AT_A_TIME = 50
MESSAGE = b"Subject: honest\r\n\r\n" + b"text\r\n" * 700


@dataclass
class Measure:
    """The measures, in seconds and KiB."""

    slow_clients: int
    kept: int
    honest_messages: int
    latency_median_s: float
    latency_worst_s: float
    memory_before_kib: int
    memory_with_kib: int
    kib_a_client: float
    correct: bool


class Slow(asyncio.Protocol):
    """A client that sends one octet a second."""

    def __init__(self) -> None:
        self.greeted = False
        self.lost = False
        self.sent = 0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Note that the server has spoken."""
        self.greeted = True

    def connection_lost(self, error: Exception | None) -> None:
        """Note the end."""
        self.lost = True

    def send(self) -> None:
        """Send the next octet."""
        if self.greeted and not self.lost and self.transport is not None:
            self.transport.write(COMMANDS[self.sent : self.sent + 1])
            self.sent += 1


async def honest(port: int) -> float:
    """Send one message; return its latency in seconds."""
    begun = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    envelope = b"MAIL FROM:<honest@example.com>\r\nRCPT TO:<user@example.org>\r\nDATA\r\n"
    for words, last in (
        (b"", b"220 "),
        (b"EHLO honest.example\r\n", b"250 "),
        (envelope, b"354 "),
        (MESSAGE + b".\r\n", b"250 "),
        (b"QUIT\r\n", b"221 "),
    ):
        writer.write(words)
        while not (line := await reader.readline()).startswith(last) or (words == envelope and last not in line):
            assert line[:1] == b"2", line
    writer.close()
    return time.monotonic() - begun


async def attack(process: test_smtpd.Process, clients: int, seconds: float) -> Measure:
    """Connect slow clients, and send honest mail during `seconds`."""
    await honest(process.port)
    before = process.memory_kib()
    loop = asyncio.get_running_loop()
    slow: list[Slow] = []
    while len(slow) < clients:
        number = min(CONNECTS_AT_A_TIME, clients - len(slow))
        made = await asyncio.gather(*(loop.create_connection(Slow, "127.0.0.1", process.port) for _ in range(number)))
        slow += [protocol for _, protocol in made]
    latencies = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        round_ends = time.monotonic() + 1.0
        for client in slow:
            client.send()
        latencies.append(await honest(process.port))
        await asyncio.sleep(max(round_ends - time.monotonic(), 0.0))
    kept = sum(client.greeted and not client.lost for client in slow)
    memory = process.memory_kib()
    for client in slow:
        if client.transport is not None:
            client.transport.abort()
    queued = len(test_smtpd.queued(process.directory))
    return Measure(
        clients,
        kept,
        len(latencies),
        round(statistics.median(latencies), 4),
        round(max(latencies), 4),
        before,
        memory,
        round((memory - before) / clients, 1),
        all(client.greeted for client in slow) and queued == len(latencies) + 1,
    )


def main() -> None:
    """Run and print the measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("-o", dest="options", action="append", default=[], help="set a parameter: name=value")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    parameters = [option.replace("=", " = ", 1) for option in options.options]
    with tempfile.TemporaryDirectory(prefix="slow-") as name:
        limits = ["smtpd_client_connection_count_limit = 0", *parameters]
        with test_smtpd.running(Path(name), limits) as process:
            measure = asyncio.run(attack(process, options.clients, options.seconds))
    if options.json:
        print(json.dumps(asdict(measure)))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for key, value in asdict(measure).items():
        print(f"{key:20} {value}")


if __name__ == "__main__":
    main()
