"""The source format of tables: logical lines, `key whitespace value` of postmap(1), `name: value` of aliases(5).

A line that starts with whitespace continues the previous line. Empty lines and lines whose first visible character is
`#` are ignored, inside a logical line as well.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

LOGICAL_LINE_MAX_CHARS = 4 * 1024 * 1024


class LogicalLine(NamedTuple):
    """A logical line: the number of its first physical line, and its text without newlines."""

    number: int
    text: str


class Entry(NamedTuple):
    """A key, its value, and their line."""

    number: int
    key: str
    value: str


class Problem(NamedTuple):
    """An error in a line. `lost`: the line gave no entry."""

    number: int
    text: str
    lost: bool


def logical_lines(text: Iterable[str]) -> Iterator[LogicalLine | Problem]:
    """Yield the logical lines of a source, and a problem for each invalid line."""
    number, parts, size = 0, list[str](), 0
    for at, raw in enumerate(text, 1):
        line = raw.rstrip("\r\n")
        bare = line.strip()
        if not bare or bare[0] == "#":
            continue
        if line[0] in " \t\v\f":
            if not parts:
                yield Problem(at, "continuation line without a line to continue", True)
            elif size + len(line) > LOGICAL_LINE_MAX_CHARS:
                yield Problem(
                    at, f"the line is longer than {LOGICAL_LINE_MAX_CHARS} characters; the rest is ignored", True
                )
            else:
                parts.append(line)
                size += len(line)
            continue
        if parts:
            yield LogicalLine(number, "".join(parts))
        number, parts, size = at, [line], len(line)
    if parts:
        yield LogicalLine(number, "".join(parts))


def map_entries(text: Iterable[str]) -> Iterator[Entry | Problem]:
    """Yield the entries and problems of a source in postmap(1)'s form."""
    for line in logical_lines(text):
        yield line if isinstance(line, Problem) else _map_entry(line)
        if isinstance(line, LogicalLine) and (key := _split_key(line.text)[0]).endswith(":"):
            yield Problem(line.number, f'the record is in "key: value" form ("{key}"); is this an alias file?', False)


def alias_entries(text: Iterable[str]) -> Iterator[Entry | Problem]:
    """Yield the entries and problems of a source in aliases(5)'s form."""
    for line in logical_lines(text):
        yield line if isinstance(line, Problem) else _alias_entry(line)


def mixed_entries(text: Iterable[str]) -> Iterator[Entry | Problem]:
    """Yield the entries and problems of an alias table whose lines have either form: `name: value` or `name value`."""
    for line in logical_lines(text):
        if isinstance(line, Problem):
            yield line
        elif (split := _split_key(line.text))[0].endswith(":") or split[1].startswith(":"):
            yield _alias_entry(line)
        else:
            yield _map_entry(line)


def _map_entry(line: LogicalLine) -> Entry | Problem:
    key, value = _split_key(line.text)
    if not key or not value:
        return Problem(line.number, "expected a key, whitespace and a value", True)
    return Entry(line.number, key, value)


def _alias_entry(line: LogicalLine) -> Entry | Problem:
    r"""Parse `"quoted \" name": value` or `name : value`. The key has no quotes."""
    text, key, at = line.text.strip(), "", 0
    quoted = False
    while at < len(text):
        char = text[at]
        if char == "\\" and quoted and at + 1 < len(text):
            key += text[at + 1]
            at += 2
            continue
        if char == '"':
            quoted = not quoted
        elif char == ":" and not quoted:
            break
        else:
            key += char
        at += 1
    key = key.strip()
    if at == len(text):
        what = 'an unbalanced "' if quoted else 'no ":"'
        return Problem(line.number, f"expected a name, a colon and a value: there is {what}", True)
    value = text[at + 1 :].strip()
    if not key or not value:
        return Problem(line.number, "expected a name, a colon and a value", True)
    if "@" in key:
        return Problem(line.number, f'the name "{key}" has a domain: names in an alias table are local', True)
    return Entry(line.number, key, value)


def _split_key(text: str) -> tuple[str, str]:
    """Split at the first whitespace outside double quotes. The key keeps its quotes, as lookups do."""
    text = text.strip()
    quoted = escaped = False
    for at, char in enumerate(text):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif char.isspace() and not quoted:
            return text[:at], text[at:].strip()
    return text, ""
