"""Edits of main.cf and master.cf: comments and order stay, and rename(2) replaces the file in one step."""

from __future__ import annotations

import fcntl
import os

from postillion.config import main_cf
from postillion.config.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

DRAFT_SUFFIX = ".tmp"


def assign(path: str, values: dict[str, str]) -> list[str]:
    """Set parameters of a main.cf, and return a warning for each one that the file sets more than once.

    A parameter keeps its place in the file; a new one goes to the end. Raises `ConfigError` when the file cannot be
    changed.
    """
    found: dict[str, int] = {}

    def change(number: int, line: str) -> str | None:
        name = _name(line)
        if name not in values:
            return None
        found[name] = found.get(name, 0) + 1
        return f"{name} = {values[name]}\n"

    def edited(text: str) -> str:
        changed = replaced(text, change)
        return changed + "".join(f"{name} = {values[name]}\n" for name in sorted(values) if name not in found)

    rewrite(path, edited)
    return [f'{path}: multiple entries for "{name}"' for name, count in found.items() if count > 1]


def remove(path: str, names: set[str], *, comment: bool) -> None:
    """Remove parameters from a main.cf, or turn their lines into comments, so that the defaults apply again."""

    def change(number: int, line: str) -> str | None:
        return None if _name(line) not in names else "#" + line if comment else ""

    rewrite(path, lambda text: replaced(text, change, comment=comment))


def replaced_lines(
    text: str, lines: Mapping[int, str | None], added: Iterable[str] = (), *, comment: bool = False
) -> str:
    """Return the text of a master.cf in which services, by the number of their first line, have a new line.

    None removes a service, or with `comment` comments it out. `added`: lines that go to the end.
    """

    def change(number: int, line: str) -> str | None:
        if number not in lines:
            return None
        new = lines[number]
        return f"{new}\n" if new is not None else "#" + line if comment else ""

    return replaced(text, change, comment=comment) + "".join(line + "\n" for line in added)


def replaced(text: str, change: Callable[[int, str], str | None], *, comment: bool = False) -> str:
    """Return a text with `change` applied to each logical line.

    `change` maps the number and the first physical line of a logical line to its replacement; "" removes the line, None
    keeps it. The continuation lines of a changed line are removed, or become comments with `comment`; comments between
    them stay. The last line gets its newline.
    """
    out: list[str] = []
    changed = False
    for number, line in enumerate(_lines(text), 1):
        stripped = line.strip(main_cf.WHITESPACE)
        if not stripped or stripped[0] == "#":
            out.append(line)
        elif line[0] in main_cf.WHITESPACE:
            if not changed:
                out.append(line)
            elif comment:
                out.append("#" + line)
        else:
            new = change(number, line)
            changed = new is not None
            out.append(line if new is None else new)
    return "".join(out)


def rewrite(path: str, edited: Callable[[str], str]) -> None:
    """Replace the text of a file by `edited` of it. Raises `ConfigError`, and then the file stays as it was.

    A lock makes a second editor wait from before the file is read. Readers see the old file or the new one.
    """
    draft = path + DRAFT_SUFFIX
    try:
        with open(_open_draft(draft), "w", encoding="utf-8", errors="surrogateescape") as file:
            try:
                file.write(edited(main_cf.read(path)))
                file.flush()
                original = os.stat(path)
                os.fchmod(file.fileno(), original.st_mode & 0o7777)
                if os.geteuid() == 0:
                    os.fchown(file.fileno(), original.st_uid, original.st_gid)
                os.fsync(file.fileno())
                os.rename(draft, path)
            except BaseException:
                try:
                    os.unlink(draft)
                except OSError:
                    pass
                raise
    except OSError as error:
        raise ConfigError(path, None, f"cannot be changed ({error.strerror})", "run this as its owner") from None


def _lines(text: str) -> list[str]:
    """Return the lines of `text`, each with its newline; `splitlines` would split at a carriage return as well."""
    parts = text.split("\n")
    return [part + "\n" for part in (parts if parts[-1] else parts[:-1])]


def _name(line: str) -> str:
    """Return the name at the start of a line, up to white space or `=`."""
    end = 0
    while end < len(line) and line[end] not in main_cf.WHITESPACE and line[end] != "=":
        end += 1
    return line[:end]


def _open_draft(draft: str) -> int:
    """Open and lock the draft; retry when another editor renamed it in the meantime."""
    while True:
        fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            ours, named = os.fstat(fd), os.stat(draft)
        except FileNotFoundError:
            os.close(fd)
            continue
        if (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino):
            os.ftruncate(fd, 0)
            return fd
        os.close(fd)
