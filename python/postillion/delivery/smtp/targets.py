"""The hosts to try for a next hop, in order (RFC 5321 §5.1; smtp(8), postconf(5) smtp_mx_address_limit and around).

Hosts of one preference come in random order, or by `smtp_address_preference`. From the first MX record that names this
machine on, records are dropped (RFC 5321 §5.1): mail must not go to a host that would send it back.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from postillion.address.classes import own_addresses
from postillion.config import Config
from postillion.delivery.smtp.destination import Destination
from postillion.delivery.smtp.resolver import LookupFailed, Mx, Resolver

SMTP_PORT = 25
MX_HOSTS_MAX = 50
"""How many MX hosts of a domain are looked up, best first."""


class NoTargets(Exception):
    """There is no host to try. `dsn` is the enhanced status code, the text as Postfix logs it."""

    def __init__(self, dsn: str, text: str) -> None:
        super().__init__(text)
        self.dsn = dsn


class Target(NamedTuple):
    """A host at one of its addresses, or a socket in the file system (`port` 0, `address` its path).

    `best`: no host of the destination is preferred to it. `loop_detect`: who answers by our own name is a loop.
    """

    host: str
    address: str
    port: int
    preference: int = 0
    best: bool = True
    loop_detect: bool = False

    @property
    def is_ipv6(self) -> bool:
        """Whether the address is of IPv6."""
        return ":" in self.address and self.port != 0


class TargetSettings(NamedTuple):
    """What main.cf says about finding hosts."""

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

    @classmethod
    def of(cls, config: Config, prefix: str) -> TargetSettings:
        """Read them; `prefix`: smtp or lmtp."""
        protocols = {word.lower() for word in config.items("inet_protocols")}
        everything = not protocols or "all" in protocols
        families = []
        if everything or "ipv4" in protocols:
            families.append(socket.AF_INET)
        if (everything or "ipv6" in protocols) and socket.has_ipv6:
            families.append(socket.AF_INET6)
        lookups = {word.lower() for word in config.items(f"{prefix}_host_lookup")}
        level = config.text(f"{prefix}_dns_support_level").lower()
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
        )


async def targets(
    destination: Destination,
    settings: TargetSettings,
    resolver: Resolver,
    *,
    shuffle: Callable[[list[Target]], None] = random.shuffle,
) -> list[Target]:
    """Return the hosts to try, best first, at most `mx_address_limit` of them. Raises `NoTargets`."""
    if destination.path:
        return [Target("localhost", destination.path, 0)]
    if not settings.families:
        raise NoTargets("4.4.4", "all network protocols are disabled")
    loops = destination.port == SMTP_PORT
    literal = destination.address
    if literal is not None:
        found = [Target(destination.host, literal, destination.port, loop_detect=loops)]
    elif destination.mx and settings.use_dns and not _is_localhost(destination.host):
        found = await _by_mx(destination, settings, resolver)
    else:
        found = await _by_host(destination.host, destination.port, 0, settings, resolver)
    if loops:
        found = _short_of_myself(found, destination, settings.own_addresses)
    return _ordered(found, settings, shuffle)


async def _by_mx(destination: Destination, settings: TargetSettings, resolver: Resolver) -> list[Target]:
    name, port = destination.host, destination.port
    try:
        records = await resolver.mx(name)
    except LookupFailed as failure:
        if failure.soft and not settings.ignore_mx_lookup_error:
            raise NoTargets("4.4.3", str(failure)) from None
        if failure.invalid and not settings.ignore_mx_lookup_error:
            raise NoTargets("5.4.4", str(failure)) from None
        # No MX record: the domain itself is the host (RFC 5321 §5.1).
        return await _by_host(name, port, 0, settings, resolver)
    if all(not record.host for record in records):
        raise NoTargets("5.1.0", f"Domain {name} does not accept mail (nullMX)")
    records = sorted(record for record in records if record.host)[:MX_HOSTS_MAX]
    best = records[0].preference

    async def one(record: Mx) -> list[Target] | NoTargets:
        try:
            found = await _by_host(record.host, port, record.preference, settings, resolver)
        except NoTargets as failure:
            return failure
        return [target._replace(best=record.preference == best) for target in found]

    answers = await asyncio.gather(*(one(record) for record in records))
    found = [target for answer in answers if not isinstance(answer, NoTargets) for target in answer]
    if found:
        return found
    failures = [answer for answer in answers if isinstance(answer, NoTargets)]
    soft = next((failure for failure in failures if failure.dsn.startswith("4")), None)
    if soft is not None or settings.defer_if_no_mx_address_found:
        chosen = soft or failures[-1]
        raise NoTargets(f"4{chosen.dsn[1:]}", str(chosen))
    raise failures[-1]


async def _by_host(name: str, port: int, preference: int, settings: TargetSettings, resolver: Resolver) -> list[Target]:
    addresses: Sequence[str] = ()
    failure: NoTargets | None = None
    if _is_localhost(name):
        known = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
        addresses = [known[family] for family in settings.families]
    elif settings.host_lookup_dns:
        try:
            addresses = await resolver.addresses(name, settings.families)
        except LookupFailed as problem:
            dsn = "4.4.3" if problem.soft else "5.4.4"
            failure = NoTargets(dsn, str(problem))
    if not addresses and settings.host_lookup_native and (failure is None or failure.dsn.startswith("5")):
        try:
            addresses = await resolver.native(name, settings.families)
        except LookupFailed as problem:
            failure = NoTargets("4.4.4" if problem.soft else "5.4.4", str(problem))
    if not addresses:
        raise failure or NoTargets("5.4.4", f"{name}: host not found")
    unique = dict.fromkeys(addresses)
    return [Target(name, address, port, preference, loop_detect=port == SMTP_PORT) for address in unique]


def _is_localhost(name: str) -> bool:
    """RFC 6761 §6.3: this name is never a question to a name server."""
    return name.lower().rstrip(".") == "localhost"


def _short_of_myself(found: list[Target], destination: Destination, own: Iterable[str]) -> list[Target]:
    """Without the targets that are this machine, and those that are no better than it."""
    own = set(own)
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
    found = list(found)
    if len(found) > 1 and settings.randomize_addresses:
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
        # A network that only has one protocol must not be left with addresses of the other alone.
        first = kept[0].is_ipv6
        if all(target.is_ipv6 == first for target in kept):
            other = next((target for target in found[limit:] if target.is_ipv6 != first), None)
            if other is not None:
                kept[-1] = other
    return kept
