"""The class of a domain (postconf(5), ADDRESS_CLASS_README): smtpd and qmgr must agree on it.

smtpd accepts mail for our own destinations from any client, so qmgr must not send that mail elsewhere.
"""

import enum
from typing import Final

from postillion.config import Config, host
from postillion.tables.lists import DomainList, parse_address


class Class(enum.Enum):
    """The classes, and how their transports are named: `local_transport`."""

    LOCAL = "local"
    VIRTUAL_ALIAS = "virtual alias"
    VIRTUAL_MAILBOX = "virtual"
    RELAY = "relay"
    DEFAULT = "default"


FINAL: Final = frozenset({Class.LOCAL, Class.VIRTUAL_ALIAS, Class.VIRTUAL_MAILBOX})
"""Classes that end here."""

DOMAINS: Final = {
    Class.LOCAL: "mydestination",
    Class.VIRTUAL_ALIAS: "virtual_alias_domains",
    Class.VIRTUAL_MAILBOX: "virtual_mailbox_domains",
    Class.RELAY: "relay_domains",
}
"""The parameters that list the domains of a class; the first that has a domain decides."""


class AddressClasses:
    """Knows the class of every domain. `lists`: the domains of each class; `own_addresses`: where mail is received."""

    def __init__(self, config: Config) -> None:
        """Open the lists. Raises `ConfigError` for a table of a type that is not known."""
        self.lists = {kind: DomainList(parameter, config) for kind, parameter in DOMAINS.items()}
        self.own_addresses = own_addresses(config)

    def of(self, domain: str) -> Class:
        """Return the class of a domain or address literal in lower case. Raises `TableError`."""
        for kind, domains in self.lists.items():
            if domain in domains or (kind is Class.LOCAL and self._is_own(domain)):
                return kind
        return Class.DEFAULT

    def _is_own(self, domain: str) -> bool:
        """Return whether a domain is the literal of an address at which mail is received."""
        literal = parse_address(domain[1:-1].removeprefix("ipv6:")) if domain.startswith("[") else None
        return literal is not None and str(literal) in self.own_addresses


def own_addresses(config: Config) -> frozenset[str]:
    """Return the addresses at which this machine or its proxy receives mail: inet_interfaces, proxy_interfaces.

    Addresses of a protocol that inet_protocols does not name are left out.
    """
    wanted = config.items("inet_interfaces")
    named = config.hosts("proxy_interfaces")
    if "all" in wanted:
        named += [str(interface.ip) for interface in host.addresses()]
    elif wanted == ["loopback-only"]:
        named += [str(interface.ip) for interface in host.addresses() if interface.ip.is_loopback]
    else:
        named += config.hosts("inet_interfaces")
    protocols = config.items("inet_protocols")
    found = (parse_address(word) for word in named)
    return frozenset(
        str(address)
        for address in found
        if address is not None and ("all" in protocols or f"ipv{address.version}" in protocols)
    )
