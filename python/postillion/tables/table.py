"""The interface of lookup tables: a name as in main.cf, and a value for a key.

`postillion._core.tables.Table` is the implementation for local tables. A table that a server answers is a Python class.
"""

from __future__ import annotations

from postillion._core.tables import TableError, TableTypeError

__all__ = ["Form", "Table", "TableError", "TableTypeError", "Trace", "Warn", "WarnedError"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Literal, Protocol

    Form = Literal["map", "alias", "mixed"]
    """How the lines of a text read: `key value`, `name: value`, or either."""
    Warn = Callable[[str], None]
    """Callback for problems in a table's source: `log.warning`, or a list's `append`."""
else:
    # For annotations alone, and the import of typing takes a command several milliseconds.
    Form, Warn, Protocol = str, object, object


class WarnedError(TableError):
    """A failed lookup about which the table has warned, so that the program that asked need not."""


class Trace(Protocol):
    """A listener to decisions: `postillion explain`."""

    def lookup(self, parameter: str, table: str, key: str, answer: str | None) -> None:
        """Take a lookup in a table of a parameter; `answer` None: the key is not there."""

    def failed(self, parameter: str, table: str, key: str, problem: str) -> None:
        """Take a lookup that failed."""

    def note(self, text: str) -> None:
        """Take a step that is no lookup."""


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
