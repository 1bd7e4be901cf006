"""postconf(1): show and change the configuration, with the output that scripts know from Postfix.

postconf [-c DIR] [-dnxhHfq] [-o name=value]... [name ...]    parameters of main.cf
postconf -e name=value ... | -# name ... | -X name ...        change main.cf
postconf -M | -F | -P [service[/type[/field]] ...]            services, fields, -o parameters of master.cf
postconf -M -e 'service/type=line' | -F -e service/type/field=value | -P -e service/type/name=value
postconf --explain name ...                                   what a parameter is for
"""

import json
import os
import sys
from collections.abc import Iterable

from postillion.config import Config, ConfigError, edit, kinds, main_cf, master_cf, parameters
from postillion.config.main_cf import Setting, split_assignment
from postillion.config.master_cf import Entry
from postillion.config.settings import DEFAULT_DIRECTORY

LINE_COLUMNS = 80
INDENT = "    "
FIELD_COLUMNS = (0, 11, 17, 25, 33, 41, 49, 57)
FIELD_NAMES = ("service", "type", "private", "unprivileged", "chroot", "wakeup", "process_limit", "command")
AGENTS = ("error", "lmtp", "local", "pipe", "smtp", "virtual")
"""Programs whose services have the transports' parameters."""
TIMED = ("pipe", "spawn")
USAGE = """\
usage: postconf [-c config_dir] [-dfhHjnqvx] [-o name=value] [name...]
       postconf [-c config_dir] -e name=value... | -# name... | -X name...
       postconf [-c config_dir] -M|-F|-P [-e] [service[/type[/name]][=value]...]
       postconf -l | -m | --explain name..."""


class Request:
    """What the command line asks for."""

    def __init__(self, argv: list[str]) -> None:
        self.directory: str | None = None
        self.letters: set[str] = set()
        self.overrides: list[tuple[str, str]] = []
        self.words: list[str] = []
        at = 0
        while at < len(argv):
            word = argv[at]
            at += 1
            if word == "--":
                break
            if word == "--explain":
                self.letters.add("explain")
                continue
            if len(word) < 2 or word[0] != "-":
                at -= 1
                break
            for position, letter in enumerate(word[1:], 2):
                if letter in "co":
                    value = word[position:] or (argv[at] if at < len(argv) else "")
                    at += not word[position:]
                    self._value(letter, value)
                    break
                if letter not in "defhHjlmMnFpPqvxX#":
                    raise ConfigError("command line", None, f"unknown option -{letter}", USAGE)
                self.letters.add(letter)
        self.words = argv[at:]

    def _value(self, letter: str, value: str) -> None:
        if letter == "c":
            self.directory = value
        else:
            self.overrides.append(split_assignment(value, f"-o {value}", None))

    def has(self, letter: str) -> bool:
        """Whether an option was given."""
        return letter in self.letters


