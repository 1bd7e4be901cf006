"""postconf(1): show and change the configuration, with the output that scripts know from Postfix.

postconf [-c DIR] [-C class,...] [-dnxhHfjq] [-o name=value]... [name ...]    parameters of main.cf
postconf -e name=value ... | -# name ... | -X name ...        change main.cf
postconf -M | -F | -P | -PP [-xhHfjq] [service[/type[/field]] ...]
                                    services, fields, -o parameters of master.cf, all parameters of each service
postconf -M -e 'service/type=line' | -F -e service/type/field=value | -P -e service/type/name=value
postconf -MX service/type ... | -M# service/type ... | -PX service/type/name ...
postconf [-c DIR] -t [FILE] | -b [FILE]                       templates of notifications, and their texts
postconf -a | -A | -l | -m                                    types of SASL servers and clients, locks, tables
postconf -T compile-version | run-version | public-key-algorithms    the TLS library
postconf --explain name ...                                   what a parameter is for

`*` stands for any service or any type, when master.cf is changed too. Classes of -C: builtin, service (parameters under
a service's name), user (names of the site's own), all. `-j` prints one JSON object a line. Passwords of remote tables
are shown as `[password]`; a change writes the true value.
"""

from __future__ import annotations

import io
import os
import sys

from postillion.commands import service_edits, services
from postillion.commands.json_pair import json_pair
from postillion.commands.postconf_request import EXPLAIN, Request
from postillion.commands.services import ANY, COMMAND, FIELD_NAMES, INDENT, LINE_COLUMNS, Pattern
from postillion.config import Config, ConfigError, core_dumps, deprecated, edit, kinds, parameters, secrets, unknown
from postillion.config.main_cf import Setting, split_assignment
from postillion.config.master_cf import Line
from postillion.config.settings import DEFAULT_DIRECTORY
from postillion.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

READ_ONLY = ("process_name", "process_id", "service_name")
"""Parameters that a value in a file does not change."""
SASL_SERVER_TYPES: tuple[str, ...] = ()
"""Types of smtpd_sasl_type that a program here can use: none yet."""
SASL_CLIENT_TYPES: tuple[str, ...] = ("cyrus",)
"""Types of smtp_sasl_type."""
TLS_MODES = ("compile-version", "run-version", "public-key-algorithms")
"""The values of -T."""


