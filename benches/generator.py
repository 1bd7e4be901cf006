"""Does `postillion bench` load as hard as smtp-source, and take as much as smtp-sink?

Each of the two sources sends to each of the two sinks, with a new connection a message and with sessions that stay,
4 KiB messages, 20 sessions, nothing between source and sink. The rate is messages a second, the median of the runs.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import harness
import mta
from postillion._core import BenchSink

SLICE_S = 0.05
SINKS = ("smtp-sink", "postillion bench")


@contextlib.contextmanager
def bench_sink(port: int) -> Iterator[None]:
    """Run a sink of ours on `port` while the block lasts."""
    sink = BenchSink("127.0.0.1", port)
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            sink.run(SLICE_S)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        ended.set()
        worker.join()


def bench_source(port: int, messages: int, reuse: bool) -> float:
    """Return how many messages a second a source of ours sends."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        words = [f"127.0.0.1:{port}", "--quiet", "--messages", str(messages), "--json", report.name]
        words += ["--reuse", "0"] if reuse else []
        command = [sys.executable, "-m", "postillion.commands.postillion", "bench", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return float(json.loads(Path(report.name).read_text())["accepted_per_s"])


def main() -> None:
    """Measure all pairs, and tell."""
    parser = harness.parser(__doc__)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    messages, runs = (300, 1) if options.quick else (options.messages, options.runs)
    flags = f"{messages} messages of 4096 octets, 20 sessions, medians of {runs}"
    columns = ("sink            ", "connections", "smtp-source/s", "postillion bench/s")
    result = harness.Result((__doc__ or "").partition("\n")[0], flags, columns)
    result.begin()
    rates: dict[tuple[str, str, bool], float] = {}
    for name in SINKS:
        for reuse in (False, True):
            port = mta.free_port()
            with harness.sink(port) if name == "smtp-sink" else bench_sink(port):
                ours, theirs = [], []
                for _ in range(runs):
                    theirs.append(harness.inject(port, messages, load=("-d",) if reuse else ()))
                    ours.append(bench_source(port, messages, reuse))
            rates[name, "smtp-source", reuse] = statistics.median(theirs)
            rates[name, "postillion bench", reuse] = statistics.median(ours)
            kind = "kept" if reuse else "new"
            result.row(f"{name:16}", kind, rates[name, "smtp-source", reuse], rates[name, "postillion bench", reuse])
    for reuse in (False, True):
        kind = "kept" if reuse else "new"
        old = rates["smtp-sink", "smtp-source", reuse]
        ratio = rates["smtp-sink", "postillion bench", reuse] / old
        result.aim(f"our source over smtp-source, {kind} connections", "1", f"{ratio:.2f}", ratio >= 1)
        ratio = rates["postillion bench", "smtp-source", reuse] / old
        result.aim(f"our sink over smtp-sink, {kind} connections", "1", f"{ratio:.2f}", ratio >= 1)
    result.tell(options)


if __name__ == "__main__":
    main()
