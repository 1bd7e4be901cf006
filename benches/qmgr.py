"""What does a message cost in the queue manager, and what does its decision cost when many wait?

    python benches/qmgr.py [messages]

A message costs from its announcement to its removal. The core with its state log and log file, driven in this process:
frames of a producer and of agents go in as bytes, in batches of 20, and come out as bytes. Only the core's calls are
timed; making and reading frames is not. `waiting`: messages that lie deferred in the queue meanwhile. Build the
extension with `maturin develop --release` first.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from postillion._core.delivery import AgentLink
from postillion._core.log import Log
from postillion._core.qmgr import QueueManager
from support.queue_files import Message, write_segment

MESSAGES = 20_000
BATCH = 20
AGENT, PRODUCER = 1, 2


def resident_bytes() -> int:
    """Return what the process holds in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Bench:
    """A queue manager and its peers."""

    def __init__(self, directory: Path) -> None:
        self.now, self.spent_s = 1000.0, 0.0
        self.log = Log("mx", "postfix", "qmgr", 1, 0, str(directory / "log"))
        self.core = QueueManager(str(directory), {}, self.log, self.now, time.time())
        self.link = AgentLink(Log("mx", "postfix", "smtp", 1, 0, "/dev/null"), str(directory))
        self.directory = directory
        self.segment = 0
        self.usec = int(time.time() * 1e6)
        self.core.connected(AGENT)
        self.core.connected(PRODUCER)
        self.settled = 0

    def turn(self) -> bytes:
        """One turn of the loop; what goes to the agent."""
        wall_now = time.time()
        start = time.perf_counter()
        core, now = self.core, self.now
        core.tick(now, wall_now)
        while (event := core.next_event(now, wall_now)) is not None:
            if event[0] == "resolve":
                core.resolved(event[1], "smtp", event[1].rpartition("@")[2], None, now, wall_now)
        outputs = core.outputs()
        core.deadline()
        self.spent_s += time.perf_counter() - start
        return b"".join(data for peer, data in outputs if peer == AGENT)

    def receive(self, peer: int, data: bytes) -> None:
        """Bytes of a peer."""
        wall_now = time.time()
        start = time.perf_counter()
        self.core.receive(peer, data, self.now, wall_now)
        self.spent_s += time.perf_counter() - start

    def arrive(self, count: int) -> None:
        """Messages arrive, one a destination and ten."""
        self.segment += 1
        messages = []
        for _ in range(count):
            self.usec += 1
            messages.append(Message(self.usec, [f"user{self.usec}@d{self.usec % (count // 2)}.example"]))
        self.receive(PRODUCER, write_segment(self.directory, self.segment, messages))

    def settle(self, data: bytes, outcome: str) -> None:
        """The agent does all that it has."""
        for job in self.link.receive(data):
            job.status(0, outcome, "2.0.0" if outcome == "sent" else "4.0.0", "250 ok")  # type: ignore[arg-type]
            self.receive(AGENT, job.result())
            self.settled += 1

    def run(self, messages: int, outcome: str) -> float:
        """Return microseconds of the core a message."""
        self.spent_s, self.settled = 0.0, 0
        for _ in range(messages // BATCH):
            self.arrive(BATCH)
            while data := self.turn():
                self.settle(data, outcome)
        self.turn()
        return self.spent_s / messages * 1e6


def main() -> None:
    """Measure and print."""
    messages = int(sys.argv[1]) if len(sys.argv) > 1 else MESSAGES
    print(f"{platform.machine()} {os.cpu_count()} cpus, Linux {platform.release()}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory))
        bench.receive(AGENT, bench.link.register("smtp", 1, 100))
        bench.run(1000, "sent")
        before = resident_bytes()
        for waiting in (0, messages, 5 * messages):
            lying = bench.core.counts()["messages"]
            if waiting > lying:
                bench.run(waiting - lying, "deferred")
            held = resident_bytes() - before
            cost = bench.run(messages, "sent")
            correct = bench.settled == messages and bench.core.counts()["messages"] == max(waiting, lying)
            each = f", {held / waiting:.0f} octets a waiting message" if waiting else ""
            print(f"waiting={waiting}: {cost:.1f} us a message{each}, correct={correct}")


if __name__ == "__main__":
    main()
