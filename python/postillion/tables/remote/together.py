"""Lookups that travel together: those that begin in one iteration of the event loop share a connection.

A lookup by itself costs a system call to ask, one to read the answer, and often a switch to the server and back. When
many SMTP sessions ask at a time, most of that is shared. A table whose answers take long gets each lookup on a
connection of its own instead, so that none waits for another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from postillion.tables.remote.begun import Begun
from postillion.tables.remote.limit import TimeLimit
from postillion.tables.remote.pool import Loan, Pool

EXCHANGE_LOOKUPS_MAX: Final = 8
"""Maximum number of lookups of an exchange."""
EXCHANGE_MAX_S: Final = 1.0
"""Longest time of an exchange; then its lookups are made by themselves."""
SLOW_S: Final = 0.05
"""Time of a lookup above which a table is slow (seconds)."""

R = TypeVar("R")
R_contra = TypeVar("R_contra", contravariant=True)


class Dialect(Protocol[R_contra]):
    """The queries and results of a type of table."""

    def query(self, link: Any, key: str) -> bytes:
        """Return the query for a key."""

    def value(self, link: Any, key: str, result: R_contra) -> str | None:
        """Return the value in a result; None without one. Raises any exception: the lookup is made by itself."""


class Open(NamedTuple):
    """A lookup that has begun."""

    key: str
    begun: Begun


class Together(Generic[R]):
    """The lookups of one table that begin now."""

    def __init__(self, pool: Pool[Any], dialect: Dialect[R]) -> None:
        self.pool = pool
        self.dialect = dialect
        self.limit = TimeLimit(EXCHANGE_MAX_S)
        self._is_slow = False
        self._open: list[Open] = []

    def begin(self, key: str, begun: Begun) -> bool:
        """Begin a lookup with the others of this iteration. False: it must be made by itself."""
        if self._is_slow:
            return False
        if not self._open:
            asyncio.get_running_loop().call_soon(self._send)
        self._open.append(Open(key, begun))
        return True

    def took(self, seconds: float) -> None:
        """Take the time of a lookup."""
        self._is_slow = seconds > SLOW_S

    def _send(self) -> None:
        lookups, self._open = self._open, []
        for at in range(0, len(lookups), EXCHANGE_LOOKUPS_MAX):
            loan = self.pool.borrow()
            if loan is None:
                give_up(lookups[at:])
                return
            _Exchange(self, loan, lookups[at : at + EXCHANGE_LOOKUPS_MAX])


class _Exchange(Generic[R]):
    """Lookups under way on one connection."""

    __slots__ = ("_begin", "_loan", "_lookups", "_loop", "_together", "until")

    def __init__(self, together: Together[R], loan: Loan[Any], lookups: list[Open]) -> None:
        self._together = together
        self._loan = loan
        self._lookups = lookups
        self._loop = asyncio.get_running_loop()
        self._begin = self._loop.time()
        self.until = 0.0
        try:
            queries = [together.dialect.query(loan.link, lookup.key) for lookup in lookups]
        except Exception:
            # Such as a character that the encoding lacks. A lookup by itself says so.
            self._end(usable=True)
            return
        if loan.link.exchange(queries, self._done):
            together.limit.add(self, self._loop)
        else:
            self._end(usable=False)

    def expire(self) -> None:
        """Give the lookups up: the server takes too long."""
        self._together.took(EXCHANGE_MAX_S)
        self._end(usable=False)

    def _done(self, results: list[R] | None) -> None:
        together, loan, lookups = self._together, self._loan, self._lookups
        together.limit.remove(self)
        if results is None:
            self._end(usable=False)
            return
        together.took((self._loop.time() - self._begin) / len(lookups))
        if not results:
            self._end(usable=True)
            return
        together.pool.give_back(loan, usable=True)
        for lookup, result in zip(lookups, results, strict=True):
            try:
                value = together.dialect.value(loan.link, lookup.key, result)
            except Exception:
                lookup.begun.give_up()
            else:
                self._answer(lookup, value)

    def _answer(self, lookup: Open, value: str | None) -> None:
        try:
            lookup.begun.answered(value)
        except Exception as problem:
            # A bug in what one lookup is for must not take the answers of the others.
            self._loop.call_exception_handler({"message": "error after a lookup", "exception": problem})

    def _end(self, *, usable: bool) -> None:
        """End without answers: each lookup is made by itself. `usable`: other lookups can use the connection."""
        self._together.pool.give_back(self._loan, usable=usable)
        give_up(self._lookups)


def give_up(lookups: Sequence[Open]) -> None:
    """Let lookups be made by themselves."""
    for lookup in lookups:
        lookup.begun.give_up()
