"""`python -m postillion.checker -c DIR`: check a whole configuration as a start or reload would use it.

Standard output gets a line `warning TEXT` for each doubtful setting and then `ok`, with exit status 0; or one line
`error JSON` with the parts of a `ConfigError`, with exit status 1.
"""

import json
import os
import sys

from postillion.checker.check import Check
from postillion.config import ConfigError
from postillion.config.settings import DEFAULT_DIRECTORY


def main(argv: list[str] | None = None) -> int:
    """Check the configuration directory; return the exit status."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["-c"] and len(words) == 2:
        directory = words[1]
    elif not words:
        directory = os.environ.get("MAIL_CONFIG") or DEFAULT_DIRECTORY
    else:
        print("usage: python -m postillion.checker [-c config_directory]", file=sys.stderr)
        return 1
    check = Check(os.path.abspath(directory))
    try:
        check.run()
    except ConfigError as error:
        _say(f"error {json.dumps([error.path, error.line, error.problem, error.fix])}")
        return 1
    for warning in check.warnings:
        _say(f"warning {warning}")
    _say("ok")
    return 0


def _say(text: str) -> None:
    """Write one line; octets of main.cf that are no UTF-8 go out as they are."""
    sys.stdout.buffer.write(" ".join(text.split("\n")).encode("utf-8", "surrogateescape") + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    # A start waits for this process, and everything is written: skip the interpreter's shutdown.
    os._exit(main())
