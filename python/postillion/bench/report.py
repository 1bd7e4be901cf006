"""The results of a run as a table, as JSON and as a plot."""

from __future__ import annotations

import itertools
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

import postillion
from postillion.bench.run import Result

if TYPE_CHECKING:
    from postillion._core.bench import _Times

PERCENTILES = ("p50", "p90", "p99", "p999", "longest")


def table(result: Result, console: Console) -> None:
    """Print the results."""
    options, source, sink = result.options, result.source, result.sink
    secure = "" if options.tls is None else f", TLS 1.3 with {options.tls} handshakes"
    kind = "a new connection each" if options.reuse == 1 else f"{options.reuse or 'all'} messages per connection"
    pace = "" if options.rate is None else f", {options.rate:g} messages per second by the clock"
    console.print(
        f"{options.address}:{options.port}, {options.sessions} sessions{pace}, "
        f"{', '.join(map(str, options.octets))} octets, "
        f"{options.recipients} recipients, {kind}{secure}; postillion {postillion.__version__}, {os.cpu_count()} CPUs, "
        f"{platform.platform()}"
    )
    rates = Table(show_header=True, header_style="bold")
    for name in ("", "messages", "messages/s", "recipients", "MB/s"):
        rates.add_column(name, justify="left" if not name else "right")
    megabytes = source["octets"] / max(result.load_s, 1e-9) / 1e6
    rates.add_row(
        "accepted",
        f"{source['messages']}",
        f"{result.accepted_per_s:.0f}",
        f"{source['recipients']}",
        f"{megabytes:.1f}",
    )
    if sink is not None and result.delivered_per_s is not None:
        rates.add_row("delivered", f"{sink['messages']}", f"{result.delivered_per_s:.0f}", f"{sink['recipients']}", "")
    console.print(rates)
    times = Table(show_header=True, header_style="bold")
    times.add_column("ms until")
    times.add_column("replies", justify="right")
    for name in PERCENTILES:
        times.add_column(name, justify="right")
    for stage, taken in source["replies"].items():
        if taken["count"]:
            times.add_row(stage, *_row(taken))
    if source["message"]["count"]:
        times.add_row("message", *_row(source["message"]))
    if sink is not None and sink["delivery"]["count"]:
        times.add_row("delivery", *_row(sink["delivery"]))
    console.print(times)
    for name, end in (("source", source), ("sink", sink)):
        if end is not None and end["handshakes"]:
            console.print(f"TLS of the {name}: {end['handshakes']} handshakes, {end['resumed']} resumed")
    if result.cpu_ms is not None:
        console.print(f"server's CPU: {result.cpu_ms:.3f} ms per message")
    if result.durability is not None:
        console.print(f"durability: {result.durability}")
    trouble = {
        name: source[name] for name in ("refused", "refusals", "unanswered", "broken", "mismatched") if source[name]
    }
    if trouble:
        console.print(", ".join(f"{name}: {count}" for name, count in trouble.items()))
    for complaint in source["complaints"]:
        console.print(f"  {complaint}", markup=False)
    console.print(f"correct: {result.correct}")


def _row(taken: _Times) -> list[str]:
    return [str(taken["count"]), *(f"{taken[name] * 1000:.2f}" for name in PERCENTILES)]  # type: ignore[literal-required]


def as_json(result: Result) -> dict[str, Any]:
    """Return all results for `json.dump`; times are in seconds."""
    return {**asdict(result), "correct": result.correct, "version": postillion.__version__, "cpus": os.cpu_count()}


def write_json(result: Result, path: str) -> None:
    """Write `as_json` to a file."""
    Path(path).write_text(json.dumps(as_json(result), indent=1) + "\n")


def plot(result: Result, path: str) -> None:
    """Plot the rates over time and the percentiles of each reply. Raises `ImportError` without matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (rates, times) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    points = result.points
    for name in ("accepted", "delivered") if result.sink is not None else ("accepted",):
        pairs = [(a, b) for a, b in itertools.pairwise(points) if b.at_s - a.at_s > 0.05]
        rates.plot(
            [b.at_s for _, b in pairs],
            [(getattr(b, name) - getattr(a, name)) / (b.at_s - a.at_s) for a, b in pairs],
            label=name,
        )
    rates.set(xlabel="seconds", ylabel="messages a second", ylim=(0, None))
    rates.legend()
    stages = {stage: taken for stage, taken in result.source["replies"].items() if taken["count"]}
    for name in ("p50", "p99"):
        times.plot(list(stages), [taken[name] * 1000 for taken in stages.values()], marker="o", label=name)  # type: ignore[literal-required]
    times.set(ylabel="ms until the reply", yscale="log")
    times.tick_params(axis="x", rotation=45)
    times.legend()
    figure.savefig(path)
    pyplot.close(figure)
