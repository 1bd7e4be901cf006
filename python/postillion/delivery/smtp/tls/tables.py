"""The lookups in smtp_tls_policy_maps and smtp_tls_per_site, local and remote.

A table that cannot answer, and an entry that is invalid, make the mail wait: the level of main.cf may be weaker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from postillion.config.domain import BadDomain, to_ascii
from postillion.delivery.smtp.nexthop import NextHop, is_host_name
from postillion.delivery.smtp.tls import entry as entries
from postillion.delivery.smtp.tls.entry import BadEntry, Entry
from postillion.delivery.smtp.tls.level import LEVELS, Level, at_least
from postillion.delivery.smtp.tls.policy import CONFIGURATION_PROBLEM, NoPolicy
from postillion.delivery.smtp.tls.settings import TlsSettings
from postillion.tables import Maps, TableError, open_maps
from postillion.tables.deferred import ask

if TYPE_CHECKING:
    from postillion.config import Config

LOOKUPS_MAX_S: Final = 100.0
"""Longest time of all lookups for a host; then the mail waits."""
PER_SITE: Final[dict[str, Level]] = {"none": "none", "may": "may", "must_nopeermatch": "encrypt", "must": "verify"}
"""The words of smtp_tls_per_site, in lower case."""
NEXT_HOP: Final = "next-hop destination"

Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Choice:
    """The level that a table or main.cf chooses. `why`: parameter, key and table. `entry`: of smtp_tls_policy_maps.

    `is_default`: main.cf has chosen it, because no table has the next hop or its host.
    """

    level: Level
    why: str
    entry: Entry | None = None
    is_default: bool = False


class PolicyTables:
    """The tables of a configuration; smtp_tls_per_site is used only without smtp_tls_policy_maps."""

    def __init__(self, config: Config, settings: TlsSettings, warn: Warn) -> None:
        """Open the tables. Raises `ConfigError`."""
        self._settings = settings
        self._warn = warn
        self._policy_name = f"{settings.prefix}_tls_policy_maps"
        self._site_name = f"{settings.prefix}_tls_per_site"
        self._policies = open_maps(self._policy_name, config, warn=warn)
        self._sites = Maps(()) if self._policies else open_maps(self._site_name, config, warn=warn)
        if self._policies and config.items(self._site_name):
            warn(f"{self._site_name} ignored when {self._policy_name} is not empty.")

    def __bool__(self) -> bool:
        """Whether there is a table."""
        return bool(self._policies or self._sites)

    async def choose(self, site: NextHop, host: str) -> Choice:
        """Return the choice for a next hop and one of its hosts. Raises `NoPolicy`."""
        try:
            async with asyncio.timeout(LOOKUPS_MAX_S):
                if self._policies:
                    return await self._by_policy(self._key(site))
                if self._sites:
                    return await self._by_site(self._key(site), host)
        except TimeoutError:
            self._warn(f"TLS policy of {site.text}: the lookups need more than {LOOKUPS_MAX_S:g} seconds")
            raise NoPolicy(*CONFIGURATION_PROBLEM) from None
        return self._default()

    def _default(self) -> Choice:
        return Choice(self._settings.level, self._settings.level_name, is_default=True)

    def _key(self, site: NextHop) -> str:
        """Return the next hop as a key: as written, without the socket type of LMTP."""
        if site.path:
            return site.path
        return site.text.removeprefix("inet:") if self._settings.prefix == "lmtp" else site.text

    async def _by_policy(self, key: str) -> Choice:
        """Return the entry of the next hop; for a domain also that of a domain above it, `.example.org`."""
        parent = key if self._is_name(key) else ""
        wanted = key
        while True:
            found = await self._entry(wanted)
            if found is not None:
                return found
            dot = parent.find(".", 1)
            if dot < 0:
                return self._default()
            wanted = parent = parent[dot:]

    def _is_name(self, key: str) -> bool:
        try:
            return is_host_name(to_ascii(key, idna2003=self._settings.idna2003) if self._settings.smtputf8 else key)
        except BadDomain:
            return False

    async def _entry(self, key: str) -> Choice | None:
        where = f'{self._policy_name}, {NEXT_HOP} "{key}"'
        value, table = await self._find(self._policies, self._policy_name, key, f"{where}: policy table lookup error")
        if value is None:
            return None
        try:
            entry = entries.parse(value)
        except BadEntry as bad:
            self._warn(f"{where}: {bad}")
            raise NoPolicy(*CONFIGURATION_PROBLEM) from None
        for attribute in entry.ignored:
            self._warn(f'{where}: ignoring attribute "{attribute}" with TLS disabled')
        return Choice(entry.level, f'{self._policy_name}: "{key}" in {table}', entry)

    async def _by_site(self, key: str, host: str) -> Choice:
        """Return what smtp_tls_per_site says about the next hop and the host: of two levels the stricter one.

        may is a wildcard: none comes before it, and so does a stricter level of main.cf.
        """
        chosen = await self._of_site(key, NEXT_HOP)
        if key.lower() != host.lower():
            other = await self._of_site(host, "server hostname")
            if chosen is None or (other is not None and _precedence(other) > _precedence(chosen)):
                chosen = other
        default = self._default()
        if chosen is None or (chosen.level == "may" and at_least(default.level, "encrypt")):
            return default
        return chosen

    async def _of_site(self, key: str, what: str) -> Choice | None:
        failed = f'{self._site_name}: {what} "{key}": per-site table lookup error'
        value, table = await self._find(self._sites, self._site_name, key, failed, ("4.3.0", "Temporary lookup error"))
        if value is None:
            return None
        level = PER_SITE.get(value.lower())
        if level is None:
            self._warn(f"{self._site_name}: unknown TLS policy '{value}' for {what} {key}")
            raise NoPolicy(*CONFIGURATION_PROBLEM)
        return Choice(level, f'{self._site_name}: "{key}" in {table}')

    async def _find(
        self, maps: Maps, parameter: str, key: str, failed: str, status: tuple[str, str] = CONFIGURATION_PROBLEM
    ) -> tuple[str | None, str]:
        """Return the first value for a key, and the table's name. Raises `NoPolicy` when a table cannot answer."""
        for table in maps.tables:
            try:
                value = await ask(table, key)
            except TableError as problem:
                self._warn(str(problem))
                self._warn(failed)
                raise NoPolicy(*status) from None
            if value == "":
                self._warn(f"{parameter} lookup of {key} returns an empty string result")
                self._warn(failed)
                raise NoPolicy(*status)
            if value is not None:
                return value, table.name
        return None, ""


def _precedence(choice: Choice) -> int:
    """Return the rank of a level of smtp_tls_per_site: may is the weakest, before none."""
    return -1 if choice.level == "may" else LEVELS.index(choice.level)
