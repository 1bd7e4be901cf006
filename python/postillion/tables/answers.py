"""Answers to the lookups of a core: a batch of keys in, their answers out, in the same order.

A core in Rust asks its local tables itself, and returns the lookups in remote tables to its program (`ask.rs`). The
program awaits `answer`, and gives the answers back to the core.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, Literal, Protocol

from postillion.tables.deferred import ask
from postillion.tables.remote.begun import Told
from postillion.tables.remote.table import LOOKUP_MAX_S
from postillion.tables.remote.together import EXCHANGE_MAX_S
from postillion.tables.table import Table, TableError

TOGETHER_MAX: Final = 32
"""Maximum number of concurrent lookups of one batch. A table limits its connections as well."""
MESSAGE_MAX_S: Final = 100.0
"""Longest time that one message waits for remote tables; its open and further lookups fail, and the mail waits.

A message on its way out has this time for its addresses, and for each part of its content.
"""

Answer = tuple[Literal["found"], bytes] | tuple[Literal["not found"], None] | tuple[Literal["failed"], str]
"""The answer to a lookup: the value, no value, or the reason why the table cannot answer now (the mail waits)."""
Done = Callable[[list[Answer] | Exception], None]
"""Gets the answers of a batch, or the bug that has ended it."""

LATE: Final[Answer] = ("failed", f"the message needs more than {MESSAGE_MAX_S:g} seconds for its lookups")


async def answer(
    tables: Sequence[Table], lookups: Sequence[tuple[int, bytes]], until: float | None = None
) -> list[Answer]:
    """Return the answer to each lookup, a table's index and a key. Raises nothing but `CancelledError`.

    `until`: the loop's time after which the lookups without an answer fail.
    """
    if len(lookups) == 1 and until is None:
        return [await _answer(tables[lookups[0][0]], lookups[0][1])]
    found = [LATE] * len(lookups)
    slots = asyncio.Semaphore(TOGETHER_MAX)

    async def one(at: int) -> None:
        async with slots:
            index, key = lookups[at]
            found[at] = await _answer(tables[index], key)

    with suppress(TimeoutError):
        async with asyncio.timeout_at(until):
            await asyncio.gather(*map(one, range(len(lookups))))
    return found


async def _answer(table: Table, key: bytes) -> Answer:
    try:
        return answer_of(await ask(table, key.decode("utf-8", "surrogateescape")))
    except TableError as problem:
        return answer_of(problem)


def answer_of(found: str | TableError | None) -> Answer:
    """Return what a lookup has found, or its failure, as an answer."""
    if found is None:
        return "not found", None
    if isinstance(found, TableError):
        return "failed", str(found)
    return "found", found.encode("utf-8", "surrogateescape")


_numbered: list[Table] = []
"""The tables that this process's cores know by their numbers."""


class Arriving(Protocol):
    """A message whose content arrives in parts, such as an `Intake`."""

    def content_lookups(self) -> list[tuple[int, bytes]]:
        """Return the next lookups of the content so far, none when more content may follow."""

    def answer(self, asked: Sequence[tuple[int, bytes]], given: Sequence[Answer]) -> None:
        """Receive the answers."""


class Asking(Protocol):
    """A message whose last lookups can be answered, such as an `Intake`."""

    def final_lookups(self) -> list[tuple[int, bytes]]:
        """End the content, and return the next lookups, none when the message needs no more."""

    def answer(self, asked: Sequence[tuple[int, bytes]], given: Sequence[Answer]) -> None:
        """Receive the answers."""


def number(table: Table) -> int:
    """Return the number by which all cores of this process know the table from now on."""
    for index, known in enumerate(_numbered):
        if known is table:
            return index
    _numbered.append(table)
    return len(_numbered) - 1


class MessageLookups:
    """The lookups of a message, or of a part of one, which has `MESSAGE_MAX_S` for all of them."""

    def __init__(self) -> None:
        self._until = asyncio.get_running_loop().time() + MESSAGE_MAX_S

    async def answers(self, lookups: Sequence[tuple[int, bytes]]) -> list[Answer]:
        """Return the answer to each lookup, in the same order."""
        left_s = self._until - asyncio.get_running_loop().time()
        if left_s <= 0:
            return [LATE] * len(lookups)
        # A few lookups end in time by themselves, and a timer would cost more than the rest of their batch.
        needs_timer = left_s < LOOKUP_MAX_S * math.ceil(len(lookups) / TOGETHER_MAX)
        return await answer(_numbered, lookups, self._until if needs_timer else None)

    def begin(self, lookups: Sequence[tuple[int, bytes]], done: Done) -> Batch:
        """Begin lookups: `done` gets their answers, in the same order, once, after this call has returned."""
        left_s = self._until - asyncio.get_running_loop().time()
        batch = Batch(done)
        if 0 < len(lookups) <= TOGETHER_MAX and left_s >= EXCHANGE_MAX_S + LOOKUP_MAX_S:
            batch.begin(lookups)
        else:
            batch.wait_for(partial(self.answers, lookups))
        return batch


class Batch:
    """Lookups in progress for somebody who does not wait in a task."""

    def __init__(self, done: Done) -> None:
        self._done = done
        self._found: list[Answer] = []
        self._left = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._is_over = False

    def wait_for(self, answers: Callable[[], Awaitable[list[Answer]]]) -> None:
        """Let a task wait for all answers."""
        self._tasks.append(asyncio.get_running_loop().create_task(self._wait_for(answers), name="lookups of a batch"))

    def begin(self, lookups: Sequence[tuple[int, bytes]]) -> None:
        """Begin each lookup; one that its table cannot begin gets a task."""
        self._found, self._left = [LATE] * len(lookups), len(lookups)
        for at, (index, key) in enumerate(lookups):
            table, text = _numbered[index], key.decode("utf-8", "surrogateescape")
            begin: Callable[[str, Told], bool] | None = getattr(table, "begin", None)
            if begin is None or not begin(text, partial(self._told, at)):
                task = asyncio.get_running_loop().create_task(self._ask(at, table, key), name=f"lookup in {table.name}")
                self._tasks.append(task)

    def cancel(self) -> None:
        """End the lookups; `done` is not called any more."""
        self._is_over = True
        for task in self._tasks:
            task.cancel()

    async def _wait_for(self, answers: Callable[[], Awaitable[list[Answer]]]) -> None:
        try:
            found = await answers()
        except Exception as problem:
            self._end(problem)
        else:
            self._end(found)

    async def _ask(self, at: int, table: Table, key: bytes) -> None:
        try:
            answer = await _answer(table, key)
        except Exception as problem:
            self._end(problem)
        else:
            self._take(at, answer)

    def _told(self, at: int, found: str | TableError | None) -> None:
        self._take(at, answer_of(found))

    def _take(self, at: int, answer: Answer) -> None:
        self._found[at] = answer
        self._left -= 1
        if not self._left:
            self._end(self._found)

    def _end(self, found: list[Answer] | Exception) -> None:
        if not self._is_over:
            self._is_over = True
            self._done(found)


async def answer_content(message: Arriving, rounds: MessageLookups) -> None:
    """Answer the lookups of a part of the content. Call it after each part."""
    while lookups := message.content_lookups():
        message.answer(lookups, await rounds.answers(lookups))


async def answer_all(message: Asking, rounds: MessageLookups | None = None) -> None:
    """End the content of a message, and answer its lookups until it needs no more. `rounds`: those of its content."""
    while lookups := message.final_lookups():
        rounds = rounds or MessageLookups()
        message.answer(lookups, await rounds.answers(lookups))
