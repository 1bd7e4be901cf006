"""Tables of patterns: `regexp:` and `pcre:` (regexp_table(5), pcre_table(5)), `cidr:` (cidr_table(5)).

The first rule that matches gives the value. Rules may be between `if pattern` and `endif`; `!` negates a rule. A
changed file is read again, as for every text table.
"""

import ipaddress
import os
import re
from collections.abc import Callable
from typing import NamedTuple

from postillion.tables.source import LogicalLine, Problem, logical_lines
from postillion.tables.table import TableError, Warn
from postillion.tables.text import read_source

KEY_MAX_CHARS = 8192
NESTING_MAX = 32

Matcher = Callable[[str], "re.Match[str] | bool | None"]


class Rule(NamedTuple):
    """A line of the table. `end`: for an `if`, the index after its `endif`; 0 for another line."""

    matches: Matcher
    negated: bool
    value: str
    end: int


class PatternTable:
    """A table whose rules are tried in order. `kind`: regexp, pcre or cidr."""

    takes_parts = False

    def __init__(self, name: str, kind: str, path: str, warn: Warn) -> None:
        self.name = name
        self.path = path
        self.owner: int | None = None
        self._kind = kind
        self._warn = warn
        self._stamp: tuple[int, int, int] | None = None
        self._rules: list[Rule] = []

    def lookup(self, key: str) -> str | None:
        """Return the value of the first matching rule, with `$1` replaced. Raises `TableError` without a file."""
        self.refresh()
        if len(key) > KEY_MAX_CHARS or (self._kind == "cidr" and not _is_address(key)):
            return None
        at = 0
        while at < len(self._rules):
            rule = self._rules[at]
            found = rule.matches(key)
            hit = bool(found) is not rule.negated
            if rule.end:
                at = at + 1 if hit else rule.end
            elif hit:
                return _expand(rule.value, found) if isinstance(found, re.Match) else rule.value
            else:
                at += 1
        return None

    def refresh(self) -> None:
        """Read a changed file. Raises `TableError` when it is unreadable."""
        try:
            status = os.stat(self.path)
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp == self._stamp:
                return
            text, status = read_source(self.name, self.path)
        except OSError as error:
            self._stamp = None
            raise TableError(f"table {self.name}: cannot read {self.path}: {error.strerror}") from error
        self._rules = self._compile(text)
        self.owner = status.st_uid
        self._stamp = stamp

    def values(self) -> list[str]:
        """Return the values of all rules, in the order of the file. Raises `TableError`."""
        self.refresh()
        return [rule.value for rule in self._rules if rule.value]

    def _compile(self, text: str) -> list[Rule]:
        rules: list[Rule] = []
        opened: list[int] = []
        for line in logical_lines(text.splitlines()):
            if isinstance(line, Problem):
                self._warn(f"{self.path}, line {line.number}: {line.text}")
                continue
            try:
                self._add(line, rules, opened)
            except ValueError as error:
                self._warn(f"{self.path}, line {line.number}: {error}: the rule is ignored")
        for at in opened:
            self._warn(f"{self.path}: an if without an endif: it extends to the end of the file")
            rules[at] = rules[at]._replace(end=len(rules))
        return rules

    def _add(self, line: LogicalLine, rules: list[Rule], opened: list[int]) -> None:
        text = line.text.strip()
        word = text.split(None, 1)[0].lower()
        if word == "endif":
            if not opened:
                raise ValueError("an endif without an if")
            at = opened.pop()
            rules[at] = rules[at]._replace(end=len(rules))
            return
        conditional = word == "if"
        if conditional:
            text = text[2:].lstrip()
        negated = text.startswith("!")
        parse = _parse_network if self._kind == "cidr" else _parse_expression
        matches, value = parse(text[1:].lstrip() if negated else text)
        if conditional:
            if len(opened) >= NESTING_MAX:
                raise ValueError(f"more than {NESTING_MAX} nested ifs")
            opened.append(len(rules))
        elif not value:
            raise ValueError("expected a pattern, whitespace and a value")
        rules.append(Rule(matches, negated, value, len(rules) + 1 if conditional else 0))


def _parse_network(text: str) -> tuple[Matcher, str]:
    pattern, _, value = text.partition(" ") if " " in text else text.partition("\t")
    pattern = pattern.split("\t", 1)[0]
    value = text[len(pattern) :].strip()
    network = ipaddress.ip_network(pattern.replace("[", "").replace("]", ""))
    return (lambda key: ipaddress.ip_address(key) in network), value


def _is_address(key: str) -> bool:
    try:
        ipaddress.ip_address(key)
    except ValueError:
        return False
    return True


def _parse_expression(text: str) -> tuple[Matcher, str]:
    if not text or text[0].isalnum() or text[0].isspace() or text[0] == "\\":
        raise ValueError("expected /pattern/flags")
    at = 1
    while at < len(text) and text[at] != text[0]:
        at += 2 if text[at] == "\\" else 1
    if at >= len(text):
        raise ValueError(f'no closing "{text[0]}"')
    pattern, rest = text[1:at], text[at + 1 :]
    letters = re.match(r"[A-Za-z]*", rest)
    flags = letters.group() if letters else ""
    # Matching ignores case unless `i` turns that off; `m` and `x` are as in pcre_table(5).
    options = re.IGNORECASE | re.DOTALL
    for flag in flags:
        if flag not in "imxsXU":
            raise ValueError(f'unknown flag "{flag}"')
        options ^= {"i": re.IGNORECASE, "m": re.MULTILINE, "x": re.VERBOSE, "s": re.DOTALL}.get(flag, re.NOFLAG)
    try:
        compiled = re.compile(_python_pattern(pattern), options)
    except re.error as error:
        raise ValueError(f'bad pattern "{pattern}": {error}') from error
    return compiled.search, rest[len(flags) :].strip()


CLASSES = {
    "alpha": "A-Za-z",
    "digit": "0-9",
    "alnum": "A-Za-z0-9",
    "upper": "A-Z",
    "lower": "a-z",
    "space": r"\s",
    "blank": r" \t",
    "xdigit": "0-9A-Fa-f",
    "punct": r"!-/:-@\[-`{-~",
    "cntrl": r"\x00-\x1f\x7f",
    "print": r"\x20-\x7e",
    "graph": r"\x21-\x7e",
}


def _python_pattern(pattern: str) -> str:
    """Return the pattern with POSIX character classes replaced; the other syntax of tables is the same in Python."""
    return re.sub(r"\[:([a-z]+):\]", lambda found: CLASSES.get(found.group(1), found.group()), pattern)


def _expand(value: str, found: re.Match[str]) -> str:
    """Replace `$1`, `${1}` and `$(1)` by the text of the group, and `$$` by a dollar sign (regexp_table(5))."""

    def text(reference: re.Match[str]) -> str:
        if reference.group() == "$$":
            return "$"
        number = int(next(group for group in reference.groups() if group))
        return found.group(number) or "" if number <= (found.re.groups or 0) else ""

    return re.sub(r"\$\$|\$(\d{1,2})|\$\{(\d{1,2})\}|\$\((\d{1,2})\)", text, value)
