"""The TLS policy for a next hop and one of its hosts: tables, main.cf, then what DNS says about the host."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from postillion.config.domain import BadDomain, to_ascii
from postillion.delivery.smtp.nexthop import NextHop, is_host_name
from postillion.delivery.smtp.tls.dane import Dane
from postillion.delivery.smtp.tls.entry import Entry
from postillion.delivery.smtp.tls.level import BY_AUTHORITY, BY_DANE, HALF_DANE, Level, at_least
from postillion.delivery.smtp.tls.mta_sts import MtaSts
from postillion.delivery.smtp.tls.mx_pattern import allows
from postillion.delivery.smtp.tls.policy import CONFIGURATION_PROBLEM, Domain, NoPolicy, Policy
from postillion.delivery.smtp.tls.settings import TlsSettings
from postillion.delivery.smtp.tls.tables import PolicyTables, Warn

if TYPE_CHECKING:
    from postillion.config import Config
    from postillion.delivery.smtp.targets import Target
    from postillion.dns import Resolver

FINGERPRINT: Final = re.compile(r"[0-9a-f]{2}(:?[0-9a-f]{2})*")
NO_SERVER: Final = ("4.3.0", "server unavailable or unable to receive mail")
"""Postfix's status for a host whose policy contradicts smtp_tls_wrappermode."""
STS: Final = "sts"
STS_LEVELS: Final[tuple[Level, ...]] = ("may", "encrypt", HALF_DANE)
"""The levels at which a policy of MTA-STS counts. With none, the site wants no TLS; the others verify the server."""


