"""References in values (postconf(5)).

They are `$name`, `${name}`, `$(name)`, `${name?then}`, `${name:else}`, `${name?{then}:{else}}`,
`${{left} == {right} ? {then}:{else}}`, `${domain_to_ascii{text}}`, and `$$` for a dollar.

A comparison is numeric when both sides are digits, and by text otherwise; the suffix `level` compares versions such as
compatibility levels. A comparison without `?` and `:` is `true` or empty. A name without a value expands to nothing.
"""

from __future__ import annotations

import operator as operators

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Lookup = Callable[[str], str | None]

NESTING_MAX = 100
REFERENCES_MAX = 10_000
"""Maximum number of references in the expansion of one value: `a=$b$b`, `b=$c$c`, ... doubles with each name."""
EXPANDED_MAX_CHARS = 1 << 20
DIGITS_MAX = 18
NUMBER_MAX = (1 << 63) - 1
"""Maximum number in a comparison: Postfix ends with an error above it."""
LEVEL_PART_MAX = 1023
"""Maximum of the second and third number of a compatibility level; the first has no such limit."""
SPACE = " \t\r\n"
LOOP_SHOWN = 5
"""Maximum number of names of a loop in its error text."""
CLOSE = "close each { with a }, and each ( with a )"
MANUAL = "see postconf(5) on $name in values"

_OPERATORS = "<>!=?+-*/~&|%"
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operators.eq,
    "!=": operators.ne,
    "<": operators.lt,
    "<=": operators.le,
    ">=": operators.ge,
    ">": operators.gt,
}


class ExpansionError(ValueError):
    """A text that cannot be expanded; `str()` names the place.

    `fix`: what to do. `name`: the parameter whose value has the error; None for the text itself.
    """

    def __init__(self, problem: str, fix: str = MANUAL) -> None:
        super().__init__(problem)
        self.fix = fix
        self.name: str | None = None


def expand(text: str, lookup: Lookup, name: str | None = None, *, strict: bool = False) -> str:
    """Return `text` with its references replaced; values are expanded recursively.

    `lookup` returns the unexpanded value of a name, or None. `name`: the parameter that has this text. `strict`: a name
    whose value is None is an error, except before `?` and `:`. Raises `ExpansionError`.
    """
    if "$" not in text:
        return text
    expansion = _Expansion(lookup)
    expansion.strict = strict
    if name is not None:
        expansion.open.append(name)
    return expansion.text(text, 0)


def names(text: str) -> set[str]:
    """Return the names that `text` refers to, in every branch, up to the first syntax error."""
    scan = _Scan()
    try:
        scan.text(text, 0)
    except ExpansionError:
        pass
    return scan.found


