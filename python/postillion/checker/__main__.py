"""`python -m postillion.checker -c DIR`: check a whole configuration as a start or reload would use it.

Standard output gets `warning TEXT` for each doubtful setting, `note TEXT` for each other fact, and then `ok`, with exit
status 0; or one line `error JSON` with the parts of a `ConfigError`, with exit status 1.
"""

import os
import sys

from postillion.checker import lines
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
        lines.error(error)
        return 1
    for warning in check.warnings:
        lines.say(f"warning {warning}")
    for note in check.notes:
        lines.say(f"note {note}")
    lines.say("ok")
    return 0


if __name__ == "__main__":
    # A start waits for this process, and everything is written: skip the interpreter's shutdown.
    os._exit(main())
