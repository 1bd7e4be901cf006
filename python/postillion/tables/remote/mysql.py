"""`mysql:/file`: MySQL and MariaDB, with asyncmy (mysql_table(5))."""

from __future__ import annotations

import os
import ssl
from typing import Any, Final

from postillion.tables.remote.library import load
from postillion.tables.remote.mapping import OpenTable
from postillion.tables.remote.parameters import Parameters
from postillion.tables.remote.pool import LinkLost, Pool, PooledSource, Server
from postillion.tables.remote.sql import ROWS_MAX, Host, Statement, column_text, hosts
from postillion.tables.table import TableError, Warn

PORT: Final = 3306
SOCKETS: Final = ("/run/mysqld/mysqld.sock", "/var/run/mysqld/mysqld.sock", "/tmp/mysql.sock")  # noqa: S108
"""Where servers have their socket: `localhost` means it, as in MySQL's own library."""
OPTION_FILES: Final = ("/etc/my.cnf", "/etc/mysql/my.cnf")
CLOSED: Final = frozenset({1053, 1077, 1079, 1080, 1152, 1153, 1184, 1927, 2006, 2013, 2055, 4031})
"""Errors behind which the connection has ended."""
ESCAPES: Final = "SET SESSION sql_mode = REPLACE(@@SESSION.sql_mode, 'NO_BACKSLASH_ESCAPES', '')"
"""Keys are quoted with backslashes; in this mode, a double quote in a key could not be."""


