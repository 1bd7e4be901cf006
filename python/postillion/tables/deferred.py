"""Decisions that may need a remote table: synchronous code, run again when an answer is there.

    verdict = decide(lambda: lists.ask(question))      # the result at once, or an awaitable of it

Restriction lists, routes and aliases are plain functions that ask tables. A lookup in a remote table whose
answer is not there yet raises `Pending`. `decide` then awaits the answer, notes it, and runs the function again. Each
run finds all earlier answers, so it gets one lookup further. A decision without remote tables takes one run and no
await.

A function may run many times. `once` is for an effect such as a log line, which must happen once: it happens after the
run that ends the decision.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from postillion.tables.table import Table, TableError, Warn

LOOKUPS_MAX: Final = 1000
"""Maximum number of remote lookups of one decision; further ones fail."""
DECISION_MAX_S: Final = 100.0
"""Longest time that one decision waits for remote tables; its further lookups fail."""

T = TypeVar("T")


class Askable(Protocol):
    """A table that needs time to answer."""

    @property
    def name(self) -> str:
        """The table as main.cf names it."""

    async def ask(self, key: str) -> str | None:
        """Return the value for `key`; None when there is none. Raises `TableError`."""


def ask(table: Table, key: str) -> Awaitable[str | None]:
    """Return the value for `key` in any table, to be awaited; None when there is none. Raises `TableError`."""
    # Not `isinstance`: a check against a protocol takes longer than the rest of a lookup.
    remote: Callable[[str], Awaitable[str | None]] | None = getattr(table, "ask", None)
    return _at_once(table, key) if remote is None else remote(key)


async def _at_once(table: Table, key: str) -> str | None:
    return table.lookup(key)


class Pending(Exception):
    """A lookup needs an answer that is not there yet. Only `decide` catches it."""

    def __init__(self, table: Askable, key: str) -> None:
        super().__init__(table.name, key)
        self.table = table
        self.key = key


class Decision:
    """A decision in progress: its answers, and the effects that wait for its end."""

    def __init__(self) -> None:
        self._answers: dict[tuple[int, str], str | TableError | None] = {}
        self._effects: list[Callable[[], None]] = []
        self._spent = ""

    def lookup(self, table: Askable, key: str) -> str | None:
        """Return the noted answer. Raises the noted `TableError`, and `Pending` without an answer."""
        try:
            answer = self._answers[id(table), key]
        except KeyError:
            if self._spent:
                raise TableError(f"table {table.name}: {self._spent}") from None
            raise Pending(table, key) from None
        if isinstance(answer, TableError):
            raise answer
        return answer

    def add(self, effect: Callable[[], None]) -> None:
        """Call `effect` when the decision ends."""
        self._effects.append(effect)

    def run(self, function: Callable[[], T]) -> T:
        """Run the function once. Raises `Pending`, and each exception of the function."""
        global _current
        outer, _current = _current, self
        self._effects.clear()
        try:
            result = function()
        except Pending:
            raise
        except Exception:
            self._end()
            raise
        finally:
            _current = outer
        self._end()
        return result

    async def finish(self, function: Callable[[], T], pending: Pending) -> T:
        """Fetch answers and run the function until it ends; return its result."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DECISION_MAX_S
        while True:
            await self._fetch(pending)
            if len(self._answers) >= LOOKUPS_MAX:
                self._spent = f"the decision needs more than {LOOKUPS_MAX} lookups"
            elif loop.time() >= deadline:
                self._spent = f"the decision needs more than {DECISION_MAX_S:g} seconds"
            try:
                return self.run(function)
            except Pending as further:
                pending = further

    async def _fetch(self, pending: Pending) -> None:
        answer: str | TableError | None
        try:
            answer = await pending.table.ask(pending.key)
        except TableError as problem:
            answer = problem
        self._answers[id(pending.table), pending.key] = answer

    def _end(self) -> None:
        for effect in self._effects:
            effect()
        self._effects.clear()


_current: Decision | None = None
"""The decision whose function runs now. A run never awaits, so there is one at most."""


def decide(function: Callable[[], T]) -> T | Coroutine[Any, Any, T]:
    """Return the result of the function; an awaitable of it if a remote table must be asked first.

    Inside another decision the function is a part of it.
    """
    if _current is not None:
        return function()
    decision = Decision()
    try:
        return decision.run(function)
    except Pending as pending:
        return decision.finish(function, pending)


def at_once(function: Callable[[], T]) -> T | None:
    """Return the result of the function; None if a remote table must be asked first."""
    try:
        return Decision().run(function)
    except Pending:
        return None


async def decided(function: Callable[[], T]) -> T:
    """Return the result of the function, after the remote lookups that it needs."""
    found = decide(function)
    return await found if isinstance(found, Coroutine) else found


def completed(function: Callable[[], T], runner: asyncio.Runner | None = None) -> T:
    """Return the result of the function in a command without an event loop; `runner`: the loop of several lookups."""
    if runner is not None:
        found = decide(function)
        return runner.run(found) if isinstance(found, Coroutine) else found
    with asyncio.Runner() as own:
        return completed(function, own)


def lookup(table: Askable, key: str) -> str | None:
    """Look a key up for the decision that runs now. Raises `Pending` and `TableError`."""
    if _current is None:
        raise TableError(f"table {table.name}: a remote table cannot be asked here")
    return _current.lookup(table, key)


def once(warn: Warn) -> Warn:
    """Return a callback for log lines that writes each line of a decision once, however often its function runs."""
    return lambda text: effect(partial(warn, text))


def effect(function: Callable[[], None]) -> None:
    """Call the function when the decision that runs now ends; at once outside of a decision."""
    if _current is None:
        function()
    else:
        _current.add(function)
