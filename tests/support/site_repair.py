"""Repairs of a site's copy: the refused word, option or line goes, so that the checker reaches the next one."""

from __future__ import annotations

import re
from pathlib import Path

from postillion.config import ConfigError, parameters
from postillion.restrictions.rows import ROWS, Argument

RESTRICTION = re.compile(
    r'(?:under stress: )?\w+: "([^"]*)" (?:is not supported yet|is a restriction class|must be followed)'
)
"""A refusal of one word in a restriction list."""
ARGUMENT = r"(?:\w+:\{(?:[^{}]|\{[^{}]*\})*\}|[^\s,{}]+)"
"""The word behind a restriction; an inline table has blanks and braces."""
NEUTRAL = {
    "smtpd_relay_restrictions and smtpd_recipient_restrictions would relay": (
        "smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination"
    ),
    **{
        f"{name}: ": f"{name} = error:none"
        for name in ("default_transport", "local_transport", "relay_transport", "virtual_transport")
    },
    "local_recipient_maps: table lmdb:/etc/aliases": "alias_maps =",
    "myhostname": "myhostname = mx.example.org",
}
"""The line of main.cf that replaces a refused value, by the start of the refusal."""


def remove_refused(copy: Path, refusal: ConfigError) -> bool:
    """Remove the refused word, option or line; return whether there was one.

    In master.cf this is the `-o` of the named parameter, else the whole service. A parameter of main.cf that has its
    default gets an empty value.
    """
    path = Path(refusal.path)
    for begin, line in NEUTRAL.items():
        if refusal.problem.startswith(begin) and line not in (copy / "main.cf").read_text(errors="surrogateescape"):
            with (copy / "main.cf").open("a") as file:
                file.write(line + "\n")
            return True
    name = re.match(r'(?:bad value ".*" for )?(\w+)(?: =|:|$)', refusal.problem)
    if path.is_relative_to(copy / "root"):
        return replace_table(copy, path)
    if path.parent != copy or refusal.line is None:
        if (
            name is None
            or name[1] not in parameters.PARAMETERS
            or "\n" + name[1] + " =\n" in (copy / "main.cf").read_text(errors="surrogateescape")
        ):
            return False
        with (copy / "main.cf").open("a") as file:
            file.write(f"{name[1]} =\n")
        return True
    lines = path.read_text(errors="surrogateescape").split("\n")
    first = refusal.line - 1
    last = first + 1
    while last < len(lines) and (lines[last][:1] in (" ", "\t", "#") or not lines[last].strip()):
        last += 1
    logical = "\n".join(lines[first:last])
    kept = "#"
    restriction = RESTRICTION.match(refusal.problem)
    if restriction:
        row = ROWS.get(restriction[1].lower())
        argument = (
            rf"\s+{ARGUMENT}" if row is not None and row.argument not in (Argument.NONE, Argument.RESTRICTION) else ""
        )
        word = re.compile(rf"(?<=[\s,={{]){re.escape(restriction[1])}(?:{argument}(?=[\s,}}]|$)|(?=[\s,}}]|$))")
        kept = word.sub("", logical, count=1)
        if kept != logical:
            write(path, lines, first, last, kept)
            return True
        if remove_word(copy, word):
            return True
        kept = "#"
    if path.name == "master.cf" and name is not None:
        option = re.compile(rf"\s+-o\s*(?:\{{\s*{name[1]}\s*=[^}}]*\}}|{name[1]}\s*=\S*)")
        if option.search(logical):
            kept = option.sub("", logical)
    write(path, lines, first, last, kept)
    return kept != logical


def remove_word(copy: Path, word: re.Pattern[str]) -> bool:
    """Remove a restriction from the parameter that the refused list refers to; return whether there was one."""
    path = copy / "main.cf"
    lines = path.read_text(errors="surrogateescape").split("\n")
    for number, line in enumerate(lines):
        kept = line if line.lstrip().startswith("#") else word.sub("", line, count=1)
        if kept != line:
            write(path, lines, number, number + 1, kept)
            return True
    return False


def write(path: Path, lines: list[str], first: int, last: int, kept: str) -> None:
    """Write a file with `kept` in place of some lines. The lines behind it keep their numbers."""
    there = kept.split("\n")
    there += ["#"] * (last - first - len(there))
    path.write_text("\n".join([*lines[:first], *there, *lines[last:]]), errors="surrogateescape")


def replace_table(copy: Path, path: Path) -> bool:
    """Put an inline table in place of the tables that a file configures; return whether there was one."""
    found = 0
    for name in ("main.cf", "master.cf"):
        text = (copy / name).read_text(errors="surrogateescape")
        text, here = re.subn(rf"(?:proxy:)?\w+:{re.escape(str(path))}(?![^\s,}}])", "inline:{none=:}", text)
        (copy / name).write_text(text, errors="surrogateescape")
        found += here
    return found > 0
