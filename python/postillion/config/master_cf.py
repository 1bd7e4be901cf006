"""master.cf: one service per line, in eight fields (master(5)).

    service  type  private  unpriv  chroot  wakeup  maxproc  command + arguments

`-` selects a field's default. Continuation lines and comments are as in main.cf; a continuation line without a line to
continue gets a warning. A later line for the same service and type replaces the earlier one.
"""

from __future__ import annotations

import os

from postillion.config import main_cf, match_list, secrets
from postillion.config.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

TYPES = ("inet", "unix", "unix-dgram", "fifo", "pass")
FIELDS = ("service", "type", "private", "unpriv", "chroot", "wakeup", "maxproc", "command")
BLANKS = " \t\r\n"
DIGITS = "0123456789"
SERVICES_MAX = 1000
WAKEUP_MAX_S = 100 * 86_400
MAXPROC_MAX = 1_000_000


class Line:
    """A line of master.cf as postconf shows and changes it; `Entry` is one that master can start.

    `fields`: the eight fields as written, the eighth without arguments. `arguments`: the words after the command,
    without braces; an option and the value of `-o` are two words (`-vo a=b` is `-v -o a=b`).
    """

    __slots__ = ("arguments", "fields", "line", "path")

    def __init__(self, path: str, line: int | None, words: list[str]) -> None:
        """Raises `ConfigError` for a line that postconf refuses too."""
        self.path = path
        self.line = line
        if len(words) < len(FIELDS):
            missing = FIELDS[len(words)]
            raise self.error(f'missing "{missing}" field', f"give eight fields: {' '.join(FIELDS)}")
        self.fields = words[:8]
        self.check_fields()
        self.arguments = split_arguments(words[8:])

    def error(self, problem: str, fix: str) -> ConfigError:
        """Return the error for this line."""
        return ConfigError(self.path, self.line, problem, fix)

    def bad_field(self, field: str, word: str, fix: str) -> ConfigError:
        """Return the error for a word that a field cannot have."""
        return self.error(f'field "{field}": bad value: "{secrets.shown_line(word)}"', fix)

    @property
    def service(self) -> str:
        """The first field."""
        return self.fields[0]

    @property
    def type(self) -> str:
        """The second field."""
        return self.fields[1]

    @property
    def command(self) -> str:
        """The eighth field: the name of the program."""
        return self.fields[7]

    @property
    def name(self) -> str:
        """The name of the line in postconf and master_service_disable: `service/type`."""
        return f"{self.service}/{self.type}"

    def overrides(self) -> list[tuple[str, str]]:
        """Return the parameters that the arguments set with `-o name=value`, in order; other words set none."""
        options = iter(self.options())
        texts = (next(options, "") for word in options if word == "-o")
        pairs = (text.partition("=") for text in texts if text.partition("=")[0].strip(main_cf.WHITESPACE + "="))
        return [
            (name.strip(main_cf.WHITESPACE), value.strip(main_cf.WHITESPACE)) for name, is_set, value in pairs if is_set
        ]

    def options(self) -> list[str]:
        """Return the arguments that are options, and the values of `-o`."""
        end = 0
        while end < len(self.arguments) and self.arguments[end].startswith("-") and self.arguments[end] != "--":
            end += 2 if self.arguments[end] == "-o" else 1
        return self.arguments[:end]

    def check_arguments(self) -> None:
        """Raise `ConfigError` for a word that is neither an option nor the value of `-o`: programs take no others.

        A value with spaces that lacks its braces would lose its end, such as the `reject` of a restriction list.
        """
        options = self.options()
        rest = [word for word in self.arguments[len(options) :] if word != "--"]
        if rest:
            # Not the word itself: it may be the end of a password.
            where = f"behind {options[-2]} {options[-1].partition('=')[0].strip()}" if "-o" in options[-2:-1] else ""
            fix = "remove it, or write a value with spaces as -o { name = value }"
            raise self.error(f"unexpected argument {where or rest[0]}", fix)

    def check_fields(self) -> None:
        """Raise `ConfigError` for the first field that is neither `-` nor of its kind."""
        _, kind, *flags, wakeup, maxproc, _ = self.fields
        if kind not in TYPES:
            raise self.error(f'field "type": bad value: "{kind}"', f"give one of {', '.join(TYPES)}")
        for field, word in zip(FIELDS[2:5], flags, strict=True):
            if word not in ("-", "y", "n"):
                raise self.bad_field(field, word, 'give "y", "n" or "-"')
        for field, word in (("wakeup", wakeup.removesuffix("?")), ("maxproc", maxproc)):
            if word != "-" and word.strip(DIGITS):
                raise self.bad_field(field, word, 'give a whole number, or "-"')