def main(argv: list[str] | None = None) -> int:
    """Show or change what the command line asks for; return the exit status."""
    try:
        return run(Request(sys.argv[1:] if argv is None else argv))
    except ConfigError as error:
        print(f"postconf: fatal: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader has seen enough, as with `postconf | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


def run(request: Request) -> int:
    """Do what the request asks for; raises `ConfigError`."""
    directory = os.path.abspath(request.directory or os.environ.get("MAIL_CONFIG") or DEFAULT_DIRECTORY)
    if request.has("l"):
        print("flock\nfcntl\ndotlock")
    elif request.has("m"):
        from postillion.tables.maps import KNOWN_TYPES

        print("\n".join(sorted(KNOWN_TYPES)))
    elif request.has("explain"):
        return explain(request.words)
    elif request.letters & {"M", "F", "P"}:
        if request.has("e") or any("=" in word for word in request.words):
            change_services(directory, request)
            return 0
        return show_services(directory, request)
    elif request.letters & {"#", "X"}:
        names = {_bare_name(word) for word in request.words}
        edit.remove(os.path.join(directory, "main.cf"), names, comment=request.has("#"))
    elif request.has("e") or any("=" in word for word in request.words):
        values = dict(split_assignment(_one_line(word), "command line", None) for word in request.words)
        for warning in edit.assign(os.path.join(directory, "main.cf"), values):
            _warn(request, warning)
    else:
        return show_parameters(directory, request)
    return 0


def explain(names: Iterable[str]) -> int:
    """Print what parameters are for; exit status 1 when one is unknown."""
    status = 0
    for name in names:
        row = parameters.row(name)
        if row is None:
            print(f"postconf: warning: {name}: unknown parameter", file=sys.stderr)
            status = 1
            continue
        word = row[1].partition(" ")[0]
        wanted = f" ({kinds.allowed(row[1], row[2])})" if word in ("flag", "number", "time", "choice") else ""
        print(f"{name}: {row[3]}{wanted}")
    return status


def show_parameters(directory: str, request: Request) -> int:
    """Print parameters: those asked for, those that main.cf sets (`-n`), or all."""
    config = _load(directory, request)
    own = parameters.PARAMETERS.keys() - set(parameters.RUNTIME)
    known = sorted(own | _service_parameters(directory, config) | _user_parameters(config))
    if request.words:
        names = []
        for name in request.words:
            if name in known or name in config.settings:
                names.append(name)
            else:
                _warn(request, f"{name}: unknown parameter")
    elif request.has("n"):
        names = [name for name in known if name in config.settings]
    else:
        names = known
    if request.has("n") and request.words:
        names = [name for name in names if name in config.settings]
    for name in names:
        _print_parameter(config, name, request)
    if not request.words and not request.has("d"):
        for warning in config.warnings:
            _warn(request, warning)
    return 0


def _print_parameter(config: Config, name: str, request: Request) -> None:
    if request.has("H"):
        print(name)
        return
    try:
        value = config.default(name) if request.has("d") else config.raw(name)
    except KeyError:
        return
    row = parameters.row(name)
    if request.has("x") and (row is None or row[1] != "raw"):
        value = _expanded_default(config, value) if request.has("d") else config.text(name)
    if request.has("j"):
        print(f"{{{json.dumps(name)}: {json.dumps(value)}}}")
    elif request.has("h"):
        print(_folded(value, request))
    else:
        print(_folded(f"{name} = {value}", request))


def show_services(directory: str, request: Request) -> int:
    """Print lines (`-M`), fields (`-F`) or `-o` parameters (`-P`) of master.cf; exit status 1 when one is not there."""
    entries, warnings = master_cf.load(directory)
    for warning in warnings:
        _warn(request, warning)
    status = 0
    for word in request.words or ["*"]:
        chosen = [entry for entry in entries if _matches(entry, word)]
        part = word.split("/")[2] if word.count("/") == 2 else None
        if not chosen:
            _warn(request, f'unmatched request: "{word}"')
            status = 1
        for entry in chosen:
            _print_entry(entry, part, request)
    return status


def _print_entry(entry: Entry, part: str | None, request: Request) -> None:
    if request.has("M"):
        print(_entry_line(entry, fold=request.has("f")))
        return
    pairs = _fields(entry) if request.has("F") else dict(sorted(entry.overrides()))
    for name, value in pairs.items():
        if part is None or part in ("*", name):
            text = value if request.has("h") else f"{entry.name}/{name} = {value}"
            text = text if request.has("F") else _folded(text, request)
            print(f"{entry.name}/{name}" if request.has("H") else text.rstrip(" "))


def change_services(directory: str, request: Request) -> None:
    """Set lines, fields or `-o` parameters of master.cf; the new line is checked before it is written."""
    path = os.path.join(directory, "master.cf")
    lines: dict[str, str] = {}
    for word in request.words:
        target, value = split_assignment(_one_line(word), "command line", None)
        parts = target.split("/")
        if len(parts) != (2 if request.has("M") else 3):
            raise ConfigError("command line", None, f'bad service name "{target}"', USAGE)
        name = "/".join(parts[:2])
        if request.has("M"):
            lines[name] = value
        else:
            entries, _ = master_cf.parse(lines[name], path) if name in lines else master_cf.load(directory)
            entry = next((entry for entry in entries if entry.name == name), None)
            if entry is None:
                raise ConfigError(path, None, f"there is no service {name}", "add it with postconf -M -e")
            _set_part(entry, parts[2], value, field=request.has("F"))
            lines[name] = _entry_line(entry, fold=True)
        (checked,), _ = master_cf.parse(lines[name], f"{path} (new line for {name})")
        lines[name] = _entry_line(checked, fold=True)
    edit.replace_services(path, lines)


def _set_part(entry: Entry, name: str, value: str, *, field: bool) -> None:
    if field and name in FIELD_NAMES:
        words = main_cf.split_list(value, master_cf.BLANKS)
        entry.fields[FIELD_NAMES.index(name)] = words[0] if words else "-"
        if name == "command":
            entry.arguments = [main_cf.unbrace(word) for word in words[1:]]
    elif field:
        raise ConfigError("command line", None, f'no field is called "{name}"', f"the fields are {FIELD_NAMES}")
    else:
        words, kept, pairs = list(entry.arguments), [], entry.overrides()
        while words and words[0].startswith("-"):
            word = words.pop(0)
            if not word.startswith("-o"):
                kept.append(word)
            elif word == "-o":
                words.pop(0)
        merged = {**dict(pairs), name: value}
        kept += [part for pair in merged.items() for part in ("-o", "=".join(pair))]
        entry.arguments = kept + words


def _fields(entry: Entry) -> dict[str, str]:
    command = " ".join([entry.command, *_words(entry)])
    return dict(zip(FIELD_NAMES, [*entry.fields[:7], command], strict=True))


def _entry_line(entry: Entry, *, fold: bool) -> str:
    """A line of master.cf in columns; folded, each -o stands on a line of its own."""
    line = ""
    for column, word in zip(FIELD_COLUMNS, entry.fields, strict=True):
        line = line + " " * max(column - len(line), 1 if line else 0) + word
    column = len(line)
    options = True
    for word in _words(entry):
        options = options and word.startswith("-")
        if fold and (options or column + 1 + len(word) >= LINE_COLUMNS):
            line += f"\n{INDENT}{word}"
            column = len(INDENT) + len(word)
        else:
            line += f" {word}"
            column += 1 + len(word)
    return line


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


def _matches(entry: Entry, word: str) -> bool:
    wanted = [*word.split("/"), "*"]
    return wanted[0] in ("*", entry.service) and wanted[1] in ("*", entry.type)


def _folded(text: str, request: Request) -> str:
    """White space made single; with `-f`, long lines folded."""
    words = [word for word in text.translate({9: " ", 10: " ", 13: " "}).split(" ") if word]
    line, column = "", 0
    for word in words:
        if not line:
            line, column = word, len(word)
        elif request.has("f") and column + len(word) >= LINE_COLUMNS:
            line, column = f"{line}\n{INDENT}{word}", len(INDENT) + len(word)
        else:
            line, column = f"{line} {word}", column + 1 + len(word)
    return line


def _load(directory: str, request: Request) -> Config:
    if request.has("d") and not os.path.exists(os.path.join(directory, "main.cf")):
        return Config(DEFAULT_DIRECTORY, {})
    config = Config.load(directory, request.overrides)
    if request.has("d"):
        # Defaults that follow another default must not follow main.cf.
        return Config(DEFAULT_DIRECTORY, {name: Setting(value, "-o", None) for name, value in request.overrides})
    if request.directory or "MAIL_CONFIG" in os.environ:
        config.settings.setdefault("config_directory", Setting(directory, "-c", None))
    return config


def _expanded_default(config: Config, value: str) -> str:
    return Config(config.directory, {"it": Setting(value, config.path, None)}).text("it")


def _service_parameters(directory: str, config: Config) -> set[str]:
    """The parameters that each transport of master.cf has under its own name."""
    try:
        entries, _ = master_cf.load(directory)
    except ConfigError:
        return set()
    names: set[str] = set()
    for entry in entries:
        if entry.type == "unix" and entry.command in AGENTS:
            names |= {entry.service + suffix for suffix in parameters.TEMPLATES if suffix != "_time_limit"}
        if entry.command in TIMED:
            names.add(entry.service + "_time_limit")
    return names


def _user_parameters(config: Config) -> set[str]:
    """Names of the site's own that main.cf sets and something refers to."""
    from postillion.config import unknown

    return unknown.in_use(config)


def _bare_name(word: str) -> str:
    if not word.strip() or "=" in word:
        raise ConfigError("command line", None, "-X or -# requires parameter names without value", "leave out the =")
    return word.strip()


def _one_line(word: str) -> str:
    if "\n" in word or word.lstrip().startswith("#"):
        raise ConfigError("command line", None, "accepts no multi-line input and no comments", "give name=value")
    return word


def _warn(request: Request, text: str) -> None:
    if not request.has("q"):
        print(f"postconf: warning: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
