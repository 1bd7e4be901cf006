"""The lines that master reads from the checker."""

import json
import sys

from postillion.config import ConfigError


def say(text: str) -> None:
    """Write one line; octets of main.cf that are no UTF-8 go out as they are."""
    sys.stdout.buffer.write(" ".join(text.split("\n")).encode("utf-8", "surrogateescape") + b"\n")
    sys.stdout.buffer.flush()


def error(problem: ConfigError) -> None:
    """Write an error with its parts."""
    say(f"error {json.dumps([problem.path, problem.line, problem.problem, problem.fix])}")
