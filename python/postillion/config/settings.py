"""The configuration of a program: typed values from `-o` overrides, main.cf and defaults."""

from __future__ import annotations

import os

from postillion.config import core_dumps, expansion, host, kinds, main_cf, match_list, parameters, secrets
from postillion.config.errors import ConfigError, place
from postillion.config.main_cf import Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

DEFAULT_DIRECTORY = "/etc/postfix"
STRESS = "stress"
"""The parameter that says whether a service is under stress (STRESS_README)."""
ORIGIN = "myorigin"
"""The parameter that gives a domain, or with Debian's Postfix a file that has it in its first line."""
OVERRIDE = "-o"
"""The place of a value from the command line in error texts."""


class Config:
    """The values of one configuration directory.

    A value is expanded at its first use and cached. A name that is neither in the parameter table nor in main.cf
    raises `KeyError`; a value of the wrong type raises `ConfigError`.
    """

    def __init__(
        self,
        directory: str,
        settings: dict[str, Setting],
        notices: Iterable[str] = (),
        runtime: dict[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.path = os.path.join(directory, "main.cf")
        self.in_force = directory
        """The directory of the files that hold: the configuration directory, or master's copies of its files."""
        self.settings = settings
        self._notices = list(notices)
        self._runtime = runtime or {}
        self.of_services: set[str] | None = None
        """The parameters that services have under their own name; None: those of any name."""
        self._texts: dict[str, str] = {}
        self._hidden: set[str] | None = None
        """The names of passwords, once they are needed."""
        self._computing: list[str] = []
        """The defaults that are being computed, the outermost first."""
        self.opened: list[tuple[str, Any]] = []
        """The tables that the program opened, each with its parameter."""
        self.warn: Any = None
        """Gets each warning about a list, or about a table that is opened without a callback of its own.

        None: nobody does.
        """
        self._told: set[str] = set()
        """The warnings about lists that were given."""
        self.log: Any = None
        """Gets each lookup in the `debug:` tables that are opened after it is set; None: nobody does."""
        self.trace: Any = None
        """Gets each lookup in the tables that are opened after it is set (`tables.table.Trace`); None: nobody does."""

    @classmethod
    def load(
        cls, directory: str | None = None, overrides: Iterable[tuple[str, str]] = (), in_force: str | None = None
    ) -> Config:
        """Return the configuration in `directory` (default: $MAIL_CONFIG, then /etc/postfix).

        `overrides` replace values of main.cf; the last one wins. `in_force`: the directory of master's copy of main.cf,
        which is read in its place. Raises `ConfigError` when main.cf is missing, unreadable or malformed. A value is
        checked when it is used.
        """
        directory = os.path.abspath(directory or os.environ.get("MAIL_CONFIG") or DEFAULT_DIRECTORY)
        path = os.path.join(directory, "main.cf")
        text = main_cf.read(path if in_force is None else os.path.join(in_force, "main.cf"))
        settings, notices = main_cf.parse(text, path)
        given = dict(overrides)
        hidden = secrets.names({name: setting.value for name, setting in settings.items()} | given) if given else set()
        for name, value in given.items():
            shown = secrets.shown(name, value, hidden)
            if shown != value:
                core_dumps.forbid()
            settings[name] = Setting(value, f"{OVERRIDE} {name}={shown}", None)
        config = cls(directory, settings, notices)
        config.in_force = in_force or directory
        return config

    def raw(self, name: str) -> str:
        """Return the unexpanded value of a parameter, or its default."""
        setting = self.settings.get(name)
        return self.default(name) if setting is None else setting.value

    def default(self, name: str) -> str:
        """Return the unexpanded default of a parameter; myhostname, mynetworks and others have computed ones."""
        row = parameters.row(name)
        if row is None:
            raise KeyError(name)
        default = row[2]
        if not default.startswith(parameters.COMPUTED):
            return default
        if name in self._computing:
            users = [user for user, setting in self.settings.items() if name in expansion.names(setting.value)]
            problem = f"{users[0] if users else name} refers to ${name}, whose default depends on it"
            raise self.error(users[0] if users else name, problem, f"give {name} a value")
        self._computing.append(name)
        try:
            return self._computed(name)
        finally:
            self._computing.pop()

    def _computed(self, name: str) -> str:
        """Return a default that depends on the host or on other parameters."""
        if name == "myhostname":
            own = host.name()
            if "." in own:
                return own
            return f"{own}.{self.text('mydomain') if 'mydomain' in self.settings else 'localdomain'}"
        if name == "mydomain":
            return self.text("myhostname").partition(".")[2] or "localdomain"
        if name == "mynetworks":
            return self._mynetworks()
        if name == "config_directory":
            return self.directory
        if name == "process_id":
            return str(os.getpid())
        return self._runtime.get(name, "postillion")

    def text(self, name: str) -> str:
        """Return the expanded value; a `raw` parameter stays unexpanded, because its program expands it."""
        found = self._texts.get(name)
        if found is None:
            value = self.raw(name)
            row = parameters.row(name)
            found = value if parameters.is_raw(name) else self._expand(name, value)
            if name == ORIGIN:
                found = self._domain_of_origin(found)
            if not main_cf.is_utf8(found):
                raise self.error(name, f"{name}: this is not UTF-8", "write the value in UTF-8")
            if row is not None and name in self.settings and not kinds.is_valid(found, row[1], row[2]):
                raise self._bad(name, found, row)
            self._texts[name] = found
        return found

    def expanded(self, text: str, name: str = "value") -> str:
        """Return a text with its `$name` replaced; `name`: the parameter that has it. Raises `ConfigError`."""
        return self._expand(name, text)

    def shown(self, name: str, value: str, *, expanded: bool = False) -> str:
        """Return the value of a parameter for a listing, without passwords. `expanded`: its `$name` is replaced.

        Raises `ConfigError`.
        """
        hidden = self._passwords()
        if expanded:

            def find(other: str) -> str | None:
                found = self._lookup(other)
                return found and secrets.HIDDEN if other in hidden else found

            value = self._expand(name, value, find)
        return secrets.shown(name, value, hidden)

    def _passwords(self) -> set[str]:
        """Return the names of passwords. A parameter of the table is none, even if a password refers to it."""
        if self._hidden is None:
            names = secrets.names({name: setting.value for name, setting in self.settings.items()})
            self._hidden = names - parameters.PARAMETERS.keys()
        return self._hidden

    def default_text(self, name: str) -> str:
        """Return the expanded default of a parameter."""
        return self._expand(name, self.default(name))

    def number(self, name: str) -> int:
        """Return the value of a `number` parameter, also of a `<transport>_...` parameter."""
        row = self._row(name)
        value = kinds.number(self.text(name), row[1])
        if value is None:
            raise self._bad(name, self.text(name), row)
        return kinds.limit(value, row[1])

    def seconds(self, name: str) -> float:
        """Return the value of a `time` parameter in seconds."""
        row = self._row(name)
        value = kinds.seconds(self.text(name), row[1], row[2])
        if value is None:
            raise self._bad(name, self.text(name), row)
        return value

    def flag(self, name: str) -> bool:
        """Return the value of a yes-or-no parameter."""
        value = kinds.flag(self.text(name))
        if value is None:
            raise self._bad(name, self.text(name), self._row(name))
        return value

    def items(self, name: str) -> list[str]:
        """Return the words of a list, split at commas and white space; `{ ... }` is one word with its braces.

        In a list of hosts, domains or networks (kind `match`), a word `/file` stands for the words of that file.
        """
        row = parameters.row(name)
        if row is None or row[1].partition(" ")[0] != "match":
            return main_cf.split_list(self.text(name))
        return self._match_list(name)

    def hosts(self, name: str) -> list[str]:
        """Return the IP addresses of a list of hosts, without its words `all` and `loopback-only`.

        Raises `ConfigError` for a host without an address.
        """
        found: list[str] = []
        for word in self.items(name):
            if word in ("all", "loopback-only"):
                continue
            try:
                found += host.resolve(word.strip("[]"))
            except OSError:
                fix = "give a name that has an address, or the address"
                raise self.error(name, f'{name}: host not found: "{word}"', fix) from None
        return found

    def transport_name(self, transport: str, suffix: str) -> str:
        """Return the name of the parameter that a transport has: `<transport>_<suffix>`, or that of all transports."""
        name = f"{transport}_{suffix}"
        if name in self.settings or name in parameters.PARAMETERS:
            return name
        row = parameters.TEMPLATES.get("_" + suffix)
        return row[2].removeprefix("$") if row is not None else f"default_{suffix}"

    def setting(self, name: str) -> Setting | None:
        """Return the setting of a parameter in main.cf or an override; None when the default applies."""
        return self.settings.get(name)

    def error(self, name: str, problem: str, fix: str) -> ConfigError:
        """Return the error for a parameter, at the line that its value comes from, or at main.cf without one."""
        setting = self._origin(name)
        path, line = (self.path, None) if setting is None else (setting.path, setting.line)
        return ConfigError(path, line, problem, fix)

    def source_of(self, name: str, text: str) -> str:
        """Return the parameter that `text` in a value is written in: `name`, or one that its value refers to."""
        seen: list[str] = [name]
        for parameter in seen:
            value = self._lookup(parameter) or ""
            if text in value:
                return parameter
            seen += [other for other in sorted(expansion.names(value)) if other not in seen]
        return name

    def names_read(self) -> set[str]:
        """Return the names whose values were asked for until now, and the names in these values."""
        found = list(self._texts)
        for name in found:
            value = self._lookup(name) or ""
            found += [other for other in sorted(expansion.names(value)) if other not in found]
        return set(found)

    def bad_values(self) -> list[ConfigError]:
        """Return the error for each setting that is not of its kind or cannot be expanded."""
        return [error for name in self.settings if (error := self.bad_value(name)) is not None]

    def bad_value(self, name: str) -> ConfigError | None:
        """Return the error for the value of a parameter; None for a valid value."""
        try:
            self.text(name)
        except ConfigError as error:
            return error
        return None

    @property
    def notices(self) -> list[str]:
        """Warnings about names with two values in main.cf; `unknown.warnings` has those about unknown names."""
        return self._notices

    def set_runtime(self, **values: str) -> None:
        """Set the parameters that only a running program knows, such as process_name."""
        self._runtime.update(values)

    def by_stress(self) -> tuple[Config, Config]:
        """Return the configuration of a service with free processes, and that of one whose processes are all busy.

        The second one has `stress = yes`. As under Postfix's master, `stress` in main.cf has no effect, and `-o stress`
        in the service's line of master.cf holds for both. The tables that they open are added to those of this one.
        """
        own = self.settings.get(STRESS)
        is_fixed = own is not None and own.path != self.path
        found = []
        for value in ("", "yes"):
            given = {} if is_fixed else {STRESS: Setting(value, f"{OVERRIDE} {STRESS}={value}", None)}
            config = self._with({**self.settings, **given})
            config.opened = self.opened
            found.append(config)
        return found[0], found[1]

    def reads_like(self, other: Config) -> bool:
        """Return whether each value that was asked for until now is the same in another configuration.

        Raises `ConfigError` for a value of the other one that is not of its kind.
        """
        return all(other.text(name) == text for name, text in list(self._texts.items()) if name != STRESS)

    def overridden(self, values: Iterable[tuple[str, str]], path: str, line: int | None) -> Config:
        """Return the same configuration with values from a line of a file; the last value of a name wins."""
        settings = {**self.settings, **{name: Setting(value, path, line) for name, value in values}}
        return self._with(settings)

    def _with(self, settings: dict[str, Setting]) -> Config:
        config = Config(self.directory, settings, runtime=dict(self._runtime))
        config.in_force = self.in_force
        config.of_services = self.of_services
        config.trace = self.trace
        config.warn = self.warn
        config.log = self.log
        return config

    def _origin(self, name: str) -> Setting | None:
        """Return the setting that a value comes from; for an unset local_recipient_maps, that of `$alias_maps`."""
        setting = self.settings.get(name)
        row = parameters.row(name)
        if setting is not None or row is None:
            return setting
        origins = (self._origin(other) for other in sorted(expansion.names(row[2])) if other != name)
        return next((found for found in origins if found is not None), None)

    def _row(self, name: str) -> parameters.Row:
        row = parameters.row(name)
        if row is None:
            raise KeyError(name)
        return row

    def _expand(self, name: str, value: str, find: expansion.Lookup | None = None) -> str:
        try:
            return expansion.expand(value, find or self._lookup, name)
        except expansion.ExpansionError as error:
            wrong = error.name or name
            text = self._lookup(wrong) or value
            if secrets.shown(wrong, text, self._passwords()) != text:
                # The error shows a part of the password.
                raise self.error(wrong, f"{wrong}: cannot be expanded", "write $$ for a dollar in a password") from None
            raise self.error(wrong, f"{wrong}: {error}", error.fix) from None

    def _lookup(self, name: str) -> str | None:
        """Return the unexpanded value of a name; None for an unknown name."""
        setting = self.settings.get(name)
        if setting is not None:
            return setting.value
        if self.of_services is not None and name not in parameters.PARAMETERS and name not in self.of_services:
            return None
        try:
            return self.default(name)
        except KeyError:
            return None

    def _mynetworks(self) -> str:
        own = host.addresses()
        wanted = self.items("inet_interfaces")
        if wanted == ["loopback-only"]:
            own = [interface for interface in own if interface.ip.is_loopback]
        elif "all" not in wanted:
            named = self.hosts("inet_interfaces")
            listed = [interface for interface in own if str(interface.ip) in named]
            own = listed or [interface for interface in own if interface.ip.is_loopback]
        protocols = self.items("inet_protocols")
        if "all" not in protocols:
            own = [interface for interface in own if f"ipv{interface.version}" in protocols]
        return host.mynetworks(self.text("mynetworks_style"), own)

    def _match_list(self, name: str) -> list[str]:
        def error(problem: str, fix: str) -> ConfigError:
            return self.error(name, f"{name}: {problem}", fix)

        return list(match_list.included(self.text(name), error, lambda told: self._warn_of(name, told)))

    def _warn_of(self, name: str, told: str) -> None:
        """Warn about a parameter, each text once."""
        setting = self._origin(name)
        at = self.path if setting is None else place(setting.path, setting.line)
        text = f"{at}: {name}: {told}"
        if self.warn is not None and text not in self._told:
            self._told.add(text)
            self.warn(text)

    def _domain_of_origin(self, value: str) -> str:
        """Return the domain that a value of myorigin gives or names. `$myorigin` in other values stays the file."""
        found = value
        if value.startswith("/"):
            found = self._list_file(ORIGIN, value).partition("\n")[0].strip()
            if not found:
                raise self.error(ORIGIN, f"{ORIGIN}: the first line of {value} is empty", "write the domain there")
        if found and main_cf.split_list(found) != [found]:
            raise self.error(ORIGIN, f'{ORIGIN}: "{found}" is not one domain', "give one domain")
        return found

    def _list_file(self, name: str, path: str) -> str:
        """Return the text of a file that a value names. Raises `ConfigError` at the line of the value."""
        try:
            return main_cf.read(path)
        except ConfigError as error:
            raise self.error(name, f"{name}: {path}: {error.problem}", "correct this file or its name") from None

    def _bad(self, name: str, text: str, row: parameters.Row) -> ConfigError:
        return self.error(name, f'bad value "{text}" for {name}', f"give {kinds.allowed(row[1], row[2])}")
