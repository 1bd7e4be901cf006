"""Tables of tables with a remote member, at any depth. Without one the Rust core has the whole table.

unionmap and pipemap have a list of members, and debug has one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from postillion.tables.deferred import ask
from postillion.tables.remote.table import RemoteTable
from postillion.tables.table import Table, TableError


class CombinedSource:
    """A source that asks its members, in their order. A member that fails is a failure of the whole."""

    def __init__(self, kind: str, tables: Sequence[Table]) -> None:
        self._is_pipe = kind == "pipemap"
        self._tables = tables

    async def ask(self, key: str) -> str | None:
        """Return all values, with commas (unionmap); or the last one, each value the key of the next (pipemap)."""
        found: list[str] = []
        for table in self._tables:
            value = await ask(table, key)
            if self._is_pipe:
                if value is None:
                    return None
                key = value
            elif value is not None:
                found.append(value)
        if self._is_pipe:
            return key
        return ",".join(found) if found else None

    async def reach(self) -> None:
        """Connect to a server of each member. Raises `TableError`."""
        found = await asyncio.gather(*(table.reach() for table in self._remote()))
        problems = [problem for problem in found if problem]
        if problems:
            raise TableError("; ".join(problems))

    async def close(self) -> None:
        """Close the connections of the members."""
        await asyncio.gather(*(table.close() for table in self._remote()))

    def prepare(self) -> None:
        """Read the members' sources. Raises `TableError`."""
        for table in self._tables:
            table.refresh()

    @property
    def is_closed(self) -> bool:
        """Whether the file of a member has changed, and only root may read it."""
        return any(getattr(table, "is_closed", False) for table in self._tables)

    def owner(self) -> int | None:
        """Return the owner: a value from any table that does not belong to root is not root's."""
        owners = [table.owner for table in self._tables if table.owner is not None]
        return next((owner for owner in owners if owner != 0), owners[0] if owners else None)

    def takes_parts(self) -> bool:
        """Return whether every member takes parts of an address as keys."""
        return all(getattr(table, "takes_parts", True) for table in self._tables)

    def _remote(self) -> list[RemoteTable]:
        return [table for table in self._tables if isinstance(table, RemoteTable)]
