"""How many decisions a second does the scheduler make while many messages wait, and how much memory does each need?

    rust/core/examples/decisions: the scheduler alone, with 5,000 messages in delivery for 10,007 destinations

A decision is one job from selection to result, with all work of the scheduler for it: admission, log lines and facts.
`us of the scheduler` is the scheduler's own part, for the same number of decisions in the same run: without making the
agent's result, and without freeing the job, its log lines and its facts. `correct`: every decision removed its message,
and the waiting messages still wait.
"""

import harness
from harness import Result

AIM_PER_S = 1_000_000
AIM_OCTETS = 200
AIM_GROWTH = 1.5
"""Maximum cost of a decision with a million messages, relative to the cost with ten thousand."""


def main() -> None:
    """Measure and report."""
    parser = harness.parser(__doc__)
    parser.add_argument("--decisions", type=int, default=1_000_000)
    options = parser.parse_args()
    sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    if options.quick:
        sizes, options.decisions = (1000, 10_000), 2000
    columns = ["waiting  ", "decisions/s", "us a decision", "us of the scheduler", "us an arrival"]
    columns += ["octets a message", "correct"]
    question = "Decisions of the scheduler a second, and memory of a message that waits"
    result = Result(question, f"{options.decisions} decisions, the best of three runs", columns)
    result.begin()
    program = harness.built("decisions", options.quick)
    costs = {}
    for waiting in sizes:
        runs = [harness.figures([program, str(waiting), str(options.decisions)]) for _ in range(3)]
        best = min(runs, key=lambda run: run["us_a_decision"])
        cost, octets = costs[waiting] = best["us_a_decision"], best["octets_a_message"]
        correct = all(run["correct"] for run in runs)
        result.correct &= correct
        alone = best["us_of_the_scheduler"]
        result.row(waiting, 1e6 / cost, cost, alone, best["us_an_arrival"], octets, correct)
    first, last = costs[sizes[0]], costs[sizes[-1]]
    rate, growth = 1e6 / last[0], last[0] / first[0]
    result.aim(f"decisions a second, {sizes[-1]:,} waiting", f"{AIM_PER_S:,}", f"{rate:,.0f}", rate >= AIM_PER_S)
    result.aim("octets of memory a message", f"{AIM_OCTETS}", f"{last[1]:.0f}", last[1] <= AIM_OCTETS)
    what = f"cost with {sizes[-1]:,} waiting to that with {sizes[0]:,}"
    result.aim(what, f"within {AIM_GROWTH}", f"{growth:.2f}", growth <= AIM_GROWTH)
    result.report(options)


if __name__ == "__main__":
    main()
