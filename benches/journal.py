"""How many messages a second does the journal make durable, and how many syncs does a message cost?

    rust/core/examples/fill: each writer waits for its message before it writes the next

`writers` share one process, as the sessions of one smtpd do. Each of the `processes` has its own segment. The rate
comes from one run; the syncs (fsync and fdatasync, including directories) from another one under strace. `correct`:
every message was committed.
"""

import argparse
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import harness
from harness import Result

AIM_SYNCS = 0.1
"""Maximum number of syncs a message with 64 writers: group commit shares them."""


def run(
    program: Path, processes: int, writers: int, options: argparse.Namespace, traced: bool
) -> tuple[float, float, float, bool]:
    """Return messages a second, median wait in ms, syncs a message if `traced`, and correctness."""
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=options.directory))
    trace = directory / "trace"
    each = max(options.messages * writers // 64, options.messages // 20)
    strace = ["strace", "-f", "--seccomp-bpf", "-e", "trace=fsync,fdatasync", "-o"]
    try:
        begin = time.monotonic()
        running = []
        for number in range(processes):
            line: list[str | Path] = [program, directory, str(each), str(options.octets), str(writers)]
            prefix = [*strace, f"{trace}.{number}"] if traced else []
            running.append(subprocess.Popen([*prefix, *line], stdout=subprocess.PIPE, text=True))
        figures = [harness.read_figures(process.communicate()[0]) for process in running]
        took_s = time.monotonic() - begin
        texts = [path.read_text() for path in directory.glob("trace.*")]
        syncs = sum(len(re.findall(r"\bf(?:data)?sync\(", text)) for text in texts)
    finally:
        shutil.rmtree(directory)
    correct = all(figure["correct"] for figure in figures) and all(process.returncode == 0 for process in running)
    median = statistics.median(figure["wait_p50_ms"] for figure in figures)
    return each * processes / took_s, median, syncs / (each * processes), correct


def main() -> None:
    """Measure and report."""
    parser = harness.parser(__doc__)
    parser.add_argument("--messages", type=int, default=50_000, help="of 64 writers; fewer writers have fewer")
    parser.add_argument("--octets", type=int, default=4096)
    options = parser.parse_args()
    if options.quick:
        options.messages = 200
    columns = ["processes", "writers", "messages/s", "median wait ms", "syncs a message", "correct"]
    question = "Messages made durable a second, and syncs a message"
    result = Result(question, f"up to {options.messages} messages of {options.octets} octets a process", columns)
    result.begin()
    program = harness.built("fill", options.quick)
    for processes, writers in ((1, 1), (1, 8), (1, 64), (8, 1), (8, 8)):
        rate, wait_ms, _, correct = run(program, processes, writers, options, traced=False)
        _, _, syncs, traced_correct = run(program, processes, writers, options, traced=True)
        result.correct &= correct and traced_correct
        result.row(processes, writers, rate, wait_ms, syncs, correct and traced_correct)
        if (processes, writers) == (1, 64):
            result.aim("syncs a message, 64 writers", f"under {AIM_SYNCS}", f"{syncs:.3f}", syncs < AIM_SYNCS)
    result.report(options)


if __name__ == "__main__":
    main()
