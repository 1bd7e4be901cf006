"""Tables by their names in main.cf, and lookups in a list of tables.

The first remote table imports the modules for all of them: a command without one starts in half the time. Programs
import them before they drop their rights (`program.daemon`).
"""

from __future__ import annotations

from postillion._core import tables as core
from postillion.config import Config
from postillion.tables.names import CONFIGURED, REMOTE_TYPES, flat, has_remote, members
from postillion.tables.sensitive import SECRET, WITHOUT_SUBSTITUTION, refused_type
from postillion.tables.table import TableError, TableTypeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Protocol

    from postillion.config import ConfigError
    from postillion.tables.table import Form, Table, Trace, Warn
else:
    Protocol = object

INDEXED_TYPES = ("hash", "btree", "lmdb", "cdb")
"""Types whose index postmap writes; a lookup reads the index."""
LOCAL_TYPES = frozenset(core.table_types())
"""Types of the Rust core, which answer at once."""
KNOWN_TYPES = tuple(sorted({*LOCAL_TYPES, *REMOTE_TYPES}))


class Settings(Protocol):
    """The part of the configuration that names the alias tables, and says whether keys are UTF-8."""

    def items(self, name: str) -> list[str]:
        """Return the parameter's list."""

    def flag(self, name: str) -> bool:
        """Return the parameter's yes or no."""


class Configuration(Settings, Protocol):
    """The part of the configuration that opens the tables of a parameter. `opened`: the opened tables.

    `trace`: gets each lookup. `warn`: gets the warnings about tables that are opened without a callback. `log`: gets
    the lookups in `debug:` tables.
    """

    opened: list[tuple[str, Table]]
    warn: Warn | None
    log: Warn | None
    trace: Trace | None

    def error(self, name: str, problem: str, fix: str) -> ConfigError:
        """Return the error for a parameter, at the line that sets it."""

    def source_of(self, name: str, text: str) -> str:
        """Return the parameter that `text` in a value is written in: `name`, or one that its value refers to."""


class Match:
    """A value and the table that it came from."""

    __slots__ = ("table", "value")

    def __init__(self, value: str, table: Table) -> None:
        self.value = value
        self.table = table


class Maps:
    """A list of tables, searched in order. False when the list is empty."""

    def __init__(self, tables: Iterable[Table]) -> None:
        self.tables = tuple(tables)

    def __bool__(self) -> bool:
        return bool(self.tables)

    @property
    def is_outdated(self) -> bool:
        """Whether the file of a table has changed and cannot be read."""
        return any(getattr(table, "is_outdated", False) for table in self.tables)

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
        for position, key in enumerate(keys):
            value = self.lookup(key, part=position > 0)
            if value == "":
                names = " ".join(table.name for table in self.tables)
                raise TableError(f'{names}: lookup of "{key}" returns an empty value')
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


def open_maps(parameter: str, config: Configuration, *, warn: Warn | None = None, fold: bool = True) -> Maps:
    """Return the tables of a list parameter such as `alias_maps`, ready to be asked.

    `warn`: called for bad lines when a file is read. `fold`: fixed keys ignore case. Raises `ConfigError` for an
    invalid name.
    """
    return Maps(open_word(parameter, word, config, warn=warn, fold=fold) for word in config.items(parameter))


def open_word(
    parameter: str,
    word: str,
    config: Configuration,
    *,
    warn: Warn | None = None,
    fold: bool = True,
    files: bool = False,
) -> Table:
    """Return the table that a word of a parameter names, and add it to `config.opened`. Raises `ConfigError`.

    The name of the parameter decides what the table may be, and whether results may contain text of the key.
    """
    refused = refused_type(parameter, word)
    if refused is not None:
        source = config.source_of(parameter, word)
        told = f'"{word}": a {refused} table is not allowed for security-sensitive data: nobody proves who answers'
        fix = "use a local table, or one of type ldap, mysql, pgsql or sqlite"
        raise config.error(source, f"{source}: {told}", fix)
    substitution = parameter not in WITHOUT_SUBSTITUTION
    try:
        table = _opened(word, config, fold, substitution) or open_table(
            word,
            config,
            warn=warn or config.warn,
            log=None if parameter in SECRET else config.log,
            fold=fold,
            files=files,
            substitution=substitution,
        )
    except TableTypeError as problem:
        source = config.source_of(parameter, word)
        raise config.error(source, f"{source}: {problem}", "correct the table's name") from None
    config.opened.append((parameter, table))
    if config.trace is None:
        return table
    from postillion.tables.traced import TracedTable

    return TracedTable(parameter, table, config.trace)


