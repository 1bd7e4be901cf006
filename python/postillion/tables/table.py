"""What every lookup table is: a name as in main.cf, and an answer for a key."""

from collections.abc import Callable, Sequence
from typing import Protocol

Warn = Callable[[str], None]
"""Where a table says what is wrong with its source: `log.warning`, or a list's `append`."""


class TableError(Exception):
    """The table can't answer now: a soft failure, the mail is to wait (`451 4.3.0`)."""


class TableTypeError(ValueError):
    """The configuration names a table in a way that can never work; the text says what would."""


class Table(Protocol):
    """One opened table."""

    @property
    def name(self) -> str:
        """The table as main.cf names it: `hash:/etc/aliases`."""

    @property
    def owner(self) -> int | None:
        """The numeric user that owns the table's source, None when it has no owner of its own (`inline:`, `static:`).

        Commands and files that an alias table names are run and written with this user's rights (aliases(5)).
        """

    def refresh(self) -> None:
        """Read the source if it changed; nothing for a table without a source. Raises `TableError`."""

    def values(self) -> Sequence[str]:
        """Return the values that a lookup can give, as far as the table can list them. Raises `TableError`."""

    def lookup(self, key: str) -> str | None:
        """Return the value for `key`, None when there is none. Raises `TableError` when it can't be known now."""
