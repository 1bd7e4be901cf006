"""The mapping of remote tables: a key to a query, and the values that were found to one result.

The parameters `domain`, `result_format`, `expansion_limit`, and the query's own, are the same for all types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from postillion.config import ConfigError, match_list
from postillion.tables.deferred import ask
from postillion.tables.remote.parameters import Parameters
from postillion.tables.remote.template import Template, TemplateError
from postillion.tables.table import Table, TableError, Warn

OpenTable = Callable[[str], Table]


class Mapping:
    """The mapping of one table."""

    def __init__(
        self, name: str, parameters: Parameters, warn: Warn, open_table: OpenTable, *, result_format: str = "%s"
    ) -> None:
        """Read the parameters. `result_format`: its default. Raises `ConfigError`."""
        self._name = name
        self._warn = warn
        self.result_format = template(parameters, "result_format", result_format)
        self.expansion_limit = parameters.number("expansion_limit", 0)
        self._domains = list(_rules(name, parameters, warn, open_table))

    def admits_at_once(self, key: str) -> bool | None:
        """Return whether to look a key up: its domain is listed, and it has all parts for a result.

        None: a table of `domain` has to be asked.
        """
        if not self.result_format.fits(key):
            return False
        if not self._domains:
            return True
        local, at, domain = key.rpartition("@")
        if not at or not local or not domain:
            return False
        domain = domain.lower()
        for wanted, rule in self._domains:
            if not isinstance(rule, str):
                return None
            if rule == domain:
                return wanted
        return False

    async def admits(self, key: str) -> bool:
        """Return the same, after the lookups that it needs. Raises `TableError`."""
        at_once = self.admits_at_once(key)
        if at_once is not None:
            return at_once
        domain = key.rpartition("@")[2].lower()
        for wanted, rule in self._domains:
            if rule == domain if isinstance(rule, str) else await ask(rule, domain) is not None:
                return wanted
        return False

    def result(self, key: str, values: Iterable[str | None]) -> str | None:
        """Return the values as one text; None without any. NULL is left out, an empty value with a warning.

        Raises `TableError` for more values than expansion_limit.
        """
        found: list[str] = []
        for value in values:
            if value is None:
                continue
            if not value:
                self._warn(f'table "{self._name}": empty lookup result for: "{key}" -- ignored')
                continue
            text = self.result_format.result(key, value)
            if text is None:
                continue
            found.append(text)
            if 0 < self.expansion_limit < len(found):
                raise TableError(f'"{key}" has more than {self.expansion_limit} values (expansion_limit)')
        return ",".join(found) or None


def template(parameters: Parameters, name: str, default: str) -> Template:
    """Return the template of a parameter. Raises `ConfigError`."""
    try:
        return Template(parameters.text(name, default))
    except TemplateError as problem:
        fix = "write %% for a percent sign; letters are s u d S U D 1 to 9"
        raise parameters.error(name, f"{name}: {problem}", fix) from None


def _rules(name: str, parameters: Parameters, warn: Warn, open_table: OpenTable) -> Iterator[tuple[bool, str | Table]]:
    """Yield the domains and tables of `domain`, and whether each one includes what fits it."""

    def error(problem: str, fix: str) -> ConfigError:
        return parameters.error("domain", f"domain: {problem}", fix)

    for word in match_list.included(parameters.text("domain"), error, lambda told: warn(f"{name}: domain: {told}")):
        wanted, bare = match_list.match_word(word)
        is_table = ":" in bare and not bare.startswith("[")
        yield wanted, open_table(bare) if is_table else bare.lower()
