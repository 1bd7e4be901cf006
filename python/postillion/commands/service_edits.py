"""Changes of master.cf by postconf: lines (-M), fields (-F), `-o` parameters (-P).

A change is checked as a whole, then written at once. Lines that no request names are not even read.
"""

from __future__ import annotations

import os

from postillion.commands.services import (
    ANY,
    COMMAND,
    FIELD_NAMES,
    Pattern,
    bad,
    entry_line,
    field_index,
)
from postillion.config import edit, main_cf, master_cf, secrets
from postillion.config.main_cf import split_assignment
from postillion.config.master_cf import Line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from postillion.commands.services import Warn

NEEDED = {
    "M": "-Me, -MX or -M# requires service_name/type",
    "F": "-Fe or -FX requires service_name/type/field_name",
    "P": "-Pe or -PX requires service_name/type/parameter",
}


class ServiceEdit:
    """A request to change services. `part`: M, F or P, as the option. `value`: None to remove."""

    def __init__(self, word: str, part: str, value: str | None) -> None:
        self.part = part
        self.value = value
        self.pattern = Pattern(word, *((2, 2) if part == "M" else (3, 3)), NEEDED[part])
        if part == "F":
            if self.pattern.part == ANY:
                raise bad("-Fe does not accept wild-card field name")
            if field_index(self.pattern.part) != COMMAND and len((value or "").split()) > 1:
                raise bad("-Fe does not accept whitespace in non-command field")
        elif part == "P" and self.pattern.part == ANY:
            raise bad("-Pe does not accept wild-card parameter name")

    def apply(self, line: Line) -> None:
        """Change a field or a parameter of a line."""
        if self.part == "P":
            line.arguments = list(_with_override(line, self.pattern.part, self.value))
            return
        index = FIELD_NAMES.index(self.pattern.part)
        words = main_cf.split_list(self.value or "", master_cf.BLANKS)
        if index == COMMAND:
            line.arguments = master_cf.split_arguments(words[1:])
        line.fields[index] = words[0] if words else "-"


def change(directory: str, part: str, words: list[str], edit_letter: str, warn: Warn) -> None:
    """Do what words ask for: `edit_letter` is `e`, `#` or `X`. Raises `ConfigError`, and then nothing has changed."""
    requests = [_request(word, part, edit_letter) for word in words]
    path = os.path.join(directory, "master.cf")

    def edited(text: str) -> str:
        lines: dict[int, str | None] = {}
        for number, fields in master_cf.split(text, path, []):
            _change_line(path, number, fields, requests, lines)
        added = [
            _checked(Line(path, None, main_cf.split_list(request.value, master_cf.BLANKS)), request.pattern.text)
            for request in requests
            if part == "M" and request.value is not None and not request.pattern.matched
        ]
        return edit.replaced_lines(text, lines, added, comment=edit_letter == "#")

    edit.rewrite(path, edited)
    if part != "M":
        for word, request in zip(words, requests, strict=True):
            if not request.pattern.matched:
                warn(f'unmatched service_name/type: "{secrets.shown_pair(word)}"')


def _request(word: str, part: str, letter: str) -> ServiceEdit:
    if letter == "e":
        name, value = split_assignment(word, "command line", None)
        return ServiceEdit(name, part, value)
    if "=" in word:
        raise bad("-X or -# requires names without value")
    return ServiceEdit(word.strip(), part, None)


def _change_line(
    path: str, number: int, fields: list[str], requests: list[ServiceEdit], lines: dict[int, str | None]
) -> None:
    """Note the new text of a line in `lines`, when a request names it."""
    service, kind = [*fields, ""][:2]
    line: Line | None = None
    for request in requests:
        value = request.value
        pattern = request.pattern
        if request.part == "M":
            new = None
            if value is not None:
                new = Line(path, None, main_cf.split_list(value, master_cf.BLANKS))
                if not pattern.fits(service, kind) and (service, kind) != (new.service, new.type):
                    continue
            elif not pattern.fits(service, kind):
                continue
            pattern.matched += 1
            lines.setdefault(number, None)
            if new is not None and pattern.matched == 1:
                lines[number] = _checked(new, pattern.text)
        elif pattern.fits(service, kind):
            pattern.matched += 1
            line = Line(path, number, fields) if line is None else line
            request.apply(line)
    if line is not None:
        lines[number] = _checked(line, line.name)


def _checked(line: Line, name: str) -> str:
    """Return the text of a line; raises `ConfigError` when master cannot start it."""
    text = entry_line(line, fold=True)
    entries, _ = master_cf.parse(text, f"{line.path} (new line for {name})")
    if len(entries) != 1:
        raise bad(f"{name}: one line is needed")
    return text


def _with_override(line: Line, name: str, value: str | None) -> Iterator[str]:
    """Yield arguments with `-o name=value` in the place of each earlier one, else behind the other options."""
    new = () if value is None else ("-o", f"{name}={value}")
    missing = new
    options = line.options()
    following = iter(options)
    for word in following:
        text = next(following, None) if word == "-o" else None
        if text is not None and text.partition("=")[0] == name:
            yield from new
            missing = ()
        else:
            yield from (word,) if text is None else (word, text)
    yield from missing
    yield from line.arguments[len(options) :]