class MysqlLink:
    """One connection."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def quote(self, part: str) -> str:
        """Return a part of a key for a place between quotes."""
        escaped: str = self.connection.escape_string(part)
        return escaped

    async def close(self) -> None:
        """Close the connection."""
        self.connection.close()


class MysqlSource(PooledSource):
    """A table in MySQL or MariaDB."""

    def __init__(self, name: str, parameters: Parameters, warn: Warn, open_table: OpenTable) -> None:
        """Read the parameters. Raises `ConfigError`, also without the library."""
        self._library = load("asyncmy", "mysql", parameters, ("asyncmy.connection", "asyncmy.cursors", "asyncmy.auth"))
        self._errors = load("asyncmy.errors", "mysql", parameters)
        self._statement = Statement(name, parameters, warn, open_table)
        options = _options(parameters, self._library)
        self._user = parameters.text("user") or options.get("user", "")
        self._password = parameters.secret("password") or parameters.secrets.add(options.get("password", ""))
        self._database = parameters.text("dbname") or options.get("database", "")
        if not self._database:
            raise parameters.error("dbname", "dbname is missing", "add dbname = name of the database")
        self._charset = parameters.text("charset", "utf8mb4")
        self._socket = options.get("socket", "")
        self._needs_rows = parameters.flag("require_result_set", True)
        self._tls = _tls(parameters)
        port = int(options.get("port", PORT))
        servers = [self._server(host) for host in hosts(parameters, parameters.words("hosts"), port)]
        self._pool = Pool(
            servers,
            idle_s=parameters.number("idle_interval", 60, low=1),
            retry_max_s=parameters.number("retry_interval", 60, low=1),
        )

    async def ask(self, key: str) -> str | None:
        """Return the value for `key`; None when there is none. Raises `TableError`."""
        if not await self._statement.admits(key):
            return None

        async def work(link: MysqlLink) -> list[str | None] | None:
            return await self._select(link, self._statement.text(key, link.quote))

        values = await self._pool.run(work)
        return None if values is None else self._statement.mapping.result(key, values)

    def _server(self, host: Host) -> Server[MysqlLink]:
        path = host.path
        if host.host.lower() == "localhost":
            path = self._socket or next((path for path in SOCKETS if os.path.exists(path)), SOCKETS[0])
        return Server(
            host.name if host.path is not None or path is None else f"unix:{path}", lambda: self._to(host, path)
        )

    async def _to(self, host: Host, path: str | None) -> MysqlLink:
        errors = self._errors
        connection = self._library.connection.Connection(
            user=self._user or None,
            # As octets: the library would encode a text as Latin-1.
            password=self._password.reveal().encode(),
            host=host.host or "localhost",
            port=host.port,
            unix_socket=path,
            database=self._database,
            charset=self._charset,
            # Without converters, each value is the server's own text.
            conv={},
            autocommit=True,
            init_command=ESCAPES,
            ssl=self._tls,
        )
        try:
            await connection.connect()
        except Exception as problem:
            connection.close()
            if isinstance(problem, errors.MySQLError | ssl.SSLError | EOFError):
                raise LinkLost(_reason(problem)) from None
            raise
        return MysqlLink(connection)

    async def _select(self, link: MysqlLink, text: str) -> list[str | None] | None:
        """Return the columns of all rows; None when a statement without rows is allowed to have none."""
        errors = self._errors
        try:
            async with link.connection.cursor() as cursor:
                await cursor.execute(text)
                if cursor.description is None:
                    if self._needs_rows:
                        raise TableError("the query returns no result set (require_result_set)")
                    return None
                rows = await cursor.fetchall()
        except (errors.MySQLError, EOFError) as problem:
            code = problem.args[0] if problem.args else 0
            if isinstance(problem, errors.InterfaceError | EOFError) or code in CLOSED or not link.connection.connected:
                raise LinkLost(_reason(problem)) from None
            raise TableError(_reason(problem)) from None
        if len(rows) > ROWS_MAX:
            raise TableError(f"more than {ROWS_MAX} rows")
        return [column_text(column) for row in rows for column in row]


def _reason(problem: BaseException) -> str:
    """Return the text of an error, without its number."""
    return str(problem.args[-1]) if problem.args else type(problem).__name__


def _options(parameters: Parameters, library: Any) -> dict[str, str]:
    """Return the settings of option_group in the option files (mysql's my.cnf). Raises `ConfigError`."""
    group = parameters.text("option_group", "client")
    file = parameters.text("option_file")
    if not group and not file:
        return {}
    parser = load("asyncmy.optionfile", "mysql", parameters).Parser(strict=False)
    try:
        read = parser.read([file] if file else OPTION_FILES)
    except Exception:
        # Its text may show a line with a password.
        raise parameters.error("option_file", f"{file or OPTION_FILES}: malformed", "correct this file") from None
    if file and not read:
        raise parameters.error("option_file", f"{file}: cannot be read", "create it, or correct its name")
    found: dict[str, str] = {}
    for section in dict.fromkeys(("client", group)):
        for name in ("user", "password", "database", "socket", "port"):
            if section and parser.has_option(section, name):
                found[name] = parser.get(section, name) or ""
    return found


def _tls(parameters: Parameters) -> ssl.SSLContext | None:
    """Return the TLS settings; None without any. Raises `ConfigError`.

    A given authority is checked also without tls_verify_cert, which adds the server's name, as MariaDB's library does.
    """
    cert, key, ca_file, ca_path, ciphers = (
        parameters.text(name) for name in ("tls_cert_file", "tls_key_file", "tls_CAfile", "tls_CApath", "tls_ciphers")
    )
    verify = parameters.flag("tls_verify_cert", False)
    if not (cert or key or ca_file or ca_path or ciphers or verify):
        return None
    at = ""
    try:
        at = "tls_CAfile" if ca_file else "tls_CApath"
        context = ssl.create_default_context(cafile=ca_file or None, capath=ca_path or None)
        context.check_hostname = verify
        if not (verify or ca_file or ca_path):
            context.verify_mode = ssl.CERT_NONE
        # A server may have made its certificates itself, without the extensions that newer Pythons ask for.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if cert or key:
            at = "tls_cert_file" if cert else "tls_key_file"
            # One file may have both. Nobody is there to type a password.
            context.load_cert_chain(cert or key, key or cert, password="")
        if ciphers:
            at = "tls_ciphers"
            context.set_ciphers(ciphers)
    except OSError as problem:
        reason = problem.strerror if isinstance(problem.strerror, str) else problem.args[0]
        text = f'{at}: "{parameters.text(at)}" cannot be used ({reason})'
        raise parameters.error(at, text, "correct the file or its name") from None
    return context
