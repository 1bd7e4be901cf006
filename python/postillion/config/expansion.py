"""References in values (postconf(5)).

They are `$name`, `${name}`, `$(name)`, `${name?then}`, `${name:else}`, `${name?{then}:{else}}`,
`${{left} == {right} ? {then}:{else}}`, `${domain_to_ascii{text}}`, and `$$` for a dollar.

A comparison is numeric when both sides are digits, and by text otherwise; the suffix `level` compares versions such as
compatibility levels. A name without a value expands to nothing.
"""

import operator as operators
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NESTING_MAX = 100
DIGITS_MAX = 18
SPACE = " \t\r\n"

Lookup = Callable[[str], str | None]
_OPERATORS = "<>!=?+-*/~&|%"
_COMPARE: "dict[str, Callable[[Any, Any], bool]]" = {
    "==": operators.eq,
    "!=": operators.ne,
    "<": operators.lt,
    "<=": operators.le,
    ">=": operators.ge,
    ">": operators.gt,
}


class ExpansionError(ValueError):
    """A text that cannot be expanded; `str()` names the place."""


def expand(text: str, lookup: Lookup, depth: int = 0) -> str:
    """Return `text` with its references replaced; values are expanded recursively.

    `lookup` returns the unexpanded value of a name, or None. Raises `ExpansionError`.
    """
    if "$" not in text:
        return text
    if depth > NESTING_MAX:
        raise ExpansionError(f'unreasonable macro call nesting: "{text[:60]}"')
    out: list[str] = []
    at = 0
    while (dollar := text.find("$", at)) >= 0:
        out.append(text[at:dollar])
        following = text[dollar + 1 : dollar + 2]
        if following == "$":
            out.append("$")
            at = dollar + 2
            continue
        if following and following in "({":
            at = _closing(text, dollar + 1)
            inside = text[dollar + 2 : at]
            at += 1
        else:
            at = dollar + 1
            while at < len(text) and (text[at] == "_" or (text[at].isascii() and text[at].isalnum())):
                at += 1
            inside = text[dollar + 1 : at]
        if not inside:
            raise ExpansionError(f'empty macro name: "{text[:60]}"')
        out.append(_reference(inside, lookup, depth + 1))
    out.append(text[at:])
    return "".join(out)


def names(text: str) -> set[str]:
    """Return the names that `text` refers to, in every branch; a syntax error does not stop the search."""
    found: set[str] = set()
    at = 0
    while (at := text.find("$", at)) >= 0:
        at += 1
        if text[at : at + 1] == "$":
            at += 1
            continue
        while text[at : at + 1] in ("{", "(", " ", "\t"):
            at += 1
        start = at
        while at < len(text) and (text[at] == "_" or (text[at].isascii() and text[at].isalnum())):
            at += 1
        if at > start:
            found.add(text[start:at])
    return found


def _closing(text: str, opening: int) -> int:
    """Return the index of the bracket that closes the one at `opening`; only brackets of the same kind count."""
    opener = text[opening]
    closer = ")" if opener == "(" else "}"
    level = 0
    for at in range(opening, len(text)):
        if text[at] == opener:
            level += 1
        elif text[at] == closer:
            level -= 1
            if level == 0:
                return at
    raise ExpansionError(f'truncated macro reference: "{text[:60]}"')


def _braced(text: str) -> tuple[str, str] | None:
    """Return the contents of the leading `{...}`, and the text after it, left-stripped; None without braces."""
    text = text.lstrip(SPACE)
    if not text.startswith("{"):
        return None
    level = 0
    for at, c in enumerate(text):
        level += (c == "{") - (c == "}")
        if level == 0:
            return text[1:at], text[at + 1 :].lstrip(SPACE)
    raise ExpansionError(f'unbalanced {{}} in attribute expression: "{text[:60]}"')


