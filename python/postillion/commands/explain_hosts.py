"""postillion explain: the hosts of a next hop, and how smtp or lmtp talks to each: TLS and login.

The agents' own code decides. It connects to no mail server, but MTA-STS asks a domain's HTTPS server for its policy. Of
a login, only the key in its table is printed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from postillion.commands.explain_steps import Steps
from postillion.config import Config
from postillion.delivery.smtp.nexthop import BadNextHop, NextHop, parse_list, port_number
from postillion.delivery.smtp.sasl import Logins
from postillion.delivery.smtp.targets import SMTP_PORT, NoTargets, Target, TargetSettings, targets
from postillion.delivery.smtp.tls.policies import TlsPolicies
from postillion.delivery.smtp.tls.policy import NoPolicy, Policy
from postillion.delivery.smtp.tls.tlsa import shown
from postillion.dns import Resolver
from postillion.tables import TableError
from postillion.tables.remote import remote_tables

RECORDS_MAX = 10
"""Maximum number of TLSA records of a host that are printed."""


class Hosts:
    """The hosts of next hops, for a service. `config`: that of its line in master.cf; `protocol`: smtp or lmtp.

    `sender`: the envelope sender, which may choose the login. `warn`: gets the warnings.
    """

    def __init__(self, steps: Steps, config: Config, protocol: str, sender: str, warn: Callable[[str], None]) -> None:
        """Open the tables. Raises `ConfigError`."""
        self._steps = steps
        self._config = config
        self._protocol = protocol
        self._sender = sender
        self._resolver = Resolver()
        self._targets = TargetSettings.of(config, protocol)
        self._tls = TlsPolicies(config, protocol, self._resolver, warn, keeps=False)
        self._logins = Logins(config, protocol, warn)
        for table in remote_tables(config):
            with contextlib.suppress(TableError):  # Its lookups will fail, and say why.
                table.refresh()

    async def close(self) -> None:
        """End what runs in the background."""
        await self._tls.close()

    async def tell(self, nexthop: str) -> None:
        """Print the hosts in order, each with its TLS policy and the login."""
        try:
            port = port_number(self._config.text(f"{self._protocol}_tcp_port"), SMTP_PORT)
            sites = parse_list(nexthop, port, lmtp=self._protocol == "lmtp")
        except BadNextHop as problem:
            self._steps.note(f"mail waits: 4.3.5 {problem}")
            return
        for site in sites:
            try:
                # The order of equal hosts is random for each delivery; here it is that of their addresses.
                found = await targets(site, self._targets, self._resolver, shuffle=lambda hosts: hosts.sort())
            except NoTargets as problem:
                fate = "bounces" if problem.dsn.startswith("5") else "waits"
                self._steps.note(f"{site.text}: mail {fate}: {problem.dsn} {problem}")
                continue
            for target in found:
                where = f" port {target.port}" if target.port else ""
                rank = f", preference {target.preference}" if site.mx else ""
                self._steps.note(f"{site.text}: {target.host}[{target.address}]{where}{rank}")
                await self._tell_terms(site, target)

    async def _tell_terms(self, site: NextHop, target: Target) -> None:
        """Print how the client talks to a host."""
        try:
            policy = await self._tls.policy_for(site, target)
        except NoPolicy as problem:
            self._steps.note(f"the host is not tried: {problem.dsn} {problem}")
            return
        self._tell_tls(policy)
        if self._logins.is_enabled:
            await self._tell_login(site, target)

    def _tell_tls(self, policy: Policy) -> None:
        self._steps.note(f"TLS level {policy.level}, by {policy.why}")
        if policy.level == "none":
            return
        if self._tls.settings.wrapper:
            self._steps.note(f"TLS begins with the connection: {self._protocol}_tls_wrappermode = yes")
        own, mandatory = f"{self._protocol}_tls", f"{self._protocol}_tls_mandatory"
        names = mandatory if policy.needs_tls else own
        versions = self._chosen(policy.protocols, f"{names}_protocols")
        ciphers = self._chosen(policy.ciphers, f"{names}_ciphers")
        self._steps.note(f"TLS versions {versions}; ciphers {ciphers}")
        lists = [f"{own}_exclude_ciphers", *([f"{mandatory}_exclude_ciphers"] if policy.needs_tls else [])]
        excluded = [self._chosen(None, name) for name in lists if self._config.text(name)]
        if policy.exclude is not None:
            excluded = [self._chosen(policy.exclude, "")]
        if excluded:
            self._steps.note(f"excluded ciphers: {'; '.join(excluded)}")
        if policy.servername:
            self._steps.note(f"the client asks for the name {policy.servername}")
        self._tell_match(policy)

    def _chosen(self, value: str | None, parameter: str) -> str:
        """Return a value with its source: an attribute of the entry, or a parameter."""
        if value is not None:
            return f"{value or 'as OpenSSL has them'} (the entry)"
        return f"{self._config.text(parameter) or 'as OpenSSL has them'} ({parameter})"

    def _tell_match(self, policy: Policy) -> None:
        """Print what the server must show."""
        if not policy.needs_match:
            self._steps.note("the server's certificate is not checked")
        for record in policy.records[:RECORDS_MAX]:
            self._steps.note(f"the certificate matches TLSA {shown(record)}")
        for digest in policy.fingerprints:
            self._steps.note(f"the certificate or its key has the {policy.fingerprint_digest} digest {digest}")
        if policy.names:
            self._steps.note(f"the certificate has the name {' or '.join(policy.names)}")
        if policy.trust_files:
            self._steps.note(f"it is vouched for by {', '.join(policy.trust_files)}")
        if policy.domain is not None and policy.domain.strings:
            self._steps.note(f"policy of {policy.domain.name}: {'; '.join(policy.domain.strings)}")

    async def _tell_login(self, site: NextHop, target: Target) -> None:
        """Print whether the client logs in; the lookups before have the key."""
        try:
            account = await self._logins.account(target, site, self._sender)
        except TableError as problem:
            self._steps.note(f"login: mail waits if the server offers AUTH: {problem}")
            return
        if account is None:
            self._steps.note("login: none, the table has no account for this server")
        else:
            self._steps.note("login: with the account of this key, if the server offers AUTH")
