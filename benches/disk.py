"""How many octets on disk does a queued message need, compared with Postfix?

Messages with one body size arrive while the next hop is down, and each has one delivery attempt. Then the bench counts
the blocks of every file in the queue, as `du` does. `size` is the whole message with its header, as in the log;
`message` is its size on disk, `reasons` the size of the record of its attempt. `correct`: the queue holds every
message.

Needs root and Debian's postfix package.
"""

import argparse
import fcntl
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import harness
from harness import Deliveries, Result, inject
from support import mta

AIM_OCTETS = 4700
BLOCK_OCTETS = 512
"""The unit of `st_blocks`."""
MESSAGES = {"postfix": ("incoming", "active", "deferred", "hold"), "postillion": ("incoming", "deferred", "hold")}
"""Directories of the messages."""
REASONS = {"postfix": ("defer", "bounce"), "postillion": ("active",)}
"""Directories of the delivery records. Postillion's state log is in active/."""


def on_disk(queue: Path, names: Sequence[str]) -> int:
    """Return the octets of all blocks in some of the queue's directories, including the directories."""
    total = 0
    for name in names:
        for directory, _, files in os.walk(queue / name):
            paths = [directory, *(os.path.join(directory, file) for file in files)]
            total += sum(os.lstat(path).st_blocks for path in paths) * BLOCK_OCTETS
    return total


def sealed(queue: Path) -> bool:
    """Return whether no segment has a writer."""
    for path in (queue / "incoming").glob("?" * 16):
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
    return True


def measure(program: str, octets: int, options: argparse.Namespace, result: Result) -> float:
    """Return the octets on disk a message, without reasons."""
    with harness.site(options, harness.DOWN) as site, mta.running(site, program):
        inject(site.port, 20)
        deliveries = Deliveries(site.log)
        mta.wait_for("the first deferrals", lambda: deliveries.count_deferred() >= 20)
        parts = MESSAGES[program], REASONS[program]
        before = [on_disk(site.queue, names) for names in parts]
        inject(site.port, options.messages, octets)
        expected = options.messages + 20
        mta.wait_for("the deferrals", lambda: deliveries.count_deferred() >= expected, harness.DRAIN_MAX_S)
        if program == "postillion":
            # A segment in use has zeros ahead. A reload seals it, as happens after half a minute without one.
            subprocess.run([*site.command("postillion"), "reload"], check=True, capture_output=True)
            mta.wait_for("sealed segments", lambda: sealed(site.queue))
        grown = [on_disk(site.queue, names) - was for names, was in zip(parts, before, strict=True)]
        message, reasons = (octets / options.messages for octets in grown)
        size = int(re.findall(r" size=(\d+)", site.log_text())[-1])
        correct = harness.queued(site, program) == expected
    result.correct &= correct
    result.row(program, octets, size, message, reasons, (message + reasons) / size, correct)
    return float(message)


def main() -> None:
    """Measure both programs' queues and report."""
    parser = harness.parser(__doc__, compares=True)
    parser.add_argument("--messages", type=int, default=5000)
    options = parser.parse_args()
    if options.quick:
        options.messages = 200
    question = "Octets on disk a queued message, deferred once"
    result = Result(
        question,
        f"{options.messages} messages",
        ["program   ", "body", "size  ", "message", "reasons", "all / size", "correct"],
    )
    result.begin()
    for octets in (4096,) if options.quick else (1024, 4096, 65536):
        for program in harness.programs(options):
            each = measure(program, octets, options, result)
            if (program, octets) == ("postillion", 4096):
                measured = f"{each:.0f}"
                result.aim("octets on disk of a 4 KiB message", f"under {AIM_OCTETS}", measured, each < AIM_OCTETS)
    result.report(options)


if __name__ == "__main__":
    main()
