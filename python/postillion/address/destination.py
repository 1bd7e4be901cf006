"""The meaning of an address for relay control: its class, and whether it hides another destination.

An address can name its way through several systems: `user%far@near`, `far!user@near`, `"user@far"@near`. A server that
checks the last domain only is an open relay for the one before. So `Destinations` takes apart the local part of an
address at one of our own domains as trivial-rewrite(8) does, until it reaches a domain that is not ours or the end. It
marks an address whose local part routes any further (RFC 5321 §3.6, appendix C).
"""

from typing import NamedTuple

from postillion._core.address import AddressRules
from postillion.address.classes import AddressClasses, Class
from postillion.config import Config

HOPS_MAX = 100
"""Maximum number of domains that are taken off an address; one that reaches it is longer than a command line."""


class Destination(NamedTuple):
    """An address taken apart. `local` without quotes, `domain` in lower case; `routed`: the local part goes on."""

    kind: Class
    local: str
    domain: str
    routed: bool


class Destinations:
    """Knows the class of every address. Raises `TableError` when a table cannot be asked."""

    def __init__(self, config: Config) -> None:
        self._origin = config.text("myorigin").lower()
        self.rules = AddressRules(config)
        self.classes = AddressClasses(config)

    def of(self, address: str) -> Destination:
        """Return what `address` (`local@domain` or a bare local part, quoted where it needs to be) means."""
        local, domain = self.rules.split(address)
        for hops in range(HOPS_MAX):
            kind = self.classes.of(domain) if domain else Class.LOCAL
            onward = self.rules.onward(local) if kind is Class.LOCAL else None
            if onward is None:
                routed = hops > 0 or any(sign in local for sign in "@!%")
                return Destination(kind, local, domain or self._origin, routed)
            local, domain = onward[0], self.rules.domain(onward[1])
        return Destination(Class.DEFAULT, local, domain, True)
