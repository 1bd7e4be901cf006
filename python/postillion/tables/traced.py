"""A table whose lookups are told to a listener."""

from collections.abc import Sequence
from functools import partial

from postillion.config.secrets import HIDDEN
from postillion.tables.deferred import ask, effect
from postillion.tables.sensitive import SECRET
from postillion.tables.table import Table, TableError, Trace


class TracedTable:
    """A table of a parameter, with a listener to its lookups."""

    def __init__(self, parameter: str, table: Table, trace: Trace) -> None:
        self._parameter = parameter
        self._table = table
        self._trace = trace

    @property
    def name(self) -> str:
        """The table as main.cf names it."""
        return self._table.name

    @property
    def owner(self) -> int | None:
        """The uid of the owner of the table's source."""
        return self._table.owner

    def refresh(self) -> None:
        """Read a changed source. Raises `TableError`."""
        self._table.refresh()

    def values(self) -> Sequence[str]:
        """Return the possible values of a lookup. Raises `TableError`."""
        return self._table.values()

    def lookup(self, key: str) -> str | None:
        """Return the value for `key`, and tell it. Raises `TableError`."""
        try:
            answer = self._table.lookup(key)
        except TableError as problem:
            effect(partial(self._trace.failed, self._parameter, self.name, key, str(problem)))
            raise
        effect(partial(self._trace.lookup, self._parameter, self.name, key, self._shown(answer)))
        return answer

    async def ask(self, key: str) -> str | None:
        """Return the value for `key`, also from a remote table, and tell it. Raises `TableError`."""
        try:
            answer = await ask(self._table, key)
        except TableError as problem:
            self._trace.failed(self._parameter, self.name, key, str(problem))
            raise
        self._trace.lookup(self._parameter, self.name, key, self._shown(answer))
        return answer

    def _shown(self, answer: str | None) -> str | None:
        return HIDDEN if answer and self._parameter in SECRET else answer

    def __getattr__(self, name: str) -> object:
        """Return what only some tables have, such as `takes_parts`."""
        return getattr(self._table, name)
