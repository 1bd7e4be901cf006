"""How long does a sender wait for its 250 at half of Postfix's maximum load, with either program?

    postillion bench --rate -> MTA -> its own sink        4 KiB messages, 127.0.0.1

First the bench measures the rate that Postfix relays (benches/relay.py). Then it offers half of this rate to both
programs in turn, on a fixed schedule: a message starts at its due time, with or without replies to earlier ones, and
the wait for a free session counts. `250` is the time from the final dot to its reply: the cost of the promise. `whole`
is the time from the due time, with connection and all commands. Percentiles are exact to 3 %; the rows are medians of
the runs. `correct`: every acknowledged message arrived once, and no message was refused.

Needs root and Debian's postfix package.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import harness
import relay
from harness import PROGRAMS, Result
from support import mta

SESSIONS = 100
"""Maximum number of concurrent sessions: the limit of both programs (default_process_limit)."""
WARM_UP_S = 2.0
PERCENTILES = ("p50", "p99")


def offer(site: mta.Site, rate: float, seconds: float, reuse: bool) -> dict[str, Any]:
    """Offer messages on a fixed schedule; return the report of `postillion bench`."""
    report = site.directory / "bench.json"
    words = [f"127.0.0.1:{site.port}", "--sink", f"127.0.0.1:{site.next_port}", "--domain", "next.example", "--quiet"]
    words += ["--rate", f"{rate:.1f}", "--messages", str(max(round(rate * seconds), 20)), "--sessions", str(SESSIONS)]
    words += ["--reuse", "0" if reuse else "1", "--json", str(report)]
    command = [sys.executable, "-m", "postillion.commands.postillion", "bench", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=harness.DRAIN_MAX_S)
    return harness.read_figures(Path(report).read_text())


def waits(program: str, rate: float, reuse: bool, options: argparse.Namespace) -> tuple[list[float], bool]:
    """Return the percentiles of one run in ms, the final 250 first, and whether the run is correct."""
    with harness.site(options) as site, mta.running(site, program):
        offer(site, rate, min(WARM_UP_S, options.seconds), reuse)
        run = offer(site, rate, options.seconds, reuse)
    kinds = (run["source"]["replies"]["end of data"], run["source"]["message"])
    return [kind[name] * 1000 for kind in kinds for name in PERCENTILES], bool(run["correct"])


def main() -> None:
    """Find the rate, offer half of it, and report."""
    parser = harness.parser(__doc__, compares=True)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a run")
    parser.add_argument("--messages", type=int, default=3000, help="messages of the run that finds Postfix's rate")
    parser.add_argument("--warm-up", type=int, default=200)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rate", type=float, help="offer this number of messages a second instead")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.messages, options.warm_up, options.runs = 1.0, 100, 20, 1
    columns = [
        "load  ",
        "program   ",
        "offered/s",
        *(f"{kind} {name} ms" for kind in ("250", "whole") for name in PERCENTILES),
    ]
    flags = f"fixed schedule, at most {SESSIONS} sessions, {options.seconds:g} s a run, medians of {options.runs}"
    result = Result("Latency of a sender at half of Postfix's rate", flags, [*columns, "correct"])
    result.begin()
    for name in ("new", "reused"):
        load = relay.LOADS[name]
        rate = options.rate or relay.relay("postfix", load, options).relayed_per_s / 2
        runs: dict[str, list[list[float]]] = {program: [] for program in harness.programs(options)}
        right = dict.fromkeys(runs, True)
        for _ in range(options.runs):
            for program, measures in runs.items():
                figures, correct = waits(program, rate, name == "reused", options)
                measures.append(figures)
                right[program] &= correct
        medians = {program: [statistics.median(f) for f in zip(*runs[program], strict=True)] for program in runs}
        for program, figures in medians.items():
            result.row(name, program, rate, *figures, right[program])
        result.correct &= all(right.values())
        if len(medians) == len(PROGRAMS):
            ratios = [b / a for a, b in zip(*(medians[program] for program in PROGRAMS), strict=True)]
            result.row(name, "ratio", "", *ratios, "")
            for percentile, ratio in zip(PERCENTILES, ratios, strict=False):
                result.aim(f"{name}: {percentile} of the final 250 to Postfix's", "below 1", f"{ratio:.2f}", ratio < 1)
    result.report(options)


if __name__ == "__main__":
    main()