def main(argv: list[str] | None = None) -> int:
    """Show or change what the command line asks for; return the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Octets of main.cf that are no UTF-8 go out as they are.
        sys.stdout.reconfigure(errors="surrogateescape")
    # With an error nothing is printed: a script must not take a part for the whole.
    printed = io.StringIO()
    try:
        terminal, sys.stdout = sys.stdout, printed
        try:
            status = run(Request(sys.argv[1:] if argv is None else argv))
        finally:
            sys.stdout = terminal
        print(printed.getvalue(), end="", flush=True)
        return status
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
    if any(secrets.may_hold(word.encode("utf-8", "surrogateescape")) for word in request.words):
        core_dumps.forbid()
    if request.has(EXPLAIN):
        return explain(request.words)
    if request.has("l"):
        print("flock\nfcntl\ndotlock")
    elif request.has("m"):
        from postillion.tables.maps import KNOWN_TYPES

        print("\n".join(sorted(KNOWN_TYPES)))
    elif request.has("a", "A"):
        print("".join(f"{name}\n" for name in (SASL_SERVER_TYPES if request.has("a") else SASL_CLIENT_TYPES)), end="")
    elif request.has("b", "t"):
        from postillion.commands import postconf_templates

        postconf_templates.show(directory, request.words, _tell, expanded=request.has("b"))
    elif request.has("T"):
        return show_tls(request.tls_mode)
    elif request.has("e", "#", "X"):
        letter = next(letter for letter in "e#X" if request.has(letter))
        words = [_one_line(word) for word in request.words]
        if request.part:
            service_edits.change(directory, request.part, words, letter, lambda text: _warn(request, text))
        else:
            change_parameters(os.path.join(directory, "main.cf"), words, letter, request)
    elif request.part:
        show_services(directory, request)
    else:
        show_parameters(directory, request)
    return 0


def show_tls(mode: str) -> int:
    """Print a version of the TLS library, or its kinds of keys; return exit status 1 for an unknown mode."""
    from postillion._core import tls

    match mode:
        case "compile-version":
            print(tls.compile_version())
        case "run-version":
            print(tls.run_version())
        case "public-key-algorithms":
            print("\n".join(tls.public_key_algorithms()))
        case _:
            _tell(f"unknown mode of -T: {mode}: give {', '.join(TLS_MODES)}")
            return 1
    return 0


def change_parameters(path: str, words: list[str], letter: str, request: Request) -> None:
    """Set parameters of a main.cf (`e`), comment them out (`#`) or remove them (`X`)."""
    if letter != "e":
        edit.remove(path, {_bare_name(word) for word in words}, comment=letter == "#")
        return
    values: dict[str, str] = {}
    for word in words:
        name, value = split_assignment(word, "command line", None)
        if values.get(name, value) != value:
            _warn(request, f"ignoring earlier request: '{name} = {secrets.shown(name, values[name])}'")
        values[name] = value
    for warning in edit.assign(path, values):
        _warn(request, warning)


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


def show_parameters(directory: str, request: Request) -> None:
    """Print parameters: those asked for, those that main.cf sets (`-n`), or all; then what is doubtful about them."""
    lines: list[Line] = []
    try:
        lines, _ = services.load(directory)
    except ConfigError as error:
        if os.path.exists(os.path.join(directory, "master.cf")):
            raise
        _warn(request, str(error))
    config = _load(directory, request, lines)
    notices = list(_without_read_only(config))
    known = _known(config, lines, request.classes)
    if request.words:
        everywhere = _known(config, lines, frozenset({"builtin", "service", "user"}))
        for name in request.words:
            if name in everywhere:
                _print_parameter(config, name, request)
            else:
                _warn(request, f"{name}: unknown parameter")
    else:
        for name in sorted(known):
            _print_parameter(config, name, request)
    if not request.has("d"):
        _warn_about(config, lines, notices, request)


def _print_parameter(config: Config, name: str, request: Request) -> None:
    if request.has("n") and name not in config.settings:
        return
    _print_pair(name, _value(config, name, config.raw(name), request), request)


def _value(config: Config, name: str, value: str, request: Request) -> str:
    """Return a value as it is shown, without passwords: expanded with `-x`, unless a program expands it."""
    if request.has("H"):
        return ""
    return config.shown(name, value, expanded=request.has("x") and not parameters.is_raw(name))


def _print_pair(name: str, value: str, request: Request) -> None:
    if request.has("H"):
        print(name)
    elif request.has("j"):
        print(json_pair(name, value))
    elif request.has("h"):
        print(_folded(value, request))
    else:
        print(_folded(f"{name} = {value}", request))


def show_services(directory: str, request: Request) -> None:
    """Print lines (`-M`), fields (`-F`) or parameters (`-P`, `-PP`) of master.cf."""
    lines, notices = services.load(directory)
    config = _load(directory, request, lines)
    notices += _without_read_only(config)
    part = request.part
    most = 2 if part == "M" else 3
    needed = f"-{part} option requires service_name[/type{'' if part == 'M' else '[/name]'}]"
    patterns = [Pattern(word, 1, most, needed) for word in request.words]
    if part == "F":
        for pattern in patterns:
            if pattern.part != ANY:
                services.field_index(pattern.part)
    classes = frozenset({"builtin", "service", "user"}) if patterns else request.classes
    names = _known(config, lines, classes) if request.has("PP") else set()

    def parts(line: Line) -> list[str]:
        if part == "M":
            return [ANY]
        return list(FIELD_NAMES) if part == "F" else sorted(names | dict(line.overrides()).keys())

    for line, name in services.shown(lines, patterns, parts, lambda text: _warn(request, text)):
        own = services.of_service(config, line)

        def option(text: str, own: Config = own) -> str:
            return _option(text, own, request)

        if part == "M":
            text = services.entry_line(line, fold=request.has("f"), option=option)
            print(json_pair(line.name, " ".join(_unpadded(line, option))) if request.has("j") else text)
        elif part == "F":
            _print_field(line, name, request, option)
        else:
            value = dict(line.overrides()).get(name)
            if value is None:
                value = own.raw(name)
            _print_pair(f"{line.name}/{name}", _value(own, name, value, request), request)
    _warn_about(config, lines, notices, request)


def _option(text: str, config: Config, request: Request) -> str:
    """Return the value of a `-o` as it is shown, without passwords."""
    name, equals, value = text.partition("=")
    if not equals:
        return secrets.shown_line(text)
    return f"{name}={config.shown(name.strip(), value, expanded=request.has('x'))}"


def _unpadded(line: Line, option: services.Shown) -> Iterator[str]:
    for name in FIELD_NAMES:
        yield from services.field(line, name, option)


def _print_field(line: Line, name: str, request: Request, option: services.Shown) -> None:
    label = f"{line.name}/{name}"
    if request.has("H"):
        print(label)
        return
    value = line.fields[FIELD_NAMES.index(name)]
    if request.has("j"):
        print(json_pair(label, " ".join(services.field(line, name, option))))
        return
    text = value if request.has("h") else f"{label} = {value}"
    following = services.words(line, option) if name == FIELD_NAMES[COMMAND] else iter(())
    print(services.folded_words(text, following, fold=request.has("f")))


def _known(config: Config, lines: list[Line], classes: frozenset[str]) -> set[str]:
    """Return the names of parameters of these classes."""
    found: set[str] = set()
    if "builtin" in classes:
        found |= parameters.PARAMETERS.keys()
    if "service" in classes:
        found |= unknown.service_parameters(lines)
    if "user" in classes:
        found |= unknown.in_use(config, lines)
    return found


def _without_read_only(config: Config) -> Iterator[str]:
    """Drop settings of parameters that no file sets; yield a warning for each."""
    for name in READ_ONLY:
        setting = config.settings.get(name)
        if setting is not None:
            del config.settings[name]
            value = secrets.shown(name, setting.value)
            yield f"{setting.path}: read-only parameter assignment: {name}={value}"


def _warn_about(config: Config, lines: list[Line], notices: Iterable[str], request: Request) -> None:
    names = unknown.in_services(config, lines) if request.part else unknown.warnings(config, lines)
    outdated = deprecated.warnings({} if request.part else config.settings, lines)
    for warning in (*notices, *config.notices, *names, *outdated):
        _warn(request, warning)


def _folded(text: str, request: Request) -> str:
    """White space made single; with `-f`, long lines folded."""
    words = [word for word in text.translate({9: " ", 10: " ", 13: " "}).split(" ") if word]
    pieces, column = words[:1], len(words[0]) if words else 0
    for word in words[1:]:
        if request.has("f") and column + len(word) >= LINE_COLUMNS:
            pieces.append(f"\n{INDENT}{word}")
            column = len(INDENT) + len(word)
        else:
            pieces.append(f" {word}")
            column += 1 + len(word)
    return "".join(pieces)


def _load(directory: str, request: Request, lines: list[Line]) -> Config:
    """Return the configuration; with `-d`, one in which no file sets anything."""
    if request.has("d"):
        config = Config(DEFAULT_DIRECTORY, {})
    else:
        config = Config.load(directory, request.overrides)
        if request.directory or "MAIL_CONFIG" in os.environ:
            config.settings.setdefault("config_directory", Setting(directory, "-c", None))
    config.set_runtime(process_name="postconf")
    config.of_services = unknown.service_parameters(lines)
    return config


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
        _tell(text)


def _tell(text: str) -> None:
    print(f"postconf: warning: {printable(text)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
