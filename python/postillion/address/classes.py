"""Who delivers mail for a domain (postconf(5), ADDRESS_CLASS_README): smtpd and qmgr must agree on it.

What smtpd takes for one of our own destinations, it accepts from anybody; qmgr must then not send it elsewhere.
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
        if domain.startswith("["):
            literal = parse_address(domain[1:-1].removeprefix("ipv6:"))
            return Class.LOCAL if literal is not None and str(literal) in self.own_addresses else Class.DEFAULT
        for kind, domains in self.lists.items():
            if domain in domains:
                return kind
        return Class.DEFAULT


def own_addresses(config: Config) -> frozenset[str]:
    """Return the addresses at which this machine or its proxy receives mail: inet_interfaces, proxy_interfaces."""
    wanted = [word.strip("[]").lower() for word in config.items("inet_interfaces")]
    proxies = [word.strip("[]").lower() for word in config.items("proxy_interfaces")]
    if "all" in wanted:
        found = {str(interface.ip) for interface in host.addresses()}
    elif wanted == ["loopback-only"]:
        found = {str(interface.ip) for interface in host.addresses() if interface.ip.is_loopback}
    else:
        found = {str(parse_address(word) or word) for word in wanted}
    return frozenset(found | {str(parse_address(word) or word) for word in proxies})
