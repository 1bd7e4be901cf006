"""The site as restrictions see it: networks, destinations, users and reply codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from postillion.address.destination import Destination
from postillion.address.resolve import Resolver
from postillion.config import Config
from postillion.restrictions.known_certificates import KnownCertificates
from postillion.restrictions.known_users import KnownUsers
from postillion.tables.lists import NetworkList

REPLY_CODES: Final = (
    "reject_code",
    "defer_code",
    "relay_domains_reject_code",
    "non_fqdn_reject_code",
    "invalid_hostname_reject_code",
    "unknown_client_reject_code",
    "multi_recipient_bounce_reject_code",
)


class Site:
    """A site's answers. `codes`: the reply codes that main.cf can change, by parameter.

    `untrusted_routing`: strangers may send to addresses that the next system may take for others (`user%far`).
    """

    def __init__(self, config: Config, warn: Callable[[str], None], resolver: Resolver | None = None) -> None:
        """Open the lists and tables; with a `resolver`, all but its own. Raises `ConfigError` and `TableTypeError`."""
        self.resolver = resolver or Resolver(config, warn)
        self.mynetworks = NetworkList("mynetworks", config)
        self.own_addresses = self.resolver.destinations.classes.own_addresses
        self.known_users = KnownUsers(config, warn)
        self.certificates = KnownCertificates(config)
        self.untrusted_routing = config.flag("allow_untrusted_routing")
        self.codes = {name: config.number(name) for name in REPLY_CODES}

    def destination(self, address: str) -> Destination:
        """Return the destination of an address as a client gives it. Raises `TableError`.

        An incomplete address means what cleanup makes of it.
        """
        destinations = self.resolver.destinations
        return destinations.of(destinations.rules.complete(address))
