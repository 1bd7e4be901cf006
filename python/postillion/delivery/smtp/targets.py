"""The hosts to try for a next hop, in order (RFC 5321 §5.1, smtp(8)).

Hosts of one preference are in random order, or ordered by `smtp_address_preference`. MX records are dropped from the
first one that names this machine (RFC 5321 §5.1): such a host would send the mail back.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Sequence, Set
from typing import Final, NamedTuple

from postillion.address.classes import own_addresses
from postillion.config import Config
from postillion.delivery.smtp.nexthop import NextHop
from postillion.dns import BadDomain, BadName, Failed, Mx, NoName, NoRecords, Records, Resolver, Search, to_ascii

SMTP_PORT: Final = 25
MX_HOSTS_MAX: Final = 50
"""Maximum number of MX hosts of a domain that are looked up, best first."""
NATIVE_TIMEOUT_S: Final = 30.0
"""Timeout of a lookup by the system's resolver."""


class NoTargets(Exception):
    """No host to try. `dsn` is the enhanced status code; the text is that of Postfix's log."""

    def __init__(self, dsn: str, text: str) -> None:
        super().__init__(text)
        self.dsn = dsn


class Target(NamedTuple):
    """A host at one of its addresses, or a socket in the file system (`port` 0, `address` its path).

    `best`: the host has the best preference of its destination. `loop_detect`: a server that gives our own name is a
    mail loop. `secure`: the name server validated the addresses of the host. `mx_secure`: it validated the MX records
    that name the host; None for a host that no MX record names.
    """

    host: str
    address: str
    port: int
    preference: int = 0
    best: bool = True
    loop_detect: bool = False
    secure: bool = False
    mx_secure: bool | None = None

    @property
    def is_ipv6(self) -> bool:
        """Whether the address is of IPv6."""
        return ":" in self.address and self.port != 0


class TargetSettings(NamedTuple):
    """The parameters of main.cf for host lookups."""

    families: tuple[socket.AddressFamily, ...]
    use_dns: bool
    host_lookup_dns: bool
    host_lookup_native: bool
    ignore_mx_lookup_error: bool
    defer_if_no_mx_address_found: bool
    address_preference: str
    balance_inet_protocols: bool
    randomize_addresses: bool
    mx_address_limit: int
    own_addresses: frozenset[str]
    idna2003: bool = False
    search: Search = Search()
    """For addresses of hosts; never for MX records."""

    @classmethod
    def of(cls, config: Config, prefix: str) -> TargetSettings:
        """Return the settings of a configuration. `prefix`: smtp or lmtp."""
        protocols = {word.lower() for word in config.items("inet_protocols")}
        everything = not protocols or "all" in protocols
        families = []
        if everything or "ipv4" in protocols:
            families.append(socket.AF_INET)
        if (everything or "ipv6" in protocols) and socket.has_ipv6:
            families.append(socket.AF_INET6)
        lookups = {word.lower() for word in config.items(f"{prefix}_host_lookup")}
        level = config.text(f"{prefix}_dns_support_level").lower()
        options = config.items(f"{prefix}_dns_resolver_options")
        use_dns = level != "disabled" and not config.flag("disable_dns_lookups")
        return cls(
            families=tuple(families),
            use_dns=use_dns,
            host_lookup_dns=use_dns and "dns" in lookups,
            host_lookup_native="native" in lookups or not use_dns,
            ignore_mx_lookup_error=config.flag("ignore_mx_lookup_error"),
            defer_if_no_mx_address_found=config.flag(f"{prefix}_defer_if_no_mx_address_found"),
            address_preference=config.text(f"{prefix}_address_preference").lower(),
            balance_inet_protocols=config.flag(f"{prefix}_balance_inet_protocols"),
            randomize_addresses=config.flag(f"{prefix}_randomize_addresses"),
            mx_address_limit=config.number(f"{prefix}_mx_address_limit"),
            own_addresses=own_addresses(config),
            idna2003=config.flag("enable_idna2003_compatibility"),
            search=Search("res_defnames" in options, "res_dnsrch" in options),
        )


