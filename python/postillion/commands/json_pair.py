"""A name and a value as one line of JSON, in the form of the commands of Postfix 3.12.

Text stays UTF-8, and octets that are not UTF-8 stay as they are: only quotes, backslashes and control characters are
escaped. The writer of the line encodes with `surrogateescape`.
"""

from __future__ import annotations

ESCAPES = {"\\": "\\\\", '"': '\\"', "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
"""JSON's short escapes; the other control characters have a number."""


def json_pair(name: str, value: str) -> str:
    """Return a JSON object with one member."""
    return f'{{"{_escaped(name)}": "{_escaped(value)}"}}'


def _escaped(text: str) -> str:
    return "".join(ESCAPES.get(c) or (f"\\u{ord(c):04X}" if c < " " or c == "\x7f" else c) for c in text)
