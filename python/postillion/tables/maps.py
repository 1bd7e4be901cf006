"""Tables by their names in main.cf, and lookups in a list of tables."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from postillion.config import Config, ConfigError
from postillion.tables.accounts import AccountsTable
from postillion.tables.constant import FailTable, InlineTable, StaticTable
from postillion.tables.pattern import PatternTable
from postillion.tables.remote import REMOTE_TYPES, open_remote
from postillion.tables.table import Table, TableError, TableTypeError, Trace, Warn
from postillion.tables.text import TextTable
from postillion.tables.traced import TracedTable

INDEXED_TYPES = ("hash", "btree", "lmdb", "cdb", "dbm", "sdbm")
"""Types whose source text is read instead of the index."""
PATTERN_TYPES = ("regexp", "pcre", "cidr")
KNOWN_TYPES = ("texthash", *INDEXED_TYPES, *PATTERN_TYPES, "inline", "static", "unix", "fail", *REMOTE_TYPES, "proxy")


class Settings(Protocol):
    """The part of the configuration that names the alias tables."""

    def items(self, name: str) -> list[str]:
        """Return the parameter's list."""


class Configuration(Settings, Protocol):
    """The part of the configuration that opens the tables of a parameter. `opened`: the opened tables.

    `trace`: gets each lookup.
    """

    opened: list[tuple[str, Table]]
    trace: Trace | None

    def error(self, name: str, problem: str, fix: str) -> ConfigError:
        """Return the error for a parameter, at the line that sets it."""


class Match(NamedTuple):
    """A value and the table that it came from."""

    value: str
    table: Table


class Maps:
    """A list of tables, searched in order. False when the list is empty."""

    def __init__(self, tables: Iterable[Table]) -> None:
        self.tables = tuple(tables)

    def __bool__(self) -> bool:
        return bool(self.tables)

    def lookup(self, key: str, *, part: bool = False) -> str | None:
        """Return the first value for `key`; None when no table has one. Raises `TableError`: try again later.

        `part`: the key is a part of an address or name, such as `@domain`. Some tables take whole keys alone.
        """
        for table in self.tables:
            if part and not getattr(table, "takes_parts", True):
                continue
            value = table.lookup(key)
            if value is not None:
                return value
        return None

    def first(self, keys: Sequence[str]) -> str | None:
        """Return the value of the first key that has one; None without one. Raises `TableError`.

        `keys`: the whole address, then its parts, which pattern tables are not asked. An empty value is a mistake of
        the table: `TableError`.
        """
        for key in keys:
            for table in self.tables:
                if key is not keys[0] and not getattr(table, "takes_parts", True):
                    continue
                value = table.lookup(key)
                if value == "":
                    raise TableError(f'table {table.name}: lookup of "{key}" returns an empty value')
                if value is not None:
                    return value
        return None

    def find(self, key: str) -> Match | None:
        """Return the first value for `key` with its table; None when no table has one. Raises `TableError`."""
        for table in self.tables:
            value = table.lookup(key)
            if value is not None:
                return Match(value, table)
        return None


def open_maps(parameter: str, config: Configuration, *, warn: Warn | None = None) -> Maps:
    """Return the tables of a list parameter such as `alias_maps`, ready to be asked.

    `warn`: called for bad lines when a file is read. Raises `ConfigError` for an invalid name.
    """
    return Maps(open_word(parameter, word, config, warn=warn) for word in config.items(parameter))


def open_word(parameter: str, word: str, config: Configuration, *, warn: Warn | None = None) -> Table:
    """Return the table that a word of a parameter names, and add it to `config.opened`. Raises `ConfigError`."""
    try:
        table = open_table(word, config, warn=warn)
    except TableTypeError as problem:
        raise config.error(parameter, f"{parameter}: {problem}", "correct the table's name") from None
    config.opened.append((parameter, table))
    return table if config.trace is None else TracedTable(parameter, table, config.trace)


def read_tables(config: Configuration, known: set[str] | None = None) -> Iterator[ConfigError]:
    """Read the source of each table in `config.opened`; yield an error for each one that cannot be read.

    `known`: names of tables to leave out; the names of those read now are added.
    """
    known = set() if known is None else known
    for parameter, table in config.opened:
        if table.name in known:
            continue
        known.add(table.name)
        try:
            table.refresh()
        except TableError as problem:
            yield config.error(parameter, f"{parameter}: {problem}", "create the file, or correct the table's name")


def open_table(name: str, config: Settings, *, warn: Warn | None = None, form: str | None = None) -> Table:
    """Return one table by its `type:name`. Raises `TableTypeError`.

    `form`: how the lines of a text file read, `map` or `alias`; None: as the parameters that name the file say.
    """
    warn = warn or _silent
    flat = _flat(name)
    kind, sign, rest = flat.partition(":")
    if not sign:
        raise TableTypeError(f'"{name}" is not a table: expected type:name, for instance "texthash:{name}"')
    rest = rest.strip()
    if not rest:
        raise TableTypeError(f'"{name}": a name is missing after the colon')
    if kind == "texthash":
        return TextTable(name, rest, form or ("mixed" if _holds_aliases(flat, config) else "map"), warn)
    if kind in INDEXED_TYPES:
        return TextTable(name, rest, form or ("alias" if _holds_aliases(flat, config) else "map"), warn)
    if kind in PATTERN_TYPES:
        return PatternTable(name, kind, rest, warn)
    if kind == "inline":
        return InlineTable(name, rest)
    if kind == "static":
        return StaticTable(name, rest)
    if kind == "unix":
        return AccountsTable(name, rest)
    if kind == "fail":
        return FailTable(name)
    if kind in REMOTE_TYPES:
        # Its parameters may be in main.cf.
        assert isinstance(config, Config)

        def opened(word: str) -> Table:
            return open_table(word, config, warn=warn)

        return open_remote(kind, rest, name, config, warn, opened)
    raise TableTypeError(f'"{name}": unknown table type "{kind}"; known types: {" ".join(KNOWN_TYPES)}')


def _holds_aliases(flat: str, config: Settings) -> bool:
    """Return whether `alias_maps` or `alias_database` names the file, which then has the form of aliases(5)."""
    path = flat.partition(":")[2]
    named = (*config.items("alias_maps"), *config.items("alias_database"))
    return any(_flat(item).partition(":")[2] == path for item in named)


def _flat(name: str) -> str:
    """Return the name without `proxy:`; programs here are not in a chroot jail, so they need no proxy."""
    name = name.strip()
    while name.startswith("proxy:"):
        name = name.partition(":")[2]
    return name


def _silent(_text: str) -> None:
    return None
