"""MTA-STS: the policy of a recipient's domain for its MX hosts (RFC 8461), with `smtp_mta_sts = yes`.

A record in DNS says that a domain has a policy, and which one; the policy itself comes over HTTPS. It holds for
`max_age`, also when the record is gone or the policy cannot be fetched: who blocks them gains nothing. DANE and the
entries of smtp_tls_policy_maps come first.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from postillion.delivery.smtp.tls.policy_domain import policy_domain
from postillion.delivery.smtp.tls.sts_cache import ENTRIES_MAX, Cached, StsCache
from postillion.delivery.smtp.tls.sts_fetch import PARAMETER, FetchFailed, StsFetcher
from postillion.delivery.smtp.tls.sts_policy import BadPolicy, StsPolicy, record_id
from postillion.dns import Records, Resolver

if TYPE_CHECKING:
    from postillion.config import Config

RETRY_S: Final = 300.0
"""Shortest time between two attempts to fetch a policy that did not come (RFC 8461 §3.3)."""
REFRESH_S: Final = 86_400.0
"""A policy is fetched again when it is a day old, or past half of its time if that comes first (§5.1)."""
DOMAINS_MAX: Final = 10_000
"""Maximum number of domains with a policy, or with a failed fetch, in memory."""
DIRECTORY: Final = "mta-sts"
"""The directory of the policies below data_directory."""

Warn = Callable[[str], None]
T = TypeVar("T")


class Fetcher(Protocol):
    """Fetches policies."""

    async def fetch(self, domain: str) -> StsPolicy:
        """Return the policy of a domain. Raises `FetchFailed` and `BadPolicy`."""

    async def close(self) -> None:
        """Close the connections."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A fetch that failed: when (wall clock), for which id, and why in the words of reports."""

    at: float
    id: str
    why: str


class MtaSts:
    """The policies that domains publish. `wall_clock`: returns seconds since 1970."""

    def __init__(
        self,
        resolver: Resolver,
        fetcher: Fetcher,
        cache: StsCache,
        warn: Warn,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._resolver = resolver
        self._fetcher = fetcher
        self._cache = cache
        self._warn = warn
        self._wall_clock = wall_clock
        self._known: OrderedDict[str, Cached] = OrderedDict()
        self._failed: OrderedDict[str, Failure] = OrderedDict()
        self._fetching: dict[str, asyncio.Task[None]] = {}

    @classmethod
    def of(cls, config: Config, resolver: Resolver, warn: Warn, *, keeps: bool = True) -> MtaSts | None:
        """Return the client of a configuration; None without `smtp_mta_sts = yes`. Raises `ConfigError`.

        `keeps`: fetched policies are written to disk.
        """
        if not config.flag(PARAMETER):
            return None
        authorities = ("smtp_tls_CAfile", "smtp_tls_CApath")
        if not any(config.text(name) for name in authorities) and not config.flag("tls_append_default_CA"):
            problem = f"{PARAMETER} = yes, and no authority is trusted: no mail would go to a domain with a policy"
            raise config.error(PARAMETER, problem, "set smtp_tls_CAfile = /etc/ssl/certs/ca-certificates.crt")
        cache = StsCache(Path(config.text("data_directory"), DIRECTORY), warn, ENTRIES_MAX if keeps else 0)
        return cls(resolver, StsFetcher(config, resolver), cache, warn)

    async def policy_of(self, domain: str) -> StsPolicy | None:
        """Return the policy of a domain that holds now; None without any.

        A first policy is waited for. A newer one of a known domain is, too, but not one that only needs a refresh.
        """
        name = policy_domain(domain)
        if name is None:
            return None
        now = self._wall_clock()
        identifier = await self._record(name)
        cached = self._holding(name, now)
        if cached is None or (identifier is not None and identifier != cached.id):
            # Another process of this machine may have fetched it.
            cached = self._read(name, now) or cached
        if identifier is not None and self._may_fetch(name, identifier, now):
            if cached is None or identifier != cached.id:
                await self._fetch(name, identifier)
            elif now - cached.fetched >= min(REFRESH_S, cached.policy.max_age_s / 2):
                self._begin_fetch(name, identifier)
        cached = self._holding(name, self._wall_clock())
        return None if cached is None else cached.policy

    def failure_of(self, domain: str) -> str:
        """Return why the last fetch for a domain failed, in the words of reports; empty if it did not."""
        failure = self._failed.get(policy_domain(domain) or "")
        return "" if failure is None else failure.why

    async def close(self) -> None:
        """End the fetches."""
        tasks = list(self._fetching.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._fetcher.close()

    async def _record(self, domain: str) -> str | None:
        """Return the id in the domain's record; None without one, or if no name server answers."""
        answer = await self._resolver.lookup(f"_mta-sts.{domain}", "TXT")
        return record_id(answer.list) if isinstance(answer, Records) else None

    def _holding(self, domain: str, now: float) -> Cached | None:
        cached = self._known.get(domain)
        if cached is None:
            return None
        if cached.left_s(now) <= 0:
            del self._known[domain]
            return None
        self._known.move_to_end(domain)
        return cached

    def _read(self, domain: str, now: float) -> Cached | None:
        """Return the policy on disk, if it is not older than that in memory."""
        cached = self._cache.load(domain, now)
        known = self._known.get(domain)
        if cached is None or (known is not None and known.fetched >= cached.fetched):
            return None
        _keep(self._known, domain, cached)
        return cached

    def _may_fetch(self, domain: str, identifier: str, now: float) -> bool:
        failure = self._failed.get(domain)
        return failure is None or failure.id != identifier or not 0 <= now - failure.at < RETRY_S

    async def _fetch(self, domain: str, identifier: str) -> None:
        # A delivery that is cancelled leaves the fetch to the others that wait for it.
        await asyncio.shield(self._begin_fetch(domain, identifier))

    def _begin_fetch(self, domain: str, identifier: str) -> asyncio.Task[None]:
        """Return the task that fetches a domain's policy; there is one at a time."""
        task = self._fetching.get(domain)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._fetched(domain, identifier), name=f"MTA-STS {domain}")
            self._fetching[domain] = task
            task.add_done_callback(lambda _task: self._fetching.pop(domain, None))
        return task

    async def _fetched(self, domain: str, identifier: str) -> None:
        """Fetch a policy and keep it; after a failure the former one holds on."""
        try:
            policy = await self._fetcher.fetch(domain)
        except (FetchFailed, BadPolicy) as problem:
            why = problem.failure if isinstance(problem, FetchFailed) else "sts-policy-invalid"
            _keep(self._failed, domain, Failure(self._wall_clock(), identifier, why))
            self._warn(f"MTA-STS policy of {domain}: {why}: {problem}")
            return
        self._failed.pop(domain, None)
        cached = Cached(policy, identifier, self._wall_clock())
        _keep(self._known, domain, cached)
        await asyncio.to_thread(self._cache.store, domain, cached)


def _keep(memory: OrderedDict[str, T], domain: str, value: T) -> None:
    """Put a value at the end, and drop the first ones above the limit."""
    memory[domain] = value
    memory.move_to_end(domain)
    while len(memory) > DOMAINS_MAX:
        memory.popitem(last=False)
