"""The locks on a mailbox file, by mailbox_delivery_lock: what local(8) and postlock(1) hold while they write to one.

Nothing here waits: who finds a lock held gets `Busy` and tries again later, with nothing held meanwhile.
"""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

STYLES = ("flock", "fcntl", "dotlock")


class Busy(Exception):
    """Somebody else holds a lock on the file."""


def lock(file: int, styles: tuple[str, ...]) -> None:
    """Take the kernel's locks among `styles`; they end with the descriptor. Raises `Busy`, `OSError`."""
    try:
        if "flock" in styles:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if "fcntl" in styles:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise Busy("unable to lock for exclusive access") from error
        raise


@contextmanager
def dotlock(path: str, styles: tuple[str, ...], stale_s: float, *, optional: bool = False) -> Iterator[None]:
    """Hold `PATH.lock` if it is among `styles`. Raises `Busy`, `OSError`.

    `stale_s`: a lock of this age was left behind by a crash and is removed, for the next attempt. `optional`: a
    directory where none can be made is no obstacle.
    """
    name = path + ".lock"
    held = False
    if "dotlock" in styles and _may_be_locked(path):
        try:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0))
            held = True
        except FileExistsError as error:
            _remove_stale(name, stale_s)
            raise Busy(f"unable to create lock file {name}: File exists") from error
        except OSError:
            if not optional:
                raise
    try:
        yield
    finally:
        if held:
            with suppress(OSError):
                os.unlink(name)


def _may_be_locked(path: str) -> bool:
    """No lock file beside /dev/null, a directory, a FIFO: they will be refused anyway."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return True


def _remove_stale(name: str, stale_s: float) -> None:
    with suppress(OSError):
        if time.time() - os.lstat(name).st_mtime > stale_s:
            os.unlink(name)