class _Expansion:
    """The expansion of one value."""

    def __init__(self, lookup: Lookup) -> None:
        self.lookup = lookup
        self.open: list[str] = []
        """The names whose values are being expanded, the outermost first."""
        self.references = 0
        self.strict = False

    def text(self, text: str, depth: int) -> str:
        """Return a text with its references replaced."""
        if depth > NESTING_MAX:
            raise ExpansionError(f'unreasonable macro call nesting: "{text[:60]}"', "use fewer names between")
        out: list[str] = []
        at = 0
        while (dollar := text.find("$", at)) >= 0:
            out.append(text[at:dollar])
            if text[dollar + 1 : dollar + 2] == "$":
                out.append("$")
                at = dollar + 2
                continue
            inside, at = _inside(text, dollar)
            self.references += 1
            if self.references > REFERENCES_MAX:
                fix = "let fewer names refer to several others"
                raise ExpansionError(f'more than {REFERENCES_MAX} references: "{text[:60]}"', fix)
            out.append(self._reference(inside, depth + 1))
        out.append(text[at:])
        expanded = "".join(out)
        if len(expanded) > EXPANDED_MAX_CHARS:
            problem = f'larger than {EXPANDED_MAX_CHARS} characters: "{text[:60]}"'
            raise ExpansionError(problem, "put large lists into tables")
        return expanded

    def _reference(self, inside: str, depth: int) -> str:
        """Return the expansion of one reference. `inside`: the text between its brackets, or the bare name."""
        left = _braced(inside)
        if left is not None:
            held, rest = self._comparison(left[0], left[1], depth)
            if rest and rest[0] not in "?:":
                raise ExpansionError(f'"?" or ":" expected at: "{rest[:20]}"')
            return self._choice(held, rest, depth) if rest else "true" if held else ""
        name, rest = _name(inside)
        if rest.startswith("{"):
            return self._function(name, rest, depth)
        if rest:
            return self._choice(bool(self.lookup(name)), rest, depth)
        return self.value(name, depth)

    def value(self, name: str, depth: int) -> str:
        """Return the expanded value of a name."""
        if name in self.open:
            loop = [*self.open[self.open.index(name) :], name]
            shown = " -> ".join(loop if len(loop) <= LOOP_SHOWN else [*loop[: LOOP_SHOWN - 1], "...", name])
            error = ExpansionError(f'"{name}" refers to itself ({shown})', "remove one of these references")
            error.name = name
            raise error
        found = self.lookup(name)
        if found is None and self.strict:
            raise ExpansionError(f'undefined $name: "{name}"', "give it a value in main.cf, or write $$ for a dollar")
        if not found or "$" not in found:
            return found or ""
        self.open.append(name)
        try:
            return self.text(found, depth)
        except ExpansionError as error:
            error.name = error.name or name
            raise
        finally:
            self.open.pop()

    def _choice(self, held: bool, rest: str, depth: int) -> str:
        """Return the expansion of `?then`, `:else` or `?{then}:{else}`; an operand without braces has no end."""
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
            chosen += self.branch(text, wanted, depth)
        if rest:
            raise ExpansionError(f'unexpected input at: "{rest[:20]}"')
        return chosen

    def branch(self, text: str, wanted: bool, depth: int) -> str:
        """Return the expansion of an operand of `?` or `:` that is wanted; nothing for the other one."""
        return self.text(text, depth) if wanted else ""

    def _comparison(self, left: str, rest: str, depth: int) -> tuple[bool, str]:
        """Return whether `{left} operator {right}` holds, and the text after it."""
        end = 0
        while end < len(rest) and rest[end] in _OPERATORS:
            end += 1
        operator, rest = rest[:end], rest[end:]
        if operator not in _COMPARE:
            wanted = '"==" or "!=" or "<" or "<=" or ">=" or ">"'
            raise ExpansionError(f'{wanted} expected at: "...{{{left}}}>>>{operator}{rest[:20]}"')
        end = 0
        while end < len(rest) and rest[end].isascii() and rest[end].isalnum():
            end += 1
        suffix, rest = rest[:end], rest[end:]
        if suffix not in ("", "level"):
            raise ExpansionError(f'bad operator suffix at: "{operator}{suffix}"')
        right = _braced(rest)
        if right is None:
            raise ExpansionError(f'"{{expression}}" expected at: "...{{{left}}} {operator}{suffix}>>>{rest[:20]}"')
        return self.holds(self.text(left, depth), operator, suffix, self.text(right[0], depth)), right[1]

    def holds(self, left: str, operator: str, suffix: str, right: str) -> bool:
        """Return whether a comparison of two expanded texts holds."""
        compare = _COMPARE[operator]
        if suffix:
            return compare(level(left), level(right))
        if all(text.isascii() and text.isdigit() for text in (left, right)):
            return compare(_number(left), _number(right))
        return compare(left.encode("utf-8", "surrogateescape"), right.encode("utf-8", "surrogateescape"))

    def _function(self, name: str, rest: str, depth: int) -> str:
        argument = _braced(rest)
        if argument is None or argument[1]:
            raise ExpansionError(f'unexpected input at: "{rest[:20]}"')
        if name != "domain_to_ascii":
            raise ExpansionError(f'unknown function "{name}"')
        domain = self.text(argument[0].strip(SPACE), depth)
        if domain.isascii():
            return domain
        # Most sites have no such name: then nothing is imported.
        from postillion.config.domain import BadDomain, to_ascii

        try:
            return to_ascii(domain)
        except BadDomain as error:
            raise ExpansionError(f'domain_to_ascii: "{domain}": {error}', "give a domain name") from None


