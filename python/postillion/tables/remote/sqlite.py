"""`sqlite:/file`: a database in a file (sqlite_table(5))."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from typing import Final
from urllib.parse import quote

from postillion.tables.remote.mapping import OpenTable
from postillion.tables.remote.parameters import Parameters
from postillion.tables.remote.sql import ROWS_MAX, Statement, column_text
from postillion.tables.remote.workers import Workers
from postillion.tables.table import TableError, Warn

THREADS_MAX: Final = 1
"""Threads of one table: its connection is opened as root and cannot be opened again by mail_owner everywhere."""
BUSY_MAX_S: Final = 5.0
"""Longest time that a lookup waits for a program that writes."""
STEPS_MAX: Final = 50_000_000
"""Maximum number of steps of SQLite's machine for one query; a longer one fails, so that it cannot block the table."""
STEPS_CHECKED: Final = 100_000
LENGTH_MAX_OCTETS: Final = 16 * 1024 * 1024
"""Maximum octets of a value, of the query, and of all values of a result together."""

Stamp = tuple[int, int]


class SqliteSource:
    """A table in an SQLite file. A file that replaces it is opened at the next lookup."""

    def __init__(self, name: str, parameters: Parameters, warn: Warn, open_table: OpenTable) -> None:
        """Read the parameters. Raises `ConfigError`."""
        self._path = parameters.required("dbpath", "add dbpath = /path of the database")
        self._statement = Statement(name, parameters, warn, open_table)
        text = parameters.text("query")
        if any(f'"%{letter}"' in text for letter in "sudSUD"):
            warn(f"""{name}: the query has "%s" in double quotes, which SQLite takes as a column: write '%s'""")
        self._workers = Workers(name, THREADS_MAX)
        self._connection: sqlite3.Connection | None = None
        self._stamp: Stamp | None = None

    async def ask(self, key: str) -> str | None:
        """Return the value for `key`; None when there is none. Raises `TableError`."""
        if not await self._statement.admits(key):
            return None
        text = self._statement.text(key, lambda part: part.replace("'", "''"))
        return self._statement.mapping.result(key, await self._workers.run(lambda: self._select(text)))

    async def reach(self) -> None:
        """Do nothing: `prepare` opens the file."""

    async def close(self) -> None:
        """Close the database."""
        if self._connection is not None:
            await self._workers.run(self._connection.close)
            self._connection = None
        self._workers.close()

    def prepare(self) -> None:
        """Open the database. Raises `TableError`."""
        self._open()

    def _open(self) -> sqlite3.Connection:
        try:
            status = os.stat(self._path)
            if not stat.S_ISREG(status.st_mode):
                # SQLite would wait for the other end of a named pipe.
                raise TableError(f"cannot open {self._path}: not a regular file")
            stamp = (status.st_dev, status.st_ino)
            if self._connection is not None and stamp == self._stamp:
                return self._connection
            connection = sqlite3.connect(
                f"file:{quote(self._path)}?mode=ro",
                uri=True,
                timeout=BUSY_MAX_S,
                isolation_level=None,
                check_same_thread=False,
            )
            connection.text_factory = bytes
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LENGTH_MAX_OCTETS)
            # Opens the file, with the rights of this moment.
            connection.execute("PRAGMA schema_version").fetchone()
        except OSError as problem:
            raise TableError(f"cannot open {self._path}: {problem.strerror}") from None
        except sqlite3.Error as problem:
            raise TableError(f"cannot open {self._path}: {problem}") from None
        if self._connection is not None:
            self._connection.close()
        self._connection, self._stamp = connection, stamp
        return connection

    def _select(self, text: str) -> list[str | None]:
        """Return the first column of each row. Runs in a thread."""
        connection = self._open()
        left = STEPS_MAX // STEPS_CHECKED

        def exhausted() -> bool:
            nonlocal left
            left -= 1
            return left < 0

        connection.set_progress_handler(exhausted, STEPS_CHECKED)
        try:
            return [column_text(row[0]) for row in self._rows(connection.execute(text))]
        except (sqlite3.Error, sqlite3.Warning) as problem:
            raise TableError(f"{self._path}: {problem}") from None

    def _rows(self, cursor: sqlite3.Cursor) -> list[tuple[bytes | int | float | None, ...]]:
        """Return the rows. Raises `TableError` for too many rows or octets."""
        rows: list[tuple[bytes | int | float | None, ...]] = []
        octets = 0
        with contextlib.closing(cursor):
            for row in cursor:
                rows.append(row)
                octets += sum(len(column) for column in row if isinstance(column, bytes))
                if len(rows) > ROWS_MAX:
                    raise TableError(f"{self._path}: more than {ROWS_MAX} rows")
                if octets > LENGTH_MAX_OCTETS:
                    raise TableError(f"{self._path}: more than {LENGTH_MAX_OCTETS} octets")
        return rows
