"""The parameters that the SQL types share: the query, and the hosts."""

from __future__ import annotations

from typing import Final, NamedTuple

from postillion.config.secrets import without_passwords
from postillion.tables.remote.mapping import Mapping, OpenTable, template
from postillion.tables.remote.parameters import Parameters
from postillion.tables.remote.template import Quote, Template, TemplateError
from postillion.tables.table import TableError, Warn

ROWS_MAX: Final = 100_000
"""Maximum number of rows of a result; more fail, because no lookup has a use for them."""


class Statement:
    """The query of a table, and the result that its rows make."""

    def __init__(
        self, name: str, parameters: Parameters, warn: Warn, open_table: OpenTable, *, functions: bool = False
    ) -> None:
        """Read the parameters. `functions`: select_function is one of them. Raises `ConfigError`."""
        self.mapping = Mapping(name, parameters, warn, open_table)
        self._query = query(parameters, functions=functions)
        self.is_one_command = ";" not in self._query.literal.rstrip("; ")
        """Whether the query is certainly one command: nothing separates two."""

    def admits_at_once(self, key: str) -> bool | None:
        """Return whether to ask for a key; None: a table of `domain` has to be asked."""
        return self._query.query(key, str) is not None and self.mapping.admits_at_once(key)

    async def admits(self, key: str) -> bool:
        """Return whether to ask for a key. Raises `TableError`."""
        return self._query.query(key, str) is not None and await self.mapping.admits(key)

    def text(self, key: str, quote: Quote) -> str:
        """Return the query for a key that is admitted."""
        text = self._query.query(key, quote)
        assert text is not None
        return text


def query(parameters: Parameters, *, functions: bool) -> Template:
    """Return the query: `query`, `select_function`, or the four older parameters. Raises `ConfigError`."""
    older = ("select_field", "table", "where_field", "additional_conditions")
    function = parameters.text("select_function") if functions else ""
    field, table, where, conditions = (parameters.text(name) for name in older)
    if parameters.text("query"):
        return template(parameters, "query", "")
    if function:
        text = f"SELECT {function}('%s')"
    elif field and table and where:
        text = f"SELECT {field} FROM {table} WHERE {where} = '%s' {conditions}"  # noqa: S608
    else:
        raise parameters.error("query", "query is missing", "add query = SELECT ... WHERE ... = '%s'")
    try:
        return Template(text)
    except TemplateError as problem:
        fix = "write %% for a percent sign"
        raise parameters.error("additional_conditions", f"additional_conditions: {problem}", fix) from None


def column_text(column: object, codec: str = "utf-8") -> str | None:
    """Return a column of a row as text; None for NULL. Raises `TableError` for octets that the codec does not have."""
    if column is None or isinstance(column, str):
        return column
    if not isinstance(column, bytes):
        return str(column)
    try:
        return column.decode(codec)
    except UnicodeDecodeError:
        raise TableError(f"the value is not {codec.upper()}") from None


class Host(NamedTuple):
    """One server: a host and a port, or the path of a UNIX-domain socket; an empty path is the library's default."""

    name: str
    host: str
    port: int
    path: str | None


def hosts(parameters: Parameters, words: list[str], default_port: int) -> list[Host]:
    """Return the servers of words of `hosts`: `unix:/path`, `inet:host:port`, `host`, `host:port`.

    No words stand for `localhost`. Raises `ConfigError`.
    """
    return [_host(parameters, word, default_port) for word in words or ["localhost"]]


def _host(parameters: Parameters, word: str, default_port: int) -> Host:
    if word.startswith("unix:"):
        return Host(word, "", 0, word.removeprefix("unix:"))
    host, colon, port = word.removeprefix("inet:"), "", ""
    if host.startswith("["):
        host, _, rest = host[1:].partition("]")
        colon, port = rest[:1], rest[1:]
    elif host.count(":") == 1:
        host, colon, port = host.partition(":")
    if not host or (colon and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)):
        problem = f'bad value "{without_passwords(word)}" for hosts'
        raise parameters.error("hosts", problem, "give host, host:port or unix:/path")
    return Host(f"inet:{host}:{port or default_port}", host, int(port or default_port), None)
