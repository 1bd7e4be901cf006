"""Services of master.cf as postconf shows and changes them: lines (-M), fields (-F), `-o` parameters (-P).

A service is named `service/type`; `*` stands for any service or any type. A change is checked as a whole, then written
at once.
"""

import os
from collections.abc import Callable, Iterator

from postillion.config import ConfigError, edit, main_cf, master_cf
from postillion.config.main_cf import split_assignment
from postillion.config.master_cf import Entry

LINE_COLUMNS = 80
INDENT = "    "
FIELD_COLUMNS = (0, 11, 17, 25, 33, 41, 49, 57)
FIELD_NAMES = ("service", "type", "private", "unprivileged", "chroot", "wakeup", "process_limit", "command")
ANY = "*"

Warn = Callable[[str], None]


class Services:
    """The services of one master.cf. `part`: M, F or P, as the option."""

    def __init__(self, directory: str, part: str) -> None:
        """Read the file; raises `ConfigError`."""
        self.path = os.path.join(directory, "master.cf")
        self.part = part
        self.entries, self.warnings = master_cf.load(directory)

    def find(self, words: list[str], warn: Warn) -> Iterator[tuple[Entry, str]]:
        """Yield the services that words name, each with the field or parameter that a word names, or `*`."""
        for word in words or [ANY]:
            service, kind, part, *rest = [*word.split("/"), ANY, ANY]
            if len(rest) > 2:
                raise _bad(f'invalid request: "{word}"')
            if self.part == "F" and part != ANY:
                _field(part)
            chosen = [entry for entry in self.entries if _matches(entry, service, kind)]
            if self.part == "P" and part != ANY:
                chosen = [entry for entry in chosen if part in dict(entry.overrides())]
            if not chosen:
                warn(f'unmatched request: "{word}"')
            for entry in chosen:
                yield entry, part

    def assign(self, words: list[str], warn: Warn) -> None:
        """Set what `service/type=line`, `service/type/field=value` or `service/type/parameter=value` words say."""
        lines: dict[str, str | None] = {}
        added: dict[str, str] = {}
        changed: dict[str, Entry] = {}
        names = {entry.name: entry for entry in self.entries}
        for word in words:
            target, value = split_assignment(word, "command line", None)
            service, kind, *part = self._target(target)
            chosen = [name for name in names if _matches(names[name], service, kind)]
            if not part:
                line = self._checked(target, value)
                first, *others = chosen or [target]
                lines.update(dict.fromkeys(others))
                if chosen:
                    lines[first] = line
                else:
                    added[target] = line
                continue
            if not chosen:
                warn(f'unmatched service_name/type: "{word}"')
            for name in chosen:
                _set_part(names[name], part[0], value, field=self.part == "F")
                changed[name] = names[name]
        lines |= {name: self._checked(name, entry_line(entry, fold=True)) for name, entry in changed.items()}
        if lines or added:
            edit.replace_services(self.path, lines, added.values())

    def remove(self, words: list[str], *, comment: bool) -> None:
        """Remove services, or `-o` parameters of services; with `comment` turn services into comments."""
        lines: dict[str, str | None] = {}
        for word in words:
            if "=" in word:
                raise _bad("specify one of -e -X or -#: nothing that is removed has a value")
            service, kind, *part = self._target(word)
            for entry in self.entries:
                if _matches(entry, service, kind):
                    if part:
                        _set_part(entry, part[0], None, field=False)
                    lines[entry.name] = self._checked(entry.name, entry_line(entry, fold=True)) if part else None
        edit.replace_services(self.path, lines, comment=comment)

    def _target(self, name: str) -> list[str]:
        """Split the name of what is to be changed; raises `ConfigError` when it has not as many parts as needed."""
        parts = name.split("/")
        if len(parts) != (2 if self.part == "M" else 3) or not all(parts):
            needed = {
                "M": "-Me, -MX or -M# requires service_name/type",
                "F": "-Fe requires service_name/type/field_name",
                "P": "-Pe or -PX requires service_name/type/parameter",
            }
            raise _bad(needed[self.part])
        return parts

    def _checked(self, name: str, line: str) -> str:
        """Return a line in columns; raises `ConfigError` when it is no line of master.cf."""
        entries, _ = master_cf.parse(line, f"{self.path} (new line for {name})")
        if len(entries) != 1:
            raise _bad(f"{name}: one line is needed")
        return entry_line(entries[0], fold=True)


