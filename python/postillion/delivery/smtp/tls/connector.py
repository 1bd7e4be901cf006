"""TLS for the connections of an agent: the policy of a host, as the core takes it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from postillion._core.tls import TlsClient, TlsPolicy
from postillion.config import core_dumps
from postillion.delivery.smtp.tls.level import BY_DANE, Request, at_least
from postillion.delivery.smtp.tls.policies import TlsPolicies
from postillion.delivery.smtp.tls.policy import CONFIGURATION_PROBLEM, NoPolicy, Policy
from postillion.delivery.smtp.tls.requiretls import RequireTls, RequireTlsPolicies, refuse_weaker
from postillion.tables.deferred import decided
from postillion.tables.tls_log_levels import TlsLogLevels

if TYPE_CHECKING:
    from postillion.config import Config
    from postillion.delivery.smtp.nexthop import NextHop
    from postillion.delivery.smtp.targets import Target
    from postillion.delivery.smtp.tls.tables import Warn
    from postillion.dns import Resolver

POLICIES_MAX: Final = 10_000
"""Maximum number of policies in memory; the least recently used are dropped first."""
HALF_DANE: Final = "half-dane"


class Wanted(NamedTuple):
    """The use of TLS on a connection. `policy`: None in the clear. `reuses`: it takes further jobs inside TLS.

    `source`: the policy in the words of main.cf and tables. `requiretls`: what the server must have for mail with
    REQUIRETLS.
    """

    policy: TlsPolicy | None
    reuses: bool
    source: Policy | None
    requiretls: RequireTls = "disable"


CLEAR: Final = Wanted(None, False, None)


class Connector:
    """TLS of a configuration. `prefix`: smtp or lmtp. `warn`: gets the warnings for the log.

    `client`: the library with the site's keys and authorities; None where no connection uses TLS.
    """

    def __init__(self, config: Config, prefix: str, resolver: Resolver, warn: Warn) -> None:
        """Read the parameters, open the tables, and read keys and authorities: this needs root's rights once.

        Raises `ConfigError`, also for keys that cannot be used where all mail needs TLS. Otherwise that is a warning,
        and mail for which TLS is optional goes out in the clear.
        """
        self._policies = TlsPolicies(config, prefix, resolver, warn)
        self._log_levels = TlsLogLevels(f"{prefix}_tls_loglevel_maps", config, warn)
        self._requiretls = RequireTlsPolicies(config, prefix, warn)
        self._warn = warn
        self._converted = lru_cache(POLICIES_MAX)(self._convert)
        level = self._policies.settings.level
        self.client = None if self._policies.never_used else TlsClient(config, prefix)
        if self.client is None:
            return
        # From here on, the process has the client's key, and keys of sessions.
        core_dumps.forbid()
        for warning in self.client.warnings:
            warn(warning)
        if self.client.problem is not None:
            parameter, text, fix = self.client.problem
            if at_least(level, "encrypt"):
                raise config.error(parameter, f"{parameter}: {text}", fix)
            warn(f"{parameter}: {text}: TLS is not used")

    def known(self, site: NextHop, target: Target, request: Request = "usual") -> Wanted | None:
        """Return what main.cf alone decides; None when a table or DNS has a say. Raises `NoPolicy`."""
        if request == "required":
            return None
        if self._policies.never_used:
            return CLEAR
        if self._log_levels:
            return None
        if request == "waived":
            # No report is due: the domain's policy does not count.
            return self._wanted(self._policies.waived(site, target), target)._replace(source=None)
        policy = self._policies.known(site, target)
        return None if policy is None else self._wanted(policy, target)

    async def of(self, site: NextHop, target: Target, request: Request = "usual") -> Wanted:
        """Return the use of TLS with a host of a next hop. Raises `NoPolicy`: try the next host."""
        if request == "required":
            requiretls = await self._requiretls.policy_of(self._policies.domain_of(site))
            policy = await self._policies.policy_for(site, target)
            refuse_weaker(requiretls, policy, target)
            return (await self._logged(policy, target))._replace(requiretls=requiretls)
        if request == "waived" and not self._policies.never_used:
            # No report is due: the domain's policy does not count.
            return (await self._logged(self._policies.waived(site, target), target))._replace(source=None)
        return await self._logged(await self._policies.policy_for(site, target), target)

    async def _logged(self, policy: Policy, target: Target) -> Wanted:
        """Return the use of TLS by a policy, with the amount of log lines that the tables give for the host."""
        if policy.level == "none" or not self._log_levels:
            return self._wanted(policy, target)
        address = target.address if target.port else ""
        return self._wanted(policy, target, await decided(lambda: self._log_levels.of(target.host, address)))

    async def close(self) -> None:
        """End what runs in the background."""
        await self._policies.close()

    def _wanted(self, policy: Policy, target: Target, log_level: int | None = None) -> Wanted:
        if policy.level == "none":
            return CLEAR
        try:
            server = f"{target.host}[{target.address}]:{target.port}"
            return Wanted(self._converted(policy, server, log_level), policy.connection_reuse, policy)
        except ValueError as problem:
            self._warn(f"TLS policy for {target.host}: {problem}")
            raise NoPolicy(*CONFIGURATION_PROBLEM) from None

    def _convert(self, policy: Policy, server: str, log_level: int | None) -> TlsPolicy:
        """Return the core's form of a policy. Raises `ValueError` for a value that the library does not have."""
        assert self.client is not None
        by_dane = policy.level in BY_DANE or policy.level == HALF_DANE
        return self.client.policy(
            "dane" if policy.level == HALF_DANE else policy.level,
            names=policy.names or ((policy.servername,) if by_dane else ()),
            fingerprints=policy.fingerprints,
            tlsa=[(record.usage, record.selector, record.matching, record.data) for record in policy.records],
            trust_anchor_files=policy.trust_files,
            protocols=policy.protocols,
            ciphers=policy.ciphers,
            exclude=policy.exclude,
            servername=policy.servername or None,
            session_key=server,
            insecure_mx=policy.level == HALF_DANE,
            log_level=log_level,
        )
