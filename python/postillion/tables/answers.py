"""Answers to the lookups of a core: a batch of keys in, their answers out, in the same order.

A core in Rust asks its local tables itself, and returns the lookups in remote tables to its program (`ask.rs`). The
program awaits `answer`, and gives the answers back to the core.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Literal

from postillion.tables.deferred import Askable
from postillion.tables.table import TableError

TOGETHER_MAX: Final = 32
"""Maximum number of concurrent lookups of one batch. A table limits its connections as well."""

Answer = tuple[Literal["found"], bytes] | tuple[Literal["not found"], None] | tuple[Literal["failed"], str]
"""The answer to a lookup: the value, no value, or the reason why the table cannot answer now (the mail waits)."""


async def answer(tables: Sequence[Askable], lookups: Sequence[tuple[int, bytes]]) -> list[Answer]:
    """Return the answer to each lookup, a table's index and a key. Raises nothing but `CancelledError`."""
    slots = asyncio.Semaphore(TOGETHER_MAX)

    async def one(index: int, key: bytes) -> Answer:
        async with slots:
            return await _answer(tables[index], key)

    if len(lookups) == 1:
        return [await _answer(tables[lookups[0][0]], lookups[0][1])]
    return list(await asyncio.gather(*(one(index, key) for index, key in lookups)))


async def _answer(table: Askable, key: bytes) -> Answer:
    try:
        value = await table.ask(key.decode("utf-8", "surrogateescape"))
    except TableError as problem:
        return "failed", str(problem)
    return ("not found", None) if value is None else ("found", value.encode("utf-8", "surrogateescape"))
