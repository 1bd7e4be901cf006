"""Files in maildrop/: which of them are messages, opened so that nobody is fooled.

Whoever may submit mail may write to the directory, so every name in it is hostile until shown otherwise. A file counts
when it is regular, has one name, and its mode says that its writer was done (owner rwx, as Postfix's postdrop leaves
it). Nothing is opened through a symbolic link, and opening never waits for a peer.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Final

DIRECTORY: Final = "maildrop"
CORRUPT: Final = "corrupt"
READY: Final = 0o700
"""The owner's bits of a complete file; while it is being written they are others."""
READ_OCTETS: Final = 64 * 1024
NAME_TRIES_MAX: Final = 100
REPORTED_MAX: Final = 10_000
"""Of so many names that are no messages the log tells, once of each; further ones are passed over in silence."""


def shown(name: str) -> str:
    """Return a file's name fit for the log, whatever octets it has."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


class NotAMessage(Exception):
    """What stands in maildrop/ under this name is no message; the text says why. `inode`: 0 when it isn't known."""

    def __init__(self, text: str, inode: int = 0) -> None:
        super().__init__(text)
        self.inode = inode


@dataclass(frozen=True)
class Submitted:
    """A complete file: its descriptor (the holder closes it), who wrote it, when, and how long it is."""

    name: str
    descriptor: int
    uid: int
    written: float
    size_octets: int
    inode: int

    def chunks(self) -> Iterator[bytes]:
        """Yield the file from its start, `size_octets` of it and no more."""
        at = 0
        while at < self.size_octets:
            chunk = os.pread(self.descriptor, min(READ_OCTETS, self.size_octets - at), at)
            if not chunk:
                return
            at += len(chunk)
            yield chunk


class Maildrop:
    """The directory. `size_max_octets`: a longer file is no message; None: no limit."""

    def __init__(self, size_max_octets: int | None, directory: str = DIRECTORY, corrupt: str = CORRUPT) -> None:
        self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._corrupt = corrupt
        self._size_max_octets = size_max_octets
        self._reported: set[tuple[str, int]] = set()

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._directory)

    def entries(self) -> Generator[os.DirEntry[str]]:
        """Yield what is in the directory, in no order, reading it bit by bit."""
        with os.scandir(self._directory) as entries:
            yield from entries

    def open(self, name: str) -> Submitted | None:
        """Return the file, or None when it is gone or not complete yet. Raises `NotAMessage`."""
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
            # Once more: another file may stand under the name since.
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
            raise NotAMessage(f"{found.st_size} octets are too many (uid {found.st_uid})", found.st_ino)

    @property
    def reported(self) -> int:
        """How many names were logged."""
        return len(self._reported)

    def is_reported(self, name: str, inode: int) -> bool:
        """Say whether this name was logged for what stands there now, or would not be logged any more."""
        return (name, inode) in self._reported or len(self._reported) >= REPORTED_MAX

    def first_report(self, name: str, inode: int) -> bool:
        """Say whether this name is to be logged: true once for what stands there now."""
        if self.is_reported(name, inode):
            return False
        self._reported.add((name, inode))
        return True

    def remove(self, file: Submitted) -> None:
        """Take the name away; raises `OSError` when it cannot be."""
        try:
            os.unlink(file.name, dir_fd=self._directory)
        except FileNotFoundError:
            pass

    def set_aside(self, file: Submitted) -> None:
        """Move the file to corrupt/, for a person to look at; raises `OSError` when it cannot be.

        It gets another name there when its own is taken: whoever chose it must not replace what is kept.
        """
        names = [file.name, *(f"{file.inode:X}.{number}" for number in range(NAME_TRIES_MAX))]
        for name in names:
            path = os.path.join(self._corrupt, name)
            # Nobody else writes there under names of our choice: looking first is enough.
            if not os.path.lexists(path):
                return os.rename(file.name, path, src_dir_fd=self._directory)
        raise FileExistsError(errno.EEXIST, "no free name", self._corrupt)
