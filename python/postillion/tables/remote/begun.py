"""A lookup in progress that has no task: its value comes by a callback."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from postillion.tables.table import TableError

Told = Callable[[str | TableError | None], None]
"""Gets the value of a lookup, None without one, or why the table cannot answer now."""

_anew: set[asyncio.Task[None]] = set()
"""The lookups that are made anew: the event loop alone would not keep them."""


class Begun:
    """A lookup that a source has begun. The source ends it in one of two ways, but not before `begin` has returned."""

    __slots__ = ("_ask", "_key", "_told")

    def __init__(self, ask: Callable[[str], Awaitable[str | None]], key: str, told: Told) -> None:
        """`ask`: makes the lookup, with a task; raises `TableError`."""
        self._ask = ask
        self._key = key
        self._told = told

    def answered(self, value: str | None) -> None:
        """Take the value; None when there is none."""
        self._told(value)

    def give_up(self) -> None:
        """Make the lookup anew by `ask`, which tries other servers and reports a failure."""
        task = asyncio.get_running_loop().create_task(self._make(), name=f"lookup of {self._key}")
        _anew.add(task)
        task.add_done_callback(_anew.discard)

    async def _make(self) -> None:
        answer: str | TableError | None
        try:
            answer = await self._ask(self._key)
        except TableError as problem:
            answer = problem
        self._told(answer)