class TlsPolicies:
    """The policies of a configuration. `prefix`: smtp or lmtp. `warn`: gets the warnings for the log.

    `keeps`: policies of MTA-STS are written to disk.
    """

    def __init__(self, config: Config, prefix: str, resolver: Resolver, warn: Warn, *, keeps: bool = True) -> None:
        """Read the parameters and open the tables. Raises `ConfigError`."""
        self.settings = TlsSettings.of(config, prefix)
        self._tables = PolicyTables(config, self.settings, warn)
        self._dane = Dane(self.settings.dane, resolver, warn)
        self._sts = MtaSts.of(config, resolver, warn, keeps=keeps) if prefix == "smtp" else None
        self._warn = warn

    async def policy_for(self, site: NextHop, target: Target) -> Policy:
        """Return the policy for a connection to a host of a next hop. Raises `NoPolicy`: try the next host.

        Waits for remote tables and for DNS, each with a limit of its own. The log has the reason of a `NoPolicy`.
        """
        with self._logged(site, target):
            policy = await self._found(site, target)
        return self._checked(policy)

    @property
    def never_used(self) -> bool:
        """Whether no connection uses TLS: neither main.cf nor a table asks for it."""
        return self.settings.level == "none" and not self._tables and not self.settings.wrapper

    def known(self, site: NextHop, target: Target) -> Policy | None:
        """Return the policy that main.cf alone decides; None when a table or DNS has a say. Raises `NoPolicy`."""
        settings = self.settings
        if self._tables or self._sts is not None or settings.level in BY_DANE:
            return None
        policy = Policy(settings.level, settings.level_name, connection_reuse=settings.connection_reuse)
        with self._logged(site, target):
            policy = self._with_names(policy, Entry(settings.level), site, target)
        return self._checked(policy)

    def waived(self, site: NextHop, target: Target) -> Policy:
        """Return the policy for mail with `TLS-Required: no` (RFC 8689 §3). Raises `NoPolicy`.

        Tables, DANE and MTA-STS have no say, and main.cf no more than `may`; in wrapper mode no more than `encrypt`.
        """
        settings = self.settings
        limit: Level = "encrypt" if settings.wrapper else "may"
        level = limit if at_least(settings.level, limit) else settings.level
        policy = Policy(level, "TLS-Required: no", connection_reuse=settings.connection_reuse)
        with self._logged(site, target):
            policy = self._with_names(policy, Entry(level), site, target)
        return self._checked(policy)

    def domain_of(self, site: NextHop) -> str:
        """Return a next hop's name for TLS: its domain in ASCII, its address, or this system's name for a socket."""
        return site.address or self._domain(site)

    async def close(self) -> None:
        """End what runs in the background."""
        if self._sts is not None:
            await self._sts.close()

    async def _found(self, site: NextHop, target: Target) -> Policy:
        settings = self.settings
        chosen = await self._tables.choose(site, target.host)
        entry = chosen.entry or Entry(chosen.level)
        policy = Policy(
            chosen.level,
            chosen.why,
            connection_reuse=settings.connection_reuse if entry.connection_reuse is None else entry.connection_reuse,
            domain=entry.domain,
        )
        if policy.level in BY_DANE:
            policy = await self._dane.applied(policy, site, target, self._domain(site))
        if chosen.is_default and policy.level in STS_LEVELS and site.mx:
            policy, entry = await self._with_sts(policy, entry, site, target)
        return self._with_names(policy, entry, site, target)

    @contextmanager
    def _logged(self, site: NextHop, target: Target) -> Iterator[None]:
        """Log why a host has no policy."""
        try:
            yield
        except NoPolicy as none:
            self._warn(f"TLS policy lookup for {site.text}/{target.host}: {none}")
            raise

    def _checked(self, policy: Policy) -> Policy:
        """Return the policy, unless it contradicts smtp_tls_wrappermode."""
        if self.settings.wrapper and not policy.needs_tls:
            name = self.settings.prefix
            self._warn(f'{name}_tls_wrappermode requires "{name}_tls_security_level = encrypt" (or stronger)')
            raise NoPolicy(*NO_SERVER)
        return policy

    async def _with_sts(self, policy: Policy, entry: Entry, site: NextHop, target: Target) -> tuple[Policy, Entry]:
        """Return the policy with what the domain publishes by MTA-STS, as an entry of a table would give it."""
        found = await self._sts.policy_of(site.host) if self._sts is not None else None
        if found is None or found.mode == "none":
            return policy, entry
        name = self._domain(site)
        domain = Domain(STS, name, found.max_age_s, found.lines, found.mx)
        policy = replace(policy, why=f"{policy.why}; MTA-STS policy of {name}, mode {found.mode}", domain=domain)
        if found.mode == "testing":
            return policy, entry
        self._refuse_other_host(domain, target)
        if policy.level == HALF_DANE:
            # TLSA records come first. They do not prove that the MX record is true, and the policy does.
            return policy, entry
        return replace(policy, level="secure"), Entry("secure", match=("hostname",), servername="hostname")

    def _with_names(self, policy: Policy, entry: Entry, site: NextHop, target: Target) -> Policy:
        """Return the policy with protocols, ciphers, and what the server must match."""
        level = policy.level
        if level == "none":
            return policy
        policy = replace(
            policy,
            protocols=entry.protocols,
            ciphers=entry.ciphers,
            exclude=entry.exclude,
            servername=policy.servername or self._servername(entry, site, target),
        )
        if level == "fingerprint":
            return self._with_fingerprints(policy, entry, site)
        if level in BY_AUTHORITY:
            return self._with_authority(policy, entry, site, target)
        return policy

    def _servername(self, entry: Entry, site: NextHop, target: Target) -> str:
        name = self.settings.servername
        if entry.servername is not None:
            name = entry.servername
        elif name and not is_host_name(name):
            self._warn(f'"{self.settings.prefix}_tls_servername = {name}" specifies an invalid hostname')
            raise NoPolicy(*CONFIGURATION_PROBLEM)
        special = {"hostname": self._host(target), "nexthop": self._domain(site)}
        found = special.get(name, name)
        # SNI has no IP addresses (RFC 6066 §3).
        return found if is_host_name(found) else ""

    def _with_fingerprints(self, policy: Policy, entry: Entry, site: NextHop) -> Policy:
        found: list[str] = []
        for text in entry.match or self.settings.fingerprints:
            if FINGERPRINT.fullmatch(text.lower()):
                found.append(text.lower().replace(":", ""))
            else:
                self._warn(f"malformed fingerprint value: {text:.384}")
        if not found:
            told = "configured at fingerprint security level, but with no fingerprints to match."
            self._warn(f"nexthop domain {site.text}: {told}")
            raise NoPolicy(*CONFIGURATION_PROBLEM)
        return replace(policy, fingerprints=tuple(found), fingerprint_digest=self.settings.fingerprint_digest)

    def _with_authority(self, policy: Policy, entry: Entry, site: NextHop, target: Target) -> Policy:
        settings, domain = self.settings, policy.domain
        match = entry.match or (settings.verify_match if policy.level == "verify" else settings.secure_match)
        if settings.enforce_mx_patterns and domain is not None and domain.kind == STS and domain.mx_patterns:
            self._refuse_other_host(domain, target)
            match = ("hostname",)
        trust_files = entry.tafiles or settings.trust_files
        for path in trust_files:
            if (problem := _unreadable(path)) is not None:
                self._warn(f"error opening trust anchor file: {path}: {problem}")
                raise NoPolicy(*CONFIGURATION_PROBLEM)
        return replace(policy, names=self._expanded(match, site, target), trust_files=trust_files)

    def _refuse_other_host(self, domain: Domain, target: Target) -> None:
        """Raise `NoPolicy` for a host that the domain's MTA-STS policy does not name (RFC 8461 §4.1)."""
        if not any(allows(pattern, target.host) for pattern in domain.mx_patterns):
            raise NoPolicy("4.7.5", f"MX host {target.host} is not in the MTA-STS policy of {domain.name}")

    def _expanded(self, match: tuple[str, ...], site: NextHop, target: Target) -> tuple[str, ...]:
        """Return the names that a certificate may have; `.name` stands for any name below."""
        special = {
            "hostname": self._host(target),
            "nexthop": self._domain(site),
            "dot-nexthop": "." + self._domain(site),
        }
        names = (special.get(word) or self._ascii(word) for word in match)
        return tuple(dict.fromkeys(name for name in names if name.strip(".")))

    def _host(self, target: Target) -> str:
        return self._ascii(self.settings.myhostname if not target.port else target.host)

    def _domain(self, site: NextHop) -> str:
        """Return the domain of the next hop, without brackets and port."""
        return self._ascii(self.settings.myhostname if site.path else site.host)

    def _ascii(self, name: str) -> str:
        below = "." if name.startswith(".") else ""
        try:
            return below + to_ascii(name.removeprefix("."), idna2003=self.settings.idna2003).lower().rstrip(".")
        except BadDomain:
            return name


def _unreadable(path: str) -> str | None:
    """Return why a file cannot be read; None if it can be."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as problem:
        return problem.strerror or str(problem)
    return None
