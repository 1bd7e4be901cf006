"""Writing a message into maildrop/, whether or not a mail system runs (postdrop(1)).

The file grows under a name and a mode that pickup passes over; it gets its final name and mode when it is whole and
on disk. Whoever is interrupted leaves nothing.
"""

from __future__ import annotations

import os
import socket
import time
from typing import Final

from postillion.pickup.maildrop import DIRECTORY

TRIGGER: Final = "public/pickup"
TRIGGER_WAIT_S: Final = 5.0
NAME_TRIES_MAX: Final = 100
WRITING: Final = 0o600
COMPLETE: Final = 0o744
"""Owner rwx: complete. The others read, because mail_owner is one of them."""


class TooBig(Exception):
    """The message is longer than `message_size_limit`."""


class MaildropFile:
    """A file that is being written, in the queue directory that the process is in. Close it, whatever happens.

    `size_max_octets`: of the file; 0: no limit. Every method raises `OSError` when the disk does not do its part.
    """

    def __init__(self, size_max_octets: int = 0, directory: str = DIRECTORY) -> None:
        self._directory = directory
        self._size_max_octets = size_max_octets
        self._octets = 0
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
        """Append. Raises `TooBig`."""
        self._octets += len(data)
        if self._size_max_octets and self._octets > self._size_max_octets:
            raise TooBig
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def complete(self) -> str:
        """Make the file a message, durably; return its name."""
        os.fsync(self._descriptor)
        found = os.fstat(self._descriptor)
        microseconds = time.time_ns() // 1000
        # Postfix's name: microseconds, then what no other file has at the same time.
        name = f"{microseconds % 1_000_000:05X}{found.st_ino:X}"
        path = os.path.join(self._directory, name)
        os.rename(self._path, path)
        self._path = path
        os.fchmod(self._descriptor, COMPLETE)
        # The second sync: name and mode. Who may not read the directory cannot sync it, but a file's own sync
        # brings the directory entry along on the file systems that journal.
        os.fsync(self._descriptor)
        try:
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except PermissionError:
            pass
        else:
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        self._path = ""
        return name

    def close(self) -> None:
        """Let go of the file; an incomplete one is removed."""
        os.close(self._descriptor)
        if self._path:
            try:
                os.unlink(self._path)
            except OSError:
                pass


def trigger(path: str = TRIGGER, request: bytes = b"W") -> bool:
    """Tell pickup to look into maildrop/. Returns False when nobody listens: it will look when it is started.

    `path`: another service's socket or fifo, which takes another request.
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
