"""`debug:` around a remote table: each lookup is a line of the log. The Rust core has the one around a local table."""

from __future__ import annotations

from collections.abc import Sequence

from postillion.tables.remote.combined import CombinedSource
from postillion.tables.table import Table, TableError, Warn


class DebugSource(CombinedSource):
    """A source that asks its only member, and logs key and value."""

    def __init__(self, tables: Sequence[Table], log: Warn) -> None:
        super().__init__("unionmap", tables)
        self._name = tables[0].name
        self._log = log

    async def ask(self, key: str) -> str | None:
        """Return the member's answer."""
        try:
            value = await super().ask(key)
        except TableError:
            self._told(key, "error")
            raise
        self._told(key, "not_found" if value is None else value)
        return value

    def _told(self, key: str, shown: str) -> None:
        self._log(f'{self._name} lookup: "{key}" = "{shown}"')
