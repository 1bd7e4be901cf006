"""A remote table: the bounds that every type has around its own lookups.

A lookup fails for now (`TableError`) when it takes too long, when too many others wait, or when the server fails. The
log gets one warning per minute and table, so that a server that is down does not fill it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from postillion.tables import deferred
from postillion.tables.remote.begun import Begun, Told
from postillion.tables.remote.limit import TimeLimit
from postillion.tables.remote.secret import Secrets
from postillion.tables.table import TableError, Warn, WarnedError

LOOKUP_MAX_S: Final = 30.0
"""Longest time of a lookup, with the wait for a connection."""
WAITING_MAX: Final = 10_000
"""Maximum number of lookups that wait for an answer of one table; further ones fail at once."""
WARNING_INTERVAL_S: Final = 60.0
"""Shortest time between two warnings about one table."""
REACH_MAX_S: Final = 2.0
"""Longest time that the checker waits for a server."""
NOBODY: Final = 0xFFFF_FFFE
"""The owner of a table that anybody may have filled: no account has this number, so it runs no commands."""


class Source(Protocol):
    """The lookups of one type of table.

    A source may have `begin(key, begun) -> bool`, which makes a lookup without a task; False: only `ask` can make it.
    """

    async def ask(self, key: str) -> str | None:
        """Return the value for `key`; None when there is none. Raises `TableError`, and `OSError` for a lost server."""

    async def reach(self) -> None:
        """Connect to a server. Raises `TableError`."""

    async def close(self) -> None:
        """Close the connections."""

    def prepare(self) -> None:
        """Open what needs the rights of the start of the program. Raises `TableError`."""


class RemoteTable:
    """One opened remote table.

    `owner`: the owner of its configuration file. `takes_parts`: parts of an address, such as `@domain`, are keys too.
    `folds`: keys are asked in lower case.
    """

    has_addresses = True

    def __init__(
        self,
        name: str,
        source: Source,
        warn: Warn,
        secrets: Secrets,
        *,
        owner: int | None,
        takes_parts: bool = True,
        folds: bool = True,
        lookup_max_s: float = LOOKUP_MAX_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.owner = owner
        self.takes_parts = takes_parts
        self.folds = folds
        self._source = source
        self._warn = warn
        self._secrets = secrets
        self._lookup_max_s = lookup_max_s
        self._limit = TimeLimit(lookup_max_s)
        self._clock = clock
        self._waiting = 0
        self._idle: asyncio.Event | None = None
        self._warn_at = float("-inf")
        self._unwarned = 0
        self._begin: Callable[[str, Begun], bool] | None = getattr(source, "begin", None)

    def __repr__(self) -> str:
        return f"RemoteTable({self.name!r})"

    @property
    def is_closed(self) -> bool:
        """Whether the file of a member has changed, and only root may read it."""
        return getattr(self._source, "is_closed", False)

    async def ask(self, key: str) -> str | None:
        """Return the value for `key`; None when there is none. Raises `TableError` on a temporary failure."""
        if not _is_text(key):
            return None
        if self._waiting >= WAITING_MAX:
            raise self._failure(f"more than {WAITING_MAX} lookups wait")
        self._waiting += 1
        try:
            with self._limit.wait():
                return await self._source.ask(key.lower() if self.folds else key)
        except TimeoutError:
            raise self._failure(f"no answer within {self._lookup_max_s:g} seconds") from None
        except WarnedError:
            # A member of the table has warned about it.
            raise
        except TableError as problem:
            raise self._failure(str(problem)) from None
        except OSError as problem:
            raise self._failure(problem.strerror or str(problem) or type(problem).__name__) from None
        except Exception as problem:
            # A library raises errors of any kind about a reply that it does not understand. The mail must wait for it.
            raise self._failure(f"{type(problem).__name__}: {problem}") from None
        finally:
            self._ended()

    def begin(self, key: str, told: Told) -> bool:
        """Look a key up without a task; `told` gets the answer later. False: `ask` must make the lookup."""
        if self._begin is None or self._waiting >= WAITING_MAX or not _is_text(key):
            return False
        begun = Begun(self._ask_anew, key, partial(self._tell, told))
        if not self._begin(key.lower() if self.folds else key, begun):
            return False
        self._waiting += 1
        return True

    async def reach(self) -> str:
        """Return why no server can be reached within `REACH_MAX_S`; an empty text when one can."""
        try:
            async with asyncio.timeout(REACH_MAX_S):
                await self._source.reach()
        except TableError as problem:
            return f"table {self.name}: {self._secrets.redact(' '.join(str(problem).split()))}"
        except TimeoutError:
            return f"table {self.name}: no connection within {REACH_MAX_S:g} seconds"
        return ""

    def lookup(self, key: str) -> str | None:
        """Return the answer for the decision that runs now (`deferred`). Raises `Pending` and `TableError`."""
        return deferred.lookup(self, key)

    def refresh(self) -> None:
        """Open what needs the rights of the start of the program. Raises `TableError`."""
        try:
            self._source.prepare()
        except TableError as problem:
            raise TableError(f"table {self.name}: {self._secrets.redact(str(problem))}") from None

    def values(self) -> list[str]:
        """Return an empty list: a remote table is not listed."""
        return []

    async def close(self) -> None:
        """Close the connections once no lookup waits any more."""
        if self._waiting:
            self._idle = asyncio.Event()
            await self._idle.wait()
        await self._source.close()

    async def _ask_anew(self, key: str) -> str | None:
        """Make a lookup that has begun by itself. It counts once among those that wait."""
        self._waiting -= 1
        try:
            return await self.ask(key)
        finally:
            self._waiting += 1

    def _tell(self, told: Told, answer: str | TableError | None) -> None:
        self._ended()
        told(answer)

    def _ended(self) -> None:
        self._waiting -= 1
        if not self._waiting and self._idle is not None:
            self._idle.set()

    def _failure(self, reason: str) -> TableError:
        """Return the error of a lookup, without passwords, and warn about it now and then."""
        text = f"table {self.name}: {self._secrets.redact(' '.join(reason.split()))}"
        now = self._clock()
        if now >= self._warn_at:
            more = f" ({self._unwarned} more failed lookups since the last such warning)" if self._unwarned else ""
            self._warn(text + more)
            self._warn_at = now + WARNING_INTERVAL_S
            self._unwarned = 0
        else:
            self._unwarned += 1
        return WarnedError(text)


def _is_text(key: str) -> bool:
    """Return whether a remote table can have the key: valid UTF-8 without NUL, and not empty."""
    if not key or "\0" in key:
        return False
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
