"""The route of an address: trivial-rewrite(8)'s `resolve`, from main.cf.

The class of the recipient's domain decides (postconf(5), ADDRESS_CLASS_README):

| class | domains | transport |
|---|---|---|
| local | mydestination, addresses of inet_interfaces and proxy_interfaces | local_transport |
| virtual alias | virtual_alias_domains | none: an address that no alias changed is unknown |
| virtual mailbox | virtual_mailbox_domains | virtual_transport |
| relay | relay_domains | relay_transport |
| default | all others | default_transport, or that of sender_dependent_default_transport_maps |

Mail of the last two classes goes to the host of sender_dependent_relayhost_maps, else to relayhost when there is one,
else to the recipient's domain. transport_maps (transport(5)) overrides both transport and next hop. An address in
relocated_maps (relocated(5)) bounces, whatever its class.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple

from postillion.address.classes import Class
from postillion.address.destination import Destination, Destinations
from postillion.config import Config
from postillion.tables import Maps, TableError, WarnedError, open_maps
from postillion.tables.deferred import effect, once
from postillion.tables.table import Trace

WARNED_BOTH_MAX = 100
"""Warnings about domains in two classes, so that a mistake does not fill the log."""
ERROR: Final = "error"
"""The transport that bounces mail; its next hop is the reason."""
REPORTING: Final = (ERROR, "retry")
"""Transports whose next hop is a text."""
DUNNO: Final = "dunno"
"""The answer of a table of senders that leaves the route as it is."""


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
    """Knows the way of every address. Ask it with `resolve`. `destinations`: the first half of the answer."""

    def __init__(self, config: Config, warn: Callable[[str], None]) -> None:
        """Open the tables. Raises `ConfigError`."""

        def maps(name: str) -> Maps:
            return open_maps(name, config, warn=warn)

        self._config = config
        self._trace: Trace | None = config.trace
        self._warn = once(warn)
        self._warned_both: set[str] = set()
        self.destinations = Destinations(config)
        self._rules = self.destinations.rules
        self._classes = self.destinations.classes
        self._transports = {
            kind: _split(config.text(f"{kind.value}_transport")) for kind in Class if kind is not Class.VIRTUAL_ALIAS
        }
        named = " in virtual alias table" if config.flag("show_user_unknown_table_name") else ""
        self._no_alias = Route(ERROR, f"5.1.1 User unknown{named}")
        self._moved = "5.1.6 User has moved to " if config.flag("relocated_prefix_enable") else ""
        self._origin = config.text("myorigin").lower()
        self._relayhost = config.text("relayhost").strip()
        self._bare_parents = "transport_maps" in config.items("parent_domain_matches_subdomains")
        self._maps = maps("transport_maps")
        self._relocated = maps("relocated_maps")
        self._sender_relayhosts = maps("sender_dependent_relayhost_maps")
        self._sender_transports = maps("sender_dependent_default_transport_maps")
        self._null_relayhost_key = config.text("empty_address_relayhost_maps_lookup_key")
        self._null_transport_key = config.text("empty_address_default_transport_maps_lookup_key")

    @property
    def by_domain(self) -> bool:
        """True while all addresses of a domain go the same way, so that an answer may be kept by domain."""
        try:
            # A table that does not say whether its keys are addresses may have some.
            tables = (*self._maps.tables, *self._relocated.tables)
            return not any(getattr(table, "has_addresses", True) for table in tables)
        except TableError:
            return False

    @property
    def by_sender(self) -> bool:
        """True if the way depends on the sender."""
        return bool(self._sender_relayhosts or self._sender_transports)

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
        for table in self._sender_transports.tables:
            for value in table.values():
                if value.lower() != DUNNO:
                    yield Way("sender_dependent_default_transport_maps", value, _split(value)[0], table.name)

    def resolve(self, address: str, sender: str = "") -> Route:
        """Return the way of an address (`local@domain`, or a bare local part: one of this host).

        `sender`: the envelope sender, empty for the null sender. Raises `Unresolved`.
        """
        try:
            destination = self.destinations.of(address)
            if not self._rules.allows(destination.address):
                raise Unresolved("5.1.3", "bad address syntax")
            route = self.route(destination, sender)
        except TableError as problem:
            if not isinstance(problem, WarnedError):
                self._warn(f"resolving {address}: {problem}")
            raise Unresolved("4.3.0", "address resolver failure") from None
        return route if destination.address == address else route._replace(recipient=destination.address)

    def route(self, destination: Destination, sender: str) -> Route:
        """Return the way to a destination. Raises `TableError`."""
        route = self._by_class(destination, sender)
        # An address that no alias changed is unknown, whatever its domain's transport.
        if self._maps and destination.kind is not Class.VIRTUAL_ALIAS:
            route = self._by_map(destination, route)
        if self._relocated:
            keys = self._rules.recipient_keys(
                destination.local, destination.domain, is_local=self._is_local(destination.domain)
            )
            moved = self._relocated.first(keys)
            if moved is not None:
                return Route(ERROR, self._moved + moved)
        return route

    def _by_class(self, destination: Destination, sender: str) -> Route:
        kind, domain = destination.kind, destination.domain
        if kind is Class.VIRTUAL_ALIAS:
            return self._no_alias
        transport, own = self._transports[kind]
        self._note_parameter(f"{kind.value}_transport")
        if kind is Class.LOCAL:
            if any(domain in self._classes.lists[virtual] for virtual in (Class.VIRTUAL_ALIAS, Class.VIRTUAL_MAILBOX)):
                effect(partial(self._both, domain))
            return Route(transport, own or domain)
        if kind is Class.VIRTUAL_MAILBOX:
            return Route(transport, own or domain)
        if kind is Class.DEFAULT and self._sender_transports:
            found = self._of_sender(self._sender_transports, sender, self._null_transport_key)
            if found is not None:
                transport, own = _split(found)
        nexthop = self._relayhost or domain
        if self._relayhost:
            self._note_parameter("relayhost")
        if self._sender_relayhosts:
            nexthop = self._of_sender(self._sender_relayhosts, sender, self._null_relayhost_key) or nexthop
        return Route(transport, own or nexthop)

    def _of_sender(self, maps: Maps, sender: str, null_key: str) -> str | None:
        """Return the answer of a table of senders; None without one."""
        if not sender:
            found = maps.first([null_key])
        else:
            local, domain = self._rules.parts(sender)
            is_local = domain is not None and self._is_local(domain.lower())
            found = maps.first(self._rules.sender_keys(local, domain, is_local=is_local))
        return None if found is None or found.lower() == DUNNO else found

    def _is_local(self, domain: str) -> bool:
        """Return whether tables have keys without a domain for addresses of a domain."""
        return domain == self._origin or self._classes.of(domain) is Class.LOCAL

    def _by_map(self, destination: Destination, route: Route) -> Route:
        """Return the route of transport_maps, `route` when no key has one."""
        domain = destination.domain
        found = self._maps.first(self._rules.transport_keys(destination.local, domain, bare_parents=self._bare_parents))
        if found is None:
            return route
        transport, nexthop = _split(found)
        if not transport:
            return route._replace(nexthop=nexthop) if nexthop else route
        return Route(transport, nexthop or ("Address is undeliverable" if transport in REPORTING else domain))

    def _note_parameter(self, name: str) -> None:
        if self._trace is not None:
            effect(partial(self._trace.note, f"{name} = {self._config.text(name)}"))

    def _both(self, domain: str) -> None:
        """Warn about a domain in two classes, once."""
        if domain not in self._warned_both and len(self._warned_both) < WARNED_BOTH_MAX:
            self._warned_both.add(domain)
            self._warn(f"do not list domain {domain} in BOTH mydestination and a list of virtual domains")


def _split(value: str) -> tuple[str, str]:
    """`transport:nexthop` in two; each may be empty."""
    transport, _, nexthop = value.strip().partition(":")
    return transport.strip(), nexthop.strip()
