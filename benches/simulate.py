"""How long does mail wait on a virtual clock, with a mailing list, with dead and slow destinations, and other settings?

    python benches/simulate.py [--quick] [--directory docs]

Runs rust/core/examples/simulate once for each scenario, one at a time, and writes the tables of docs/simulation.md and
the plots in docs/plots/. Needs matplotlib (`pip install --group plots`). `correct`: the simulation found no exceeded
limit and no lost recipient, and a second run of the first scenario has the same digest.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
from harness import ROOT

KINDS = ("healthy", "slow", "dead")


@dataclass(frozen=True)
class Scenario:
    """A run: its name in the tables, and its flags."""

    name: str
    flags: tuple[str, ...]


TIGHT = ("--capacity", "100", "--healthy")
SCENARIOS = (
    Scenario("with the list", ()),
    Scenario("without the list", ("--list", "0")),
    Scenario("healthy, 100 places", TIGHT),
    Scenario("healthy, 100 places, slot cost 2", (*TIGHT, "--slot-cost", "2")),
    Scenario("healthy, 100 places, slot cost 50", (*TIGHT, "--slot-cost", "50")),
    Scenario("healthy, 100 places, no overtaking", (*TIGHT, "--slot-cost", "0")),
    Scenario("slow destinations take 6 s", ("--slow-ms", "6000")),
)
SMALL = ("--messages", "10000", "--destinations", "1000", "--seconds", "600", "--list-at", "200")
"""Flags of --quick. The list is smaller as well."""


def run(scenario: Scenario, program: Path, quick: bool) -> dict[str, Any]:
    """Run the simulation of a scenario; return its result."""
    small = [*SMALL, *([] if "--list" in scenario.flags else ["--list", "2000"])] if quick else []
    print(f"{scenario.name} ...", flush=True)
    return harness.figures([program, *small, *scenario.flags])


def seconds(value: float) -> str:
    """Return a time in a readable unit."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s" if value < 100 else f"{value:,.0f} s"


def waits_table(results: dict[str, dict[str, Any]]) -> str:
    """Return the table of waits for the first attempt, by kind of destination."""
    lines = ["| scenario | single mails to | count | median | 90 % | 99 % | 99.9 % | longest |", "|---|" + "---|" * 7]
    for name, result in results.items():
        for kind in KINDS:
            waits = result[f"wait_{kind}"]
            if waits["n"]:
                cells = [seconds(waits[part]) for part in ("p50", "p90", "p99", "p999", "max")]
                lines.append(f"| {name} | {kind} | {waits['n']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def runs_table(results: dict[str, dict[str, Any]]) -> str:
    """Return the table of throughput and fairness of every run."""
    columns = ["scenario", "jobs", "served a second, while mail arrives", "the list's first attempt", "Jain's index"]
    columns += ["destinations in it", "index while the list runs", "most places of the slow one", "of the dead one"]
    columns.append("digest")
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for name, result in results.items():
        samples = result["samples"]
        hour = [sample for sample in samples if sample["at_s"] <= result["seconds"]]
        rate = hour[-1]["delivered"] / hour[-1]["at_s"]
        listed = seconds(result["list"]["first_pass_s"]) if "list" in result else ""
        fairness, during = result["fairness"], result["fairness_during_list"]
        shares = [max(sample["watched_in_flight"][at] for sample in samples) / result["capacity"] for at in (0, 1)]
        lines.append(
            f"| {name} | {result['jobs']:,} | {rate:,.0f} | {listed} | {fairness['jain']:.4f} | "
            f"{fairness['destinations']:,} | {during['jain']:.4f} | {shares[0]:.0%} | {shares[1]:.0%} | "
            f"`{result['digest']}` |"
        )
    return "\n".join(lines)


def plot(results: dict[str, dict[str, Any]], directory: Path) -> None:
    """Draw the plots."""
    import matplotlib

    matplotlib.use("svg")
    # A fixed salt makes the files reproducible.
    matplotlib.rcParams.update({"svg.hashsalt": "postillion", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3})
    import matplotlib.pyplot as plt

    directory.mkdir(parents=True, exist_ok=True)

    def save(figure: Any, name: str) -> None:
        figure.savefig(directory / name, metadata={"Date": None}, bbox_inches="tight")
        plt.close(figure)

    figure, axes = plt.subplots(figsize=(8, 3.6))
    for name, result in results.items():
        axes.plot([max(row[1], 1e-3) for row in result["minutes"]], label=name, linewidth=1)
    axes.set(yscale="log", xlabel="minute of arrival", ylabel="wait for the first attempt, s")
    axes.set_title("99th percentile of single mails to healthy destinations (1 ms: none waited)")
    axes.legend(fontsize=7)
    save(figure, "simulation-waits.svg")

    first = next(iter(results.values()))
    times = [sample["at_s"] / 60 for sample in first["samples"]]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    for at, kind in enumerate(KINDS):
        left.plot(times, [sample["in_flight"][at] for sample in first["samples"]], label=kind, linewidth=1)
        right.plot(times, [max(sample["open"][at], 0) for sample in first["samples"]], label=kind, linewidth=1)
    left.set(xlabel="minute", ylabel="jobs", title="Jobs under way, by kind of destination")
    right.set(xlabel="minute", ylabel="messages", title="Messages fresh or being tried", yscale="symlog")
    limit = 1.5 * first["seconds"] / 60
    for axes in (left, right):
        axes.set_xlim(0, limit)
        axes.legend(fontsize=7)
    figure.tight_layout()
    save(figure, "simulation-places.svg")

    figure, axes = plt.subplots(figsize=(8, 3.2))
    for name, result in results.items():
        samples = result["samples"]
        axes.plot([s["at_s"] / 60 for s in samples], [s["delivered"] / 1000 for s in samples], label=name, linewidth=1)
    axes.set(xlabel="minute", ylabel="thousand recipients", title="Recipients served", xlim=(0, 2 * limit))
    axes.legend(fontsize=7)
    save(figure, "simulation-served.svg")


def main(argv: Sequence[str] | None = None) -> None:
    """Run every scenario, print the tables, and write page and plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10,000 messages; writes nothing")
    parser.add_argument("--directory", type=Path, default=ROOT / "docs")
    options = parser.parse_args(argv)
    program = harness.built("simulate", options.quick)
    results = {scenario.name: run(scenario, program, options.quick) for scenario in SCENARIOS}
    again = run(SCENARIOS[0], program, options.quick)
    same = again["digest"] == results[SCENARIOS[0].name]["digest"]
    waits, runs = waits_table(results), runs_table(results)
    took = results[SCENARIOS[0].name]["took_s"]
    print(f"{harness.machine()}\n{harness.versions()}\n\n{waits}\n\n{runs}\n\nthe first took {took} s")
    if not options.quick:
        harness.put(options.directory / "simulation.md", {"waits": waits, "runs": runs})
        plot(results, options.directory / "plots")
    print(f"correct={same}")
    if not same:
        sys.exit("two runs with the same seed differ")


if __name__ == "__main__":
    main()
