"""How much CPU time does a message cost in the queue manager, from announcement to removal, with few and many waiting?

    python benches/qmgr.py [messages]

The bench runs the core with its state log and log file in this process. Frames of a producer and of agents go in as
bytes, in batches of 20, and come out as bytes. Only the core's calls are timed, not the making and reading of frames.
`waiting`: number of deferred messages in the queue. Build the extension with `maturin develop --release` first.
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
    """Return the resident memory of the process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Bench:
    """A queue manager and its peers."""

    def __init__(self, directory: Path) -> None:
        self.now, self.spent_s = 1000.0, 0.0
        self.log = Log("mx", "postfix", "qmgr", 1, 0, str(directory / "log"))
        self.core = QueueManager(str(directory), None, self.log, self.now, time.time())
        self.link = AgentLink(Log("mx", "postfix", "smtp", 1, 0, "/dev/null"), str(directory))
        self.directory = directory
        self.segment = 0
        self.usec = int(time.time() * 1e6)
        self.core.connected(AGENT)
        self.core.connected(PRODUCER)
        self.finished = 0

    def poll(self) -> bytes:
        """Run one poll of the event loop; return the output for the agent."""
        wall_now = time.time()
        start = time.perf_counter()
        core, now = self.core, self.now
        core.tick(now, wall_now)
        while (event := core.next_event(now, wall_now)) is not None:
            if event[0] == "resolve":
                core.resolved(event[1], event[2], "smtp", event[1].rpartition("@")[2], None, now, wall_now)
        outputs = core.outputs()
        core.deadline()
        self.spent_s += time.perf_counter() - start
        return b"".join(data for peer, data in outputs if peer == AGENT)

    def receive(self, peer: int, data: bytes) -> None:
        """Give a peer's bytes to the core."""
        wall_now = time.time()
        start = time.perf_counter()
        self.core.receive(peer, data, self.now, wall_now)
        self.spent_s += time.perf_counter() - start

    def arrive(self, count: int) -> None:
        """Announce `count` messages, two for each destination."""
        self.segment += 1
        messages = []
        for _ in range(count):
            self.usec += 1
            messages.append(Message(self.usec, [f"user{self.usec}@d{self.usec % (count // 2)}.example"]))
        self.receive(PRODUCER, write_segment(self.directory, self.segment, messages))

    def finish(self, data: bytes, outcome: str) -> None:
        """Finish all jobs of the agent with `outcome`."""
        for job in self.link.receive(data):
            job.status(0, outcome, "2.0.0" if outcome == "sent" else "4.0.0", "250 ok")  # type: ignore[arg-type]
            self.receive(AGENT, job.result())
            self.finished += 1

    def run(self, messages: int, outcome: str) -> float:
        """Return the core's microseconds a message."""
        self.spent_s, self.finished = 0.0, 0
        for _ in range(messages // BATCH):
            self.arrive(BATCH)
            while data := self.poll():
                self.finish(data, outcome)
        self.poll()
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
            deferred = bench.core.counts()["messages"]
            if waiting > deferred:
                bench.run(waiting - deferred, "deferred")
            held = resident_bytes() - before
            cost = bench.run(messages, "sent")
            correct = bench.finished == messages and bench.core.counts()["messages"] == max(waiting, deferred)
            each = f", {held / waiting:.0f} octets a waiting message" if waiting else ""
            print(f"waiting={waiting}: {cost:.1f} us a message{each}, correct={correct}")


if __name__ == "__main__":
    main()
