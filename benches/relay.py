"""How many messages a second are relayed, and at what CPU cost, compared with Postfix in the same run?

    smtp-source -> MTA -> smtp-sink        127.0.0.1, each load of `LOADS` in turn
    postillion bench -> MTA -> its sink    where smtp-source and smtp-sink would be the bottleneck (`ours`)

Postfix and Postillion alternate, with the same main.cf and master.cf. The rates are recipients a second, from the start
of the load to the last delivery in the log. CPU is the time of master and all its descendants, without load and sink.
`direct` is the rate from source to sink without an MTA: an upper bound, since load and sink share the CPUs with the
MTA. `correct`: the log has exactly one delivery for each recipient, none deferred, and the queue is empty.

Needs root and Debian's postfix package.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import harness
from harness import DRAIN_MAX_S, PROGRAMS, Deliveries, Result, bench_inject, bench_sink, inject, sink
from postillion.bench.server import cpu_seconds
from support import mta
from support.ports import free_port

CPU_AIM = 0.1
"""Target for the ratio of Postillion's CPU time a message to Postfix's."""


@dataclass(frozen=True)
class Load:
    """A load. `part`: share of the number of messages in --messages. `numbered`: each recipient has another number."""

    reuse: bool = False
    ours: bool = False
    numbered: bool = False
    octets: int = 4096
    sessions: int = 20
    recipients: int = 1
    part: float = 1.0
    aim: float | None = None
    direct_aim: float | None = None
    cpu_aim: float | None = None

    def messages(self, options: argparse.Namespace) -> int:
        """Return the number of messages of a run."""
        messages: int = options.messages
        return max(round(messages * self.part), 2 * self.sessions)

    def run(self, port: int, messages: int) -> float:
        """Send the messages; return the recipients accepted a second."""
        if self.ours:
            sizes = (messages, self.octets, self.sessions)
            rate = bench_inject(port, *sizes, recipients=self.recipients, reuse=self.reuse)
        else:
            words = [*(["-d"] if self.reuse else []), *self.numbering(), "-r", str(self.recipients)]
            rate = inject(port, messages, self.octets, self.sessions, words)
        return rate * self.recipients

    def numbering(self) -> list[str]:
        """Return smtp-source's option for numbers in recipients."""
        return ["-N"] if self.numbered else []

    def sink(self, port: int) -> AbstractContextManager[object]:
        """Run a sink on `port`."""
        return bench_sink(port) if self.ours else sink(port)


LOADS = {
    "new": Load(aim=7.5, cpu_aim=CPU_AIM),
    "reused": Load(reuse=True, aim=13, cpu_aim=CPU_AIM),
    "100 kB": Load(octets=100_000, part=0.4, aim=3, ours=True),
    "50 recipients": Load(recipients=50, part=0.2, aim=8),
    "50 pipelined": Load(recipients=50, part=0.4, aim=8, ours=True),
    "one session": Load(sessions=1, part=0.2, direct_aim=0.7),
    "200 sessions": Load(sessions=200, part=0.4),
}
"""`new`: a connection for each message of 4 KiB, 20 sessions. `reused` (smtp-source -d) keeps its sessions. The other
loads are `new` with the change in their name. smtp-sink needs nearly 1 ms of CPU for 100 kB; source and sink need 3 ms
for 50 recipients, each a round trip: more than the MTA. `50 pipelined` sends all RCPT commands at once, as mail servers
do."""


@dataclass
class Measure:
    """One run: rates in recipients a second, CPU in milliseconds a message."""

    accepted_per_s: float
    relayed_per_s: float
    cpu_ms: float
    correct: bool


def direct(load: Load, options: argparse.Namespace) -> float:
    """Return the rate of source and sink without an MTA."""
    port = free_port()
    with load.sink(port):
        return load.run(port, load.messages(options))


