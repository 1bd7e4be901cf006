"""The values of LDAP entries, and of the entries that their special attributes name (ldap_table(5)).

| attribute | its values |
|---|---|
| terminal | results; an entry that has one gives nothing else |
| special | names of other entries: a DN, or an LDAP URL |
| leaf | results of an entry without special attributes |
| normal | results |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from postillion.tables.table import TableError

SEARCHES_MAX: Final = 10_000
"""Maximum number of searches of one lookup: entries may name each other in a circle."""
VALUES_MAX: Final = 100_000
"""Maximum number of values of one lookup without expansion_limit."""


class Attributes(NamedTuple):
    """The attributes of a table, by their kinds."""

    normal: list[str]
    special: list[str]
    leaf: list[str]
    terminal: list[str]

    @property
    def names(self) -> list[str]:
        """All names, each once."""
        return list(dict.fromkeys((*self.normal, *self.special, *self.terminal, *self.leaf)))


class Limits(NamedTuple):
    """`depth`: recursion_limit. `values`: expansion_limit, 0 for none."""

    depth: int
    values: int


class Search(NamedTuple):
    """One search."""

    base: str
    scope: int
    filter: str
    attributes: list[str]


Entry = dict[str, list[bytes]]
Ask = Callable[[Search], list[Entry]]
Named = Callable[[str], Search | None]


def collect(
    search: Search,
    attributes: Attributes,
    limits: Limits,
    ask: Ask,
    named: Named,
    missing: type[Exception],
    *,
    base_required: bool,
) -> list[str]:
    """Return the values of a search, in the order of the entries.

    `ask`: makes a search. `named`: returns the search for a value of a special attribute. `missing`: the exception for
    a base that does not exist, which gives no values; if `base_required`, it is an error of the first search.

    Raises `TableError`, also above a limit.
    """
    return _Collection(attributes, limits, ask, named, missing).of(search, 1, base_required)


class _Collection:
    def __init__(
        self, attributes: Attributes, limits: Limits, ask: Ask, named: Named, missing: type[Exception]
    ) -> None:
        self._kinds = {kind: {name.lower() for name in names} for kind, names in attributes._asdict().items()}
        self._limits = limits
        self._ask = ask
        self._named = named
        self._missing = missing
        self._searches = 0
        self._count = 0

    def of(self, search: Search, depth: int, base_required: bool = False) -> list[str]:
        self._searches += 1
        if self._searches > SEARCHES_MAX:
            raise TableError(f"a lookup needs more than {SEARCHES_MAX} searches")
        try:
            entries = self._ask(search)
        except self._missing:
            if base_required:
                raise TableError(f'search base "{search.base}" not found') from None
            return []
        return [value for entry in entries for value in self._entry(entry, depth)]

    def _entry(self, entry: Entry, depth: int) -> list[str]:
        kinds, present = self._kinds, {name.lower() for name, values in entry.items() if values}
        if present & kinds["terminal"]:
            results, special = kinds["terminal"], set[str]()
        else:
            special = kinds["special"]
            results = kinds["normal"] | (set() if present & special else kinds["leaf"])
        found: list[str] = []
        for name, values in entry.items():
            if name.lower() in results:
                found += self._values(values)
            elif name.lower() in special:
                for value in self._texts(values):
                    if depth >= self._limits.depth:
                        raise TableError(f"entries name each other {self._limits.depth} deep (recursion_limit)")
                    search = self._named(value)
                    if search is None:
                        raise TableError(f'"{value}" is neither a DN nor an LDAP URL')
                    found += self.of(search, depth + 1)
        return found

    def _values(self, values: list[bytes]) -> list[str]:
        self._count += len(values)
        if self._count > (self._limits.values or VALUES_MAX):
            raise TableError(f"more than {self._limits.values or VALUES_MAX} values (expansion_limit)")
        return self._texts(values)

    def _texts(self, values: list[bytes]) -> list[str]:
        try:
            return [value.decode() for value in values]
        except UnicodeDecodeError:
            raise TableError("a value is not UTF-8") from None
