"""The route of an address: trivial-rewrite(8)'s `resolve`, from main.cf.

The class of the recipient's domain decides (postconf(5), ADDRESS_CLASS_README):

| class | domains | transport |
|---|---|---|
| local | mydestination, addresses of inet_interfaces and proxy_interfaces | local_transport |
| virtual alias | virtual_alias_domains | none: an address that no alias changed is unknown |
| virtual mailbox | virtual_mailbox_domains | virtual_transport |
| relay | relay_domains | relay_transport |
| default | all others | default_transport |

Mail of the last two classes goes to relayhost when there is one, else to the recipient's domain. transport_maps
(transport(5)) overrides both transport and next hop.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from postillion._core.address import AddressRules
from postillion.address.classes import AddressClasses, Class
from postillion.config import Config
from postillion.tables import TableError, open_maps

WARNED_BOTH_MAX = 100
"""Warnings about domains in two classes, so that a mistake does not fill the log."""


class Route(NamedTuple):
    """The way of an address. `recipient`: what it is delivered as, when that is another address."""

    transport: str
    nexthop: str
    recipient: str | None = None


class Way(NamedTuple):
    """A transport that mail may take: the parameter and its value, and the table with this value, if it is in one."""

    parameter: str
    value: str
    transport: str
    table: str = ""


class Unresolved(Exception):
    """An address goes nowhere, for now (`dsn` 4.x.x) or for good (5.x.x)."""

    def __init__(self, dsn: str, text: str) -> None:
        super().__init__(dsn, text)
        self.dsn = dsn
        self.text = text


class Resolver:
    """Knows the way of every address. Ask it with `resolve`."""

    def __init__(self, config: Config, warn: Callable[[str], None]) -> None:
        self._config = config
        self._warn = warn
        self._warnings_left = WARNED_BOTH_MAX
        self._origin = config.text("myorigin").lower()
        self._rules = AddressRules(config)
        self._hostname = config.text("myhostname").lower()
        self._classes = AddressClasses(config)
        self._transports = {
            kind: _split(config.text(f"{kind.value}_transport")) for kind in Class if kind is not Class.VIRTUAL_ALIAS
        }
        self._relayhost = config.text("relayhost").strip()
        self._maps = open_maps("transport_maps", config, warn=warn)

    @property
    def by_domain(self) -> bool:
        """True while all addresses of a domain go the same way, so that an answer may be kept by domain."""
        try:
            # A table that does not say whether its keys are addresses may have some.
            return not any(getattr(table, "has_addresses", True) for table in self._maps.tables)
        except TableError:
            return False

    def transports(self) -> Iterator[Way]:
        """Yield each way that mail may go. Raises `TableError`.

        A class without domains has no mail, so its transport does not count.
        """
        for kind, (transport, _) in self._transports.items():
            if self._classes.lists.get(kind, True):
                parameter = f"{kind.value}_transport"
                yield Way(parameter, self._config.text(parameter), transport)
        for table in self._maps.tables:
            for value in table.values():
                yield Way("transport_maps", value, _split(value)[0], table.name)

    def resolve(self, address: str) -> Route:
        """Return the way of an address (`local@domain`, or a bare local part: one of myorigin).

        Raises `Unresolved`.
        """
        if not self._rules.allows(address):
            raise Unresolved("5.1.3", "bad address syntax")
        local, domain = self._rules.split(address)
        recipient = None
        if not domain:
            domain = self._origin
            recipient = f"{address}@{domain}"
        try:
            route = self._by_class(domain)
            if self._maps:
                route = self._by_map(local, domain, route)
        except TableError as problem:
            self._warn(f"resolving {address}: {problem}")
            raise Unresolved("4.3.0", "address resolver failure") from None
        return route if recipient is None else route._replace(recipient=recipient)

    def _by_class(self, domain: str) -> Route:
        kind = self._classes.of(domain)
        if kind is Class.VIRTUAL_ALIAS:
            return Route("error", "5.1.1 User unknown in virtual alias table")
        if kind is Class.LOCAL:
            nexthop = self._hostname
            if any(domain in self._classes.lists[virtual] for virtual in (Class.VIRTUAL_ALIAS, Class.VIRTUAL_MAILBOX)):
                self._both(domain)
        else:
            nexthop = domain if kind is Class.VIRTUAL_MAILBOX else self._relayhost or domain
        transport, own = self._transports[kind]
        return Route(transport, own or nexthop)

    def _by_map(self, local: str, domain: str, route: Route) -> Route:
        """Return the route of transport_maps, `route` when no key has one."""
        for key in self._rules.transport_keys(local, domain):
            found = self._maps.lookup(key)
            if found is not None:
                transport, nexthop = _split(found)
                if transport:
                    return Route(transport, nexthop or domain)
                return route._replace(nexthop=nexthop) if nexthop else route
        return route

    def _both(self, domain: str) -> None:
        if self._warnings_left:
            self._warnings_left -= 1
            self._warn(f"do not list domain {domain} in BOTH mydestination and a list of virtual domains")


def _split(value: str) -> tuple[str, str]:
    """`transport:nexthop` in two; each may be empty."""
    transport, _, nexthop = value.strip().partition(":")
    return transport.strip(), nexthop.strip()
