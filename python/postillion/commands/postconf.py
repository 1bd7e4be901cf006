"""postconf(1): show and change the configuration, with the output that scripts know from Postfix.

postconf [-c DIR] [-C class,...] [-dnxhHfq] [-o name=value]... [name ...]    parameters of main.cf
postconf -e name=value ... | -# name ... | -X name ...        change main.cf
postconf -M | -F | -P [service[/type[/field]] ...]            services, fields, -o parameters of master.cf
postconf -M -e 'service/type=line' | -F -e service/type/field=value | -P -e service/type/name=value
postconf -MX service/type ... | -M# service/type ... | -PX service/type/name ...
postconf -a | -A | -l | -m                                    types of SASL servers and clients, locks, tables
postconf --explain name ...                                   what a parameter is for

`*` stands for any service or any type, when master.cf is changed too. Classes of -C: builtin, service (parameters under
a service's name), user (names of the site's own), all.
"""

import json
import os
import sys
from collections.abc import Iterable

from postillion.commands.services import INDENT, LINE_COLUMNS, Services, entry_line, fields
from postillion.config import Config, ConfigError, edit, kinds, master_cf, parameters, unknown
from postillion.config.main_cf import Setting, split_assignment
from postillion.config.master_cf import Entry
from postillion.config.settings import DEFAULT_DIRECTORY

AGENTS = ("error", "lmtp", "local", "pipe", "smtp", "virtual")
"""Programs whose services have the transports' parameters."""
TIMED = ("pipe", "spawn")
USAGE = """\
usage: postconf [-c config_dir] [-dfhHjnqvx] [-o name=value] [name...]
       postconf [-c config_dir] -e name=value... | -# name... | -X name...
       postconf [-c config_dir] -M|-F|-P [-e|-X|-#] [service[/type[/name]][=value]...]
       postconf -a | -A | -l | -m | --explain name..."""
CLASSES = ("builtin", "service", "user", "all")
SASL_SERVER_TYPES: tuple[str, ...] = ()
SASL_CLIENT_TYPES: tuple[str, ...] = ()
"""Types of smtpd_sasl_type and smtp_sasl_type that a program here can use: none yet."""
ABSENT = {
    "b": "notifications have no templates, bounce_template_file has no effect",
    "t": "notifications have no templates, bounce_template_file has no effect",
    "T": "there is no TLS whose version or algorithms it could show",
}
"""Options of Postfix's postconf that print what is not here, and why."""


class Request:
    """The command line, parsed."""

    def __init__(self, argv: list[str]) -> None:
        self.directory: str | None = None
        self.letters: set[str] = set()
        self.overrides: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.classes = frozenset({"all"})
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
                if letter in "cCoT":
                    value = word[position:] or (argv[at] if at < len(argv) else "")
                    at += not word[position:]
                    if not value:
                        raise ConfigError("command line", None, f"option -{letter} needs a value", USAGE)
                    self._value(letter, value)
                    break
                if letter not in "aAbdefhHjlmMnFpPqtvxX#":
                    raise ConfigError("command line", None, f"unknown option -{letter}", USAGE)
                self.letters.add(letter)
        self.words = argv[at:]

    def _value(self, letter: str, value: str) -> None:
        if letter == "c":
            self.directory = value
        elif letter == "T":
            self.letters.add(letter)
        elif letter == "C":
            self.classes = frozenset(value.replace(",", " ").split())
            for word in self.classes - set(CLASSES):
                problem = f'unknown -C option value "{word}" in "{value}"'
                raise ConfigError("command line", None, problem, f"give {', '.join(CLASSES)}")
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
    elif request.letters & {"a", "A"}:
        print("".join(f"{name}\n" for name in (SASL_SERVER_TYPES if request.has("a") else SASL_CLIENT_TYPES)), end="")
    elif absent := request.letters & ABSENT.keys():
        letter = min(absent)
        raise ConfigError("command line", None, f"-{letter} is not implemented", ABSENT[letter])
    elif parts := request.letters & {"M", "F", "P"}:
        if len(parts) > 1:
            raise ConfigError("command line", None, "specify one of -M -F -P", USAGE)
        if request.letters & {"e", "#", "X"} or any("=" in word for word in request.words):
            change_services(directory, request, min(parts))
        else:
            show_services(directory, request, min(parts))
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
    """Print the documentation of parameters; return exit status 1 when one is unknown."""
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
    classes = {
        "builtin": lambda: parameters.PARAMETERS.keys() - set(parameters.RUNTIME),
        "service": lambda: _service_parameters(directory, config),
        "user": lambda: _user_parameters(config),
    }
    wanted = classes.keys() if "all" in request.classes else request.classes
    known = sorted(set().union(*(classes[name]() for name in wanted)))
    if request.words:
        names = []
        for name in request.words:
            if name in known or ("all" in request.classes and name in config.settings):
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
        for warning in (*config.notices, *unknown.warnings(config)):
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


def show_services(directory: str, request: Request, part: str) -> None:
    """Print lines (`-M`), fields (`-F`) or `-o` parameters (`-P`) of master.cf."""
    services = Services(directory, part)
    for warning in services.warnings:
        _warn(request, warning)
    config = _load(directory, request) if request.has("x") else None
    for entry, name in services.find(request.words, lambda text: _warn(request, text)):
        if part == "M":
            print(entry_line(entry, fold=request.has("f")))
            continue
        pairs = fields(entry) if part == "F" else dict(sorted(entry.overrides()))
        for key, raw in pairs.items():
            if name in (key, "*"):
                value = raw if config is None else _expanded(config, entry, raw)
                _print_pair(f"{entry.name}/{key}", value, request, fold=part == "P")


def _print_pair(name: str, value: str, request: Request, *, fold: bool) -> None:
    if request.has("H"):
        print(name)
        return
    text = value if request.has("h") else f"{name} = {value}"
    print((_folded(text, request) if fold else text).rstrip(" "))


def _expanded(config: Config, entry: Entry, value: str) -> str:
    """A value as the service sees it: with its own `-o` parameters and its name."""
    own = {name: Setting(text, "-o", None) for name, text in (("service_name", entry.service), *entry.overrides())}
    return _expanded_default(Config(config.directory, {**config.settings, **own}), value)


def change_services(directory: str, request: Request, part: str) -> None:
    """Set, remove or comment out lines, fields or `-o` parameters of master.cf; all of them or none."""
    services = Services(directory, part)
    words = [_one_line(word) for word in request.words]
    if not words:
        raise ConfigError("command line", None, "missing service argument", USAGE)
    if request.letters & {"#", "X"}:
        if part == "F" or (part == "P" and request.has("#")):
            letter = "#" if request.has("#") else "X"
            raise ConfigError("command line", None, f"with option -{part}, do not specify -{letter}", USAGE)
        services.remove(words, comment=request.has("#"))
    else:
        services.assign(words, lambda text: _warn(request, text))


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
    config = _load_as_asked(directory, request)
    config.set_runtime(process_name="postconf")
    return config


def _load_as_asked(directory: str, request: Request) -> Config:
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
    expanded = Config(config.directory, {**config.settings, "it": Setting(value, config.path, None)})
    expanded.set_runtime(process_name="postconf")
    return expanded.text("it")


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
