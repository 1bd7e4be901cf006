"""DANE for SMTP: the level and the TLSA records of a host (RFC 7672, RFC 7671).

Only answers that the name server validated count (the AD bit). A failed lookup is not a missing record: the host is not
tried, because an attacker could make lookups fail.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from postillion.delivery.smtp.tls.policy import CONFIGURATION_PROBLEM, NoPolicy, Policy
from postillion.delivery.smtp.tls.tlsa import RECORDS_MAX, TRUST_ANCHOR, USAGES, is_usable, shown, usable
from postillion.dns import Failed, Records, Resolver, Tlsa

if TYPE_CHECKING:
    from postillion.delivery.smtp.nexthop import NextHop
    from postillion.delivery.smtp.targets import Target
    from postillion.delivery.smtp.tls.settings import DaneSettings

ALIASES_MAX: Final = 8
"""Maximum number of CNAME records between a name and its canonical name."""
NOT_FOUND: Final = "no TLSA records found"
UNUSABLE: Final = "TLSA records unusable"


class Tlsas(NamedTuple):
    """The secure TLSA records of a host. `base`: the name below which they are (RFC 7672 §2.2.3)."""

    base: str
    records: tuple[Tlsa, ...]


class _LookupError(Exception):
    """A name server did not answer, or its answer was forged."""

    def __init__(self, answer: Failed) -> None:
        what = f"Host or domain name not found. Name service error for name={answer.name} type={answer.kind}"
        super().__init__(f"{what}: Host not found, try again")


class Dane:
    """The lookups for DANE with the site's parameters. `warn`: gets the warnings for the log."""

    def __init__(self, settings: DaneSettings, resolver: Resolver, warn: Callable[[str], None]) -> None:
        self._settings = settings
        self._resolver = resolver
        self._warn = warn

    async def applied(self, policy: Policy, site: NextHop, target: Target, domain: str) -> Policy:
        """Return the policy of level dane or dane-only with what DNS has for the host. Raises `NoPolicy`.

        Without TLSA records the level is may, with unusable ones encrypt; dane-only then refuses the host.
        `domain`: that of the next hop, as DNS has it.
        """
        settings = self._settings
        if not target.port:
            self._warn(f'{site.text}: the "dane" security level is invalid for delivery via unix-domain sockets')
            raise NoPolicy(*CONFIGURATION_PROBLEM)
        if settings.problem:
            self._warn(f"{site.text}: {settings.problem.format(level=policy.level)}")
            return _without(policy, "DANE is not possible", CONFIGURATION_PROBLEM)
        is_forged_mx_possible = target.mx_secure is False
        if is_forged_mx_possible and (policy.level == "dane-only" or settings.insecure_mx == "may"):
            return _without(policy, "non DNSSEC destination")
        try:
            found = await self._find(target)
            if found is None:
                return _without(policy, NOT_FOUND)
            records = self._usable(found, target)
            names = await self._names(found.base, site, target, records, domain)
        except _LookupError as problem:
            self._warn(f"DANE TLSA lookup problem: {problem}")
            raise NoPolicy("4.7.5", f"TLSA lookup error for {target.host}:{target.port}") from None
        if not records:
            return _unverified(policy, UNUSABLE)
        if is_forged_mx_possible and settings.insecure_mx == "encrypt":
            return _unverified(policy, "Verification not possible, MX RRset is insecure")
        return replace(
            policy,
            level="half-dane" if is_forged_mx_possible else "dane",
            why=f"{policy.why}; TLSA records of {_owner(found.base, target)}",
            names=names,
            records=records,
            servername=found.base,
        )

    async def _find(self, target: Target) -> Tlsas | None:
        """Return the TLSA records of a host; None without any: of its canonical name, or else of its own."""
        host = target.host.lower().rstrip(".")
        if _is_address(host):
            return None
        canonical, is_secure_alias = await self._canonical(host)
        if target.secure or self._settings.force_lookup:
            bases = [canonical, host]
        elif is_secure_alias:
            # The alias is signed, the zone of its canonical name is not (RFC 7672 §2.2.2).
            bases = [host]
        else:
            return None
        for base in dict.fromkeys(bases):
            answer = await self._resolver.lookup(_owner(base, target), "TLSA")
            if isinstance(answer, Failed):
                raise _LookupError(answer)
            if isinstance(answer, Records) and answer.secure:
                return Tlsas(base, answer.list)
        return None

    async def _canonical(self, name: str) -> tuple[str, bool]:
        """Return the name at the end of the CNAME records, and whether the first of them is secure."""
        is_secure_alias = False
        for step in range(ALIASES_MAX):
            answer = await self._resolver.lookup(name, "CNAME")
            if isinstance(answer, Failed):
                raise _LookupError(answer)
            if not isinstance(answer, Records):
                break
            is_secure_alias = answer.secure if step == 0 else is_secure_alias
            name = str(answer.list[0]).lower().rstrip(".")
        return name, is_secure_alias

    def _usable(self, found: Tlsas, target: Target) -> tuple[Tlsa, ...]:
        """Return the usable records, and warn of the others."""
        owner, digests = _owner(found.base, target), self._settings.digests
        for record in found.records[:RECORDS_MAX]:
            if record.usage not in USAGES:
                self._warn(f"{owner} unsupported TLSA certificate usage: {shown(record)}")
            elif not is_usable(record, digests):
                self._warn(f"{target.host}[{target.address}]:{target.port}: unusable TLSA RR: {shown(record)}")
        return usable(found.records, digests)

    async def _names(
        self, base: str, site: NextHop, target: Target, records: tuple[Tlsa, ...], domain: str
    ) -> tuple[str, ...]:
        """Return the names of which a certificate below a trust anchor has one (RFC 7672 §3.2.2)."""
        if not any(record.usage == TRUST_ANCHOR for record in records):
            return ()
        names = [base]
        if site.address is None:
            names.append(domain)
            if target.mx_secure:
                names.append((await self._canonical(domain))[0])
        return tuple(dict.fromkeys(names))


def _owner(base: str, target: Target) -> str:
    """Return the name of the TLSA records of a server (RFC 6698 §3)."""
    return f"_{target.port}._tcp.{base}"


def _without(policy: Policy, reason: str, status: tuple[str, str] | None = None) -> Policy:
    """Return the policy for a host without DANE: TLS is optional. dane-only raises `NoPolicy`."""
    if policy.level == "dane-only":
        raise NoPolicy(*(status or ("4.7.5", reason)))
    return replace(policy, level="may", why=f"{policy.why}; {reason}")


def _unverified(policy: Policy, reason: str) -> Policy:
    """Return the policy for a host that has TLSA records and cannot be verified. dane-only raises `NoPolicy`."""
    return replace(_without(policy, reason), level="encrypt")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.removeprefix("ipv6:"))
    except ValueError:
        return False
    return True
