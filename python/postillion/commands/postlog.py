"""postlog(1): write lines to the mail log, for shell scripts.

    postlog [-iv] [-c config_directory] [-p priority] [-t tag] [text...]

The words of `text` are one line; without them each line of standard input is one. On a terminal they go to standard
error as well.

    -p priority   info (the default), warn, error, fatal or panic
    -t tag        what stands before the process ID; `$syslog_name/postlog` by default

Exit status 0, or 1 with a line on standard error.
"""

from __future__ import annotations

import os
import sys

from postillion.commands import getopt
from postillion.config import Config, ConfigError
from postillion.master.log import SEVERITIES, MasterLog
from postillion.program.log import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

USAGE = "usage: postlog [-c config_dir] [-i] [-p priority] [-t tag] [-v] [text]"
PRIORITIES = {"warn": "warning"} | {name: name for name in SEVERITIES}


def main(argv: list[str] | None = None) -> int:
    """Log what the command line or standard input says; return the exit status."""
    try:
        given, words = getopt.getopt(sys.argv[1:] if argv is None else argv, "c:ip:t:v")
    except getopt.GetoptError as error:
        return _refuse(f"{error.msg}; {USAGE}")
    options = dict(given)
    severity = PRIORITIES.get(options.get("-p", "info"))
    if severity is None:
        return _refuse(f"invalid priority: {options['-p']}")
    try:
        target = Target.find(Config.load(options.get("-c")))
        tag = options.get("-t") or f"{target.syslog_name}/postlog"
        log = MasterLog(target)
    except ConfigError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"open logfile '{error.filename or target.destination}': {error.strerror}")
    lines: Iterable[str] = [" ".join(words)] if words else (line.rstrip("\n") for line in sys.stdin)
    shown = sys.stderr.isatty()
    for line in lines:
        log.write(severity, line, f"{tag}[{os.getpid()}]")
        if shown:
            print(f"{tag}: {SEVERITIES[severity][0]}{line}", file=sys.stderr)
    log.close()
    return 0


def _refuse(text: str) -> int:
    print(f"postlog: fatal: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