async def targets(
    destination: NextHop,
    settings: TargetSettings,
    resolver: Resolver,
    *,
    shuffle: Callable[[list[Target]], None] = random.shuffle,
) -> list[Target]:
    """Return the hosts to try, best first, at most `mx_address_limit` of them. Raises `NoTargets`."""
    known = known_targets(destination, settings)
    if known is not None:
        return known
    destination = _in_ascii(destination, settings)
    if destination.mx and settings.use_dns and not _is_localhost(destination.host):
        found = await _by_mx(destination, settings, resolver)
    else:
        found = await _by_host(destination.host, destination.port, 0, settings, resolver)
    if destination.port == SMTP_PORT:
        found = _short_of_myself(found, destination, settings.own_addresses)
    return _ordered(found, settings, shuffle)


def known_targets(destination: NextHop, settings: TargetSettings) -> list[Target] | None:
    """Return the host of a next hop that is an address or a socket; None when it must be looked up.

    Raises `NoTargets`.
    """
    if destination.path:
        return [Target("localhost", destination.path, 0)]
    if not settings.families:
        raise NoTargets("4.4.4", "all network protocols are disabled")
    address = destination.address
    if address is None:
        return None
    destination = _in_ascii(destination, settings)
    loops = destination.port == SMTP_PORT
    found = [Target(destination.host, address, destination.port, loop_detect=loops)]
    return _short_of_myself(found, destination, settings.own_addresses) if loops else found


def _in_ascii(destination: NextHop, settings: TargetSettings) -> NextHop:
    """Return the next hop with its host as DNS has it. Raises `NoTargets`."""
    try:
        return destination._replace(host=to_ascii(destination.host, idna2003=settings.idna2003))
    except BadDomain:
        raise _not_found(BadName(destination.host)) from None


async def _by_mx(destination: NextHop, settings: TargetSettings, resolver: Resolver) -> list[Target]:
    name, port = destination.host, destination.port
    answer = await resolver.mx(name)
    if not isinstance(answer, Records):
        if isinstance(answer, Failed | BadName) and not settings.ignore_mx_lookup_error:
            raise _not_found(answer)
        # No MX record: the domain itself is the host (RFC 5321 §5.1).
        return await _by_host(name, port, 0, settings, resolver)
    records = sorted(record for record in answer.list if record.host)[:MX_HOSTS_MAX]
    if not records:
        raise NoTargets("5.1.0", f"Domain {name} does not accept mail (nullMX)")
    best = records[0].preference

    async def one(record: Mx) -> list[Target] | NoTargets:
        best_and_secure = (record.preference == best, answer.secure)
        try:
            return await _by_host(record.host, port, record.preference, settings, resolver, *best_and_secure)
        except NoTargets as failure:
            return failure

    # Most domains have one host, which needs no task.
    answers = [await one(records[0])] if len(records) == 1 else await asyncio.gather(*map(one, records))
    found = [target for answer in answers if not isinstance(answer, NoTargets) for target in answer]
    if found:
        return found
    failures = [answer for answer in answers if isinstance(answer, NoTargets)]
    soft = next((failure for failure in failures if failure.dsn.startswith("4")), None)
    if soft is not None or settings.defer_if_no_mx_address_found:
        chosen = soft or failures[-1]
        raise NoTargets(f"4{chosen.dsn[1:]}", str(chosen))
    raise failures[-1]


