"""Delivery to a Maildir: a message is written to tmp/ and synced, then linked into new/, and new/ is synced.

A message in new/ is always complete. Concurrent deliveries share the sync of a directory (`Syncs`). File names are
Postfix's: `SECONDS.P<pid>Q<n>.HOST` in tmp/, `SECONDS.V<dev>I<inode>M<usec>.HOST` in new/.
"""

import asyncio
import errno
import os
import socket
import stat
import tempfile
import time
from contextlib import suppress

from postillion.delivery.account import Account, acting_as
from postillion.delivery.verdict import Verdict, bounced, deferred, from_errno, sent
from postillion.program.sync import sync_directory

TMP_NAME_ATTEMPTS = 10
MODE_DIRECTORY = 0o700
MODE_FILE = 0o600


class Syncs:
    """Syncs of directories: one for all callers in the same iteration of the event loop."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[int, int], tuple[int, asyncio.Future[None]]] = {}

    async def sync(self, directory: int) -> None:
        """Wait until the open directory's entries are on disk, and close its descriptor. Raises `OSError`."""
        status = os.fstat(directory)
        key = (status.st_dev, status.st_ino)
        loop = asyncio.get_running_loop()
        if key in self._waiting:
            os.close(directory)
        else:
            if not self._waiting:
                loop.call_soon(self._sync_all)
            self._waiting[key] = (directory, loop.create_future())
        await asyncio.shield(self._waiting[key][1])

    def _sync_all(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for directory, done in waiting.values():
            try:
                os.fsync(directory)
            except OSError as error:
                done.set_exception(error)
            else:
                done.set_result(None)
            finally:
                os.close(directory)


class Maildirs:
    """The deliveries of one process to Maildirs."""

    def __init__(self, host: str | None = None) -> None:
        self._host = (host or socket.gethostname()).replace("/", "\\057").replace(":", "\\072")
        self._count = 0
        self._syncs = Syncs()

    async def deliver(self, path: str, head: bytes, text: bytes, account: Account) -> Verdict:
        """Deliver to the Maildir `path` of the account's user, and return the verdict.

        Missing directories are created. After a failure, new/ contains the complete message or no part of it.
        """
        path = path.rstrip("/") + "/"
        try:
            with acting_as(account):
                name, directory = self._write(path, head, text)
            try:
                await self._syncs.sync(directory)
            except OSError:
                # The name may not be on disk. Remove it, so that the next attempt makes no second copy.
                with acting_as(account), suppress(OSError):
                    os.unlink(name)
                raise
        except OSError as error:
            return from_errno(error, f"maildir delivery failed: {_complaint(error, path)}")
        return sent("delivered to maildir")

    def _write(self, path: str, head: bytes, text: bytes) -> tuple[str, int]:
        """Write the message; return its name in new/ and the open directory, which is not synced yet."""
        now = time.time_ns()
        seconds, usec = now // 1_000_000_000, now // 1000 % 1_000_000
        file, tmp = self._create(path, seconds)
        try:
            try:
                write_all(file, head, text)
                os.fsync(file)
                status = os.fstat(file)
            finally:
                os.close(file)
            name = f"{path}new/{seconds}.V{status.st_dev:x}I{status.st_ino:x}M{usec}.{self._host}"
            try:
                os.link(tmp, name, follow_symlinks=False)
            except FileNotFoundError:
                make_directories(path + "cur")
                make_directories(path + "new")
                os.link(tmp, name, follow_symlinks=False)
        finally:
            with suppress(OSError):
                os.unlink(tmp)
        return name, os.open(path + "new", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _create(self, path: str, seconds: int) -> tuple[int, str]:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        for attempt in range(TMP_NAME_ATTEMPTS):
            self._count += 1
            tmp = f"{path}tmp/{seconds}.P{os.getpid()}Q{self._count}.{self._host}"
            try:
                return os.open(tmp, flags, MODE_FILE), tmp
            except FileNotFoundError:
                if attempt:
                    raise
                make_directories(path + "tmp")
            except FileExistsError:
                continue
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), tmp)


def prepare_in_spool(path: str, account: Account, opener: Account, opener_gid: int) -> Verdict | None:
    """Create the user's Maildir in the mail spool directory, with the rights of `opener`; None when it is usable.

    Otherwise return the verdict: other users may write to a spool directory, so the Maildir must be a directory of the
    user, and not a symbolic link.
    """
    path = path.rstrip("/")
    try:
        with acting_as(opener, opener_gid):
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                _make_for(path, None if opener.uid == account.uid else account)
                status = os.lstat(path)
    except OSError as error:
        return from_errno(error, f"maildir delivery failed: {_complaint(error, path)}")
    if not stat.S_ISDIR(status.st_mode):
        return bounced("5.2.0", f"maildir delivery failed: {path} is not a directory")
    if status.st_uid != account.uid:
        return deferred("4.2.0", f"maildir delivery failed: {path} is not owned by recipient")
    return None


def _make_for(path: str, account: Account | None) -> None:
    """Create a directory of the account's user, unless another process was faster. Raises `OSError`.

    The directory gets its owner before its name: another process must not see it with the wrong owner, and chown(2)
    must not change a file that the user placed under the name.
    """
    holder = os.path.dirname(path) or "."
    make_directories(holder)
    new = tempfile.mkdtemp(prefix=f".{os.path.basename(path)}.", dir=holder)
    try:
        if account is not None:
            os.chown(new, account.uid, account.gid, follow_symlinks=False)
        os.rename(new, path)
    except OSError as error:
        with suppress(OSError):
            os.rmdir(new)
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
    else:
        sync_directory(holder)


def write_all(file: int, *parts: bytes) -> None:
    """Write every octet of the parts. Raises `OSError`."""
    if sum(map(len, parts)) == (written := os.writev(file, parts)):
        return
    rest = memoryview(b"".join(parts))[written:]
    while rest:
        rest = rest[os.write(file, rest) :]


def make_directories(path: str) -> None:
    """Create a directory and its missing parents, and sync the directories that contain the new names."""
    missing = [path]
    while (parent := os.path.dirname(missing[-1])) and not os.path.isdir(parent):
        missing.append(parent)
    for directory in reversed(missing):
        try:
            os.mkdir(directory, MODE_DIRECTORY)
        except FileExistsError:
            continue
        sync_directory(os.path.dirname(directory) or ".")


def _complaint(error: OSError, path: str) -> str:
    return f"create maildir file {error.filename or path}: {error.strerror}"
