"""Texts for people, from octets that strangers sent."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return a text that cannot move a cursor, colour a terminal or end its line: with `?` for what does not print.

    That is each control character, and each octet that is not UTF-8.
    """
    return "".join(char if char.isprintable() else "?" for char in text)
