"""Templates of queries and results: `%s`, `%u`, `%d`, `%S`, `%U`, `%D`, `%1` to `%9` and `%%` (mysql_table(5)).

| letter | in a query | in a result |
|---|---|---|
| `%s` | the key | the value |
| `%u` | the key's local part; the whole key without `@` | the value's |
| `%d` | the key's domain | the value's |
| `%S` `%U` `%D` | as `%s` `%u` `%d` | the parts of the key |
| `%1` to `%9` | the labels of the key's domain, the last one first | the same |

A template whose letters need a part that the key or the value does not have gives nothing: the query is not made, the
value is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

LETTERS: Final = frozenset("sudSUD123456789")

Quote = Callable[[str], str]


class TemplateError(ValueError):
    """A `%` before a letter that has no meaning."""


class Template:
    """A parsed template."""

    def __init__(self, text: str) -> None:
        """Parse the text. Raises `TemplateError`."""
        self._parts: list[tuple[str, str]] = []
        """A literal text, and the letter after it; the letter of the last part is empty."""
        literal, at = "", 0
        while at < len(text):
            if text[at] != "%":
                literal += text[at]
                at += 1
                continue
            letter = text[at + 1 : at + 2]
            if letter == "%":
                literal += "%"
            elif letter in LETTERS and letter:
                self._parts.append((literal, letter))
                literal = ""
            else:
                raise TemplateError(f'"%{letter}" has no meaning')
            at += 2
        self._parts.append((literal, ""))
        self._literals = [literal for literal, _ in self._parts]
        letters = {letter for _, letter in self._parts[:-1]}
        self._is_value = letters == {"s"}
        """Whether the value is the one part, as in most templates."""

    @property
    def fixed(self) -> bool:
        """Whether the template has no letters."""
        return len(self._parts) == 1

    @property
    def literal(self) -> str:
        """The text without its letters."""
        return "".join(self._literals)

    def query(self, key: str, quote: Quote) -> str | None:
        """Return the query for a key, whose parts `quote` makes harmless; None if the key lacks a part."""
        return self._fill(key, key, quote)

    def result(self, key: str, value: str) -> str | None:
        """Return the result for a value that a key was found with; None if one of them lacks a part."""
        return self._fill(key, value, _unchanged)

    def fits(self, key: str) -> bool:
        """Return whether the key has the parts that a result needs from it."""
        return self._is_value or all(
            _part(letter.lower(), key) is not None
            for _, letter in self._parts
            if letter and (letter in "SUD" or letter.isdigit())
        )

    def _fill(self, key: str, value: str, quote: Quote) -> str | None:
        if self._is_value:
            return quote(value).join(self._literals) if value else None
        found: list[str] = []
        for literal, letter in self._parts:
            found.append(literal)
            if letter:
                subject = key if letter in "SUD" or letter.isdigit() else value
                part = _part(letter.lower(), subject)
                if part is None:
                    return None
                found.append(quote(part))
        return "".join(found)


def _part(letter: str, subject: str) -> str | None:
    """Return a part of a key or value; None without one. An empty local part, value or label is none."""
    if letter == "s":
        return subject or None
    local, at, domain = subject.rpartition("@")
    if letter == "u":
        return (local if at else subject) or None
    if not at or not domain:
        return None
    if letter == "d":
        return domain
    labels = domain.split(".")
    return labels[-int(letter)] or None if int(letter) <= len(labels) else None


def _unchanged(text: str) -> str:
    return text
