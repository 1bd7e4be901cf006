"""One master per queue: the locks on pid/master.pid and $data_directory/master.lock, the same as Postfix's."""

import errno
import fcntl
import os
import time

from postillion.config import Config
from postillion.master.directories import blame

PID_FILE = "pid/master.pid"
DATA_LOCK = "master.lock"
TRIES = 3
TRY_PAUSE_S = 0.03


class Lock:
    """The two locks of a running master; the kernel releases them when the process ends."""

    def __init__(self, config: Config, queue: str, data: str) -> None:
        """Take both locks and write the pid; raises `ConfigError` when another mail system holds one."""
        self._files: list[int] = []
        try:
            pid_file = self._take(config, "queue_directory", os.path.join(queue, PID_FILE))
            self._take(config, "data_directory", os.path.join(data, DATA_LOCK))
            self.follows_crash = bool(os.pread(pid_file, 64, 0).strip())
            os.ftruncate(pid_file, 0)
            os.pwrite(pid_file, f"{os.getpid():>12}\n".encode(), 0)
        except OSError as error:
            self.release()
            fix = "free some space there" if error.errno == errno.ENOSPC else "start as its owner"
            raise blame(config, "queue_directory", f"{PID_FILE}: {error.strerror}", fix) from None

    def _take(self, config: Config, name: str, path: str) -> int:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            self.release()
            fix = "start as its owner, or name another directory"
            raise blame(config, name, f"{path}: {error.strerror}", fix) from None
        self._files.append(fd)
        for _ in range(TRIES):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return fd
            except BlockingIOError:
                # `postillion status` may hold the lock for a moment.
                time.sleep(TRY_PAUSE_S)
        pid = _pid(os.pread(fd, 64, 0))
        self.release()
        other = "another mail system" if pid is None else f"another mail system (PID {pid})"
        raise blame(config, name, f"{other} runs on it", "stop that one, or name another directory")

    def release(self, *, clean: bool = False) -> None:
        """Release the locks. `clean`: every process has ended, so the next start waits for none."""
        if clean and self._files:
            os.ftruncate(self._files[0], 0)
        for fd in self._files:
            os.close(fd)
        self._files.clear()


def running(config: Config) -> int | None:
    """Return the pid of the running master of the configured queue directory; None when no master runs.

    Raises `OSError` when the lock file cannot be read.
    """
    path = os.path.join(config.text("queue_directory"), PID_FILE)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid(os.pread(fd, 64, 0)) or 0
    finally:
        os.close(fd)
    return None


def _pid(text: bytes) -> int | None:
    text = text.strip()
    return int(text) if text.isdigit() else None
