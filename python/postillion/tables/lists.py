"""Lists of networks and domains in main.cf (postconf(5): match lists)."""

import ipaddress
import re
from collections.abc import Iterable

from postillion.config import Config, ConfigError
from postillion.config.match_list import match_word
from postillion.tables import Maps, open_word

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

HOST_NAME = re.compile(r"\.?(?:[A-Za-z0-9_-]{1,63}\.)*(?!\d+$)[A-Za-z0-9_-]{1,63}")
"""A host name or a domain, with a leading dot for the hosts below it. Its last label is not a number."""


def parse_address(text: str) -> Address | None:
    """Return the IP address in a text, an IPv4-mapped IPv6 address as IPv4; None for other text."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


class NetworkList:
    """Networks, addresses, host names and tables; `!` excludes. The first match decides, as in mynetworks."""

    def __init__(self, parameter: str, config: Config) -> None:
        """Open `parameter`; raises `ConfigError` for an invalid word."""
        self._parents = parameter in config.items("parent_domain_matches_subdomains")
        self._rules: list[tuple[bool, Network | Maps | str]] = []
        for word in config.items(parameter):
            wanted, bare = match_word(word)
            self._rules.append((wanted, _network(parameter, bare, config)))

    def matches(self, text: str, name: str) -> bool:
        """Return whether the client with the address `text` and the verified name `name` is in the list.

        `name`: empty for a client without a verified name. Raises `TableError`.
        """
        address = parse_address(text)
        name = name.lower()
        for wanted, rule in self._rules:
            if isinstance(rule, str):
                fits = bool(name) and _is_domain(name, rule, self._parents)
            elif isinstance(rule, Maps):
                fits = (name != "" and _has(rule, name, self._parents)) or rule.lookup(str(address or text)) is not None
            else:
                fits = address is not None and address in rule
            if fits:
                return wanted
        return False


def _network(parameter: str, word: str, config: Config) -> Network | Maps | str:
    text = word
    if word.startswith("["):
        inside, sign, length = word[1:].partition("]")
        text = inside + length
        if not sign:
            raise _bad(parameter, word, config)
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    if ":" in word and not word.startswith("["):
        return Maps([open_word(parameter, word, config)])
    if not HOST_NAME.fullmatch(word):
        raise _bad(parameter, word, config)
    return word.lower()


def _bad(parameter: str, word: str, config: Config) -> ConfigError:
    fix = "give networks such as 192.0.2.0/24 or [2001:db8::]/32, with no bits set behind the length, or host names"
    return config.error(parameter, f'{parameter}: "{word}" is neither a network nor a host name', fix)


class DomainList:
    """Domains and tables; `!` excludes. parent_domain_matches_subdomains decides how subdomains match."""

    def __init__(self, parameter: str, config: Config, *, exact: bool = False) -> None:
        """Open `parameter`. `exact`: no subdomain matches. Raises `ConfigError` for an unknown table type."""
        self._exact = exact
        self._parents = parameter in config.items("parent_domain_matches_subdomains")
        self._names: dict[str, bool] = {}
        self._rules: list[tuple[bool, str | Maps]] = []
        for word in config.items(parameter):
            wanted, bare = match_word(word)
            is_table = ":" in bare and not bare.startswith("[")
            rule = Maps([open_word(parameter, bare, config)]) if is_table else bare.lower()
            self._rules.append((wanted, rule))

    def __bool__(self) -> bool:
        return bool(self._rules)

    def __contains__(self, domain: str) -> bool:
        """Return whether the domain (lower case, without a dot at its end) is in the list. Raises `TableError`."""
        for wanted, rule in self._rules:
            if isinstance(rule, str):
                fits = domain == rule if self._exact else _is_domain(domain, rule, self._parents)
            elif self._exact:
                fits = rule.lookup(domain) is not None
            else:
                fits = _has(rule, domain, self._parents)
            if fits:
                return wanted
        return False


def _is_domain(name: str, rule: str, parents: bool) -> bool:
    """Return whether the rule covers the name. `parents`: `example.org` covers its subdomains, else `.example.org`."""
    if name == rule:
        return True
    if rule.startswith("."):
        return not parents and name.endswith(rule)
    return parents and name.endswith("." + rule)


def _has(table: Maps, name: str, parents: bool) -> bool:
    """Return whether a table has a name or a domain above it. Raises `TableError`."""
    keys = enumerate(_domain_keys(name, parents))
    return any(table.lookup(key, part=at > 0) is not None for at, key in keys)


def _domain_keys(name: str, parents: bool) -> Iterable[str]:
    """Yield the keys of a name in a table: the name and the domains above it."""
    yield name
    prefix = "" if parents else "."
    while "." in name:
        name = name.partition(".")[2]
        yield prefix + name
