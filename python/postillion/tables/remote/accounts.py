"""`unix:passwd.byname` and `unix:group.byname` where the name service asks servers: each lookup waits in a thread.

The C library has no call that does not block. A lookup that takes too long fails for now, and its thread stays busy
until the name service answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from postillion._core import accounts
from postillion.tables.remote.workers import Workers
from postillion.tables.table import TableError

THREADS_MAX: Final = 8
"""Maximum number of threads, so of concurrent lookups, of one table or of `delivery.accounts.Accounts`."""


class AccountSource:
    """The accounts of the system, by name."""

    def __init__(self, name: str, database: str, find: Callable[[str, str], str | None] = accounts.line) -> None:
        """`database`: passwd.byname or group.byname. `find`: the lookup; raises `OSError`."""
        self._database = database
        self._find = find
        self._workers = Workers(name, THREADS_MAX)

    async def ask(self, key: str) -> str | None:
        """Return the line of an account; None when there is none. Raises `TableError`."""
        try:
            return await self._workers.run(lambda: self._find(self._database, key))
        except OSError as problem:
            raise TableError(problem.strerror or str(problem)) from None

    async def reach(self) -> None:
        """Do nothing: no lookup says whether all sources of the name service answer."""

    async def close(self) -> None:
        """Let the threads end."""
        self._workers.close()

    def prepare(self) -> None:
        """Do nothing: there is no file to open."""
