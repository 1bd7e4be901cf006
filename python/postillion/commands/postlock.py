"""postlock(1): lock a mailbox file as local(8) does, and run a command meanwhile.

    postlock [-c config_directory] [-l lock_style,...] [-v] file command [argument]...

`-l` stands for mailbox_delivery_lock: flock, fcntl, dotlock. A file that does not exist is created. Locking is tried
deliver_lock_attempts times, deliver_lock_delay apart; a `file.lock` older than stale_lock_time is removed.

Exit status: that of the command, 1 when a signal ended it or it cannot be run, 75 when the file cannot be locked.
"""

import os
import subprocess
import sys
import time

from postillion.commands import getopt
from postillion.config import Config, ConfigError
from postillion.delivery.mailbox import lock

USAGE = "usage: postlock [-c config_dir] [-l lock_style] [-v] folder command..."
MODE = 0o600


class Failure(Exception):
    """The one line that says why the file is not locked."""


def main(argv: list[str] | None = None) -> int:
    """Lock, run the command, unlock; return the exit status."""
    try:
        given, words = getopt.getopt(sys.argv[1:] if argv is None else argv, "c:l:v")
        if len(words) < 2:
            raise Failure(USAGE)
        options = dict(given)
        config = Config.load(options.get("-c"))
        return run(config, options.get("-l"), words[0], words[1:])
    except getopt.GetoptError as error:
        problem = f"{error.msg}; {USAGE}"
    except (Failure, ConfigError) as error:
        problem = str(error)
    print(f"postlock: fatal: {problem}", file=sys.stderr)
    return os.EX_TEMPFAIL


def run(config: Config, styles: str | None, path: str, command: list[str]) -> int:
    """Run a command while `path` is locked. Raises `Failure` when it cannot be."""
    named = styles if styles is not None else config.text("mailbox_delivery_lock")
    wanted = tuple(named.replace(",", " ").split())
    for style in wanted:
        if style not in lock.STYLES:
            raise Failure(f'unknown mailbox_delivery_lock value "{style}" in "{named}"')
    attempts, delay_s = config.number("deliver_lock_attempts"), config.seconds("deliver_lock_delay")
    stale_s = config.seconds("stale_lock_time")
    problem = "no attempt to lock it was allowed"
    for attempt in range(attempts):
        if attempt:
            time.sleep(delay_s)
        try:
            with lock.dotlock(path, wanted, stale_s):
                file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
                try:
                    lock.lock(file, wanted)
                    return _run(command)
                finally:
                    os.close(file)
        except lock.Busy as busy:
            problem = str(busy)
        except OSError as error:
            what = "cannot open file" if error.filename == path else f"unable to create lock file {error.filename}"
            raise Failure(f"open file {path}: {what}: {error.strerror}") from None
    raise Failure(f"open file {path}: {problem}")


def _run(command: list[str]) -> int:
    try:
        status = subprocess.run(command, check=False).returncode
    except OSError as error:
        print(f"postlock: fatal: execvp {command[0]}: {error.strerror}", file=sys.stderr)
        return 1
    return status if status >= 0 else 1


if __name__ == "__main__":
    sys.exit(main())
