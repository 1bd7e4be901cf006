"""Edits of main.cf and master.cf: comments and order stay, and rename(2) replaces the file in one step."""

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping

from postillion.config import main_cf
from postillion.config.errors import ConfigError

DRAFT_SUFFIX = ".tmp"

Change = Callable[[str], str | None]
"""Maps the first physical line of a logical line to its replacement; "" removes the line, None keeps it."""


def assign(path: str, values: dict[str, str]) -> list[str]:
    """Set parameters of a main.cf, and return a warning for each one that the file sets more than once.

    A parameter keeps its place in the file; a new one goes to the end. Raises `ConfigError` when the file cannot be
    changed.
    """
    found: dict[str, int] = {}

    def change(line: str) -> str | None:
        name = _name(line)
        if name not in values:
            return None
        found[name] = found.get(name, 0) + 1
        return f"{name} = {values[name]}\n"

    def added() -> Iterator[str]:
        return (f"{name} = {values[name]}\n" for name in sorted(values) if name not in found)

    rewrite(path, change, added)
    return [f'{path}: multiple entries for "{name}"' for name, count in found.items() if count > 1]


def remove(path: str, names: set[str], *, comment: bool) -> None:
    """Remove parameters from a main.cf, or turn their lines into comments, so that the defaults apply again."""
    rewrite(path, lambda line: ("#" + line if comment else "") if _name(line) in names else None, comment=comment)


def replace_services(
    path: str, lines: Mapping[str, str | None], added: Iterable[str] = (), *, comment: bool = False
) -> None:
    """Give services of a master.cf, by `service/type`, a new line; None removes one, or with `comment` comments it out.

    `added`: lines that go to the end.
    """

    def change(line: str) -> str | None:
        name = "/".join(line.split(None, 2)[:2])
        if name not in lines:
            return None
        new = lines[name]
        return f"{new}\n" if new is not None else "#" + line if comment else ""

    rewrite(path, change, lambda: (line + "\n" for line in added), comment=comment)


def rewrite(
    path: str, change: Change, added: Callable[[], Iterator[str]] = lambda: iter(()), *, comment: bool = False
) -> None:
    """Apply `change` to each logical line of a file and append `added`; raises `ConfigError`.

    The continuation lines of a changed line are removed, or become comments with `comment`; comments between them
    stay. A lock makes a second editor wait. Readers see the old file or the new one.
    """
    draft = path + DRAFT_SUFFIX
    try:
        fd = _open_draft(draft)
        with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            text = main_cf.read(path)
            file.writelines(_edited(text, change, comment))
            if text and not text.endswith("\n"):
                file.write("\n")
            file.writelines(added())
            file.flush()
            original = os.stat(path)
            os.fchmod(fd, original.st_mode & 0o7777)
            if os.geteuid() == 0:
                os.fchown(fd, original.st_uid, original.st_gid)
            os.fsync(fd)
            os.rename(draft, path)
    except OSError as error:
        raise ConfigError(path, None, f"cannot be changed ({error.strerror})", "run this as its owner") from None
    except ConfigError:
        os.unlink(draft)
        raise


def _edited(text: str, change: Change, comment: bool) -> Iterator[str]:
    changed = False
    for line in _lines(text):
        stripped = line.strip(main_cf.WHITESPACE)
        if not stripped or stripped[0] == "#":
            yield line
        elif line[0] in main_cf.WHITESPACE:
            if not changed:
                yield line
            elif comment:
                yield "#" + line
        else:
            new = change(line)
            changed = new is not None
            yield line if new is None else new


def _lines(text: str) -> list[str]:
    """Return the lines of `text`, split at newlines only; `splitlines` would split at a carriage return as well."""
    parts = text.split("\n")
    return [part + "\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def _name(line: str) -> str:
    return line.partition("=")[0].split(None, 1)[0] if line.partition("=")[0].strip() else ""


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
