"""Is `postillion bench` as fast as smtp-source and smtp-sink?

Each of the two sources sends directly to each of the two sinks, with new and with kept connections, 4 KiB messages, 20
sessions. The rate is messages a second, `us` the source's CPU microseconds a message. The rows are medians of the runs;
the sources alternate. The aims compare sources at our sink and sinks under our source: in the other pairs, the other
end is the bottleneck.
"""

from __future__ import annotations

import resource
import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import harness
from harness import bench_inject, bench_sink, inject
from support.ports import free_port

SINKS: dict[str, Callable[[int], AbstractContextManager[object]]] = {
    "smtp-sink": harness.sink,
    "postillion bench": bench_sink,
}


def cost(who: int, messages: int, send: Callable[[], float]) -> tuple[float, float]:
    """Return the rate of `send`, and its CPU microseconds a message, of the process or thread `who` (getrusage(2))."""
    before = resource.getrusage(who)
    rate = send()
    after = resource.getrusage(who)
    return rate, (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / messages * 1e6


def main() -> None:
    """Measure all pairs and report."""
    parser = harness.parser(__doc__)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    messages, runs = (300, 1) if options.quick else (options.messages, options.runs)
    flags = f"{messages} messages of 4096 octets, 20 sessions, medians of {runs}"
    columns = ("sink            ", "connections", "smtp-source/s", "us", "postillion bench/s", "us")
    result = harness.Result((__doc__ or "").partition("\n")[0], flags, columns)
    result.begin()
    medians: dict[tuple[str, bool], list[float]] = {}
    for name, sink in SINKS.items():
        for reuse in (False, True):
            port = free_port()
            measures: list[list[float]] = []
            with sink(port):
                theirs = partial(inject, port, messages, load=("-d",) if reuse else ())
                ours = partial(bench_inject, port, messages, reuse=reuse)
                for _ in range(runs):
                    child, thread = resource.RUSAGE_CHILDREN, resource.RUSAGE_THREAD
                    measures.append([*cost(child, messages, theirs), *cost(thread, messages, ours)])
            medians[name, reuse] = [statistics.median(figures) for figures in zip(*measures, strict=True)]
            result.row(f"{name:16}", "kept" if reuse else "new", *medians[name, reuse])
    for reuse in (False, True):
        kind = "kept" if reuse else "new"
        old_rate, old_us, rate, us = medians["postillion bench", reuse]
        result.aim(f"our source over smtp-source, {kind} connections", "1", f"{rate / old_rate:.2f}", rate >= old_rate)
        result.aim(f"CPU of our source to smtp-source's, {kind}", "at most 1", f"{us / old_us:.2f}", us <= old_us)
        sink_rate = medians["smtp-sink", reuse][2]
        result.aim(f"our sink over smtp-sink, {kind} connections", "1", f"{rate / sink_rate:.2f}", rate >= sink_rate)
    result.report(options)


if __name__ == "__main__":
    main()
