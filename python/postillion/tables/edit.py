"""Edits of a table's source: entries are added, replaced and removed, and the rest of the file stays.

A new file is written and synced beside the old one, and rename(2) replaces it: a reader sees the old or the new file.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from postillion.tables.source import Entry, LogicalLine, Problem, alias_entries, logical_lines, map_entries

PARSERS = {"map": map_entries, "alias": alias_entries}


def add_entries(path: str, form: str, entries: Iterable[Entry], *, replace: bool) -> list[str]:
    """Add entries to the file, or create it; return the keys that it already had and that were left unchanged.

    `replace`: an existing key gets the new value. `form`: map or alias. Raises `OSError`.
    """
    text = _read(path) if os.path.exists(path) else ""
    known = {entry.key.lower() for entry in PARSERS[form](text.splitlines(keepends=True)) if isinstance(entry, Entry)}
    new = {entry.key.lower(): entry for entry in entries}
    kept = [] if replace else [key for key in new if key in known]
    if replace:
        text = _without(text, form, known & set(new))
    if text and not text.endswith("\n"):
        text += "\n"
    for key, entry in new.items():
        if key not in kept:
            text += f"{_shown(entry.key)}: {entry.value}\n" if form == "alias" else f"{entry.key}\t{entry.value}\n"
    _write(path, text)
    return kept


def remove_entry(path: str, form: str, key: str) -> bool:
    """Remove the entries with this key from the file; return whether there was one. Raises `OSError`."""
    text = _read(path)
    rest = _without(text, form, {key.lower()})
    if rest == text:
        return False
    _write(path, rest)
    return True


def _without(text: str, form: str, keys: set[str]) -> str:
    """Return the text without the logical lines of these keys; comments stay, also between their physical lines."""
    lines = text.splitlines(keepends=True)
    drop: set[int] = set()
    for line in logical_lines(lines):
        if isinstance(line, Problem) or not _has_key(line, form, keys):
            continue
        drop.add(line.number)
        at = line.number
        while at < len(lines) and (not (bare := lines[at].strip()) or bare[0] == "#" or lines[at][0] in " \t\v\f"):
            if bare and bare[0] != "#":
                drop.add(at + 1)
            at += 1
    return "".join(line for number, line in enumerate(lines, 1) if number not in drop)


def _has_key(line: LogicalLine, form: str, keys: set[str]) -> bool:
    found = next(iter(PARSERS[form]([line.text])))
    return isinstance(found, Entry) and found.key.lower() in keys


def _shown(key: str) -> str:
    """Return an alias's name for a source: quoted unless all characters are letters, digits or `-_.+`."""
    if all(char.isalnum() or char in "-_.+" for char in key):
        return key
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return file.read()


@contextmanager
def _as_owner(path: str) -> Iterator[None]:
    """Give root the rights of the directory's owner for a while, so that the owner's links reach no other files."""
    status = os.stat(path if os.path.exists(path) else os.path.dirname(path) or ".")
    if os.geteuid() != 0 or status.st_uid == 0:
        yield
        return
    groups, gid = os.getgroups(), os.getegid()
    os.setgroups([status.st_gid])
    os.setegid(status.st_gid)
    os.seteuid(status.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


def _write(path: str, text: str) -> None:
    with _as_owner(path):
        _replace(path, text)


def _replace(path: str, text: str) -> None:
    directory = os.path.dirname(path) or "."
    new = os.path.join(directory, f".{os.path.basename(path)}.{os.getpid()}.new")
    # O_EXCL and O_NOFOLLOW: the owner of the directory could place a link under this name.
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            data = text.encode("utf-8", "surrogateescape")
            while data:
                data = data[os.write(file, data) :]
            _like(path, file)
            os.fsync(file)
        finally:
            os.close(file)
        os.rename(new, path)
    except BaseException:
        os.unlink(new)
        raise
    holder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(holder)
    finally:
        os.close(holder)


def _like(path: str, file: int) -> None:
    """Set the mode and owner of the new file to those of the old one."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        os.fchmod(file, 0o644)
        return
    os.fchmod(file, status.st_mode & 0o777)
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(file, status.st_uid, status.st_gid)
