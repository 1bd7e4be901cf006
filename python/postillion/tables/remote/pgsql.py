"""`pgsql:/file`: PostgreSQL, with psycopg (pgsql_table(5))."""

from __future__ import annotations

import asyncio
import codecs
import re
from typing import TYPE_CHECKING, Final

from postillion.tables.remote.begun import Begun
from postillion.tables.remote.library import load
from postillion.tables.remote.mapping import OpenTable
from postillion.tables.remote.parameters import Parameters
from postillion.tables.remote.pgsql_link import PgsqlLink
from postillion.tables.remote.pool import LinkLost, Pool, PooledSource, Server
from postillion.tables.remote.secret import Secret
from postillion.tables.remote.sql import ROWS_MAX, Host, Statement, column_text, hosts
from postillion.tables.remote.together import Together
from postillion.tables.table import TableError, Warn

if TYPE_CHECKING:
    import psycopg

PORT: Final = 5432
ENCODINGS: Final = {"utf8": "utf-8", "utf-8": "utf-8", "unicode": "utf-8", "sql_ascii": "utf-8"}
"""Encodings of PostgreSQL whose Python names differ."""
URIS: Final = ("postgresql://", "postgres://")
PASSWORDS_IN_URI: Final = re.compile(r"://[^:/?@]*:(.*)@|[?&](?:ssl)?password=([^&]*)")
"""Passwords as a URI has them: in front of the host, and among the words behind `?`."""


