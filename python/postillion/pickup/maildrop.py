"""Files in maildrop/: the checks that a file is a message, and a safe way to open it.

Every user who may submit mail can write to the directory, so its contents are hostile input. A file is a message when
it is regular, has one link, and has the mode of a complete file (owner rwx, set by Postfix's postdrop). Symbolic links
are not followed, and opening a file never waits for a peer.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Final

from postillion.pickup.submit import DIRECTORY

CORRUPT: Final = "corrupt"
READY: Final = 0o700
"""The owner's mode bits of a complete file; an incomplete file has others."""
READ_OCTETS: Final = 64 * 1024
NAME_TRIES_MAX: Final = 100
REPORTED_MAX: Final = 10_000
"""Maximum number of names that are not messages and are logged, once each; further ones are ignored."""


def shown(name: str) -> str:
    """Return a file's name for the log; octets that are not UTF-8 are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


class NotAMessage(Exception):
    """A directory entry that is not a message; the text gives the reason. `inode`: 0 when it is unknown."""

    def __init__(self, text: str, inode: int = 0) -> None:
        super().__init__(text)
        self.inode = inode


@dataclass(frozen=True)
class Submitted:
    """A complete file: its descriptor, which the holder closes, its owner, its time and its size."""

    name: str
    descriptor: int
    uid: int
    written: float
    size_octets: int
    inode: int

    def chunks(self) -> Iterator[bytes]:
        """Yield the file from its start, `size_octets` at most."""
        at = 0
        while at < self.size_octets:
            chunk = os.pread(self.descriptor, min(READ_OCTETS, self.size_octets - at), at)
            if not chunk:
                return
            at += len(chunk)
            yield chunk


class Maildrop:
    """The directory. `size_max_octets`: maximum size of a message's file; None for no limit."""

    def __init__(self, size_max_octets: int | None, directory: str = DIRECTORY, corrupt: str = CORRUPT) -> None:
        self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._corrupt = corrupt
        self._size_max_octets = size_max_octets
        self._reported: set[tuple[str, int]] = set()

    def take(self, *, wait: bool = True) -> bool:
        """Keep other programs from taking messages here until `close`; return whether none does already."""
        try:
            fcntl.flock(self._directory, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Close the directory."""
        os.close(self._directory)

    def entries(self) -> Generator[os.DirEntry[str]]:
        """Yield the entries of the directory in arbitrary order, read in pieces."""
        with os.scandir(self._directory) as entries:
            yield from entries

    def open(self, name: str) -> Submitted | None:
        """Return the file; None when it is gone or incomplete. Raises `NotAMessage`."""
        try:
            before = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
            self._check(before)
            if stat.S_IMODE(before.st_mode) & 0o700 != READY:
                return None
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=self._directory)
        except FileNotFoundError:
            return None
        except OSError as problem:
            raise NotAMessage(f"cannot be opened: {problem.strerror}", before.st_ino) from None
        try:
            # Check again: the name may belong to another file now.
            found = os.fstat(descriptor)
            self._check(found)
            if (found.st_dev, found.st_ino) != (before.st_dev, before.st_ino):
                raise NotAMessage("was replaced while it was opened", before.st_ino)
        except NotAMessage:
            os.close(descriptor)
            raise
        return Submitted(name, descriptor, found.st_uid, found.st_mtime, found.st_size, found.st_ino)

    def _check(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise NotAMessage(f"not a regular file (uid {found.st_uid})", found.st_ino)
        if found.st_nlink != 1:
            raise NotAMessage(f"has {found.st_nlink} links (uid {found.st_uid})", found.st_ino)
        if self._size_max_octets is not None and found.st_size > self._size_max_octets:
            raise NotAMessage(f"{found.st_size} octets are above the limit (uid {found.st_uid})", found.st_ino)

    @property
    def reported(self) -> int:
        """The number of logged names."""
        return len(self._reported)

    def is_reported(self, name: str, inode: int) -> bool:
        """Return whether this name was logged for this inode, or the limit of logged names is reached."""
        return (name, inode) in self._reported or len(self._reported) >= REPORTED_MAX

    def first_report(self, name: str, inode: int) -> bool:
        """Return whether to log this name: once for each inode."""
        if self.is_reported(name, inode):
            return False
        self._reported.add((name, inode))
        return True

    def remove(self, file: Submitted) -> None:
        """Remove the file; raises `OSError`."""
        try:
            os.unlink(file.name, dir_fd=self._directory)
        except FileNotFoundError:
            pass

    def set_aside(self, file: Submitted) -> None:
        """Move the file to corrupt/ for the administrator; raises `OSError`.

        A file whose name is taken there gets another name, so that it cannot replace an earlier file.
        """
        names = [file.name, *(f"{file.inode:X}.{number}" for number in range(NAME_TRIES_MAX))]
        for name in names:
            path = os.path.join(self._corrupt, name)
            # No other process writes to corrupt/, so a check before the rename is enough.
            if not os.path.lexists(path):
                return os.rename(file.name, path, src_dir_fd=self._directory)
        raise FileExistsError(errno.EEXIST, "no free name", self._corrupt)
