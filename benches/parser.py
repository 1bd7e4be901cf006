"""How many octets a second does cleanup read, compared with Python's email package and a search for line ends?

    rust/core/examples/parser   cleanup: parse, repair and write headers, copy the body; and memchr over the same octets
    email, compat32, default    BytesParser with either policy, without and with writing by as_bytes

The messages are those of tests/support/corpus.py, as sent on the wire. Three parts: the whole corpus (mostly a few
large messages), messages below 10 kB (mostly headers), and header blocks only. Each figure is the best of several
passes, on one thread. `correct`: cleanup changes each message as the corpus expects, in any split. `failed` counts the
messages that the email package cannot write; their octets count all the same.
"""

import email.policy
import re
import tempfile
import time
from collections.abc import Callable
from email.parser import BytesParser
from pathlib import Path

import harness
from harness import Result

from support import corpus  # isort: skip  (harness extends sys.path)

SMALL_MAX_OCTETS = 10_000
Message = tuple[bytes, bytes]
"""The input of cleanup and the expected message, both as on the wire, without the end of data."""
LONE_LF = re.compile(rb"(?<!\r)\n")
"""`smtp::server::data` changes these to CRLF before cleanup."""


def whole() -> list[Message]:
    """Return the whole corpus."""
    found = []
    for message in corpus.MESSAGES.values():
        wire = LONE_LF.sub(b"\r\n", message.wire.removesuffix(b".\r\n"))
        found.append((wire, corpus.stuffed(message.arrives)))
    return found


def headers() -> list[Message]:
    """Return the header blocks of messages that arrive as sent."""
    found = []
    for message in corpus.MESSAGES.values():
        block, separator, _ = message.sent.partition(b"\r\n\r\n")
        if separator and message.sent == message.arrives and len(block) <= SMALL_MAX_OCTETS:
            found.append((corpus.stuffed(block + b"\r\n"),) * 2)
    return found


def rust(program: Path, messages: list[Message], passes: int) -> tuple[float, float, bool]:
    """Return the seconds a pass of cleanup and of memchr, and whether cleanup's messages are as expected."""
    with tempfile.TemporaryDirectory() as directory:
        for number, (wire, arrives) in enumerate(messages):
            (Path(directory) / f"{number:04}.wire").write_bytes(wire)
            (Path(directory) / f"{number:04}.arrives").write_bytes(arrives)
        figures = harness.figures([program, directory, str(passes)])
    correct = figures["correct"] and figures["messages"] == len(messages)
    return figures["cleanup_s"], figures["memchr_s"], correct


def best(passes: int, work: Callable[[bytes], object], messages: list[bytes]) -> tuple[float, int]:
    """Return the seconds of the best pass over all messages, and the number of failing messages."""
    seconds, failed = float("inf"), 0
    for _ in range(passes):
        failed = 0
        begin = time.perf_counter()
        for message in messages:
            try:
                work(message)
            # Each policy raises its own errors for malformed messages.
            except Exception:
                failed += 1
        seconds = min(seconds, time.perf_counter() - begin)
    return seconds, failed


def operations() -> dict[str, Callable[[bytes], object]]:
    """Return the operations of the email package, by name."""
    compat32, default = BytesParser(policy=email.policy.compat32), BytesParser(policy=email.policy.default)
    return {
        "email, compat32, read": compat32.parsebytes,
        "email, compat32, read and written": lambda message: compat32.parsebytes(message).as_bytes(),
        "email, default, read": default.parsebytes,
        "email, default, read and written": lambda message: default.parsebytes(message).as_bytes(),
    }


def main() -> None:
    """Measure and report."""
    parser = harness.parser(__doc__)
    parser.add_argument("--passes", type=int, default=200)
    options = parser.parse_args()
    if options.quick:
        options.passes = 1
    python_passes = max(1, options.passes // 40)
    parts = {
        "all": whole(),
        f"below {SMALL_MAX_OCTETS // 1000} kB": [pair for pair in whole() if len(pair[0]) < SMALL_MAX_OCTETS],
        "headers alone": headers(),
    }
    columns = [
        "part         ",
        "MB  ",
        "way                              ",
        "MB/s   ",
        "times cleanup's time",
        "failed",
        "correct",
    ]
    flags = f"{len(parts['all'])} messages, best of {options.passes} passes, of {python_passes} of the email package"
    result = Result("Headers and bodies read, in octets a second", flags, columns)
    result.begin()
    program = harness.built("parser", options.quick)
    for part, messages in parts.items():
        octets = sum(len(wire) for wire, _ in messages)
        cleanup_s, memchr_s, correct = rust(program, messages, options.passes)
        result.correct &= correct
        rows = [("cleanup", cleanup_s, 0), ("memchr for line ends", memchr_s, 0)]
        rows += [
            (way, *best(python_passes, work, [wire for wire, _ in messages])) for way, work in operations().items()
        ]
        for way, seconds, failed in rows:
            result.row(part, octets / 1e6, way, octets / seconds / 1e6, seconds / cleanup_s, failed, correct)
    result.report(options)


if __name__ == "__main__":
    main()