class PgsqlSource(PooledSource):
    """A table in PostgreSQL."""

    def __init__(self, name: str, parameters: Parameters, warn: Warn, open_table: OpenTable) -> None:
        """Read the parameters. Raises `ConfigError`, also without the library."""
        self._library = load("psycopg", "pgsql", parameters, ("psycopg.pq", "psycopg.rows", "psycopg._dns"))
        self._fatal_error = self._library.pq.ExecStatus.FATAL_ERROR
        self._tuples_ok = self._library.pq.ExecStatus.TUPLES_OK
        self._statement = Statement(name, parameters, warn, open_table, functions=True)
        self._user = parameters.text("user")
        self._password = parameters.secret("password")
        self._database = parameters.text("dbname")
        self._encoding = parameters.text("encoding", "UTF8")
        self._codec = ENCODINGS.get(self._encoding.lower(), self._encoding)
        try:
            codecs.lookup(self._codec)
        except LookupError:
            raise parameters.error("encoding", f'unknown encoding "{self._encoding}"', "give UTF8 or LATIN1") from None
        words = parameters.words("hosts")
        uris = [word for word in words if word.startswith(URIS)]
        # A URI is libpq's alone: user, password and dbname are for the other hosts.
        servers = [self._server(self._shown(uri, parameters), uri, {}) for uri in uris]
        others = [word for word in words if not word.startswith(URIS)]
        if others or not words:
            if not self._database:
                raise parameters.error("dbname", "dbname is missing", "add dbname = name of the database")
            plain = hosts(parameters, others, PORT)
            servers += [self._server(host.name, self._conninfo(host), self._login()) for host in plain]
        self._pool = Pool(
            servers,
            idle_s=parameters.number("idle_interval", 60, low=1),
            retry_max_s=parameters.number("retry_interval", 60, low=1),
        )
        self._together = Together(self._pool, self)
        self._is_shared = self._statement.is_one_command

    def begin(self, key: str, begun: Begun) -> bool:
        """Look a key up together with those that begin at the same time. False: it must be made by `ask`."""
        if not self._is_shared or not self._statement.admits_at_once(key) or not self._has(key):
            return False
        return self._together.begin(key, begun)

    async def ask(self, key: str) -> str | None:
        """Return the value for `key`; None when there is none. Raises `TableError`."""
        if not await self._statement.admits(key) or not self._has(key):
            return None
        return self._statement.mapping.result(key, await self._pool.run(lambda link: self._select(link, key)))

    def query(self, link: PgsqlLink, key: str) -> bytes:
        """Return the query for a key."""
        return self._statement.text(key, link.quote).encode(link.codec)

    def value(self, link: PgsqlLink, key: str, result: psycopg.pq.abc.PGresult) -> str | None:
        """Return the value in the result of a query. Raises `TableError`."""
        return self._statement.mapping.result(key, self._columns(link, result))

    def _has(self, key: str) -> bool:
        """Return whether the database can have a key: its encoding has all characters."""
        try:
            key.encode(self._codec)
        except UnicodeEncodeError:
            return False
        return True

    def _server(self, name: str, conninfo: str, login: dict[str, Secret]) -> Server[PgsqlLink]:
        return Server(name, lambda: self._connect(conninfo, login))

    def _shown(self, uri: str, parameters: Parameters) -> str:
        """Return a URI's server, without user and password, which no text shows from now on."""
        parameters.secrets.add(uri)
        for password in PASSWORDS_IN_URI.findall(uri):
            parameters.secrets.add("".join(password))
        try:
            words: dict[str, str] = self._library.conninfo.conninfo_to_dict(uri)
        except self._library.Error:
            # Its connections fail; the library tells why.
            return "postgresql:"
        for name in ("password", "sslpassword"):
            parameters.secrets.add(words.get(name, ""))
        place = f"{words.get('host', '')}:{words.get('port', PORT)}"
        return f"postgresql://{place}/{words.get('dbname', '')}"

    def _login(self) -> dict[str, Secret]:
        login = {"password": self._password} if self._password else {}
        return login | ({"user": Secret(self._user)} if self._user else {})

    def _conninfo(self, host: Host) -> str:
        """Return libpq's words for a server, without user and password."""
        place = {"host": host.host or host.path or "", "port": str(host.port or "")}
        if host.path is not None:
            # libpq wants the directory of the socket, whose name is .s.PGSQL.PORT.
            directory, _, last = host.path.rpartition("/")
            if last.startswith(".s.PGSQL."):
                place = {"host": directory, "port": last.removeprefix(".s.PGSQL.")}
        text: str = self._library.conninfo.make_conninfo(
            dbname=self._database, **{name: value for name, value in place.items() if value}
        )
        return text

    async def _connect(self, conninfo: str, login: dict[str, Secret]) -> PgsqlLink:
        psycopg = self._library
        words = {name: value.reveal() for name, value in login.items()}
        try:
            connection = await psycopg.AsyncConnection.connect(
                conninfo, autocommit=True, prepare_threshold=None, client_encoding=self._encoding, **words
            )
        except psycopg.Error as problem:
            raise LinkLost(_first_line(problem)) from None
        return PgsqlLink(connection, psycopg, self._codec)

    async def _select(self, link: PgsqlLink, key: str) -> list[str | None]:
        """Return the columns of all rows. Raises `LinkLost` and `TableError`."""
        psycopg, loop = self._library, asyncio.get_running_loop()
        begin = loop.time()
        try:
            results = await link.query(self.query(link, key))
        except psycopg.Error as problem:
            raise LinkLost(_first_line(problem)) from None
        self._together.took(loop.time() - begin)
        for result in results:
            if result.status == self._fatal_error:
                text = _first_line(psycopg.Error(result.error_message.decode(link.codec, "replace")))
                raise LinkLost(text) if link.lost else TableError(text)
        if not results:
            raise TableError("the query returns no rows")
        return self._columns(link, results[0])

    def _columns(self, link: PgsqlLink, result: psycopg.pq.abc.PGresult) -> list[str | None]:
        """Return the columns of all rows, as the server writes them; NULL is an empty text. Raises `TableError`."""
        if result.status != self._tuples_ok:
            raise TableError("the query returns no rows")
        if result.ntuples > ROWS_MAX:
            raise TableError(f"more than {ROWS_MAX} rows")
        columns = range(result.nfields)
        return [
            column_text(result.get_value(row, at) or b"", link.codec) for row in range(result.ntuples) for at in columns
        ]


def _first_line(problem: Exception) -> str:
    return str(problem).strip().partition("\n")[0] or type(problem).__name__