def _opened(word: str, config: Configuration, fold: bool, substitution: bool) -> Table | None:
    """Return the remote table with the same file, if a parameter has opened it: both share its connections.

    None for a table that has its parameters in main.cf or in its name. The warnings go where the first parameter sends
    them.
    """
    kind, _, rest = flat(word).partition(":")
    if kind not in CONFIGURED or not rest.strip().startswith("/"):
        return None
    for parameter, table in config.opened:
        substitutes = parameter not in WITHOUT_SUBSTITUTION
        if flat(table.name) == flat(word) and substitutes == substitution and getattr(table, "folds", None) is fold:
            return table
    return None


def read_tables(config: Configuration, known: set[str] | None = None) -> Iterator[ConfigError]:
    """Read the source of each table in `config.opened`; yield an error for each name that cannot be read.

    `known`: names of tables to leave out; the names of those read now are added. Without it, a table that several
    parameters name is read for each of them. Where no text of the key gets into results, other rules count, so this
    reading has a name of its own.
    """
    names: set[str] = set() if known is None else known
    for parameter, table in config.opened:
        reading = f"{table.name} without substitution" if parameter in WITHOUT_SUBSTITUTION else table.name
        if reading in names and known is not None:
            continue
        is_new = table.name not in names
        names.update((reading, table.name))
        try:
            table.refresh()
        except TableError as error:
            if not is_new:
                continue
            source = config.source_of(parameter, table.name)
            problem, fix = _repair(str(error))
            yield config.error(source, f"{source}: {problem}", fix)


def _repair(text: str) -> tuple[str, str]:
    """Return the problem of a table that cannot be read, and its fix."""
    # A missing index names the command that writes it, an expression that may not end what to use instead.
    for verb in ("run", "use"):
        problem, sign, rest = text.rpartition(f": {verb} ")
        if sign:
            return problem, f"{verb} {rest}"
    return text, "create the file, or correct the table's name"


def open_table(
    name: str,
    config: Settings,
    *,
    warn: Warn | None = None,
    log: Warn | None = None,
    form: Form | None = None,
    fold: bool = True,
    utf8: bool | None = None,
    files: bool = False,
    substitution: bool = True,
    loaded_max_octets: int = 0,
) -> Table:
    """Return one table by its `type:name`. Raises `TableTypeError`.

    `log`: gets the lookups in `debug:` tables. `form`: how the lines of a text file read, `map` or `alias`; None: as
    the parameters that name the file say. `fold`: fixed keys ignore case. `utf8`: keys and values must be UTF-8; None:
    as `smtputf8_enable` says. `files`: values are base64 or lists of files (postmap -F). `substitution`: the result of
    a pattern may contain text of the key. `loaded_max_octets`: maximum size of a large index that is read into memory
    after many lookups.
    """
    bare = flat(name)
    kind, sign, rest = bare.partition(":")
    if has_remote(kind, rest):
        from postillion.tables.remote import open_accounts, open_combined, open_remote

        if kind == "unix":
            return open_accounts(rest.strip(), name, warn or _silent)
        if kind not in REMOTE_TYPES:
            words = members(kind, rest)
            tables = [
                open_table(
                    word, config, warn=warn, log=log, fold=fold, utf8=utf8, files=files, substitution=substitution
                )
                for word in words
            ]
            return open_combined(kind, name, tables, warn or _silent, log or _silent)
        # Its parameters may be in main.cf.
        assert isinstance(config, Config)

        def opened(word: str) -> Table:
            return open_table(word, config, warn=warn, log=log, substitution=substitution)

        remote = open_remote(kind, rest.strip(), name, config, warn or _silent, opened)
        remote.folds &= fold
        return remote
    if sign and kind not in KNOWN_TYPES:
        raise TableTypeError(f'"{name}": unknown table type "{kind}"; known types: {" ".join(KNOWN_TYPES)}')
    if form is None and _holds_aliases(bare, config):
        form = "mixed" if kind == "texthash" else "alias"
    if utf8 is None:
        utf8 = config.flag("smtputf8_enable")
    return core.open_table(
        name,
        form=form or "map",
        warn=warn,
        log=log,
        fold=fold,
        utf8=utf8,
        files=files,
        substitution=substitution,
        loaded_max_octets=loaded_max_octets,
    )


def _holds_aliases(bare: str, config: Settings) -> bool:
    """Return whether `alias_maps` or `alias_database` names the file, which then has the form of aliases(5)."""
    path = bare.partition(":")[2]
    named = (*config.items("alias_maps"), *config.items("alias_database"))
    return any(flat(item).partition(":")[2] == path for item in named)


def _silent(_text: str) -> None:
    return None
