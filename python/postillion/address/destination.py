"""What an address means for relay control: its class, and whether it hides another destination.

An address can name its way through several systems: `user%far@near`, `far!user@near`, `"user@far"@near`. Who looks at
the last domain only, becomes an open relay for the one before. So the local part of an address at one of our own
domains is taken apart as trivial-rewrite(8) does, until a domain that is not ours comes up or nothing is left, and an
address whose local part routes any further is marked (RFC 5321 §3.6, appendix C).
"""

from typing import NamedTuple

from postillion.address.classes import AddressClasses, Class
from postillion.config import Config

HOPS_MAX = 100
"""Each turn takes one domain off an address, so this ends only addresses that are longer than a command line."""


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
        self.classes = AddressClasses(config)

    def of(self, address: str) -> Destination:
        """Return what `address` (`local@domain` or a bare local part, quoted where it needs to be) means."""
        local, domain = split(address)
        for hops in range(HOPS_MAX):
            kind = self.classes.of(domain) if domain else Class.LOCAL
            onward = self._onward(local) if kind is Class.LOCAL else None
            if onward is None:
                routed = hops > 0 or any(sign in local for sign in "@!%")
                return Destination(kind, local, domain or self._origin, routed)
            local, domain = onward
        return Destination(Class.DEFAULT, local, domain, True)

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
