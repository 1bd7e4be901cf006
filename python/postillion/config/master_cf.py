"""master.cf: one service per line, in eight fields (master(5)).

    service  type  private  unpriv  chroot  wakeup  maxproc  command + arguments

`-` selects a field's default. Continuation lines and comments are as in main.cf. A later line for the same service
and type replaces the earlier one.
"""

import os
from collections.abc import Iterator

from postillion.config import main_cf
from postillion.config.errors import ConfigError

TYPES = ("inet", "unix", "unix-dgram", "fifo", "pass")
FIELDS = ("service", "type", "private", "unpriv", "chroot", "wakeup", "maxproc", "command")
BLANKS = " \t\r\n"
SERVICES_MAX = 1000
WAKEUP_MAX_S = 100 * 86_400
MAXPROC_MAX = 1_000_000


class Entry:
    """A line of master.cf.

    `fields`: the eight fields as written, the eighth without arguments. `wakeup_s`: 0 for never.
    `wakeup_when_used`: wake up only a service that was used (`1000?`). `maxproc`: None for default_process_limit, 0
    for no limit. `arguments`: the words after the command, without braces.
    """

    __slots__ = (
        "arguments",
        "chroot",
        "command",
        "fields",
        "line",
        "maxproc",
        "path",
        "private",
        "service",
        "type",
        "unprivileged",
        "wakeup_s",
        "wakeup_when_used",
    )

    def __init__(self, path: str, line: int, words: list[str]) -> None:
        self.path = path
        self.line = line
        if len(words) < len(FIELDS):
            missing = FIELDS[len(words)]
            raise self.error(f'missing "{missing}" field', f"give eight fields: {' '.join(FIELDS)}")
        self.fields = words[:8]
        self.service = words[0]
        self.type = words[1]
        if self.type not in TYPES:
            raise self.error(f'field "type": bad value: "{self.type}"', f"give one of {', '.join(TYPES)}")
        self.private = self._yes_no("private", words[2], True)
        self.unprivileged = self._yes_no("unpriv", words[3], True)
        self.chroot = self._yes_no("chroot", words[4], False)
        self.wakeup_when_used = words[5].endswith("?")
        wakeup = words[5].removesuffix("?")
        self.wakeup_s = self._number("wakeup", "0" if wakeup == "-" else wakeup, WAKEUP_MAX_S)
        self.maxproc = None if words[6] == "-" else self._number("maxproc", words[6], MAXPROC_MAX)
        self.command = words[7]
        if self.command == "-":
            raise self.error('field "command" has no default value', "give the name of the program")
        if self.type == "inet" and self.private:
            raise self.error("inet service cannot be private", 'write "n" in the third field')
        self.arguments = [main_cf.unbrace(word) for word in words[8:]]
        for word in words[8:]:
            if word.startswith("{") and not word.endswith("}"):
                raise self.error(f'unbalanced braces in "{word}"', "close each { with a }")

    def error(self, problem: str, fix: str) -> ConfigError:
        """Return the error for this line."""
        return ConfigError(self.path, self.line, problem, fix)

    @property
    def name(self) -> str:
        """The name of the line in postconf and master_service_disable: `service/type`."""
        return f"{self.service}/{self.type}"

    def overrides(self) -> list[tuple[str, str]]:
        """Return the parameters that the arguments set with `-o name=value`, in order."""
        return list(self._overrides())

    def _overrides(self) -> Iterator[tuple[str, str]]:
        following = iter(self.arguments)
        for word in following:
            if not word.startswith("-"):
                return
            if not word.startswith("-o"):
                continue
            text = word[2:] or next(following, "")
            yield main_cf.split_assignment(text, self.path, self.line)

    def _yes_no(self, field: str, word: str, default: bool) -> bool:
        if word not in ("-", "y", "n"):
            raise self.error(f'field "{field}": bad value: "{word}"', 'give "y", "n" or "-"')
        return default if word == "-" else word == "y"

    def _number(self, field: str, word: str, high: int) -> int:
        if not word.isascii() or not word.isdigit() or len(word) > 10 or int(word) > high:
            raise self.error(f'field "{field}": bad value: "{word}"', f'give a whole number up to {high}, or "-"')
        return int(word)


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
    for line, logical in main_cf.logical_lines(text):
        if logical[0] in main_cf.WHITESPACE:
            raise ConfigError(
                path, line, "continuation line without a line to continue", "remove the white space before it"
            )
        entry = Entry(path, line, main_cf.split_list(logical, BLANKS))
        entry.overrides()
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


def enabled(entries: list[Entry], disabled: list[str]) -> list[Entry]:
    """Return the services that master_service_disable does not name; its words are `name/type`, `name`, `name.type`."""
    off = {word if "/" in word else word.replace(".", "/") for word in disabled}
    return [
        entry
        for entry in entries
        if not off & {entry.name, f"*/{entry.type}", f"{entry.service}/*", entry.service, entry.type}
    ]