async def _by_host(
    name: str,
    port: int,
    preference: int,
    settings: TargetSettings,
    resolver: Resolver,
    best: bool = True,
    mx_secure: bool | None = None,
) -> list[Target]:
    addresses: Sequence[str] = ()
    secure = False
    failure: NoTargets | None = None
    if _is_localhost(name):
        known = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
        addresses = [known[family] for family in settings.families]
    elif settings.host_lookup_dns:
        answer = await resolver.addresses(name, settings.families, settings.search)
        if isinstance(answer, Records):
            addresses, secure = answer.list, answer.secure
        else:
            failure = _not_found(answer)
    if not addresses and settings.host_lookup_native and (failure is None or failure.dsn.startswith("5")):
        try:
            addresses = await native_addresses(name, settings.families)
        except NoTargets as problem:
            failure = problem
    if not addresses:
        raise failure or NoTargets("5.4.4", f"{name}: host not found")
    loops = port == SMTP_PORT
    return [
        Target(name, address, port, preference, best, loops, secure, mx_secure) for address in dict.fromkeys(addresses)
    ]


def _not_found(answer: NoRecords) -> NoTargets:
    """Return the failure for an answer without records, with the text of Postfix's log."""
    if isinstance(answer, BadName):
        return NoTargets("5.4.4", f"Name service error for {answer.name}: invalid host or domain name")
    what = f"Host or domain name not found. Name service error for name={answer.name} type={answer.kind}"
    if isinstance(answer, Failed):
        return NoTargets("4.4.3", f"{what}: Host not found, try again")
    if isinstance(answer, NoName):
        return NoTargets("5.4.4", f"{what}: Host not found")
    return NoTargets("5.4.4", f"{what}: Host found but no data record of requested type")


async def native_addresses(name: str, families: Sequence[socket.AddressFamily]) -> list[str]:
    """Return the addresses of a host from the system's resolver, with /etc/hosts. Raises `NoTargets`."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(NATIVE_TIMEOUT_S):
            found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise NoTargets("4.4.4", f"unable to look up host {name}: timed out") from None
    except (OSError, UnicodeError) as error:
        soft = isinstance(error, socket.gaierror) and error.errno in (socket.EAI_AGAIN, socket.EAI_MEMORY)
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise NoTargets("4.4.4" if soft else "5.4.4", f"unable to look up host {name}: {reason}") from None
    return [str(sockaddr[0]) for family, _, _, _, sockaddr in found if family in families]


def _is_localhost(name: str) -> bool:
    """Return whether the name is localhost, which is never a question to a name server (RFC 6761 §6.3)."""
    return name.lower().rstrip(".") == "localhost"


def _short_of_myself(found: list[Target], destination: NextHop, own: Set[str]) -> list[Target]:
    """Drop the targets that are this machine, and those with the same or a worse preference."""
    mine = min((target.preference for target in found if target.address in own), default=None)
    if mine is None:
        return found
    better = [target for target in found if target.preference < mine]
    if better:
        return better
    if min(target.preference for target in found) < mine or not any(target.best for target in found):
        raise NoTargets("4.4.4", f"unable to find primary relay for {destination.host}")
    raise NoTargets("5.4.6", f"mail for {destination.host} loops back to myself")


def _ordered(found: list[Target], settings: TargetSettings, shuffle: Callable[[list[Target]], None]) -> list[Target]:
    if len(found) == 1:
        return found
    found = list(found)
    if settings.randomize_addresses:
        shuffle(found)
    ipv6_first = {"ipv6": True, "ipv4": False}.get(settings.address_preference)
    if ipv6_first is None:
        found.sort(key=lambda target: target.preference)
    else:
        found.sort(key=lambda target: (target.preference, target.is_ipv6 is not ipv6_first))
    limit = settings.mx_address_limit
    if not limit or len(found) <= limit:
        return found
    kept = found[:limit]
    if settings.balance_inet_protocols and limit > 1:
        # A network with one protocol needs an address of that protocol.
        first = kept[0].is_ipv6
        if all(target.is_ipv6 == first for target in kept):
            other = next((target for target in found[limit:] if target.is_ipv6 != first), None)
            if other is not None:
                kept[-1] = other
    return kept
