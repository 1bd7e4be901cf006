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
    """Return the targets of a list, in order, as Postfix separates them: by commas, semicolons and blanks.

    `"|command with blanks"`, `|"command"`, `/file`, `~/file`, `:include:/file`, `user`, `user@domain`,
    `"odd user"@domain`, `Name <user@domain>`, `group: user, user;` and (comments). Empty items are ignored.
    """
    targets = (_target(word) for word in _Words(text).found)
    return [target for target in targets if target is not None]


def parse_lines(text: str) -> list[Target]:
    """Return the targets of a .forward or :include: file: a list on each line; `#` starts a comment line."""
    return [target for line in text.split("\n") if not line.startswith("#") for target in parse_targets(line)]


class _Word(NamedTuple):
    """A target: its text without quotes, or the text inside angle brackets, and a flag for each quoted character.

    The last unquoted `@` starts the domain.
    """

    text: str
    quoted: list[bool]


class _Words:
    """The words of a list. Blanks, comments and quotes end a word, but not beside an unquoted `.` or `@`."""

    def __init__(self, text: str) -> None:
        self.found: list[_Word] = []
        self._phrase: list[_Word] = []
        """The words since the last comma: they are a name if `<` follows, or `:`."""
        self._chars: list[str] = []
        self._marks: list[bool] = []
        self._is_ended = False
        """Whether a blank, a comment or a quote stands behind the last character."""
        self._read(text)
        self._end_phrase()

    def _read(self, text: str) -> None:
        at = depth = 0
        quoted = angle = literal = False
        while at < len(text):
            char = text[at]
            if char == "\\" and at + 1 < len(text) and (quoted or depth):
                at += 1
                if not depth:
                    self._add(text[at], quoted=True)
            elif quoted and char != '"':
                self._add(char, quoted=True)
            elif depth or char == "(":
                depth += (char == "(") - (char == ")")
                self._is_ended = not angle
            elif char == '"':
                quoted = not quoted
                self._is_ended = not angle and not self._is_mark()
            elif literal or char == "[":
                literal = char != "]"
                self._add(char)
            elif char in ",;\n":
                angle = False
                self._end_phrase()
            elif char == "<":
                angle = True
                self._end_word()
                self._phrase = [word for word in self._phrase if _at(word) is not None]
            elif char == ">":
                angle = False
                self._end_word()
            elif char.isspace():
                self._is_ended = not angle
                if angle and self._chars:
                    self._add(" ")
            elif char == ":" and not angle:
                at += self._colon(text[at : at + len(INCLUDE_MARK)])
            else:
                self._add(char)
            at += 1

    def _add(self, char: str, *, quoted: bool = False) -> None:
        if self._is_ended and self._chars:
            joins = (self._chars[-1] in ".@" and not self._marks[-1]) or (char in ".@" and not quoted)
            if not joins:
                self._end_word()
        self._is_ended = False
        self._chars.append(char)
        self._marks.append(quoted)

    def _is_mark(self) -> bool:
        """Return whether the word until now is the mark of its kind: quotes may follow it."""
        return not self._is_ended and "".join(self._chars).lower() in ("|", INCLUDE_MARK)

    def _colon(self, text: str) -> int:
        """Take a colon: of `:include:`, of a file or command, or behind the name of a group.

        `text`: from the colon. Returns how many further characters are taken.
        """
        is_new = self._is_ended or not self._chars
        if is_new and text.lower() == INCLUDE_MARK:
            for char in text:
                self._add(char)
            return len(text) - 1
        if not is_new and self._chars[0] in "|/~:":
            self._add(":")
        else:
            self._end_word()
            self._phrase = []
        return 0

    def _end_word(self) -> None:
        if self._chars:
            self._phrase.append(_Word("".join(self._chars), self._marks))
        self._chars, self._marks = [], []
        self._is_ended = False

    def _end_phrase(self) -> None:
        self._end_word()
        self.found += self._phrase
        self._phrase = []


def _at(word: _Word) -> int | None:
    """Return the place of the `@` before the domain; None without one."""
    text, quoted = word
    return max((n for n, char in enumerate(text) if char == "@" and not quoted[n]), default=None)


def _target(word: _Word) -> Target | None:
    text, quoted = word
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
    at = _at(_Word(text, quoted))
    local, domain = (text, None) if at is None else (text[:at], text[at + 1 :])
    if not ATOMS.match(local) and not local.startswith("\\"):
        local = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return Target(ADDRESS, local if domain is None else f"{local}@{domain.replace(' ', '')}")
