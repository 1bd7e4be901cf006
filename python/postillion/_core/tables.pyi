"""Local lookup tables: opened by `type:name`, searched by key, and the indexes that postmap writes."""

from collections.abc import Callable, Sequence
from typing import Literal, final

__all__ = ["Index", "Table", "TableError", "TableTypeError", "answer_lines", "open_table", "table_types"]

_Form = Literal["map", "alias", "mixed"]

class TableError(Exception):
    """A temporary failure of a table: the mail waits (`451 4.3.0`)."""

class TableTypeError(ValueError):
    """A table name that is never valid; the text names the valid form."""

@final
class Table:
    """One opened table. A file is read at the first use, and again when it has changed.

    A changed file that cannot be read, or has become empty, leaves the old content in use, with one warning.
    """

    @property
    def name(self) -> str:
        """The table as main.cf names it: `hash:/etc/aliases`."""

    @property
    def owner(self) -> int | None:
        """The uid of the owner of the table's file; None for a table without a file, and before the first use.

        Commands and files in an alias table are run and written with this user's rights (aliases(5)).
        """

    @property
    def has_addresses(self) -> bool:
        """Whether any key may be an address."""

    @property
    def takes_parts(self) -> bool:
        """Whether the parts of an address are keys too. Pattern tables get the whole address alone."""

    @property
    def is_outdated(self) -> bool:
        """Whether the file has changed and cannot be read, so that the old content answers."""

    @property
    def is_closed(self) -> bool:
        """Whether the file has changed, and only root may read it."""

    def lookup(self, key: str) -> str | None:
        """Return the value for `key`; None when there is none. Raises `TableError`."""

    def refresh(self) -> None:
        """Read a changed file now. Raises `TableError` when there is no content."""

    def values(self) -> list[str]:
        """Return the different values that a lookup may give, if the table can list them. Raises `TableError`."""

    def items(self) -> list[tuple[str, str]]:
        """Return every key and value. Raises `TableError`, also for a table that cannot list them."""

    def lines(self, separator: bytes) -> bytes:
        """Return every entry as a line: key, separator, value. Raises as `items`."""

@final
class Index:
    """The index of a text, as postmap writes it: hash, btree, cdb or lmdb.

    `duplicates`: what happens to an entry whose key is there. `nulls`: whether keys and values of cdb and lmdb end with
    a null octet; None as Postfix does it. `mode`: that of a new file. `map_octets`: lmdb_map_size. `files`: a value is
    a list of files, whose content in base64 replaces it. `warn` is called for each bad line.
    """

    def __new__(
        cls,
        kind: str,
        path: str,
        *,
        form: _Form = "map",
        warn: Callable[[str], None] | None = None,
        fold: bool = True,
        utf8: bool = True,
        files: bool = False,
        duplicates: Literal["warn", "ignore", "replace"] = "warn",
        nulls: bool | None = None,
        mode: int = 0o644,
        map_octets: int = 16777216,
    ) -> Index: ...
    def create(self, text: bytes, name: str) -> None:
        """Write the index of a text. `name`: the text's name in warnings. Raises `TableError`."""

    def update(self, text: bytes, name: str) -> None:
        """Add the entries of a text. Raises `TableError`, also for a cdb file, which does not change."""

    def remove(self, keys: Sequence[bytes]) -> int:
        """Remove keys; return how many were there. Raises `TableError`."""

def open_table(
    name: str,
    *,
    form: _Form = "map",
    warn: Callable[[str], None] | None = None,
    log: Callable[[str], None] | None = None,
    fold: bool = True,
    utf8: bool = True,
    files: bool = False,
    substitution: bool = True,
    loaded_max_octets: int = 0,
) -> Table:
    """Return a table by its `type:name`. Raises `TableTypeError`.

    `form`: how the lines of a text read. `fold`: fixed keys ignore case. `utf8`: keys and values must be UTF-8.
    `files`: as for `Index`. `substitution`: the result of a pattern may contain text of the key, such as `$1`.
    `warn`: called for problems in the table's file. `log`: called for lookups in `debug:` tables. `loaded_max_octets`:
    maximum size of a large index that is read into memory after many lookups.
    """

def table_types() -> list[str]:
    """Return the types of tables that `open_table` opens."""

def answer_lines(tables: Sequence[Table], keys: bytes, separator: bytes) -> bytes:
    """Return a line for each line of `keys` that a table has: the key, the separator, the value.

    Raises `TableError` with the text and, as its second argument, the lines so far.
    """