class _Scan(_Expansion):
    """A search for the names in a text: every branch is read, and no name has a value."""

    def __init__(self) -> None:
        super().__init__(self._note)
        self.found: set[str] = set()

    def _note(self, name: str) -> None:
        self.found.add(name)

    def branch(self, text: str, wanted: bool, depth: int) -> str:
        """Search both operands of `?` and `:`."""
        return self.text(text, depth) and ""

    def holds(self, left: str, operator: str, suffix: str, right: str) -> bool:
        """Compare nothing: the operands have no values."""
        return False


def level(text: str) -> tuple[int, int, int]:
    """Return a compatibility level such as `3.6` as numbers to compare; missing parts are 0."""
    parts = text.strip(SPACE).split(".")
    if not 1 <= len(parts) <= 3 or not all(_digits(part) for part in parts):
        raise ExpansionError(f'malformed compatibility level syntax: "{text}"', "give a level such as 3.6")
    major, minor, patch = [int(part) for part in parts] + [0] * (3 - len(parts))
    if minor > LEVEL_PART_MAX or patch > LEVEL_PART_MAX:
        raise ExpansionError(f'invalid compatibility level: "{text}"', f"give numbers up to {LEVEL_PART_MAX}")
    return major, minor, patch


def _inside(text: str, dollar: int) -> tuple[str, int]:
    """Return what the reference at a dollar has between its brackets, or its bare name, and the index after it.

    Only brackets of the same kind count.
    """
    opener = text[dollar + 1 : dollar + 2]
    at = dollar + 1
    if opener and opener in "({":
        closer = ")" if opener == "(" else "}"
        level = 0
        for end in range(at, len(text)):
            level += (text[end] == opener) - (text[end] == closer)
            if level == 0:
                inside, at = text[at + 1 : end], end + 1
                break
        else:
            raise ExpansionError(f'truncated macro reference: "{text[:60]}"', CLOSE)
    else:
        while at < len(text) and _in_name(text[at]):
            at += 1
        inside = text[dollar + 1 : at]
    if not inside:
        raise ExpansionError(f'empty macro name: "{text[:60]}"', "give a name, or write $$ for a dollar")
    return inside, at


def _name(inside: str) -> tuple[str, str]:
    """Return the name at the start of a reference, and the text after it, which is empty or begins with `?:{`."""
    text = inside.lstrip(SPACE)
    end = 0
    while end < len(text) and _in_name(text[end]):
        end += 1
    name, rest = text[:end], text[end:].lstrip(SPACE)
    if rest and rest[0] not in "?:{":
        raise ExpansionError(f'attribute name syntax error at: "{inside[:60]}"')
    return name, rest


def _in_name(c: str) -> bool:
    return c == "_" or (c.isascii() and c.isalnum())


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
    raise ExpansionError(f'unbalanced {{}} in attribute expression: "{text[:60]}"', CLOSE)


def _number(text: str) -> int:
    """Return a text of digits as a number."""
    digits = text.lstrip("0") or "0"
    if len(digits) > len(str(NUMBER_MAX)) or int(digits) > NUMBER_MAX:
        raise ExpansionError(f'number out of range: "{text[:60]}"', f"give numbers up to {NUMBER_MAX}")
    return int(digits)


def _digits(text: str) -> bool:
    return 0 < len(text) <= DIGITS_MAX and text.isascii() and text.isdigit()