class Entry(Line):
    """A service that master can start.

    `wakeup_s`: 0 for never. `wakeup_when_used`: wake up only a service that was used (`1000?`). `maxproc`: None for
    default_process_limit, 0 for no limit.
    """

    __slots__ = ("chroot", "maxproc", "private", "unprivileged", "wakeup_s", "wakeup_when_used")

    def __init__(self, path: str, line: int, words: list[str]) -> None:
        super().__init__(path, line, words)
        _, _, private, unprivileged, chroot, wakeup, maxproc, _ = self.fields
        self.private = private != "n"
        self.unprivileged = unprivileged != "n"
        self.chroot = chroot == "y"
        self.wakeup_when_used = wakeup.endswith("?")
        wakeup = wakeup.removesuffix("?")
        self.wakeup_s = self._number("wakeup", "0" if wakeup == "-" else wakeup, WAKEUP_MAX_S)
        self.maxproc = None if maxproc == "-" else self._number("maxproc", maxproc, MAXPROC_MAX)
        if self.command == "-":
            raise self.error('field "command" has no default value', "give the name of the program")
        if self.type == "inet" and self.private:
            raise self.error("inet service cannot be private", 'write "n" in the third field')
        for word in words[8:]:
            if word.startswith("{") and not _is_braced(word):
                raise self.error(f'unbalanced braces in "{secrets.shown_line(word)}"', "close each { with a }")
        options = iter(self.options())
        for word in options:
            if word == "-o":
                main_cf.split_assignment(next(options, ""), path, line)

    def _number(self, field: str, word: str, high: int) -> int:
        if not word or len(word) > 10 or int(word) > high:
            raise self.bad_field(field, word, f'give a whole number up to {high}, or "-"')
        return int(word)


def split_arguments(words: list[str]) -> list[str]:
    """Return the words behind a command with each option apart, and without the braces around a word."""
    found: list[str] = []
    waiting = list(reversed(words))
    while waiting and waiting[-1].startswith("-") and waiting[-1] != "--":
        word = waiting.pop()
        at = word.find("o", 1)
        if at < 0:
            found.append(word)
            continue
        if at > 1:
            found.append(word[:at])
            word = "-" + word[at:]
        if word != "-o":
            waiting.append(word[2:])
        found.append("-o")
        if waiting:
            text = waiting.pop()
            inside = main_cf.unbrace(text)
            if inside != text and "=" in inside:
                name, _, value = inside.partition("=")
                inside = f"{name.rstrip(main_cf.WHITESPACE)}={value.lstrip(main_cf.WHITESPACE)}"
            found.append(inside)
    return found + [main_cf.unbrace(word) for word in reversed(waiting)]


def _is_braced(word: str) -> bool:
    """Return whether the brace at the start of a word is closed at its end."""
    level = 0
    for at, c in enumerate(word):
        level += (c == "{") - (c == "}")
        if level == 0:
            return at == len(word) - 1
    return False


def load(directory: str) -> tuple[list[Entry], list[str]]:
    """Return the services of a configuration directory in order, and warnings about duplicate lines.

    Raises `ConfigError` that names the file, the line and the fix.
    """
    path = os.path.join(directory, "master.cf")
    return parse(main_cf.read(path), path)


def parse(text: str, path: str) -> tuple[list[Entry], list[str]]:
    """Return the services that `text` declares; see `load`."""
    entries: dict[str, Entry] = {}
    warnings: list[str] = []
    for line, words in split(text, path, warnings):
        entry = Entry(path, line, words)
        if entry.name in entries:
            warnings.append(
                f'{path}, line {line}: duplicate master.cf entry for service "{entry.service}" ({entry.type})'
                " -- using the last entry"
            )
            del entries[entry.name]
        entries[entry.name] = entry
        if len(entries) > SERVICES_MAX:
            raise ConfigError(path, line, f"more than {SERVICES_MAX} services", "use several instances")
    return list(entries.values()), warnings


def lines(text: str, path: str) -> tuple[list[Line], list[str]]:
    """Return every line of `text` as postconf reads it, and warnings. Raises `ConfigError`."""
    warnings: list[str] = []
    return [Line(path, line, words) for line, words in split(text, path, warnings)], warnings


def split(text: str, path: str, warnings: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the words of each logical line with its number; add a warning for each one without a beginning."""
    for line, logical in main_cf.logical_lines(text):
        if logical[0] in main_cf.WHITESPACE:
            warnings.append(main_cf.without_beginning(path, line, logical))
        else:
            yield line, main_cf.split_list(logical, BLANKS)


def enabled(entries: list[Entry], disabled: list[str]) -> list[Entry]:
    """Return the services that master_service_disable does not name.

    Its words are types (`inet`) and `name/type`, also written `name.type`; `!` excepts a service, and the first word
    that fits decides.
    """
    return [entry for entry in entries if not _is_disabled(entry, disabled)]


def unmatched(entries: list[Entry], disabled: list[str]) -> list[str]:
    """Return the words of master_service_disable that fit no service."""
    return [word for word in disabled if not any(_fits(entry, word) for entry in entries)]


def _is_disabled(entry: Entry, words: list[str]) -> bool:
    for word in words:
        if _fits(entry, word):
            return match_list.match_word(word)[0]
    return False


def _fits(entry: Entry, word: str) -> bool:
    word = match_list.match_word(word)[1].lower()
    if "/" not in word:
        name, dot, kind = word.rpartition(".")
        word = f"{name}/{kind}" if dot else word
    return word == (entry.name if "/" in word else entry.type).lower()
