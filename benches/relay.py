"""How many messages a second go through, and at what CPU cost, beside Postfix in the same run?

    smtp-source -> MTA -> smtp-sink        4 KiB messages, 20 sessions, 127.0.0.1

Postfix and Postillion take turns, started from the same main.cf and master.cf. `new` opens a connection for each
message, `reused` (smtp-source -d) keeps its sessions. The rate counts from the load's start to the last delivery in
the log. CPU is that of master and all its descendants, without load and sink. `direct` is source -> sink with nothing
in between. `correct`: the log counts exactly one delivery for each message, none deferred, and the queue is empty.

Needs root and Debian's postfix package; ends by itself.
"""

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import harness
import mta
from harness import DRAIN_MAX_S, PROGRAMS, Deliveries, Result, inject, sink
from postillion.bench.server import cpu_seconds


@dataclass
class Measure:
    """One run: rates in messages a second, CPU in milliseconds a message."""

    accepted_per_s: float
    relayed_per_s: float
    cpu_ms: float
    correct: bool


def direct(options: argparse.Namespace, load: Sequence[str]) -> float:
    """Return the rate of load and sink alone."""
    port = mta.free_port()
    with sink(port):
        return inject(port, options.messages, options.octets, options.sessions, load)


def relay(program: str, load: Sequence[str], options: argparse.Namespace) -> Measure:
    """Return one run through `program`."""
    count, warm_up = options.messages, options.warm_up
    with harness.site(options) as site, sink(site.next_port), mta.running(site, program):
        # A few messages first: every program of the MTA is running then.
        inject(site.port, warm_up, options.octets, options.sessions)
        deliveries = Deliveries(site.log)
        mta.wait_for("the warm-up's deliveries", lambda: deliveries.count() >= warm_up)
        master = int((site.queue / "pid" / "master.pid").read_text())
        cpu, begin = cpu_seconds(master), time.monotonic()
        accepted_per_s = inject(site.port, count, options.octets, options.sessions, load)
        mta.wait_for("the deliveries", lambda: deliveries.count() >= warm_up + count, DRAIN_MAX_S)
        relayed = time.monotonic() - begin
        cpu = cpu_seconds(master) - cpu
        mta.wait_for("an empty queue", lambda: deliveries.count() and deliveries.removed >= warm_up + count)
    correct = deliveries.sent == warm_up + count and deliveries.failed + deliveries.deferred == 0
    return Measure(accepted_per_s, count / relayed, cpu / count * 1000, correct)


def main() -> None:
    """Run all, print a table and, with --json, write the figures."""
    parser = harness.load_parser(__doc__)
    parser.add_argument("--loads", default="new,reused")
    options, flags = harness.parse_load(parser)
    columns = ["load  ", "program   ", "accepted/s", "relayed/s", "CPU ms a message", "direct/s", "correct"]
    result = Result("Messages relayed a second", f"{flags}, medians", columns)
    result.begin()
    loads = {"new": (), "reused": ("-d",)}
    for name in options.loads.split(","):
        rate = statistics.median(direct(options, loads[name]) for _ in range(options.runs))
        runs: dict[str, list[Measure]] = {program: [] for program in harness.programs(options)}
        for _ in range(options.runs):
            for program, measures in runs.items():
                measures.append(relay(program, loads[name], options))
        report(name, rate, runs, result)
    result.tell(options)


def report(name: str, rate: float, runs: Mapping[str, Sequence[Measure]], result: Result) -> None:
    """Add the medians of one kind of load, and the ratios."""
    medians: dict[str, list[float]] = {}
    for program, measures in runs.items():
        each = ((m.accepted_per_s, m.relayed_per_s, m.cpu_ms) for m in measures)
        medians[program] = [statistics.median(figures) for figures in zip(*each, strict=True)]
        correct = all(m.correct for m in measures)
        result.correct &= correct
        result.row(name, program, *medians[program], rate, correct)
    if len(medians) == len(PROGRAMS):
        old, new = (medians[program] for program in PROGRAMS)
        result.row(name, "ratio", *(b / a for a, b in zip(old, new, strict=True)), "", "")


if __name__ == "__main__":
    main()
