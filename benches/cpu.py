"""Where does the CPU time of a relayed message go?

    smtp-source -> Postillion under `perf record -g` -> smtp-sink        a load of benches/relay.py

CPU clock samples by program and thread, and by kind: in the kernel sockets, waits and wake-ups, fsync, files; in user
mode Rust, Python, and libraries. Then the most frequent functions, and a flame graph. `ms a message` is the CPU time of
the processes (proc(5)), in proportion to the samples. It is higher under perf than without. Stacks depend on frame
pointers: complete in the kernel, short in user mode. `correct`: every message was relayed once, and there are samples.

--write NAME puts the tables between `<!-- NAME -->` and `<!-- end -->` of docs/profile.md, the graph into docs/plots/.
Needs Debian's linux-perf and postfix packages, and the right to profile (root). Without them it prints `skipped` and
why.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import flame
import harness
import relay
from harness import ROOT, Deliveries, Result, inject, put
from measured import table
from postillion.bench.server import family
from support import mta

PAGE = ROOT / "docs" / "profile.md"
PLOTS = ROOT / "docs" / "plots"
TOP = 15
ATTACH_MAX_S = 10.0
MIN_SHARE = 0.005
"""Threads with a smaller share of the samples share one row."""

KERNEL = (
    ("fsync", re.compile(r"fsync|fdatasync|sync_file_range")),
    ("sockets", re.compile(r"sock|__sys_(send|recv|accept|connect|shutdown)|tcp_|unix_stream|inet_|net_rx_action")),
    ("waits", re.compile(r"epoll|ep_poll|schedule|futex|eventfd|sys_poll|switch_to|nanosleep")),
    ("files", re.compile(r"ext4|xfs|btrfs|vfs_|do_sys_open|filename|path_|pipe_|do_unlinkat|filemap")),
)
"""Kinds of kernel time: the first one whose pattern matches any frame of the stack."""
USER = (
    ("Rust", re.compile(r"/_core[^/]*\.so")),
    ("Python", re.compile(r"/(lib)?python3[^/]*$")),
)
"""Kinds of user time, by the file of the innermost frame."""
KINDS = (*(kind for kind, _ in KERNEL), "kernel", *(kind for kind, _ in USER), "libraries")
COLOURS = dict(
    zip(KINDS, ("#d9534f", "#f0a860", "#f3d25b", "#c8b28a", "#d8cfc4", "#7fb77e", "#6fa8dc", "#b4a7d6"), strict=True)
)
RECORD = ("perf", "record", "-q", "-a", "-g", "-e", "cpu-clock")
IN_KERNEL = "[kernel"
UNKNOWN = "[unknown]"


@dataclass(frozen=True)
class Sample:
    """One sample of a thread. The frames are (function, file), innermost first."""

    pid: int
    thread: str
    frames: tuple[tuple[str, str], ...]

    @property
    def kind(self) -> str:
        """The kind of time."""
        kernel = [name for name, file in self.frames if file.startswith(IN_KERNEL)]
        if kernel:
            stack = " ".join(kernel)
            return next((kind for kind, pattern in KERNEL if pattern.search(stack)), "kernel")
        file = self.frames[0][1] if self.frames else ""
        return next((kind for kind, pattern in USER if pattern.search(file)), "libraries")

    @property
    def innermost(self) -> str:
        """The running function, or its file when the name is unknown."""
        name, file = self.frames[0] if self.frames else (UNKNOWN, "")
        return name if name != UNKNOWN else f"in {Path(file).name}"

    def stack(self) -> Iterator[str]:
        """Return the known frames up to the innermost one, outermost first."""
        known = 0
        while known < len(self.frames) and self.frames[known][0] != UNKNOWN:
            known += 1
        return (name for name, _ in reversed(self.frames[: max(known, 1)]))


HEAD = re.compile(r"(?P<thread>\S.*?)\s+(?P<pid>-?\d+)/(?P<tid>-?\d+)\s*$")
FRAME = re.compile(r"\s+[0-9a-f]+ (?P<name>.*) \((?P<file>[^()]*(?:\([^()]*\))?)\)\s*$")


def read_samples(lines: Iterable[str]) -> Iterator[Sample]:
    """Parse the output of `perf script -F comm,pid,tid,ip,sym,dso`: a head, its frames, an empty line."""
    head: re.Match[str] | None = None
    frames: list[tuple[str, str]] = []
    for line in itertools.chain(lines, [""]):
        if not line.strip():
            if head is not None:
                yield Sample(int(head["pid"]), head["thread"], tuple(frames))
            head, frames = None, []
        elif head is None:
            head = HEAD.match(line)
        elif frame := FRAME.match(line):
            frames.append((frame["name"], frame["file"]))


def why_not() -> str | None:
    """Return the reason why this machine cannot profile; None if it can."""
    for program, package in (("perf", "linux-perf"), ("smtp-source", "postfix"), ("smtp-sink", "postfix")):
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian package {package})"
    with tempfile.NamedTemporaryFile() as data:
        done = subprocess.run([*RECORD, "-o", data.name, "--", "true"], capture_output=True, text=True, check=False)
    return (
        None if done.returncode == 0 else f"perf cannot record: {(done.stderr.splitlines() or ['no reason given'])[0]}"
    )


def names(pids: Iterable[int]) -> dict[int, str]:
    """Return the program name of each process."""
    return {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids}


@dataclass
class Profile:
    """The samples, the program of each process, and the CPU milliseconds a message."""

    samples: list[Sample]
    programs: dict[int, str]
    messages: int
    cpu_ms: float
    correct: bool

    def program_and_thread(self, sample: Sample) -> tuple[str, str]:
        """Return the program and the thread of a sample. A program's first thread runs its event loop."""
        program = self.programs[sample.pid]
        return program, "loop" if sample.thread == program else sample.thread


