"""The parameters of a remote table: a file in main.cf's form, or parameters of main.cf with the table's prefix.

`ldap:/etc/postfix/users.cf` names a file. `ldap:users` names the parameters `users_server_host`, `users_search_base`
and so on of main.cf (ldap_table(5), "obsolete main.cf parameters").
"""

from __future__ import annotations

import os
from collections.abc import Callable

from postillion.config import Config, ConfigError, kinds, main_cf
from postillion.config.main_cf import Setting
from postillion.tables.remote.secret import Secret, Secrets
from postillion.tables.table import TableError


class Parameters:
    """The parameters of one table. `owner`: the owner of the file; `secrets`: the passwords that were read."""

    def __init__(
        self, path: str, prefix: str, find: Callable[[str], Setting | None], names: set[str], owner: int
    ) -> None:
        """`find`: returns the expanded setting of a name; `names`: the names that are set, without the prefix."""
        self.path = path
        self.owner = owner
        self.secrets = Secrets()
        self._prefix = prefix
        self._find = find
        self._names = names
        self._read: set[str] = set()

    @classmethod
    def open(cls, source: str, config: Config) -> Parameters:
        """Return the parameters of a source, the text behind `type:`.

        Raises `TableError` for a file that cannot be read, `ConfigError` for a malformed one and for a prefix that
        main.cf does not have.
        """
        return cls._of_file(source) if source[:1] in ("/", ".") else cls._of_main_cf(source, config)

    @classmethod
    def _of_file(cls, path: str) -> Parameters:
        try:
            owner = os.stat(path).st_uid
            text = main_cf.read(path)
        except OSError as problem:
            raise TableError(f"cannot read {path}: {problem.strerror}") from None
        except ConfigError as problem:
            raise TableError(f"cannot read {path}: {problem.problem}") from None
        # Repeated names are not warned about: the warning would show the values, and one may be a password.
        settings, _ = main_cf.parse(text, path)
        return cls(path, "", settings.get, set(settings), owner)

    @classmethod
    def _of_main_cf(cls, source: str, config: Config) -> Parameters:
        prefix = f"{source}_"
        names = {name.removeprefix(prefix) for name in config.settings if name.startswith(prefix)}
        if not names:
            fix = "give the whole path of the table's file, with a slash first"
            raise ConfigError(config.path, None, f'no parameter begins with "{prefix}"', fix)

        def find(name: str) -> Setting | None:
            setting = config.setting(prefix + name)
            if setting is None:
                return None
            return Setting(config.text(prefix + name), setting.path, setting.line)

        return cls(config.path, prefix, find, names, 0)

    def text(self, name: str, default: str = "") -> str:
        """Return the value of a parameter."""
        setting = self._setting(name)
        return default if setting is None else setting.value

    def given(self, name: str) -> bool:
        """Return whether a parameter is set."""
        return self._setting(name) is not None

    def required(self, name: str, fix: str) -> str:
        """Return the value of a parameter that must not be empty. Raises `ConfigError`."""
        value = self.text(name)
        if not value:
            raise self.error(name, f"{self._prefix}{name} is missing", fix)
        return value

    def secret(self, name: str) -> Secret:
        """Return a password."""
        return self.secrets.add(self.text(name))

    def words(self, name: str, default: str = "") -> list[str]:
        """Return the words of a list."""
        return main_cf.split_list(self.text(name, default))

    def number(self, name: str, default: int, low: int = 0) -> int:
        """Return a whole number of at least `low`. Raises `ConfigError`."""
        value = self.text(name)
        if not value and not self.given(name):
            return default
        found = kinds.number(value, "number ..")
        if found is None or found < low:
            raise self.error(name, f'bad value "{value}" for {name}', f"give a whole number, {low} or more")
        return found

    def flag(self, name: str, default: bool) -> bool:
        """Return yes or no as a truth value. Raises `ConfigError`."""
        value = self.text(name, "yes" if default else "no")
        found = kinds.flag(value)
        if found is None:
            raise self.error(name, f'bad value "{value}" for {name}', "give yes or no")
        return found

    def choice(self, name: str, default: str, values: dict[str, str]) -> str:
        """Return the meaning of a word, in any case of its letters. Raises `ConfigError` for another word."""
        value = self.text(name, default)
        found = values.get(value.lower())
        if found is None:
            raise self.error(name, f'bad value "{value}" for {name}', f"give one of {', '.join(values)}")
        return found

    def unread(self) -> list[str]:
        """Return a warning for each parameter that no one asked for: its name may be misspelt."""
        if self._prefix:
            # A prefix may be a part of another table's prefix, or of another parameter's name.
            return []
        unknown = sorted(self._names - self._read)
        return [self._place(name, f"unknown parameter {name} is ignored") for name in unknown]

    def error(self, name: str, problem: str, fix: str) -> ConfigError:
        """Return the error of a parameter, at its line."""
        setting = self._find(name)
        if setting is None:
            return ConfigError(self.path, None, problem, fix)
        return ConfigError(setting.path, setting.line, problem, fix)

    def _setting(self, name: str) -> Setting | None:
        self._read.add(name)
        return self._find(name)

    def _place(self, name: str, text: str) -> str:
        setting = self._find(name)
        return f"{self.path}: {text}" if setting is None else f"{setting.path}, line {setting.line}: {text}"
