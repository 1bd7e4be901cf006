"""The interface of lookup tables: a name as in main.cf, and a value for a key."""

from collections.abc import Callable, Sequence
from typing import Protocol

Warn = Callable[[str], None]
"""Callback for problems in a table's source: `log.warning`, or a list's `append`."""


class Trace(Protocol):
    """A listener to decisions: `postillion explain`."""

    def lookup(self, parameter: str, table: str, key: str, answer: str | None) -> None:
        """Take a lookup in a table of a parameter; `answer` None: the key is not there."""

    def failed(self, parameter: str, table: str, key: str, problem: str) -> None:
        """Take a lookup that failed."""

    def note(self, text: str) -> None:
        """Take a step that is no lookup."""


class TableError(Exception):
    """A temporary failure of a lookup: the mail waits (`451 4.3.0`)."""


class TableTypeError(ValueError):
    """A table name that is never valid; the text names the valid form."""


class Table(Protocol):
    """One opened table."""

    @property
    def name(self) -> str:
        """The table as main.cf names it: `hash:/etc/aliases`."""

    @property
    def owner(self) -> int | None:
        """The uid of the owner of the table's source; None for a table without a file (`inline:`, `static:`).

        Commands and files in an alias table are run and written with this user's rights (aliases(5)).
        """

    def refresh(self) -> None:
        """Read a changed source; do nothing for a table without one. Raises `TableError`."""

    def values(self) -> Sequence[str]:
        """Return the possible values of a lookup, if the table can list them. Raises `TableError`."""

    def lookup(self, key: str) -> str | None:
        """Return the value for `key`; None when there is none. Raises `TableError` on a temporary failure."""
