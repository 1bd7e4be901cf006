"""Services of master.cf as postconf prints them: lines (-M), fields (-F), `-o` parameters (-P, -PP).

A service is named `service/type`; `*` stands for any service or any type. `service_edits` changes them.
"""

from __future__ import annotations

import os

from postillion.config import Config, ConfigError, main_cf, master_cf, secrets
from postillion.config.main_cf import Setting
from postillion.config.master_cf import Line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Warn = Callable[[str], None]
    Shown = Callable[[str], str]
    """Returns the printed form of the value of a `-o`."""

LINE_COLUMNS = 80
INDENT = "    "
FIELD_COLUMNS = (0, 11, 17, 25, 33, 41, 49, 57)
FIELD_NAMES = ("service", "type", "private", "unprivileged", "chroot", "wakeup", "process_limit", "command")
COMMAND = FIELD_NAMES.index("command")
ANY = "*"


class Pattern:
    """A service that the command line names: `service[/type[/part]]`; `*` and a missing part stand for any."""

    def __init__(self, text: str, least: int, most: int, needed: str) -> None:
        """Raises `ConfigError` with `needed` for a name of fewer or more parts."""
        parts = [part for part in text.split("/") if part]
        if text.startswith("/") or not least <= len(parts) <= most or any(ANY in part != ANY for part in parts):
            raise bad(f'{needed}: "{text}"')
        self.text = text
        self.service, self.type, self.part = [*parts, ANY, ANY, ANY][:3]
        self.matched = 0

    def fits(self, service: str, kind: str) -> bool:
        """Return whether this is a name of a service."""
        return self.service in (ANY, service) and self.type in (ANY, kind)


def load(directory: str) -> tuple[list[Line], list[str]]:
    """Return the lines of master.cf in a configuration directory, and warnings. Raises `ConfigError`."""
    path = os.path.join(directory, "master.cf")
    return master_cf.lines(main_cf.read(path), path)


def shown(
    lines: list[Line], patterns: list[Pattern], parts: Callable[[Line], list[str]], warn: Warn
) -> Iterator[tuple[Line, str]]:
    """Yield each line with each of its parts that patterns name, in the order of the file; without patterns, all.

    Warns about each pattern that names nothing.
    """
    for line in lines:
        for pattern in patterns or [Pattern(ANY, 1, 1, "")]:
            if pattern.fits(line.service, line.type):
                for part in parts(line):
                    if pattern.part in (ANY, part):
                        pattern.matched += 1
                        yield line, part
    for pattern in patterns:
        if not pattern.matched:
            warn(f'unmatched request: "{pattern.text}"')


def of_service(config: Config, line: Line) -> Config:
    """Return the configuration that a service sees: main.cf with its own `-o` parameters and its name."""
    own = config.overridden(line.overrides(), line.path, line.line)
    names = {"process_name": os.path.basename(line.command), "service_name": line.service}
    own.settings |= {name: Setting(value, line.path, line.line) for name, value in names.items()}
    return own


def field(line: Line, name: str, option: Shown) -> Iterator[str]:
    """Yield the words of a field; the last field has the command and its arguments."""
    index = FIELD_NAMES.index(name)
    yield line.fields[index]
    if index == COMMAND:
        yield from (text for text, _ in words(line, option))


def entry_line(line: Line, *, fold: bool, option: Shown | None = None) -> str:
    """Return a line of master.cf in columns; folded, each -o stands on a line of its own."""
    text = ""
    for column, word in zip(FIELD_COLUMNS, line.fields, strict=True):
        text = text + " " * max(column - len(text), 1 if text else 0) + word
    return folded_words(text, words(line, option), fold=fold)


def folded_words(text: str, following: Iterator[tuple[str, bool]], *, fold: bool) -> str:
    """Return a text with words behind it; with `fold`, long lines are folded, and each `-o` has its own line."""
    column = len(text)
    before = False
    for word, alone in following:
        if fold and (alone or before or column + 1 + len(word) >= LINE_COLUMNS):
            text += f"\n{INDENT}{word}"
            column = len(INDENT) + len(word)
        else:
            text += f" {word}"
            column += 1 + len(word)
        before = alone
    return text


def words(line: Line, option: Shown | None = None) -> Iterator[tuple[str, bool]]:
    """Yield the arguments as they are printed, and whether each is a `-o`, which is one word with its value.

    Without `option`, they are shown as they are written, with their passwords.
    """
    options = line.options()
    following = iter(options)
    for word in following:
        value = next(following, None) if word == "-o" else None
        if value is None:
            yield word, False
        else:
            yield f"-o {_braced(value if option is None else option(value), empty='')}", True
    for word in line.arguments[len(options) :]:
        yield _braced(word if option is None else secrets.without_passwords(word), empty="{}"), False


def field_index(name: str) -> int:
    """Return the place of a field in the line; raises `ConfigError` for a name that no field has."""
    if name not in FIELD_NAMES:
        raise bad(f'invalid service attribute name: "{name}"', f"give one of {', '.join(FIELD_NAMES)}")
    return FIELD_NAMES.index(name)


def bad(problem: str, fix: str = "see postconf(1)") -> ConfigError:
    """Return the error for a word of the command line."""
    return ConfigError("command line", None, problem, fix)


def _braced(word: str, *, empty: str) -> str:
    if not word:
        return empty
    return f"{{{word}}}" if any(c in master_cf.BLANKS for c in word) else word
