"""The language of main.cf: comments, continuation lines, `name = value`, last value wins (postconf(5)).

`logical_lines` serves master.cf and text tables too: they share the rules for comments and continuation.
"""

from collections.abc import Iterator

from postillion.config.errors import ConfigError

WHITESPACE = " \t\n\v\f\r"
FILE_MAX_OCTETS = 16 * 1024 * 1024
"""A configuration file beyond this size is a mistake, such as a device or a log file."""


class Setting:
    """A value as main.cf has it, unexpanded, and where it stands."""

    __slots__ = ("line", "path", "value")

    def __init__(self, value: str, path: str, line: int | None) -> None:
        self.value = value
        self.path = path
        self.line = line

    def __repr__(self) -> str:
        return f"Setting({self.value!r}, {self.path!r}, {self.line!r})"


def read(path: str) -> str:
    """Return the text of a configuration file; octets that are no UTF-8 survive as surrogates.

    Raises `ConfigError` that tells missing from unreadable.
    """
    try:
        with open(path, "rb") as file:
            octets = file.read(FILE_MAX_OCTETS + 1)
    except FileNotFoundError:
        raise ConfigError(path, None, "the file is missing", "create it, or name its directory with -c") from None
    except IsADirectoryError:
        raise ConfigError(path, None, "this is a directory", "name the directory that holds it with -c") from None
    except OSError as error:
        mend = "let the user who runs this read it"
        raise ConfigError(path, None, f"cannot be read ({error.strerror})", mend) from None
    if len(octets) > FILE_MAX_OCTETS:
        raise ConfigError(path, None, f"larger than {FILE_MAX_OCTETS} octets", "put large lists into tables")
    return octets.decode("utf-8", "surrogateescape")


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each logical line with the number of its first line, counted from 1.

    A line that starts with white space continues the one before; comment lines and empty lines in between do not end
    it. `#` starts a comment only as the first printing character of a line. The newline goes, the white space that
    starts a continuation stays. A logical line can start with white space only where there is nothing to continue.
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
    """Return the settings by name, and warnings: values given twice, text that continues nothing.

    Raises `ConfigError` at the first line that is no `name = value`.
    """
    settings: dict[str, Setting] = {}
    warnings: list[str] = []
    for line, logical in logical_lines(text):
        if logical[0] in WHITESPACE:
            start = logical.strip(WHITESPACE)[:30]
            warnings.append(f"{path}, line {line}: nothing before this line that it could continue: {start!r}")
            continue
        name, value = split_assignment(logical, path, line)
        earlier = settings.get(name)
        if earlier is not None and earlier.value != value:
            warnings.append(f"{path}, line {line}: overriding earlier entry: {name}={earlier.value}")
        settings[name] = Setting(value, path, line)
    return settings, warnings


def split_assignment(text: str, path: str, line: int | None) -> tuple[str, str]:
    """Return name and value of `name = value`, both without white space around them."""
    name, equals, value = text.partition("=")
    name = name.strip(WHITESPACE)
    if not equals or not name or any(c in WHITESPACE for c in name):
        problem = "missing '=' after attribute name" if name else "missing attribute name"
        raise ConfigError(path, line, f'{problem}: "{text.strip(WHITESPACE)[:60]}"', "write it as name = value")
    return name, value.strip(WHITESPACE)


def split_list(value: str, separators: str = ", \t\r\n") -> list[str]:
    """Return the words of a list; `{ ... }` is one word, and keeps its braces. Unbalanced braces end with the text."""
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
    """Return what `{ text }` holds, trimmed; a word without braces as it is."""
    if word.startswith("{") and word.endswith("}"):
        return word[1:-1].strip(WHITESPACE)
    return word
