"""Tables in text files: texthash, and the sources of hash, btree, lmdb, cdb, dbm and sdbm.

Postfix's indexed types are read from the source of the index, so a forgotten postmap(1) has no effect. A changed file
is read again when it has been unchanged for `UNCHANGED_S`, so that a half-written file loses no mail; until then
lookups use the previous content.
"""

import io
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator

from postillion.tables.source import Entry, Problem, alias_entries, map_entries, mixed_entries
from postillion.tables.table import TableError, Warn

SOURCE_MAX_OCTETS = 512 * 1024 * 1024
UNCHANGED_S = 1.0
WARNINGS_MAX = 20

Parser = Callable[[Iterable[str]], Iterator[Entry | Problem]]
PARSERS: dict[str, Parser] = {"map": map_entries, "alias": alias_entries, "mixed": mixed_entries}
"""Parsers by form. `mixed`: a texthash in alias_maps, whose lines have either form."""

Stamp = tuple[int, int, int, int]


class TextTable:
    """A table in a text file. Lookups ignore case, as in Postfix; the first entry for a key wins."""

    def __init__(
        self, name: str, path: str, form: str, warn: Warn, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self.name = name
        self.path = path
        self.owner: int | None = None
        self._parse = PARSERS[form]
        self._alias = form != "map"
        self._warn = warn
        self._wall_clock = wall_clock
        self._stamp: Stamp | None = None
        self._entries: dict[str, str] = {}
        self._has_addresses = True

    @property
    def has_addresses(self) -> bool:
        """Whether any key is an address. Raises `TableError`."""
        self.refresh()
        return self._has_addresses

    def lookup(self, key: str) -> str | None:
        """Return the value for `key`; None when there is none. Raises `TableError` when the file can't be read."""
        self.refresh()
        if self._alias and key[:1] == '"':
            key = _unquoted(key)
        return self._entries.get(key.lower())

    def items(self) -> list[tuple[str, str]]:
        """Return every key and value, in the order of the file."""
        self.refresh()
        return list(self._entries.items())

    def values(self) -> list[str]:
        """Return every value, in the order of the file. Raises `TableError`."""
        self.refresh()
        return list(self._entries.values())

    def refresh(self) -> None:
        """Read a changed file. Raises `TableError` when it is unreadable."""
        try:
            status = os.stat(self.path)
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev)
            if stamp == self._stamp:
                return
            # A modification time in the future would delay the reading too long.
            if self._stamp is not None and 0 <= self._wall_clock() - status.st_mtime < UNCHANGED_S:
                return
            self._load()
        except OSError as error:
            self._stamp = None
            self._entries = {}
            raise TableError(f"table {self.name}: cannot read {self.path}: {error.strerror}") from error

    def _load(self) -> None:
        text, status = read_source(self.name, self.path)
        entries, problems = read_entries(io.StringIO(text), self._parse)
        for problem in problems[:WARNINGS_MAX]:
            self._warn(f"{self.path}, line {problem.number}: {problem.text}")
        if len(problems) > WARNINGS_MAX:
            self._warn(f"{self.path}: {len(problems) - WARNINGS_MAX} more lines like these")
        self._entries = {key: value for key, (_, value) in entries.items()}
        self._has_addresses = any("@" in key for key in self._entries)
        self.owner = status.st_uid
        self._stamp = (status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev)


def read_source(name: str, path: str) -> tuple[str, os.stat_result]:
    """Return the text and the status of a table's file. Raises `OSError`, and `TableError` for another kind of file."""
    with open(path, "rb", opener=_open_file) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise TableError(f"table {name}: {path} is not a regular file")
        if status.st_size > SOURCE_MAX_OCTETS:
            raise TableError(f"table {name}: {path} has more than {SOURCE_MAX_OCTETS} octets")
        return file.read(SOURCE_MAX_OCTETS).decode("utf-8", "surrogateescape"), status


def read_entries(
    text: Iterable[str], parse: Parser, *, fold: bool = True
) -> tuple[dict[str, tuple[int, str]], list[Problem]]:
    """Return key -> (line, value) of a source, and its problems; the first entry for a key wins."""
    entries: dict[str, tuple[int, str]] = {}
    problems: list[Problem] = []
    for item in parse(text):
        if isinstance(item, Problem):
            problems.append(item)
            continue
        key = item.key.lower() if fold else item.key
        if key in entries:
            first = entries[key][0]
            problems.append(Problem(item.number, f'duplicate entry "{key}": line {first} is used', False))
        else:
            entries[key] = (item.number, item.value)
    return entries, problems


def _open_file(path: str, flags: int) -> int:
    # O_NONBLOCK: opening a FIFO in place of the file must not wait for a writer.
    return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)


def _unquoted(key: str) -> str:
    if len(key) < 2 or key[-1] != '"':
        return key
    out, escaped = "", False
    for char in key[1:-1]:
        if char == "\\" and not escaped:
            escaped = True
        else:
            out += char
            escaped = False
    return out
