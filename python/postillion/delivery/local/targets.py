"""The targets of an alias or a .forward file: addresses, files, commands and :include: files (aliases(5))."""

from typing import NamedTuple

from postillion.delivery.mailbox.letter import ATOMS

ADDRESS, FILE, COMMAND, INCLUDE = "address", "file", "command", "include"
INCLUDE_MARK = ":include:"


class Target(NamedTuple):
    """One target. `kind`: address, file, command or include. `text`: without the mark of its kind."""

    kind: str
    text: str


def parse_targets(text: str) -> list[Target]:
    """Return the targets of a comma-separated list, in order.

    `"|command with blanks"`, `|"command"`, `/file`, `~/file`, `:include:/file`, `user`, `user@domain`,
    `"odd user"@domain`, `Name <user@domain>`, and (comments). Empty items are ignored.
    """
    targets = []
    for item in _items(text):
        target = _target(item)
        if target is not None:
            targets.append(target)
    return targets


def parse_lines(text: str) -> list[Target]:
    """Return the targets of a .forward or :include: file: a list on each line; `#` starts a comment line."""
    return [target for line in text.split("\n") if not line.startswith("#") for target in parse_targets(line)]


class _Item(NamedTuple):
    """A list item: its text without quotes, or the text inside angle brackets, and a flag for each quoted character.

    The last unquoted `@` starts the domain.
    """

    text: str
    quoted: list[bool]


def _items(text: str) -> list[_Item]:
    items: list[_Item] = []
    chars: list[str] = []
    marks: list[bool] = []
    quoted = False
    depth = at = 0
    while at < len(text):
        char = text[at]
        if char == "\\" and at + 1 < len(text) and (quoted or depth):
            at += 1
            if not depth:
                chars.append(text[at])
                marks.append(True)
        elif quoted:
            if char == '"':
                quoted = False
            else:
                chars.append(char)
                marks.append(True)
        elif depth or char == "(":
            depth += (char == "(") - (char == ")")
        elif char == '"':
            quoted = True
        elif char in ",\n":
            items.append(_Item("".join(chars), marks))
            chars, marks = [], []
        elif char == "<":
            chars, marks = [], []
        elif char == ">":
            pass
        elif char.isspace():
            if chars and not (chars[-1] == " " and not marks[-1]):
                chars.append(" ")
                marks.append(False)
        else:
            chars.append(char)
            marks.append(False)
        at += 1
    items.append(_Item("".join(chars), marks))
    return items


def _target(item: _Item) -> Target | None:
    text, quoted = item
    while text.endswith(" ") and not quoted[len(text) - 1]:
        text = text[:-1]
    if not text:
        return None
    if text[0] == "|":
        return Target(COMMAND, text[1:].strip())
    if text[0] in "/~":
        return Target(FILE, text)
    if text[: len(INCLUDE_MARK)].lower() == INCLUDE_MARK:
        return Target(INCLUDE, text[len(INCLUDE_MARK) :].strip())
    at = max((n for n, char in enumerate(text) if char == "@" and not quoted[n]), default=None)
    local, domain = (text, None) if at is None else (text[:at], text[at + 1 :])
    if not ATOMS.match(local) and not local.startswith("\\"):
        local = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return Target(ADDRESS, local if domain is None else f"{local}@{domain.replace(' ', '')}")