def profile(options: argparse.Namespace) -> Profile:
    """Relay messages under perf; return the profile."""
    load = relay.LOADS[options.load]
    messages, warm_up = load.messages(options), options.warm_up
    with harness.site(options, harness.DOWN) as site, mta.running(site), contextlib.ExitStack() as next_hop:
        if not options.down:
            next_hop.enter_context(load.sink(site.next_port))
        inject(site.port, warm_up, sessions=load.sessions)
        deliveries = Deliveries(site.log)
        count = deliveries.count_deferred if options.down else deliveries.count
        mta.wait_for("the warm-up's deliveries", lambda: count() >= warm_up)
        master = int((site.queue / "pid" / "master.pid").read_text())
        with recording(site.directory / "perf.data", options.frequency) as data:
            before = sum(family(master).values())
            load.run(site.port, messages)
            expected = warm_up + messages * load.recipients
            mta.wait_for("the deliveries", lambda: count() >= expected, harness.DRAIN_MAX_S)
            used = family(master)
        programs = names(used)
        script = ["perf", "script", "-i", str(data), "--no-inline", "-F", "comm,pid,tid,ip,sym,dso"]
        script += ["--pid", ",".join(map(str, programs))]
        with subprocess.Popen(
            script, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace"
        ) as printed:
            assert printed.stdout is not None
            samples = [sample for sample in read_samples(printed.stdout) if sample.pid in programs]
    counted, other = (deliveries.deferred, deliveries.sent) if options.down else (deliveries.sent, deliveries.deferred)
    correct = counted == expected and other + deliveries.failed == 0
    cpu_ms = (sum(used.values()) - before) / messages * 1000
    return Profile(samples, programs, messages, cpu_ms, correct and bool(samples) and printed.returncode == 0)


@contextlib.contextmanager
def recording(data: Path, frequency: int) -> Iterator[Path]:
    """Sample all CPUs during the block; `data` is complete afterwards."""
    perf = subprocess.Popen([*RECORD, "-F", str(frequency), "-o", data])
    try:
        # perf samples once it has begun to write.
        mta.wait_for("perf", lambda: perf.poll() is not None or (data.exists() and data.stat().st_size), ATTACH_MAX_S)
        yield data
    finally:
        perf.send_signal(signal.SIGINT)
        perf.wait()


