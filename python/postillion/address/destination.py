"""The destination of an address: its class, and the address that mail goes to.

An address can name its way through several systems: `user%far@near`, `far!user@near`, `"user@far"@near`. A server that
checks the last domain only is an open relay for the one before. So `Destinations` takes apart the local part of an
address at one of our own domains as trivial-rewrite(8) does, until it reaches a domain that is not ours or the end.
smtpd and the queue manager ask the same question, so they cannot disagree.
"""

from functools import partial
from typing import NamedTuple

from postillion._core.address import AddressRules, may_route, quote
from postillion.address.classes import AddressClasses, Class
from postillion.config import Config
from postillion.tables import TableError
from postillion.tables.deferred import effect
from postillion.tables.table import Trace

HOPS_SPARE = 100
"""Maximum number of addresses that are taken off an address, beyond its length: each takes at least one character."""


class Destination(NamedTuple):
    """An address taken apart.

    `local` without quotes, `domain` in lower case. `routed`: the next system may take the local part for an address.
    `address`: the whole, as mail is delivered; a malformed address stays malformed.
    """

    kind: Class
    local: str
    domain: str
    routed: bool
    address: str


class Destinations:
    """Knows the destination of every address. Raises `TableError` when a table cannot be asked."""

    def __init__(self, config: Config) -> None:
        self._hostname = config.text("myhostname")
        self._empty = config.text("empty_address_recipient")
        self._trace: Trace | None = config.trace
        self.rules = AddressRules(config)
        self.classes = AddressClasses(config)

    def of(self, address: str) -> Destination:
        """Return the destination of `address`: `local@domain`, a bare local part, or nothing for the null address."""
        local, domain = self.rules.parts(address)
        ours: str | None = None
        for _ in range(len(address) + HOPS_SPARE):
            if domain:
                kind = self.classes.of(domain.lower())
                if kind is not Class.LOCAL:
                    return self._destination(kind, local, domain)
            if domain is not None:
                ours = domain
            onward = self.rules.onward(local)
            if onward is not None:
                if self._trace is not None:
                    text = f"{local} is a local part of this site that names {onward[0]}@{onward[1]}"
                    effect(partial(self._trace.note, text))
                local, domain = onward
            elif local:
                break
            else:
                local, domain = self.rules.parts(self._empty)
        else:
            raise TableError(f"empty_address_recipient = {self._empty} has no local part")
        if ours is None:
            return self._destination(self.classes.of(self._hostname.lower()), local, self._hostname)
        return self._destination(Class.LOCAL if ours else Class.DEFAULT, local, ours)

    def _destination(self, kind: Class, local: str, domain: str) -> Destination:
        return Destination(kind, local, domain.lower(), may_route(local), f"{quote(local)}@{domain}")
