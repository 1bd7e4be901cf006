"""Clients before the dialogue. The lists of main.cf are asked once for each address, not for each connection."""

from __future__ import annotations

import ipaddress
from typing import Final

from postillion.config import Config
from postillion.restrictions.access import Access
from postillion.smtpd.names import UNKNOWN, Name, Names
from postillion.tables import Table, TableError, open_word
from postillion.tables.deferred import at_once, decided
from postillion.tables.lists import NetworkList, parse_address
from postillion.tables.tls_log_levels import TlsLogLevels

CACHED_MAX: Final = 4096
REWRITERS: Final = "local_header_rewrite_clients"
CHECK_ADDRESS_MAP: Final = "check_address_map"
"""The word that may stand before a table."""
REWRITER_WORDS: Final = frozenset(
    {
        "permit_inet_interfaces",
        "permit_mynetworks",
        "permit_sasl_authenticated",
        "permit_tls_clientcerts",
        "permit_tls_all_clientcerts",
        CHECK_ADDRESS_MAP,
    }
)
"""Classes of clients. Those with certificates and users are known later (`smtpd.rewriters`)."""


class Facts:
    """The facts about an address. `trusted`: in mynetworks. `inside`: one of this system's own. `exempt`: not counted.

    `rewrites_headers`: local_header_rewrite_clients. `spared`: smtpd_forbid_bare_newline_exclusions. `tls_log_level`:
    that of smtpd_tls_loglevel_maps; None without one. `bucket`: the network that counts as one client
    (smtpd_client_ipv4_prefix_length). `problem`: why a table could not answer; empty when all could.
    """

    __slots__ = (
        *("address", "bucket", "exempt", "inside", "problem", "rewrites_headers", "spared"),
        *("tls_log_level", "trusted"),
    )

    def __init__(self, address: str) -> None:
        self.address = address
        self.bucket = address
        self.problem = ""
        self.trusted = self.inside = self.exempt = self.rewrites_headers = self.spared = False
        self.tls_log_level: int | None = None


class Client:
    """A client: its name, and the facts about its address."""

    __slots__ = ("facts", "name", "reverse_name")

    def __init__(self, facts: Facts, name: Name) -> None:
        self.facts = facts
        self.name, self.reverse_name = name

    @property
    def group(self) -> int | None:
        """The client's standing as a number: clients of one group may send to the same recipients.

        None while a table cannot tell the standing.
        """
        if self.facts.problem:
            return None
        unnamed = (self.name == UNKNOWN) << 2 | (self.reverse_name == UNKNOWN) << 3
        return self.facts.trusted | self.facts.inside << 1 | unnamed

    @property
    def address(self) -> str:
        """The address as text."""
        return self.facts.address

    @property
    def trusted(self) -> bool:
        """Whether it is in mynetworks. Raises `TableError` if a table cannot tell."""
        if self.facts.problem:
            raise TableError(self.facts.problem)
        return self.facts.trusted

    @property
    def inside(self) -> bool:
        """Whether it has one of this system's own addresses."""
        return self.facts.inside


class Clients:
    """All clients, by address."""

    def __init__(self, config: Config, access: Access, names: Names) -> None:
        """Read the lists. Raises `ConfigError` for a bad one."""
        self._access = access
        self._names = names
        self._exempt = NetworkList("smtpd_client_event_limit_exceptions", config)
        self._spared = NetworkList("smtpd_forbid_bare_newline_exclusions", config)
        self._log_levels = TlsLogLevels("smtpd_tls_loglevel_maps", config)
        self._rewriters, self._rewriter_tables = _rewriters(config)
        self._prefixes = {
            4: config.number("smtpd_client_ipv4_prefix_length"),
            6: config.number("smtpd_client_ipv6_prefix_length"),
        }
        self._cached: dict[tuple[str, str], Facts] = {}

    def known(self, address: str) -> Client | None:
        """Return the client if its name and the facts about it are known already, or can be found at once."""
        name = self._names.known(address)
        return None if name is None else self.named(address, name)

    def named(self, address: str, name: Name) -> Client | None:
        """Return the client of an address and name; None if a remote table must be asked first."""
        return at_once(lambda: Client(self.facts(address, name.name), name))

    async def identify(self, address: str) -> Client:
        """Return the client once its name is known, or known to be unknown."""
        return await self.find(address, await self._names.lookup(address))

    async def find(self, address: str, name: Name) -> Client:
        """Return the client of an address and name, once the tables have answered."""
        return await decided(lambda: Client(self.facts(address, name.name), name))

    def facts(self, address: str, name: str) -> Facts:
        """Return the facts about an address and its verified name."""
        facts = self._cached.get((address, name))
        if facts is None:
            facts, lasting = self._look_up(address, "" if name == UNKNOWN else name)
            while len(self._cached) >= CACHED_MAX:
                del self._cached[next(iter(self._cached))]
            if lasting:
                self._cached[address, name] = facts
        return facts

    def _look_up(self, address: str, name: str) -> tuple[Facts, bool]:
        facts = Facts(address)
        facts.bucket = self._bucket(address)
        is_lasting = True
        if self._log_levels:
            try:
                facts.tls_log_level = self._log_levels.find(name, address)
            except TableError as problem:
                self._log_levels.warn(problem)
                is_lasting = False
        try:
            facts.trusted = self._access.mynetworks.matches(address, name)
            facts.exempt = self._exempt.matches(address, name)
            facts.spared = self._spared.matches(address, name)
            facts.inside = address in self._access.own_addresses
            facts.rewrites_headers = (
                (facts.inside and "permit_inet_interfaces" in self._rewriters)
                or (facts.trusted and "permit_mynetworks" in self._rewriters)
                or any(table.lookup(address) is not None for table in self._rewriter_tables)
            )
        except TableError as problem:
            # The lists are asked again next time.
            facts.problem = str(problem)
            return facts, False
        return facts, is_lasting

    def _bucket(self, address: str) -> str:
        parsed = parse_address(address)
        if parsed is None:
            return address
        prefix = self._prefixes[parsed.version]
        if prefix >= parsed.max_prefixlen:
            return str(parsed)
        return str(ipaddress.ip_network((parsed, prefix), strict=False))


def _rewriters(config: Config) -> tuple[frozenset[str], list[Table]]:
    """Return the classes of clients and the tables of addresses in local_header_rewrite_clients."""
    words: set[str] = set()
    tables: list[Table] = []
    for word in config.items(REWRITERS):
        if ":" in word:
            tables.append(open_word(REWRITERS, word, config))
        elif word.lower() in REWRITER_WORDS:
            words.add(word.lower())
        else:
            fix = f"give a table, or some of {', '.join(sorted(REWRITER_WORDS - {CHECK_ADDRESS_MAP}))}"
            raise config.error(REWRITERS, f'{REWRITERS}: "{word}" is not supported', fix)
    return frozenset(words), tables
