"""Where an address goes: trivial-rewrite(8)'s `resolve`, from main.cf.

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

from collections.abc import Callable, Iterable
from typing import NamedTuple

from postillion.config import Config, host
from postillion.tables import Maps, TableError, open_maps, open_table

WARNED_BOTH_MAX = 100
"""Warnings about domains in two classes, so that a mistake does not fill the log."""


class Route(NamedTuple):
    """The way of an address. `recipient`: what it is delivered as, when that is another address."""

    transport: str
    nexthop: str
    recipient: str | None = None


class Unresolved(Exception):
    """An address goes nowhere, for now (`dsn` 4.x.x) or for good (5.x.x)."""

    def __init__(self, dsn: str, text: str) -> None:
        super().__init__(dsn, text)
        self.dsn = dsn
        self.text = text


class DomainList:
    """A list of domains as main.cf has them: `example.org`, `.example.org`, `!example.net`, `type:table`.

    `parents`: whether a domain stands for its subdomains too (parent_domain_matches_subdomains).
    """

    def __init__(self, words: Iterable[str], config: Config, *, parents: bool = False) -> None:
        self._parents = parents
        self._rules: list[tuple[bool, str | Maps]] = []
        for word in words:
            negated = word.startswith("!")
            word = word.lstrip("!")
            rule = Maps([open_table(word, config)]) if ":" in word and not word.startswith("[") else word.lower()
            self._rules.append((not negated, rule))

    def __contains__(self, domain: str) -> bool:
        """Is the domain (in lower case) in the list? The first rule that fits decides. Raises `TableError`."""
        for answer, rule in self._rules:
            if isinstance(rule, Maps):
                fits = any(rule.lookup(key) is not None for key in self._keys(domain))
            else:
                fits = domain == rule or (self._parents and domain.endswith("." + rule)) or _is_below(domain, rule)
            if fits:
                return answer
        return False

    def _keys(self, domain: str) -> list[str]:
        return [domain, *(("" if self._parents else ".") + parent for parent in _parents(domain))]


def _is_below(domain: str, rule: str) -> bool:
    return rule.startswith(".") and domain.endswith(rule)


def _parents(domain: str) -> list[str]:
    """The domains above a domain, the nearest first."""
    labels = domain.split(".")
    return [".".join(labels[at:]) for at in range(1, len(labels))]


class Resolver:
    """Knows the way of every address. Ask it with `resolve`."""

    def __init__(self, config: Config, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._warnings_left = WARNED_BOTH_MAX
        parents = config.items("parent_domain_matches_subdomains")
        self._origin = config.text("myorigin").lower()
        self._hostname = config.text("myhostname").lower()
        self._local = DomainList(config.items("mydestination"), config)
        self._alias = DomainList(config.items("virtual_alias_domains"), config)
        self._mailbox = DomainList(config.items("virtual_mailbox_domains"), config)
        self._relay = DomainList(config.items("relay_domains"), config, parents="relay_domains" in parents)
        self._addresses = _own_addresses(config)
        self._transports = {
            kind: _split(config.text(f"{kind}_transport")) for kind in ("local", "virtual", "relay", "default")
        }
        self._relayhost = config.text("relayhost").strip()
        self._maps = open_maps(config.items("transport_maps"), config, warn=warn)
        self._delimiter = config.text("recipient_delimiter")

    @property
    def by_domain(self) -> bool:
        """True while all addresses of a domain go the same way, so that an answer may be kept by domain."""
        try:
            # A table that does not say whether its keys are addresses may have some.
            return not any(getattr(table, "has_addresses", True) for table in self._maps.tables)
        except TableError:
            return False

    def resolve(self, address: str) -> Route:
        """Return the way of an address (`local@domain`, or a bare local part: one of myorigin).

        Raises `Unresolved`.
        """
        local, at, domain = address.rpartition("@")
        recipient = None
        if not at:
            local, domain = address, self._origin
            recipient = f"{address}@{domain}"
        domain = domain.lower().rstrip(".")
        if not domain or not local:
            raise Unresolved("5.1.3", "bad address syntax")
        try:
            route = self._by_class(domain)
            if self._maps:
                route = self._by_map(local, domain, route)
        except TableError as problem:
            self._warn(f"resolving {address}: {problem}")
            raise Unresolved("4.3.0", "address resolver failure") from None
        return route if recipient is None else route._replace(recipient=recipient)

    def _by_class(self, domain: str) -> Route:
        if domain.startswith("[") and domain.endswith("]"):
            if domain[1:-1].removeprefix("ipv6:") in self._addresses:
                return self._to("local", self._hostname)
            return self._to("default", self._relayhost or domain)
        if domain in self._local:
            if domain in self._alias or domain in self._mailbox:
                self._both(domain)
            return self._to("local", self._hostname)
        if domain in self._alias:
            return Route("error", "5.1.1 User unknown in virtual alias table")
        if domain in self._mailbox:
            return self._to("virtual", domain)
        return self._to("relay" if domain in self._relay else "default", self._relayhost or domain)

    def _to(self, kind: str, nexthop: str) -> Route:
        transport, own = self._transports[kind]
        return Route(transport, own or nexthop)

    def _by_map(self, local: str, domain: str, route: Route) -> Route:
        """What transport(5) says: the address, the address without extension, the domain, domains above it, `*`."""
        keys = [f"{local}@{domain}"]
        base = next((local[:at] for at in range(1, len(local)) if local[at] in self._delimiter), "")
        if base:
            keys.append(f"{base}@{domain}")
        keys += [domain, *("." + parent for parent in _parents(domain)), "*"]
        for key in keys:
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


def _own_addresses(config: Config) -> frozenset[str]:
    """The addresses at which this system receives mail, as texts."""
    listed = [word.strip("[]").lower() for word in config.items("inet_interfaces")]
    own = [interface.ip for interface in host.addresses()]
    if "all" in listed:
        found = {str(address) for address in own}
    elif listed == ["loopback-only"]:
        found = {str(address) for address in own if address.is_loopback}
    else:
        found = set(listed)
    return frozenset(found | {word.strip("[]").lower() for word in config.items("proxy_interfaces")})
