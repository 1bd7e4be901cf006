"""How many messages a second go through, and at what CPU cost, beside Postfix in the same run?

    smtp-source -> MTA -> smtp-sink        4 KiB messages, 20 sessions, 127.0.0.1

Postfix and Postillion take turns, started from the same main.cf and master.cf. `new` opens a connection for each
message, `reused` (smtp-source -d) keeps its sessions. The rate counts from the load's start to the last delivery in
the log. CPU is that of master and all its descendants, without load and sink. `direct` is source -> sink with nothing
in between. `correct`: the log counts exactly one delivery for each message, none deferred, and the queue is empty.

Needs root and Debian's postfix package; ends by itself.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import mta

PROGRAMS = ("postfix", "postillion")
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
DRAIN_MAX_S = 300.0


@dataclass
class Measure:
    """One run: rates in messages a second, CPU in milliseconds a message."""

    program: str
    load: str
    accepted_per_s: float
    relayed_per_s: float
    cpu_ms: float
    correct: bool


def cpu_seconds(master: int) -> float:
    """Return the CPU time of a process and its descendants, dead ones included once they were waited for."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            pid = int(entry.name)
            parents[pid] = int(fields[1])
            used[pid] = sum(map(int, fields[11:15])) * TICK_S
    tree = {master}
    grown = True
    while grown:
        found = {pid for pid, parent in parents.items() if parent in tree} - tree
        tree |= found
        grown = bool(found)
    return sum(used.get(pid, 0.0) for pid in tree)


def source(port: int, options: argparse.Namespace, load: Sequence[str]) -> list[str]:
    """Return the command line of the load generator."""
    sizes = ["-l", str(options.octets), "-s", str(options.sessions), "-m", str(options.messages)]
    return ["smtp-source", *load, *sizes, "-f", "load@example.org", "-t", "sink@next.example", f"127.0.0.1:{port}"]


@contextlib.contextmanager
def sink(port: int) -> Iterator[None]:
    """Run a sink on `port` while the block lasts."""
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen(["smtp-sink", *user, f"127.0.0.1:{port}", "1000"])
    try:
        mta.wait_for("smtp-sink", lambda: mta.listening(port))
        yield
    finally:
        process.terminate()
        process.wait()


class Deliveries:
    """Counts what a log says of deliveries, reading on from where it stopped."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.sent = 0
        self.failed = 0
        self._at = 0

    def count(self) -> int:
        """Return how many deliveries there were until now."""
        with self.log.open("rb") as file:
            file.seek(self._at)
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]
        self._at += len(text)
        self.sent += text.count(b"status=sent")
        self.failed += text.count(b"status=deferred") + text.count(b"status=bounced")
        return self.sent


def direct(options: argparse.Namespace, load: Sequence[str]) -> float:
    """Return the rate of load and sink alone."""
    port = mta.free_port()
    with sink(port):
        begin = time.monotonic()
        subprocess.run(source(port, options, load), check=True)
        return options.messages / (time.monotonic() - begin)


def relay(program: str, name: str, load: Sequence[str], options: argparse.Namespace) -> Measure:
    """Return one run through `program`."""
    directory = Path(tempfile.mkdtemp(prefix="relay-", dir=options.directory))
    site = mta.Site(directory)
    few = argparse.Namespace(octets=options.octets, sessions=options.sessions, messages=options.warm_up)
    try:
        with sink(site.next_port), mta.running(site, program):
            # A few messages first: every program of the MTA is running then.
            subprocess.run(source(site.port, few, ()), check=True)
            deliveries = Deliveries(site.log)
            mta.wait_for("the warm-up's deliveries", lambda: deliveries.count() >= few.messages)
            master = int((site.queue / "pid" / "master.pid").read_text())
            cpu, begin = cpu_seconds(master), time.monotonic()
            subprocess.run(source(site.port, options, load), check=True)
            accepted = time.monotonic() - begin
            expected = few.messages + options.messages
            mta.wait_for("the deliveries", lambda: deliveries.count() >= expected, DRAIN_MAX_S)
            relayed = time.monotonic() - begin
            cpu = cpu_seconds(master) - cpu
            mta.wait_for("an empty queue", lambda: site.log_text().count(": removed") >= expected)
        correct = deliveries.count() == expected and deliveries.failed == 0
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    count = options.messages
    return Measure(program, name, count / accepted, count / relayed, cpu / count * 1000, correct)


def main() -> None:
    """Run all, print a table and, with --json, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--octets", type=int, default=4096)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=200)
    parser.add_argument("--only", choices=PROGRAMS)
    parser.add_argument("--loads", default="new,reused")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="where the queues are: a real disk")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    version = subprocess.run(["postconf", "-h", "mail_version"], capture_output=True, text=True, check=False)
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    print(f"Postfix {version.stdout.strip()}, {options.messages} messages of {options.octets} octets, ", end="")
    print(f"{options.sessions} sessions, {options.runs} runs, medians")
    measures: list[Measure] = []
    rates: dict[str, float] = {}
    loads = {"new": (), "reused": ("-d",)}
    for name in options.loads.split(","):
        rates[name] = statistics.median(direct(options, loads[name]) for _ in range(options.runs))
        for _ in range(options.runs):
            for program in PROGRAMS if options.only is None else (options.only,):
                measures.append(relay(program, name, loads[name], options))
        report(name, rates[name], [m for m in measures if m.load == name])
    if options.json:
        options.json.write_text(json.dumps({"direct": rates, "runs": [asdict(m) for m in measures]}, indent=1))
    if not all(m.correct for m in measures):
        sys.exit("a run was not correct")


def report(name: str, rate: float, measures: Sequence[Measure]) -> None:
    """Print the medians of one kind of load, and the ratio."""
    print(f"\n{name:8} {'accepted/s':>11} {'relayed/s':>11} {'CPU ms':>8}  correct      direct: {rate:.0f}/s")
    medians: dict[str, Measure] = {}
    for program in dict.fromkeys(m.program for m in measures):
        runs = [m for m in measures if m.program == program]
        medians[program] = middle = Measure(
            program,
            name,
            statistics.median(m.accepted_per_s for m in runs),
            statistics.median(m.relayed_per_s for m in runs),
            statistics.median(m.cpu_ms for m in runs),
            all(m.correct for m in runs),
        )
        rates = f"{middle.accepted_per_s:11.0f} {middle.relayed_per_s:11.0f}"
        print(f"{program:8.8} {rates} {middle.cpu_ms:8.3f}  {middle.correct}")
    if len(medians) == len(PROGRAMS):
        old, new = (medians[program] for program in PROGRAMS)
        ratios = new.accepted_per_s / old.accepted_per_s, new.relayed_per_s / old.relayed_per_s, new.cpu_ms / old.cpu_ms
        print(f"{'ratio':8} {ratios[0]:11.2f} {ratios[1]:11.2f} {ratios[2]:8.3f}")


if __name__ == "__main__":
    main()
