"""One connection to PostgreSQL: a query by itself, or several that travel together."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from postillion.tables.remote.pool import BadReply

if TYPE_CHECKING:
    import psycopg

RESULTS_MAX: Final = 100
"""Maximum number of statements of one query whose results are examined."""

Done = Callable[["list[psycopg.pq.abc.PGresult] | None"], None]


class PgsqlLink:
    """One connection.

    It asks libpq itself: a cursor of psycopg costs more than twice as much, for features that a lookup does not use.
    """

    def __init__(self, connection: psycopg.AsyncConnection[Any], library: Any, codec: str) -> None:
        """`library`: psycopg."""
        self.codec = codec
        self._connection = connection
        self._libpq = connection.pgconn
        self._error = library.Error
        self._bad = library.pq.ConnStatus.BAD
        self._escape = library.pq.Escaping(connection.pgconn)
        self._loop = asyncio.get_running_loop()
        self._socket = connection.pgconn.socket
        # Of our own: libpq closes its socket when the server ends, and the next connection gets that number. And uvloop
        # calls the reader of a socket that was reset only once, though the server's last words may be left to read.
        self._events = select.epoll()
        self._events.register(self._socket, select.EPOLLIN)
        self._lost: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None
        status = library.pq.ExecStatus
        self._sync, self._fatal = status.PIPELINE_SYNC, status.FATAL_ERROR
        self._copies = (status.COPY_IN, status.COPY_OUT)
        self._results: list[psycopg.pq.abc.PGresult] = []
        self._results_left = 0
        self._done: Done | None = None
        """Gets the results of the queries that travel together now."""
        self._loop.add_reader(self._events.fileno(), self._read)

    def quote(self, part: str) -> str:
        """Return a part of a key for a place between single quotes."""
        escaped: bytes = self._escape.escape_string(part.encode(self.codec))
        return escaped.decode(self.codec)

    async def query(self, text: bytes) -> list[psycopg.pq.abc.PGresult]:
        """Return the results of a query, the first `RESULTS_MAX`.

        Raises `psycopg.Error` when the connection fails, and `BadReply` for COPY.
        """
        self._libpq.send_query(text)
        while self._libpq.flush():
            await self._writable()
        results: list[psycopg.pq.abc.PGresult] = []
        while True:
            while self._libpq.is_busy():
                if self._lost is not None:
                    raise self._lost
                await self._event()
            result = self._libpq.get_result()
            if result is None:
                return results
            if result.status in self._copies:
                # libpq gives this result again and again, until somebody takes the rows.
                raise BadReply("the query is COPY, which returns no result")
            if len(results) < RESULTS_MAX:
                results.append(result)

    def exchange(self, queries: Sequence[bytes], done: Done) -> bool:
        """Send queries together. `done` gets the result of each one, or None when the connection fails.

        Each query is a command by itself, in libpq's pipeline mode, and all are one transaction. When one fails, the
        server undoes those before it, and `done` gets no results: []. False: the queries could not be sent at once, and
        the connection must be closed.
        """
        try:
            self._libpq.enter_pipeline_mode()
            for query in queries:
                self._libpq.send_query_params(query, None)
            self._libpq.pipeline_sync()
            if self._libpq.flush():
                return False
        except self._error:
            return False
        self._results, self._done = [], done
        # A result and a None for each query, and the end.
        self._results_left = 2 * len(queries) + 1
        return True

    @property
    def lost(self) -> bool:
        """Whether the connection has ended: then an error was the server's farewell."""
        return self._lost is not None or self._libpq.status == self._bad

    async def close(self) -> None:
        """Close the connection; queries under way get no results."""
        self._done = None
        self._loop.remove_reader(self._events.fileno())
        self._events.close()
        await self._connection.close()

    def _read(self) -> None:
        """Read what the server has sent; between two lookups it is a notice, or the end."""
        try:
            self._libpq.consume_input()
        except self._error as problem:
            self._lost = problem
            self._loop.remove_reader(self._events.fileno())
        if self._done is not None:
            self._collect(self._done)
        elif self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _collect(self, done: Done) -> None:
        """Take the results that have come, of queries that travel together."""
        try:
            is_whole = self._take_results()
        except self._error as problem:
            self._lost = problem
            is_whole = False
        if is_whole is None:
            return
        results, self._results, self._done = self._results, [], None
        if not is_whole:
            done(None)
        elif any(result.status == self._fatal for result in results):
            done([])
        else:
            done(results)

    def _take_results(self) -> bool | None:
        """Return whether all results are there; None when more will come. Raises `psycopg.Error`."""
        while self._lost is None and self._results_left:
            if self._libpq.is_busy():
                return None
            self._results_left -= 1
            result = self._libpq.get_result()
            if result is None:
                continue
            if result.status == self._sync:
                self._libpq.exit_pipeline_mode()
                return not self._results_left
            self._results.append(result)
        return False

    async def _writable(self) -> None:
        """Wait until the server takes more of a query."""
        self._events.modify(self._socket, select.EPOLLIN | select.EPOLLOUT)
        try:
            await self._event()
        finally:
            # libpq may have closed the socket.
            with suppress(OSError):
                self._events.modify(self._socket, select.EPOLLIN)

    async def _event(self) -> None:
        """Wait until `_read` has run."""
        self._waiting = self._loop.create_future()
        await self._waiting
