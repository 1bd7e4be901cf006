"""The syntax of main.cf: comments, continuation lines, `name = value`; the last value wins (postconf(5)).

master.cf and text files have the same rules for comments and continuation lines, so they use `logical_lines` too.
"""

from __future__ import annotations

import os
import stat

from postillion.config import core_dumps, secrets
from postillion.config.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

WHITESPACE = " \t\n\v\f\r"
FILE_MAX_OCTETS = 16 * 1024 * 1024
"""Maximum size of a configuration file; a larger one is a mistake, such as a device or a log file."""


class Setting:
    """An unexpanded value of main.cf, with its file and line."""

    __slots__ = ("line", "path", "value")

    def __init__(self, value: str, path: str, line: int | None) -> None:
        self.value = value
        self.path = path
        self.line = line

    def __repr__(self) -> str:
        return f"Setting({self.value!r}, {self.path!r}, {self.line!r})"


def read(path: str, max_octets: int = FILE_MAX_OCTETS) -> str:
    """Return the text of a configuration file; octets that are not UTF-8 become surrogates.

    A process that reads a password here leaves no core dump. Raises `ConfigError` with different texts for a missing
    and an unreadable file.
    """
    try:
        with open(path, "rb", opener=without_blocking) as file:
            if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
                raise ConfigError(path, None, "this is a named pipe", "put a regular file in its place")
            octets = file.read(max_octets + 1)
    except FileNotFoundError:
        raise ConfigError(path, None, "the file is missing", "create it, or give its directory with -c") from None
    except IsADirectoryError:
        raise ConfigError(path, None, "this is a directory", "give the directory of main.cf with -c") from None
    except OSError as error:
        fix = "give read permission to the user that runs this"
        raise ConfigError(path, None, f"cannot be read ({error.strerror})", fix) from None
    if len(octets) > max_octets:
        raise ConfigError(path, None, f"larger than {max_octets} octets", "put large lists into tables")
    if secrets.may_hold(octets):
        core_dumps.forbid()
    return octets.decode("utf-8", "surrogateescape")


def is_utf8(text: str) -> bool:
    """Return whether a text that `read` returned is UTF-8 throughout."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def without_blocking(path: str, flags: int) -> int:
    """Open a file for `open(..., opener=)`. A named pipe in its place does not wait for a writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each logical line with the number of its first line, counted from 1.

    A line that starts with white space continues the previous line, also across comment lines and empty lines. `#`
    starts a comment only as the first printing character of a line. Newlines are removed; the white space at the
    start of a continuation line is kept. Only a logical line without a line to continue starts with white space.
    """
    first = 0
    parts: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip(WHITESPACE)
        if not stripped or stripped[0] == "#":
            continue
        if line[0] in WHITESPACE and parts:
            parts.append(line)
            continue
        if parts:
            yield first, "".join(parts)
        first, parts = number, [line]
    if parts:
        yield first, "".join(parts)


def parse(text: str, path: str) -> tuple[dict[str, Setting], list[str]]:
    """Return the settings by name, and warnings about repeated names and continuation lines without a first line.

    Raises `ConfigError` at the first line that is not `name = value`.
    """
    settings: dict[str, Setting] = {}
    warnings: list[str] = []
    overridden: list[tuple[int, str, str]] = []
    name = ""
    for line, logical in logical_lines(text):
        if logical[0] in WHITESPACE:
            warnings.append(without_beginning(path, line, logical))
            continue
        # A malformed line behind a password may be a part of it that lacks its white space.
        name, value = split_assignment(logical, path, line, quoted=not secrets.is_secret(name))
        earlier = settings.get(name)
        if earlier is not None and earlier.value != value:
            overridden.append((line, name, earlier.value))
        settings[name] = Setting(value, path, line)
    hidden = secrets.names({name: setting.value for name, setting in settings.items()}) if overridden else set()
    for line, name, value in overridden:
        earlier_entry = f"{name}={secrets.shown(name, value, hidden)}"
        warnings.append(f"{path}, line {line}: overriding earlier entry: {earlier_entry}")
    return settings, warnings


def without_beginning(path: str, line: int, logical: str) -> str:
    """Return the warning about a line that starts with white space and has no line to continue."""
    start = secrets.shown_line(logical.strip(WHITESPACE))[:30]
    return f"{path}, line {line}: continuation line without a line to continue: {start!r}"


def split_assignment(text: str, path: str, line: int | None, *, quoted: bool = True) -> tuple[str, str]:
    """Return name and value of `name = value`, both stripped of white space. `quoted`: errors show the text."""
    name, equals, value = text.partition("=")
    name = name.strip(WHITESPACE)
    if not equals or not name or any(c in WHITESPACE for c in name):
        problem = "missing '=' after attribute name" if name else "missing attribute name"
        start = secrets.shown_line(text.strip(WHITESPACE))[:60] if quoted else secrets.HIDDEN
        raise ConfigError(path, line, f'{problem}: "{start}"', "write it as name = value")
    return name, value.strip(WHITESPACE)


def split_list(value: str, separators: str = ", \t\r\n") -> list[str]:
    """Return the words of a list; `{ ... }` is one word and keeps its braces. An open brace extends to the end."""
    if "{" not in value:
        for separator in separators[1:]:
            value = value.replace(separator, separators[0])
        return [word for word in value.split(separators[0]) if word]
    words: list[str] = []
    start: int | None = None
    level = 0
    for at, c in enumerate(value):
        if level == 0 and c in separators:
            if start is not None:
                words.append(value[start:at])
                start = None
            continue
        if start is None:
            start = at
        level += (c == "{") - (c == "}" and level > 0)
    if start is not None:
        words.append(value[start:])
    return words


def unbrace(word: str) -> str:
    """Return the stripped text inside `{ text }`; a word without braces is returned unchanged."""
    if word.startswith("{") and word.endswith("}"):
        return word[1:-1].strip(WHITESPACE)
    return word