def summary(of: Profile, options: argparse.Namespace) -> Result:
    """Return the table by program and thread; shares are of all samples."""
    columns = ["program   ", "thread   ", "ms a message", "all %", *(f"{kind} %" for kind in KINDS)]
    what = f"load {options.load!r}{', the next hop down' if options.down else ''}"
    flags = f"{what}, {of.messages} messages, {len(of.samples)} samples at {options.frequency} Hz"
    result = Result("Where the CPU time of a relayed message goes", flags, columns)
    result.begin()
    samples, everything = of.samples, max(len(of.samples), 1)
    by_thread = Counter(of.program_and_thread(sample) for sample in samples)
    small = {where for where, count in by_thread.items() if count / everything < MIN_SHARE}
    cells: Counter[tuple[tuple[str, str], str]] = Counter()
    for sample in samples:
        where = of.program_and_thread(sample)
        cells[("others", "") if where in small else where, sample.kind] += 1
    rows = sorted({where for where, _ in cells}, key=lambda where: -sum(cells[where, kind] for kind in KINDS))
    for where in [*rows, ("all", "")]:
        counts = [
            sum(cells[row, kind] for row in rows) if where == ("all", "") else cells[where, kind] for kind in KINDS
        ]
        ms = of.cpu_ms * sum(counts) / everything
        result.row(*where, f"{ms:.3f}", *(f"{count / everything:.1%}"[:-1] for count in (sum(counts), *counts)))
    return result


def top(samples: Sequence[Sample]) -> list[str]:
    """Return the most frequent functions, as the lines of a Markdown table."""
    ran = Counter((sample.innermost, sample.kind) for sample in samples)
    lines = ["| function | kind | % |", "|---|---|---|"]
    for (name, kind), count in ran.most_common(TOP):
        lines.append(f"| `{name.replace('|', chr(92) + '|')}` | {kind} | {count / max(len(samples), 1) * 100:.1f} |")
    return lines


def graph(of: Profile, title: str) -> str:
    """Return the flame graph: program, thread, kind, frames. A frame has the colour of its most frequent kind."""
    kinds: dict[str, Counter[str]] = {kind: Counter([kind]) for kind in KINDS}
    stacks: Counter[tuple[str, ...]] = Counter()
    for sample in of.samples:
        stack = (*of.program_and_thread(sample), sample.kind, *sample.stack())
        stacks[stack] += 1
        for name in stack[3:]:
            kinds.setdefault(name, Counter())[sample.kind] += 1
    colours = {name: COLOURS[counted.most_common(1)[0][0]] for name, counted in kinds.items()}
    return flame.draw(title, stacks.items(), lambda name: colours.get(name, "#e8e8e8"))


def main() -> None:
    """Profile and report."""
    parser = harness.parser(__doc__)
    parser.add_argument("--load", choices=relay.LOADS, default="new")
    parser.add_argument("--down", action="store_true", help="no listener at the next hop (as in benches/injection.py)")
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--warm-up", type=int, default=200)
    parser.add_argument("--frequency", type=int, default=999, help="samples a second of CPU time")
    parser.add_argument("--write", metavar="NAME", help="write to the section NAME of docs/profile.md")
    parser.add_argument("--svg", type=Path, help="write the flame graph to this file as well")
    options = parser.parse_args()
    if options.quick:
        options.messages, options.warm_up = 3000, 20
    if reason := why_not():
        print(f"skipped: {reason}")
        sys.exit(0)
    profiled = profile(options)
    if not profiled.samples:
        print("skipped: perf took no samples")
        sys.exit(0)
    result = summary(profiled, options)
    result.correct = profiled.correct
    functions = top(profiled.samples)
    print("\n".join(functions))
    drawn = graph(profiled, f"Postillion, {result.flags}")
    if options.svg:
        options.svg.write_text(drawn)
    with tempfile.TemporaryDirectory() as directory:
        options.json = options.json or Path(directory) / "result.json"
        result.report(options)
        written = json.loads(options.json.read_text())
    if options.write:
        PLOTS.mkdir(exist_ok=True)
        (PLOTS / f"profile-{options.write}.svg").write_text(drawn)
        text = [table(written), "", *functions, "", f"<!-- plot profile-{options.write}.svg: flame graph -->"]
        put(PAGE, {options.write: "\n".join([f"{written['machine']}.", f"{written['versions']}.", "", *text])})


if __name__ == "__main__":
    main()
