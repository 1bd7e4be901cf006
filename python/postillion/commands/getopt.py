"""Options of a command line, as in getopt(3): letters, some of them with a value, and names without one.

The names are those of Python's module, which imports gettext, re and enum: milliseconds of each start.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

Given = list[tuple[str, str]]
"""The options, such as `-c`, each with its value; empty for an option without one."""


class GetoptError(Exception):
    """A bad option. `msg`: what is wrong; `opt`: its letter, `-` for a long option."""

    def __init__(self, msg: str, opt: str = "") -> None:
        super().__init__(msg)
        self.msg = msg
        self.opt = opt


def getopt(words: Sequence[str], letters: str, names: Sequence[str] = ()) -> tuple[Given, list[str]]:
    """Return the options before the first other word, and the words from there on. Raises `GetoptError`.

    `names`: long options, without their dashes.
    """
    return _parse(words, letters, names, between=False)


def gnu_getopt(words: Sequence[str], letters: str) -> tuple[Given, list[str]]:
    """Return the options, also those behind other words, and the other words. Raises `GetoptError`."""
    return _parse(words, letters, (), between="POSIXLY_CORRECT" not in os.environ)


def _parse(words: Sequence[str], letters: str, names: Sequence[str], *, between: bool) -> tuple[Given, list[str]]:
    given: Given = []
    others: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "--":
            break
        if word[:2] == "--":
            name = word[2:].partition("=")[0]
            if word[2:] not in names:
                raise GetoptError(f"option --{name} not recognized", "-")
            given.append((word, ""))
            continue
        if word[:1] != "-" or word == "-":
            others.append(word)
            if between:
                continue
            break
        for place, letter in enumerate(word[1:], 2):
            known = letters.find(letter) if letter != ":" else -1
            if known < 0:
                raise GetoptError(f"option -{letter} not recognized", letter)
            if letters[known + 1 : known + 2] != ":":
                given.append((f"-{letter}", ""))
                continue
            value = word[place:]
            if not value:
                if at == len(words):
                    raise GetoptError(f"option -{letter} requires argument", letter)
                value = words[at]
                at += 1
            given.append((f"-{letter}", value))
            break
    return given, [*others, *words[at:]]
