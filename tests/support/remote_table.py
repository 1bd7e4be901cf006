"""A remote table that answers when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

import postillion.tables.maps
from postillion.tables.table import Table
from support.mta import until


class Remote:
    """A table that answers when a test says so."""

    name = "remote:test"
    owner: int | None = None
    takes_parts = True
    has_addresses = True

    def __init__(self) -> None:
        self.open: dict[str, asyncio.Future[str | None]] = {}
        self.decisions: list[str] = []
        """The keys that decisions about recipients have asked for."""

    async def ask(self, key: str) -> str | None:
        """Wait for the test's answer."""
        self.open[key] = asyncio.get_running_loop().create_future()
        return await self.open[key]

    def lookup(self, key: str) -> str | None:
        """Note the key and return None: no decision about a recipient depends on the table."""
        self.decisions.append(key)
        return None

    def refresh(self) -> None:
        """Do nothing."""

    def values(self) -> list[str]:
        """Return an empty list."""
        return []

    async def answer(self, value: Callable[[str], str | None] | Exception, rounds: int = 1) -> list[str]:
        """Answer the open lookups, as often as told; return the keys."""
        keys: list[str] = []
        for _ in range(rounds):
            await until(lambda: self.open)
            now, self.open = self.open, {}
            for key, waiting in now.items():
                keys.append(key)
                if isinstance(value, Exception):
                    waiting.set_exception(value)
                else:
                    waiting.set_result(value(key))
        return keys


def opened(monkeypatch: pytest.MonkeyPatch) -> Remote:
    """Return the table that main.cf calls `remote:test` from now on."""
    table = Remote()
    open_others = postillion.tables.maps.open_table

    def open_table(name: str, *arguments: object, **options: object) -> Table:
        return table if name == table.name else open_others(name, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(postillion.tables.maps, "open_table", open_table)
    return table
