"""The tables of `header_checks` and related parameters, for cleanup and for smtp.

They see each line of each message in the Rust core. A remote table makes the message wait for its answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from postillion.tables.maps import open_maps
from postillion.tables.table import Table, TableError

if TYPE_CHECKING:
    from postillion.tables.maps import Configuration

NAMES: Final = ("header_checks", "mime_header_checks", "nested_header_checks", "body_checks")
Lists: TypeAlias = "tuple[tuple[str, list[Table]], ...]"
"""The parameters and their tables, in the order of `NAMES`."""


def open_checks(config: Configuration) -> Lists:
    """Return the tables of cleanup. Raises `ConfigError`."""
    return tuple((name, _opened(name, config, of_cleanup=True)) for name in NAMES)


def open_client_checks(config: Configuration, protocol: str) -> Lists:
    """Return the tables of an agent; `protocol`: smtp or lmtp. Raises `ConfigError`."""
    names = (
        f"{protocol}_header_checks",
        f"{protocol}_mime_header_checks",
        f"{protocol}_nested_header_checks",
        f"{protocol}_body_checks",
    )
    return tuple((name, _opened(name, config, of_cleanup=False)) for name in names)


def _opened(parameter: str, config: Configuration, *, of_cleanup: bool) -> list[Table]:
    """Return the tables of a parameter. `of_cleanup`: FILTER would have an effect."""
    found = []
    # A line is a key as it is.
    for table in open_maps(parameter, config, fold=False).tables:
        # Also reads the file, while the program has the rights to.
        values = _values(table)
        if of_cleanup and any(map(_is_filter, values)):
            problem = f"{parameter}: {table.name} has the action FILTER, which is not supported yet"
            raise config.error(parameter, problem, "remove the action, or keep Postfix for this mail system")
        found.append(table)
    return found


def _is_filter(value: str) -> bool:
    """Return whether a value is the action FILTER with its text; without one it is no action."""
    words = value.split(maxsplit=1)
    return len(words) == 2 and words[0].upper() == "FILTER"


def _values(table: Table) -> Sequence[str]:
    """Return the values of the table, none if it cannot list them: then a lookup says so."""
    try:
        return table.values()
    except TableError:
        return []
