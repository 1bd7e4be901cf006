"""A message into maildrop/, with or without a running mail system (postdrop(1)).

pickup ignores the name and mode of an incomplete file; the file gets its final name and mode when it is complete and
on disk. An interrupted program leaves no file.
"""

from __future__ import annotations

import os
import socket
import time

from postillion.program.sync import sync_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

DIRECTORY: Final = "maildrop"
TRIGGER: Final = "public/pickup"
TRIGGER_WAIT_S: Final = 5.0
NAME_TRIES_MAX: Final = 100
WRITING: Final = 0o600
COMPLETE: Final = 0o744
"""Mode of a complete file: rwx for the owner, and read for others, because mail_owner is one of them."""


class TooBig(Exception):
    """The message is longer than `message_size_limit`."""


class MaildropFile:
    """An incomplete file in maildrop/, by default that of the current directory. The caller always closes it.

    `size_max_octets`: maximum size of the file; 0 for no limit. Every method raises `OSError`.
    """

    def __init__(self, size_max_octets: int = 0, directory: str = DIRECTORY) -> None:
        self._directory = directory
        self._size_max_octets = size_max_octets
        self._octets = 0
        self._is_kept = False
        self._path, self._descriptor = self._create()

    def _create(self) -> tuple[str, int]:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        for _ in range(NAME_TRIES_MAX):
            path = os.path.join(self._directory, f"{time.time_ns() // 1000 % 1_000_000}.{os.getpid()}")
            try:
                return path, os.open(path, flags, WRITING)
            except FileExistsError:
                continue
        raise FileExistsError(17, "no free name", self._directory)

    def write(self, data: bytes) -> None:
        """Append octets. Raises `TooBig`."""
        self._octets += len(data)
        if self._size_max_octets and self._octets > self._size_max_octets:
            raise TooBig
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def give_to(self, user: int) -> None:
        """Make a user the owner of the file. The group stays."""
        os.fchown(self._descriptor, user, -1)

    def complete(self) -> str:
        """Make the file a durable message; return its name. After an error, `close` removes it."""
        self.sync()
        name = self.publish()
        # The second sync writes name and mode. A user without read permission cannot sync the directory, but a
        # journaling file system writes the directory entry when the file is synced.
        self.sync()
        try:
            sync_directory(self._directory)
        except PermissionError:
            pass
        self.keep()
        return name

    def sync(self) -> None:
        """Write content, name and mode to disk."""
        os.fsync(self._descriptor)

    def publish(self, mode: int = COMPLETE) -> str:
        """Give the file its final name and mode; return the name. From now on pickup may take it."""
        found = os.fstat(self._descriptor)
        microseconds = time.time_ns() // 1000
        # Postfix's name: microseconds, then the inode, which is unique at that time.
        name = f"{microseconds % 1_000_000:05X}{found.st_ino:X}"
        path = os.path.join(self._directory, name)
        os.rename(self._path, path)
        self._path = path
        os.fchmod(self._descriptor, mode)
        return name

    def keep(self) -> None:
        """Let the file stay when it is closed."""
        self._is_kept = True

    def close(self) -> None:
        """Close the file, and remove it unless it is kept."""
        os.close(self._descriptor)
        if not self._is_kept:
            try:
                os.unlink(self._path)
            except OSError:
                pass


def trigger(path: str = TRIGGER, request: bytes = b"W") -> bool:
    """Trigger a scan of maildrop/. Return False when pickup does not run; it scans when it starts.

    `path` and `request`: those of another service (postkick(1)).
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as peer:
            peer.settimeout(TRIGGER_WAIT_S)
            peer.connect(path)
            peer.sendall(request)
            return True
    except OSError:
        pass
    try:
        fifo = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.write(fifo, request) == len(request)
    except OSError:
        return False
    finally:
        os.close(fifo)
