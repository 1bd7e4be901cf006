"""Names in main.cf and master.cf that nothing uses, and references to names that nothing sets."""

from __future__ import annotations

import os

from postillion.config import expansion, main_cf, master_cf, parameters, secrets
from postillion.config.errors import ConfigError, place
from postillion.config.master_cf import Line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from postillion.config.settings import Config

REMOVED: dict[str, str] = dict(parameters.rows("removed"))  # type: ignore[arg-type]
"""Parameters that Postfix had once, each with the one that takes its place; empty where none does."""
SOURCES = ("ldap", "memcache", "mongodb", "mysql", "pgsql", "sqlite")
"""Types of tables whose source may have its settings in main.cf, under its name."""
CLASSES = "smtpd_restriction_classes"
AGENTS = ("error", "lmtp", "local", "pipe", "smtp", "virtual")
"""Programs whose services have the transports' parameters."""
TIMED = ("pipe", "spawn")
ADAPTERS = ("proxy", "debug")


def warnings(config: Config, lines: Iterable[Line] | None = None) -> list[str]:
    """Return a warning for each unknown name that a file sets, and for each unknown `$name` in a value.

    Known parameters are those of the parameter table and of the transports in master.cf, names that other values
    refer to, restriction classes, and the settings of a table source (`ldap:accounts` has `accounts_server_host`).
    `lines`: those of master.cf; None: read it.
    """
    services = list(master_lines(config.directory) if lines is None else lines)
    return [*_unused(config, services), *in_services(config, services)]


def in_services(config: Config, lines: list[Line]) -> list[str]:
    """Return the warnings but those about names that main.cf sets."""
    return [*_unused_overrides(config, lines), *_undefined(config, lines)]


def in_use(config: Config, lines: Iterable[Line] | None = None) -> set[str]:
    """Return the undeclared names in main.cf that a value, a restriction class or a table source refers to."""
    services = list(master_lines(config.directory) if lines is None else lines)
    candidates = _undeclared(config.settings, services)
    if not candidates:
        return set()
    used = _Used(config, [value for line in services for _, value in line.overrides()])
    return {name for name in candidates if used(name)}


def service_parameters(lines: Iterable[Line]) -> set[str]:
    """Return the parameters that each transport of master.cf has under its own name."""
    names: set[str] = set()
    for line in lines:
        if line.command in AGENTS:
            names |= {line.service + suffix for suffix in parameters.TEMPLATES if suffix != "_time_limit"}
        if line.command in TIMED:
            names.add(line.service + "_time_limit")
    return names


def master_lines(directory: str) -> list[Line]:
    """Return the lines of master.cf; none when it cannot be read."""
    path = os.path.join(directory, "master.cf")
    try:
        return master_cf.lines(main_cf.read(path), path)[0]
    except ConfigError:
        return []


class _Used:
    """Whether a name is used by main.cf, or by further values."""

    def __init__(self, config: Config, further: Iterable[str]) -> None:
        values = [setting.value for name, setting in config.settings.items() if not parameters.is_raw(name)]
        values += further
        self._names = {name for value in values for name in expansion.names(value)}
        self._names.update(_classes(config))
        self._sources = tuple(f"{source}_" for value in values for source in _sources(value))

    def __call__(self, name: str) -> bool:
        """Return whether something refers to a name."""
        return name in self._names or name.startswith(self._sources)


def _unused(config: Config, lines: list[Line]) -> Iterator[str]:
    known = in_use(config, lines)
    for name in _undeclared(config.settings, lines):
        if name not in known:
            setting = config.settings[name]
            yield _warning(setting.path, setting.line, name, setting.value)


def _unused_overrides(config: Config, lines: list[Line]) -> Iterator[str]:
    for line in lines:
        own = dict(line.overrides())
        unknown = _undeclared(own, lines)
        if unknown:
            used = _Used(config, own.values())
            yield from (_warning(line.path, line.line, name, own[name]) for name in unknown if not used(name))


def _undefined(config: Config, lines: list[Line]) -> Iterator[str]:
    """Yield a warning for each reference to a name without a value anywhere."""
    services = service_parameters(lines)
    own = {name for line in lines for name, _ in line.overrides()}
    places = [(s.path, s.line, name, s.value) for name, s in config.settings.items() if not parameters.is_raw(name)]
    places += [(line.path, line.line, name, value) for line in lines for name, value in line.overrides()]
    wanted = [
        (path, number, name if secrets.hides(name, value) else "", expansion.names(value))
        for path, number, name, value in places
    ]
    if (setting := config.settings.get(CLASSES)) is not None:
        wanted.append((setting.path, setting.line, "", set(_classes(config))))
    for line in lines:
        if CLASSES in dict(line.overrides()):
            seen = config.overridden(line.overrides(), line.path, line.line)
            wanted.append((line.path, line.line, "", set(_classes(seen))))
    for path, line_number, password, names in wanted:
        for name in sorted(names):
            if name and not any(name in known for known in (config.settings, own, parameters.PARAMETERS, services)):
                if password:
                    # The name may be a part of the password.
                    yield f"{place(path, line_number)}: {password}: undefined parameter (write $$ for a dollar)"
                    break
                yield f"{place(path, line_number)}: undefined parameter: {name}{_advice(name)}"


def _warning(path: str, line: int | None, name: str, value: str) -> str:
    return f"{place(path, line)}: unused parameter: {name}={secrets.shown(name, value)}{_advice(name)}"


def _advice(name: str) -> str:
    if name in REMOVED:
        instead = REMOVED[name]
        return f" (Postfix has removed it{f'; use {instead}' if instead else ''})"
    meant = parameters.nearest(name)
    return f" (did you mean {meant}?)" if meant is not None else ""


def _undeclared(names: Iterable[str], lines: Iterable[Line]) -> list[str]:
    services = service_parameters(lines)
    return [name for name in names if name not in parameters.PARAMETERS and name not in services]


def _classes(config: Config) -> list[str]:
    """Return the restriction classes of the site."""
    try:
        text = config.text(CLASSES)
    except ConfigError:
        text = config.raw(CLASSES)
    return text.replace(",", " ").split()


def _sources(value: str) -> Iterator[str]:
    """Yield the names of table sources in a value, such as `accounts` of `ldap:accounts`."""
    for word in value.replace("{", " ").replace("}", " ").replace(",", " ").split():
        kind, _, name = word.partition(":")
        while kind in ADAPTERS:
            kind, _, name = name.partition(":")
        if kind in SOURCES and name and name[0] not in "/.":
            yield name
