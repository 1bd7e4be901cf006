"""What an address means for relay control: its class, and whether it hides another destination.

An address can name its way through several systems: `user%far@near`, `far!user@near`, `"user@far"@near`. Who looks at
the last domain only, becomes an open relay for the one before. So the local part of an address at one of our own
domains is taken apart as trivial-rewrite(8) does, until a domain that is not ours comes up or nothing is left, and an
address whose local part routes any further is marked (RFC 5321 §3.6, appendix C).
"""

import enum
from typing import NamedTuple

from postillion.config import Config, host
from postillion.smtpd.lists import DomainList, parse_address

HOPS_MAX = 100
"""Each turn takes one domain off an address, so this ends only addresses that are longer than a command line."""


class Class(enum.Enum):
    """Who delivers mail for a domain (postconf(5), ADDRESS_CLASS_README)."""

    LOCAL = "local"
    VIRTUAL_ALIAS = "virtual alias"
    VIRTUAL_MAILBOX = "virtual mailbox"
    RELAY = "relay"
    DEFAULT = "default"


FINAL = frozenset({Class.LOCAL, Class.VIRTUAL_ALIAS, Class.VIRTUAL_MAILBOX})
"""Classes that end here."""


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
        self._percent_hack = config.flag("allow_percent_hack")
        self._bang_path = config.flag("swap_bangpath")
        self._own = own_addresses(config)
        self._lists: tuple[tuple[Class, DomainList], ...] = (
            (Class.LOCAL, DomainList("mydestination", config)),
            (Class.VIRTUAL_ALIAS, DomainList("virtual_alias_domains", config)),
            (Class.VIRTUAL_MAILBOX, DomainList("virtual_mailbox_domains", config)),
            (Class.RELAY, DomainList("relay_domains", config)),
        )

    def of(self, address: str) -> Destination:
        """Return what `address` (`local@domain` or a bare local part, quoted where it needs to be) means."""
        local, domain = split(address)
        for hops in range(HOPS_MAX):
            kind = self.kind(domain) if domain else Class.LOCAL
            onward = self._onward(local) if kind is Class.LOCAL else None
            if onward is None:
                routed = hops > 0 or any(sign in local for sign in "@!%")
                return Destination(kind, local, domain or self._origin, routed)
            local, domain = onward
        return Destination(Class.DEFAULT, local, domain, True)

    def kind(self, domain: str) -> Class:
        """Return the class of a domain or address literal in lower case."""
        if domain.startswith("["):
            literal = parse_address(domain[1:-1].removeprefix("ipv6:"))
            return Class.LOCAL if literal is not None and str(literal) in self._own else Class.DEFAULT
        for kind, domains in self._lists:
            if domain in domains:
                return kind
        return Class.DEFAULT

    def _onward(self, local: str) -> tuple[str, str] | None:
        """Where a local part at our own domain really goes: (local, domain); None when it ends here."""
        user, at, domain = local.rpartition("@")
        if at:
            return user, _domain(domain)
        if self._bang_path:
            site, bang, user = local.partition("!")
            if bang and site and user:
                return user, _domain(site)
        if self._percent_hack:
            user, percent, domain = local.rpartition("%")
            if percent and user and domain:
                return user, _domain(domain)
        return None


def split(address: str) -> tuple[str, str]:
    """Return the local part without its quotes, and the domain in lower case (empty for a bare local part)."""
    if address.startswith('"'):
        at = address.rfind('"@')
        quoted, domain = (address, "") if at < 0 else (address[: at + 1], address[at + 2 :])
        return _unquote(quoted), _domain(domain)
    local, at_sign, domain = address.rpartition("@")
    return (local, _domain(domain)) if at_sign else (address, "")


def _domain(text: str) -> str:
    return text.lower().removesuffix(".")


def _unquote(quoted: str) -> str:
    out: list[str] = []
    escaped = False
    for character in quoted[1:-1]:
        if character == "\\" and not escaped:
            escaped = True
            continue
        escaped = False
        out.append(character)
    return "".join(out)


def own_addresses(config: Config) -> frozenset[str]:
    """Return the addresses at which this system receives mail: inet_interfaces and proxy_interfaces."""
    wanted = [word.strip("[]").lower() for word in config.items("inet_interfaces")]
    own = [interface.ip for interface in host.addresses()]
    if "all" in wanted:
        found = {str(address) for address in own}
    elif wanted == ["loopback-only"]:
        found = {str(address) for address in own if address.is_loopback}
    else:
        found = {str(parse_address(word) or word) for word in wanted}
    return frozenset(found | {word.strip("[]").lower() for word in config.items("proxy_interfaces")})
