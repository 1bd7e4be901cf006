"""postillion bench: load an SMTP server and say what it takes, passes on, and how fast it answers.

    postillion bench HOST:PORT [--sink ADDRESS:PORT] [--sessions N] [--messages N | --duration S] ...

Exit status 0 when everything promised was delivered once, 1 when not, 2 when nothing could be measured.
"""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from postillion.bench import report
from postillion.bench.options import BadOption, Options, parse
from postillion.bench.run import Point, Result, run


def main(argv: list[str]) -> int:
    """Run the command; return the exit status."""
    try:
        options = parse(argv)
        result = _run(options)
        report.table(result, Console(soft_wrap=True))
        if options.json is not None:
            report.write_json(result, options.json)
        if options.plot is not None:
            report.plot(result, options.plot)
    except ImportError:
        return _failed("--plot needs matplotlib: pip install matplotlib")
    except (BadOption, ValueError) as problem:
        return _failed(str(problem))
    except OSError as problem:
        return _failed(f"{problem.filename}: {problem.strerror}" if problem.filename else str(problem))
    return 0 if result.correct else 1


def _run(options: Options) -> Result:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.0f}/s"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, disable=options.quiet, console=Console(stderr=True), transient=True) as progress:
        accepted = progress.add_task("accepted", total=options.messages, rate=0.0)
        delivered = progress.add_task("delivered", total=options.messages, rate=0.0, visible=options.sink is not None)

        def show(point: Point) -> None:
            elapsed = max(point.at_s, 1e-9)
            progress.update(accepted, completed=point.accepted, rate=point.accepted / elapsed)
            progress.update(delivered, completed=point.delivered, rate=point.delivered / elapsed)

        return run(options, show)


def _failed(text: str) -> int:
    print(f"postillion bench: fatal: {text}", file=sys.stderr)
    return 2
