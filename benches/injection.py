"""How many messages a second are accepted while the next hop is down, compared with Postfix in the same run?

    smtp-source -> MTA -> a port without a listener

Every message is accepted and deferred after one attempt (connection refused, or the destination is known to be dead).
`correct`: at the end the queue holds every message, and each was deferred once.

Needs root and Debian's postfix package.
"""

import argparse
import statistics
import time

import harness
from harness import Deliveries, Result, inject
from support import mta


def accept(program: str, options: argparse.Namespace, result: Result) -> tuple[float, float]:
    """Return the rates of one run: messages accepted a second, and messages deferred a second."""
    with harness.site(options, harness.DOWN) as site, mta.running(site, program):
        inject(site.port, options.warm_up, options.octets, options.sessions)
        deliveries = Deliveries(site.log)
        mta.wait_for("the warm-up", lambda: deliveries.count_deferred() >= options.warm_up)
        begin = time.monotonic()
        accepted_per_s = inject(site.port, options.messages, options.octets, options.sessions)
        expected = options.warm_up + options.messages
        mta.wait_for("the deferrals", lambda: deliveries.count_deferred() >= expected, harness.DRAIN_MAX_S)
        deferred_per_s = options.messages / (time.monotonic() - begin)
        correct = harness.queued(site, program) == expected and deliveries.sent == 0
    result.correct &= correct
    result.row(program, accepted_per_s, deferred_per_s, correct)
    return accepted_per_s, deferred_per_s


def main() -> None:
    """Run both programs in turn and report."""
    parser = harness.load_parser(__doc__)
    options, flags = harness.parse_load(parser)
    question = "Messages accepted a second while the next hop refuses connections"
    result = Result(question, flags, ["program   ", "accepted/s", "deferred/s", "correct"])
    result.begin()
    runs: dict[str, list[float]] = {program: [] for program in harness.programs(options)}
    for _ in range(options.runs):
        for program in runs:
            runs[program].append(accept(program, options, result)[0])
    medians = {program: statistics.median(rates) for program, rates in runs.items()}
    result.aim_ratio("accepted a second to Postfix's, medians", 6, medians)
    result.report(options)


if __name__ == "__main__":
    main()
