"""The policy for REQUIRETLS at a next hop (RFC 8689; postconf(5), smtp_requiretls_policy).

Words and tables are searched in order, and the first word that is found decides. Without any, REQUIRETLS is enforced.
A table that cannot answer, or whose value is no such word, makes the mail wait: it must not go out with less than its
sender asks for.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Literal, get_args

from postillion.config.main_cf import split_list
from postillion.delivery.smtp.nexthop import is_host_name
from postillion.delivery.smtp.tls.policy import NoPolicy, Policy
from postillion.tables import TableError, open_word
from postillion.tables.deferred import ask

if TYPE_CHECKING:
    from postillion.config import Config
    from postillion.delivery.smtp.targets import Target
    from postillion.delivery.smtp.tls.tables import Warn
    from postillion.tables.table import Table

RequireTls = Literal["enforce", "opportunistic+starttls", "opportunistic", "disable"]
POLICIES: Final[tuple[RequireTls, ...]] = get_args(RequireTls)
DEFAULT: Final = "enforce"
LOOKUPS_MAX_S: Final = 100.0
"""Longest time of all lookups for a next hop; then the mail waits."""
NEEDS_ENCRYPTION: Final = "5.7.10"
"""Status code of mail whose sender asks for more than the site's TLS level gives (RFC 5248)."""
FAILED: Final = ("4.7.10", "REQUIRETLS policy problem")
"""Status code and text of mail that waits for a table. The log has the reason."""


class RequireTlsPolicies:
    """The words and tables of a configuration. `prefix`: smtp or lmtp. `warn`: gets the warnings for the log."""

    def __init__(self, config: Config, prefix: str, warn: Warn) -> None:
        """Open the tables. Raises `ConfigError`, also for an unknown word."""
        self._name = f"{prefix}_requiretls_policy"
        self._warn = warn
        self._items: list[RequireTls | Table] = []
        for word in split_list(config.text(self._name)):
            if ":" in word:
                self._items.append(open_word(self._name, word, config, warn=warn))
            elif (policy := parse(word)) is not None:
                self._items.append(policy)
            else:
                fix = f"give {', '.join(POLICIES)}, or a table"
                raise config.error(self._name, f'{self._name}: unknown policy "{word}"', fix)

    async def policy_of(self, domain: str) -> RequireTls:
        """Return the policy for a next hop. Raises `NoPolicy` when a table does not say it; the log has the reason.

        `domain`: its name in ASCII, or its IP address, without brackets and port.
        """
        try:
            async with asyncio.timeout(LOOKUPS_MAX_S):
                for item in self._items:
                    found = item if isinstance(item, str) else await self._of_table(item, domain)
                    if found is not None:
                        return found
        except TimeoutError:
            self._warn(f"{self._name}: {domain}: the lookups need more than {LOOKUPS_MAX_S:g} seconds")
            raise NoPolicy(*FAILED) from None
        return DEFAULT

    async def _of_table(self, table: Table, domain: str) -> RequireTls | None:
        """Return what a table says about a name, or about a domain above it, `.example.org`; None for nothing."""
        key = domain
        while key:
            try:
                value = await ask(table, key)
            except TableError as problem:
                self._warn(f"{self._name}: {problem}")
                raise NoPolicy(*FAILED) from None
            if value is not None:
                policy = parse(value)
                if policy is None:
                    self._warn(f'{self._name}: unknown policy "{value}" for "{key}" in {table.name}')
                    raise NoPolicy(*FAILED)
                return policy
            # A pattern can match the whole name.
            if not getattr(table, "takes_parts", True) or not is_host_name(domain):
                break
            dot = key.find(".", 1)
            key = "" if dot < 0 else key[dot:]
        return None


def parse(word: str) -> RequireTls | None:
    """Return the policy that a site writes, in any case; None for another word."""
    return next((policy for policy in POLICIES if policy == word.lower()), None)


def refuse_weaker(requiretls: RequireTls, policy: Policy, target: Target) -> None:
    """Raise `NoPolicy` for a host whose TLS policy cannot give what REQUIRETLS needs there."""
    if requiretls == "enforce" and not policy.needs_match:
        need = "a verified server"
    elif requiretls == "opportunistic+starttls" and policy.level == "none":
        need = "TLS"
    else:
        return
    raise NoPolicy(NEEDS_ENCRYPTION, f"REQUIRETLS needs {need}, and the TLS level of {target.host} is {policy.level}")
