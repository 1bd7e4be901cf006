"""How many messages a second does aiosmtpd's Controller accept, with its own protocol class and with ours?

    postillion bench's source -> Controller -> a counting handler        127.0.0.1, one process, asyncio's loop

The classes alternate, each run in a new process: `stock` is `aiosmtpd.smtp.SMTP`, `ours` is
`postillion.aiosmtpd.SMTP`, with the same handler and the same commands. Messages of 4 KiB use new and kept
connections, messages of 1 MB kept ones. The rows are medians of the runs. `CPU ms` is the server's user and system time
a message. `correct`: every message was accepted and reached the handler once, and both classes passed the same number
of octets.

Needs no privilege.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
from harness import Result
from support.ports import free_port

KINDS = ("stock", "ours")
SESSIONS = 5
MEGABYTE = 1024 * 1024
READY = "ready"
PATIENCE_S = 30.0
TICKS_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Load:
    """Messages of one size, and the target ratio."""

    name: str
    octets: int
    messages: int
    reuse: bool
    aim: float


LOADS = (
    Load("4 KiB, new connections", 4096, 2000, False, 1.5),
    Load("4 KiB, kept connections", 4096, 4000, True, 1.5),
    Load("1 MB, kept connections", MEGABYTE, 200, True, 5.0),
)


class Counting:
    """A handler that counts messages and octets."""

    def __init__(self) -> None:
        self.messages = 0
        self.octets = 0

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:
        """Count the message and accept it."""
        self.messages += 1
        self.octets += len(envelope.content)
        return "250 OK"


def serve(kind: str, port: int) -> None:
    """Serve until standard input ends; print the handler's counts."""
    import aiosmtpd.smtp
    from aiosmtpd.controller import Controller

    from postillion.aiosmtpd import SMTP

    class Bench(Controller):
        def factory(self) -> aiosmtpd.smtp.SMTP:
            made = SMTP if kind == "ours" else aiosmtpd.smtp.SMTP
            return made(self.handler, **self.SMTP_kwargs)

    handler = Counting()
    controller = Bench(handler, hostname="127.0.0.1", port=port, server_hostname="mx.example.org")
    controller.start()
    print(READY, flush=True)
    sys.stdin.read()
    controller.stop()
    print(handler.messages, handler.octets)


@contextlib.contextmanager
def server(kind: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a server in its own process; yield the process and its port."""
    port = free_port()
    command = [sys.executable, str(Path(__file__)), "--serve", kind, str(port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != READY:
            raise RuntimeError(f"the server of {kind} did not start")
        yield process, port
    finally:
        process.kill()
        process.wait()


def cpu_s(pid: int) -> float:
    """Return the user and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_S


@dataclass
class Run:
    """The measures of one run."""

    messages_s: float
    cpu_ms: float
    octets: int
    correct: bool


def run(kind: str, load: Load, messages: int, warm_up: int) -> Run:
    """Send a load to a new server."""
    with server(kind) as (process, port):
        harness.bench_inject(port, warm_up, load.octets, SESSIONS, reuse=load.reuse)
        before = cpu_s(process.pid)
        rate = harness.bench_inject(port, messages, load.octets, SESSIONS, reuse=load.reuse)
        cpu = cpu_s(process.pid) - before
        output, _ = process.communicate(timeout=PATIENCE_S)
        handed, octets = map(int, output.split())
    return Run(rate, cpu * 1000 / messages, octets, handed == messages + warm_up and process.returncode == 0)


def main() -> None:
    """Run all loads and report."""
    parser = harness.parser(__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--serve", nargs=2, metavar=("KIND", "PORT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], int(options.serve[1]))
        return
    runs, part = (1, 40) if options.quick else (options.runs, 1)
    numbers = ", ".join(str(max(load.messages // part, SESSIONS)) for load in LOADS)
    flags = f"{numbers} messages, {SESSIONS} sessions, medians of {runs} alternating runs"
    columns = ["load" + " " * 19, "class", "messages/s", "CPU ms", "correct"]
    result = Result("Messages through aiosmtpd's Controller, with its class and with ours", flags, columns)
    result.begin()
    for load in LOADS:
        messages = max(load.messages // part, SESSIONS)
        warm_up = max(messages // 10, SESSIONS)
        measured: dict[str, list[Run]] = {kind: [] for kind in KINDS}
        for _ in range(runs):
            for kind, done in measured.items():
                done.append(run(kind, load, messages, warm_up))
        same = len({done.octets for kind in KINDS for done in measured[kind]}) == 1
        rates, costs = {}, {}
        for kind, done in measured.items():
            rates[kind] = statistics.median(one.messages_s for one in done)
            costs[kind] = statistics.median(one.cpu_ms for one in done)
            correct = same and all(one.correct for one in done)
            result.correct &= correct
            result.row(load.name, kind, rates[kind], costs[kind], correct)
        faster = rates["ours"] / rates["stock"]
        result.aim(f"{load.name}: messages/s", f"{load.aim:g}", f"{faster:.1f}", faster >= load.aim)
        if costs["ours"]:
            cheaper = costs["stock"] / costs["ours"]
            result.aim(f"{load.name}: messages a CPU second", f"{load.aim:g}", f"{cheaper:.1f}", cheaper >= load.aim)
    result.report(options)


if __name__ == "__main__":
    main()
