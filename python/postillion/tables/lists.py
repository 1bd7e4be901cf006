"""Lists of networks and domains in main.cf (postconf(5): match lists)."""

import ipaddress
from collections.abc import Iterable

from postillion.config import Config, ConfigError
from postillion.tables import Maps, open_table

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


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
    """Networks, addresses and tables; `!` excludes. The first that fits decides, as in mynetworks."""

    def __init__(self, parameter: str, config: Config) -> None:
        """Open `parameter`; raises `ConfigError` for a word that is no network."""
        self._rules: list[tuple[bool, Network | Maps]] = []
        for word in config.items(parameter):
            bare = word.lstrip("!")
            wanted = (len(word) - len(bare)) % 2 == 0
            self._rules.append((wanted, _network(parameter, bare, config)))

    def __contains__(self, text: str) -> bool:
        """Is the client address `text` in the list? Raises `TableError`."""
        address = parse_address(text)
        if address is None:
            return False
        for wanted, rule in self._rules:
            fits = rule.lookup(str(address)) is not None if isinstance(rule, Maps) else address in rule
            if fits:
                return wanted
        return False


def _network(parameter: str, word: str, config: Config) -> Network | Maps:
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
        return Maps([open_table(word, config)])
    raise _bad(parameter, word, config)


def _bad(parameter: str, word: str, config: Config) -> ConfigError:
    fix = "give networks such as 192.0.2.0/24 or [2001:db8::]/32, with no bits set behind the length"
    return config.error(parameter, f'{parameter}: "{word}" is no network', fix)


class DomainList:
    """Domains and tables; `!` excludes. parent_domain_matches_subdomains decides how subdomains match."""

    def __init__(self, parameter: str, config: Config) -> None:
        """Open `parameter`. Raises `TableTypeError` for a table of a kind that is not known."""
        self._parents = parameter in config.items("parent_domain_matches_subdomains")
        self._names: dict[str, bool] = {}
        self._rules: list[tuple[bool, str | Maps]] = []
        for word in config.items(parameter):
            bare = word.lstrip("!")
            wanted = (len(word) - len(bare)) % 2 == 0
            rule = Maps([open_table(bare, config)]) if ":" in bare and not bare.startswith("[") else bare.lower()
            self._rules.append((wanted, rule))

    def __bool__(self) -> bool:
        return bool(self._rules)

    def __contains__(self, domain: str) -> bool:
        """Is the domain (lower case, without a dot at its end) in the list? Raises `TableError`."""
        for wanted, rule in self._rules:
            if isinstance(rule, str):
                fits = domain == rule or self._is_below(domain, rule)
            else:
                fits = any(rule.lookup(key) is not None for key in self._keys(domain))
            if fits:
                return wanted
        return False

    def _is_below(self, domain: str, rule: str) -> bool:
        if rule.startswith("."):
            return not self._parents and domain.endswith(rule)
        return self._parents and domain.endswith("." + rule)

    def _keys(self, domain: str) -> Iterable[str]:
        yield domain
        prefix = "" if self._parents else "."
        while "." in domain:
            domain = domain.partition(".")[2]
            yield prefix + domain
