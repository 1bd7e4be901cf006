"""The users of this system, looked up without blocking the event loop.

Where the name service needs files alone (`tables.nsswitch`), a lookup takes microseconds and is made at once. Otherwise
it waits in one of `THREADS_MAX` threads, because a server of the name service may be slow. `LOOKUP_MAX_S` limits the
time of a lookup, including the wait for a thread. All lookups raise `NoAnswerError`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from postillion.delivery.account import Account, NoAnswerError, account_of, find_account, unprivileged
from postillion.tables.nsswitch import answers_at_once
from postillion.tables.remote.accounts import THREADS_MAX
from postillion.tables.remote.table import LOOKUP_MAX_S
from postillion.tables.remote.workers import Workers


class Accounts:
    """The users by name and by number."""

    def __init__(
        self,
        *,
        find: Callable[[str], Account | None] = find_account,
        find_number: Callable[[int], Account | None] = account_of,
        at_once: bool | None = None,
        lookup_max_s: float = LOOKUP_MAX_S,
    ) -> None:
        """`find`, `find_number`: the lookups. `at_once`: make them without threads; None: as nsswitch.conf says."""
        self._find = find
        self._find_number = find_number
        self._lookup_max_s = lookup_max_s
        is_local = answers_at_once("passwd") if at_once is None else at_once
        self._workers = None if is_local else Workers("accounts", THREADS_MAX)

    async def named(self, name: str) -> Account | None:
        """Return the user with this name; None when there is none."""
        return await self._ask(name, partial(self._find, name))

    async def numbered(self, uid: int) -> Account | None:
        """Return the user with this uid; None when there is none."""
        return await self._ask(f"uid {uid}", partial(self._find_number, uid))

    async def unprivileged(self, default_privs: str) -> Account:
        """Return the account for commands and files without an owner. Raises as `account.unprivileged`."""
        found = await self._ask(default_privs, partial(unprivileged, default_privs))
        assert found is not None
        return found

    def close(self) -> None:
        """Let the threads end."""
        if self._workers is not None:
            self._workers.close()

    async def _ask(self, user: str, work: Callable[[], Account | None]) -> Account | None:
        if self._workers is None:
            return work()
        try:
            async with asyncio.timeout(self._lookup_max_s):
                return await self._workers.run(work)
        except TimeoutError:
            raise NoAnswerError(user, f"no answer within {self._lookup_max_s:g} seconds") from None