def _reference(inside: str, lookup: Lookup, depth: int) -> str:
    """Return the expansion of one reference. `inside`: the text between its brackets, or the bare name."""
    left = _braced(inside)
    if left is not None:
        held, rest = _comparison(left[0], left[1], lookup, depth)
        found: str | None = "bool" if held else ""
        if rest and rest[0] not in "?:":
            raise ExpansionError(f'"?" or ":" expected at: "{rest[:20]}"')
    else:
        text = inside.lstrip(SPACE)
        end = 0
        while end < len(text) and (text[end] == "_" or (text[end].isascii() and text[end].isalnum())):
            end += 1
        name, rest = text[:end], text[end:].lstrip(SPACE)
        if rest.startswith("{"):
            return _function(name, rest, lookup, depth)
        if rest and rest[0] not in "?:":
            raise ExpansionError(f'attribute name syntax error at: "{inside[:60]}"')
        found = lookup(name)
    if not rest:
        return expand(found, lookup, depth) if found else ""
    return _choice(bool(found), rest, lookup, depth)


def _choice(held: bool, rest: str, lookup: Lookup, depth: int) -> str:
    """Return the expansion of `?then`, `:else` or `?{then}:{else}`. An operand without braces extends to the end."""
    chosen = ""
    for mark, wanted in (("?", held), (":", not held)):
        if not rest.startswith(mark):
            if rest:
                if mark == ":":
                    raise ExpansionError(f'":" expected at: "{rest[:20]}"')
                continue
            break
        operand = _braced(rest[1:])
        text, rest = operand if operand is not None else (rest[1:], "")
        if wanted:
            chosen = expand(text, lookup, depth)
    if rest:
        raise ExpansionError(f'unexpected input at: "{rest[:20]}"')
    return chosen


def _comparison(left: str, rest: str, lookup: Lookup, depth: int) -> tuple[bool, str]:
    """Return whether `{left} operator {right}` holds, and the text after it."""
    end = 0
    while end < len(rest) and rest[end] in _OPERATORS:
        end += 1
    operator, rest = rest[:end], rest[end:]
    if operator not in _COMPARE:
        raise ExpansionError(f'"==" or "!=" or "<" or "<=" or ">=" or ">" expected at: "...{{{left}}}>>>{rest[:20]}"')
    end = 0
    while end < len(rest) and rest[end].isascii() and rest[end].isalnum():
        end += 1
    suffix, rest = rest[:end], rest[end:]
    if suffix not in ("", "level"):
        raise ExpansionError(f'bad operator suffix at: "{operator}{suffix}"')
    right = _braced(rest)
    if right is None:
        raise ExpansionError(f'"{{expression}}" expected at: "...{{{left}}} {operator}{suffix}>>>{rest[:20]}"')
    a, b = expand(left, lookup, depth), expand(right[0], lookup, depth)
    compare = _COMPARE[operator]
    if suffix:
        held = compare(level(a), level(b))
    elif _digits(a) and _digits(b):
        held = compare(int(a), int(b))
    else:
        held = compare(a, b)
    return held, right[1]


def level(text: str) -> tuple[int, int, int]:
    """Return a compatibility level such as `3.6` as numbers to compare; missing parts are 0."""
    parts = text.strip(SPACE).split(".")
    if not 1 <= len(parts) <= 3 or not all(_digits(part) and len(part) <= 6 for part in parts):
        raise ExpansionError(f'malformed compatibility level syntax: "{text}"')
    major, minor, patch = [int(part) for part in parts] + [0] * (3 - len(parts))
    return major, minor, patch


def _function(name: str, rest: str, lookup: Lookup, depth: int) -> str:
    argument = _braced(rest)
    if argument is None or argument[1]:
        raise ExpansionError(f'unexpected input at: "{rest[:20]}"')
    if name != "domain_to_ascii":
        raise ExpansionError(f'unknown function "{name}"')
    domain = expand(argument[0].strip(SPACE), lookup, depth)
    if domain.isascii():
        return domain
    try:
        return domain.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ExpansionError(f'domain_to_ascii: "{domain}": {error}') from None


def _digits(text: str) -> bool:
    return 0 < len(text) <= DIGITS_MAX and text.isascii() and text.isdigit()
