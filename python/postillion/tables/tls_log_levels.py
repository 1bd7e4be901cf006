"""The TLS log level of single peers (`smtp_tls_loglevel_maps`, `smtpd_tls_loglevel_maps`), by name, then by address.

Behind the whole name come the domains above it, `.example.com`; without the dot if parent_domain_matches_subdomains has
the parameter. Behind the whole address come the networks: it loses its last part again and again. DUNNO ends the
search. A table that cannot answer, or a bad value, leaves the level to main.cf, with a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from postillion.tables.maps import open_maps
from postillion.tables.table import TableError

if TYPE_CHECKING:
    from postillion.config import Config

LEVELS: Final = ("0", "1", "2", "3", "4")
TRACE: Final = "trace"
"""Postfix also writes the octets of such a session to a file; here it has no effect."""
DUNNO: Final = "dunno"
UNKNOWN: Final = "unknown"


class TlsLogLevels:
    """The levels of a parameter. False without a table."""

    def __init__(self, parameter: str, config: Config, warn: Callable[[str], None] | None = None) -> None:
        """Open the tables. `warn`: gets the warnings for the log; None: as `config`. Raises `ConfigError`."""
        self._parameter = parameter
        self._maps = open_maps(parameter, config, warn=warn)
        self._bare_parents = parameter in config.items("parent_domain_matches_subdomains")
        self._warn: Callable[[str], None] = warn or config.warn or _silent

    def __bool__(self) -> bool:
        return bool(self._maps)

    def of(self, name: str, address: str) -> int | None:
        """Return the level of a peer; None to leave it to main.cf. `name`: may be unknown. Remote tables: `decided`."""
        try:
            return self.find(name, address)
        except TableError as problem:
            self.warn(problem)
            return None

    def warn(self, problem: TableError) -> None:
        """Log that a table cannot answer."""
        self._warn(f"{self._parameter}: {problem}")

    def find(self, name: str, address: str) -> int | None:
        """Return the same. Raises `TableError` when a table cannot answer."""
        found = self._first(self._names(name)) or self._first(_networks(address))
        if found is None:
            return None
        key, value = found
        if value.strip().lower() == DUNNO:
            return None
        level, *others = value.replace(",", " ").split() or [""]
        if level not in LEVELS or any(other.lower() != TRACE for other in others):
            self._warn(f'{self._parameter}: {key}: bad TLS log level "{value}": give a number from 0 to 4, or DUNNO')
            return None
        return int(level)

    def _first(self, keys: Iterator[str]) -> tuple[str, str] | None:
        """Return the first key that a table has, and its value. Raises `TableError`."""
        for at, key in enumerate(keys):
            value = self._maps.lookup(key, part=at > 0)
            if value is not None:
                return key, value
        return None

    def _names(self, name: str) -> Iterator[str]:
        name = name.lower().rstrip(".")
        if not name or name == UNKNOWN:
            return
        yield name
        while "." in name:
            name = name.partition(".")[2]
            yield name if self._bare_parents else f".{name}"


def _silent(_text: str) -> None:
    return None


def _networks(address: str) -> Iterator[str]:
    separator = ":" if ":" in address else "."
    while address:
        yield address
        address = address.rpartition(separator)[0]
