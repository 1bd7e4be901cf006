"""Rotating maillog_file: rename it, let every program open a new one, compress the old one (`postfix logrotate`)."""

import errno
import fcntl
import os
import signal
import subprocess
import time

from postillion.commands.console import Console
from postillion.commands.failure import Failure
from postillion.config import Config

NAMES = ("maillog_file", "maillog_file_compressor", "maillog_file_rotate_suffix")
WRITERS_MAX_S = 10.0
"""Longest time to wait for the programs to close the old file; a longer session still writes to it."""
CHECK_EVERY_S = 0.05
UNKNOWN_WAIT_S = 1.0
"""Time to wait on file systems without leases, as Postfix waits."""


def logrotate(directory: str, console: Console) -> None:
    """Rotate the log. Raises `Failure`; then the log is as before, or renamed and not compressed."""
    config = Config.load(directory)
    path, compressor, suffix = [config.text(name) for name in NAMES]
    for name, value in zip(NAMES, (path, compressor, suffix), strict=True):
        if not value:
            raise Failure(f"empty '{name}' parameter value - logfile rotation failed")
    if path.startswith("/dev/"):
        raise Failure(f"not rotating '{path}'")
    try:
        rotated = _rotate(directory, config, path, f"{path}.{time.strftime(suffix)}", console)
        if rotated is not None:
            subprocess.run([compressor, rotated], check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip() or f"exit status {error.returncode}"
        raise Failure(f"logfile '{path}' rotation failed: {compressor}: {said}") from None
    except OSError as error:
        raise Failure(f"logfile '{path}' rotation failed: {error.filename or path}: {error.strerror}") from None


def _rotate(directory: str, config: Config, path: str, rotated: str, console: Console) -> str | None:
    """Rename the log; return its new name once nobody writes to it, None when somebody still does."""
    from postillion.master import lock
    from postillion.master.checking import check

    pid = lock.running(config)
    if pid:
        # When master refuses a reload, every program would go on writing to the old file.
        check(directory)
    if os.path.lexists(rotated):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), rotated)
    os.rename(path, rotated)
    if not pid:
        return rotated
    os.kill(pid, signal.SIGHUP)
    if _is_let_go(rotated):
        return rotated
    console.warning(f"{rotated}: not compressed, because sessions that began before still write to it")
    return None


def _is_let_go(path: str) -> bool:
    """Wait until no process has the file open for writing; False when one still has after `WRITERS_MAX_S`.

    The kernel gives a read lease only on such a file (fcntl(2), F_SETLEASE).
    """
    # Sent to the holder of a lease when a process opens the file; it ends a process that does not expect it.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    until = time.monotonic() + WRITERS_MAX_S
    with open(path, "rb") as file:
        while True:
            try:
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
                return True
            except BlockingIOError:
                if time.monotonic() >= until:
                    return False
                time.sleep(CHECK_EVERY_S)
            except OSError:
                time.sleep(UNKNOWN_WAIT_S)
                return True