def fields(entry: Entry) -> dict[str, str]:
    """Return the fields of a service by name; the last one has the command and its arguments."""
    command = " ".join([entry.command, *_words(entry)])
    return dict(zip(FIELD_NAMES, [*entry.fields[:7], command], strict=True))


def entry_line(entry: Entry, *, fold: bool) -> str:
    """Return a line of master.cf in columns; folded, each -o stands on a line of its own."""
    line = ""
    for column, word in zip(FIELD_COLUMNS, entry.fields, strict=True):
        line = line + " " * max(column - len(line), 1 if line else 0) + word
    column = len(line)
    options, before = True, False
    for word in _words(entry):
        options = options and word.startswith("-")
        alone = options and word.startswith("-o ")
        breaks, before = alone or before, alone
        if fold and (breaks or column + 1 + len(word) >= LINE_COLUMNS):
            line += f"\n{INDENT}{word}"
            column = len(INDENT) + len(word)
        else:
            line += f" {word}"
            column += 1 + len(word)
    return line


def _set_part(entry: Entry, name: str, value: str | None, *, field: bool) -> None:
    """Set a field, or a `-o` parameter (None: remove it)."""
    if field:
        index = _field(name)
        words = main_cf.split_list(value or "", master_cf.BLANKS)
        if name == "command":
            entry.arguments = [main_cf.unbrace(word) for word in words[1:]]
        elif len(words) > 1:
            raise _bad("-Fe does not accept whitespace in non-command field")
        entry.fields[index] = words[0] if words else "-"
        return
    if name == ANY:
        raise _bad("-Pe does not accept wild-card parameter name")
    entry.arguments = list(_with_override(entry.arguments, name, value))


def _with_override(arguments: list[str], name: str, value: str | None) -> Iterator[str]:
    """Yield arguments with `-o name=value` in the place of each earlier one, else behind the other options."""
    new = () if value is None else ("-o", f"{name}={value}")
    missing = new
    following = iter(arguments)
    for word in following:
        if not word.startswith("-"):
            yield from (*missing, word, *following)
            return
        if not word.startswith("-o"):
            yield word
            continue
        text = word[2:] or next(following, "")
        if split_assignment(text, "-o", None)[0] == name:
            yield from new
            missing = ()
        else:
            yield from ("-o", text)
    yield from missing


def _field(name: str) -> int:
    """Return the place of a field in the line; raises `ConfigError` for a name that no field has."""
    if name == ANY:
        raise _bad("-Fe does not accept wild-card field name")
    if name not in FIELD_NAMES:
        raise _bad(f'invalid service attribute name: "{name}"', f"give one of {', '.join(FIELD_NAMES)}")
    return FIELD_NAMES.index(name)


def _words(entry: Entry) -> list[str]:
    """The arguments as they are printed: an option with its value is one word, `-o` values have no idle space."""
    words: list[str] = []
    following = iter(entry.arguments)
    options = True
    for word in following:
        options = options and word.startswith("-")
        if options and word == "-o":
            pair = split_assignment(next(following, ""), entry.path, entry.line)
            words.append(f"-o {_braced('='.join(pair))}")
        else:
            words.append(_braced(word))
    return words


def _braced(word: str) -> str:
    return f"{{{word}}}" if not word or any(c in master_cf.BLANKS for c in word) else word


def _matches(entry: Entry, service: str, kind: str) -> bool:
    return service in (ANY, entry.service) and kind in (ANY, entry.type)


def _bad(problem: str, fix: str = "see postconf(1)") -> ConfigError:
    return ConfigError("command line", None, problem, fix)