def relay(
    program: str,
    load: Load,
    options: argparse.Namespace,
    prepare: Callable[[mta.Site, str], None] = lambda site, program: None,
) -> Measure:
    """Run a load through `program`, which starts after `prepare`; return its measures."""
    count, warm_up = load.messages(options), options.warm_up
    with harness.site(options) as site, load.sink(site.next_port):
        prepare(site, program)
        with mta.running(site, program):
            return measure(site, load, count, warm_up)


def measure(site: mta.Site, load: Load, count: int, warm_up: int) -> Measure:
    """Run a load of `count` messages through a running site, after `warm_up` others; return its measures."""
    # A few messages start every program of the MTA.
    inject(site.port, warm_up, sessions=load.sessions, load=load.numbering())
    deliveries = Deliveries(site.log)
    mta.wait_for("the warm-up's deliveries", lambda: deliveries.count() >= warm_up)
    master = int((site.queue / "pid" / "master.pid").read_text())
    cpu, begin = cpu_seconds(master), time.monotonic()
    accepted_per_s = load.run(site.port, count)
    expected = warm_up + count * load.recipients
    mta.wait_for("the deliveries", lambda: deliveries.count() >= expected, DRAIN_MAX_S)
    relayed_s = time.monotonic() - begin
    cpu = cpu_seconds(master) - cpu
    mta.wait_for("an empty queue", lambda: deliveries.count() and deliveries.removed >= warm_up + count)
    correct = deliveries.sent == expected and deliveries.failed + deliveries.deferred == 0
    return Measure(accepted_per_s, count * load.recipients / relayed_s, cpu / count * 1000, correct)


def main() -> None:
    """Run all loads and report."""
    parser = harness.parser(__doc__, compares=True)
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=200)
    parser.add_argument("--loads", default=",".join(LOADS), help="loads, separated by commas: %(default)s")
    options = parser.parse_args()
    if options.quick:
        options.messages, options.warm_up, options.runs = 200, 20, 1
    names = options.loads.split(",")
    if unknown := set(names) - LOADS.keys():
        parser.error(f"no such load: {', '.join(unknown)}")
    columns = ["load         ", "program   ", "accepted/s", "relayed/s", "CPU ms a message", "direct/s", "correct"]
    counts = ", ".join(f"{name} {LOADS[name].messages(options)}" for name in names)
    result = Result("Recipients relayed a second", f"messages: {counts}; medians of {options.runs}", columns)
    result.begin()
    for name in names:
        load = LOADS[name]
        rate = statistics.median(direct(load, options) for _ in range(options.runs))
        runs = harness.alternate(options, partial(relay, load=load, options=options))
        report(name, rate, runs, result)
    result.report(options)


def report(name: str, direct_rate: float, runs: Mapping[str, Sequence[Measure]], result: Result) -> None:
    """Add the medians of one kind of load, the ratios, and its aims."""
    medians: dict[str, list[float]] = {}
    for program, measures in runs.items():
        each = ((m.accepted_per_s, m.relayed_per_s, m.cpu_ms) for m in measures)
        medians[program] = [statistics.median(figures) for figures in zip(*each, strict=True)]
        correct = all(m.correct for m in measures)
        result.correct &= correct
        result.row(name, program, *medians[program], direct_rate, correct)
    if len(medians) < len(PROGRAMS):
        return
    old, new = (medians[program] for program in PROGRAMS)
    result.row(name, "ratio", *(b / a for a, b in zip(old, new, strict=True)), "", "")
    load = LOADS[name]
    if load.aim is not None:
        relayed = {program: figures[1] for program, figures in medians.items()}
        result.aim_ratio(f"{name}: relayed a second to Postfix's", load.aim, relayed)
    if load.direct_aim is not None:
        part = new[1] / direct_rate
        met = part >= load.direct_aim
        result.aim(f"{name}: relayed a second to source and sink alone", f"{load.direct_aim:g}", f"{part:.2f}", met)
    if load.cpu_aim is not None:
        ratio = new[2] / old[2]
        met = ratio <= load.cpu_aim
        result.aim(f"{name}: CPU a message to Postfix's", f"at most {load.cpu_aim:g}", f"{ratio:.2f}", met)


if __name__ == "__main__":
    main()
