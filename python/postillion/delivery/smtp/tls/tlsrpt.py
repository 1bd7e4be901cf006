"""Counts TLS sessions by policy, and writes a report a day for each domain that asks for it (RFC 8460).

    reports.note(site.host, policy, target, failure)        # after each session, or attempt
    if reports.is_due(wall_now): await reports.write(wall_now)

A report is a file in RFC 8460's form and with its name, in `tlsrpt/` below data_directory; a file of the same name that
ends in `.rua` has the addresses that the domain wants it at. Nothing is sent. Each process counts for itself, so a
domain may get several reports of a day. Counts of a process that is killed are lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from postillion.delivery.smtp.tls.policy import Policy
from postillion.delivery.smtp.tls.policy_domain import policy_domain
from postillion.delivery.smtp.tls.tlsa import shown
from postillion.dns import Records, Resolver

if TYPE_CHECKING:
    from postillion.config import Config
    from postillion.delivery.smtp.targets import Target

DAY_S: Final = 86_400
DOMAINS_MAX: Final = 10_000
"""Maximum number of domains that are counted in a day; sessions with further ones are not."""
POLICIES_MAX: Final = 20
"""Maximum number of policies of a domain, such as one for each MX host with TLSA records."""
DETAILS_MAX: Final = 100
"""Maximum number of different failures of a policy; further ones count in its sum alone."""
LOOKUPS_MAX: Final = 20
"""Maximum number of concurrent questions for the addresses of reports."""
FAILURES: Final = (
    *("starttls-not-supported", "certificate-host-mismatch", "certificate-expired", "certificate-not-trusted"),
    *("validation-failure", "tlsa-invalid", "dnssec-invalid", "dane-required"),
    *("sts-policy-fetch-error", "sts-policy-invalid", "sts-webpki-invalid"),
)
"""The kinds of failures (§4.3)."""
ADDRESS: Final = re.compile(r"(?:mailto:[^\x00-\x20,;!@]+@[^\x00-\x20,;!@]+|https://[^\x00-\x20,;!]+)", re.IGNORECASE)
ADDRESSES_MAX: Final = 10
DIRECTORY: Final = "tlsrpt"


class Failure(NamedTuple):
    """Why a session failed. `kind`: one of `FAILURES`. `reason`: more about it, such as OpenSSL's text."""

    kind: str
    reason: str = ""


class PolicyKey(NamedTuple):
    """A policy as reports name it (§4.2)."""

    kind: str
    domain: str
    strings: tuple[str, ...] = ()
    mx_patterns: tuple[str, ...] = ()


@dataclass(slots=True)
class _Count:
    successes: int = 0
    failures: int = 0
    details: dict[tuple[Failure, str, str], int] = field(default_factory=dict)


class TlsReports:
    """The counts of a process since the begin of the day (UTC). `warn`: gets the problems of the disk."""

    def __init__(
        self, directory: Path, organization: str, resolver: Resolver, warn: Callable[[str], None], wall_now: float
    ) -> None:
        self._directory = directory
        self._organization = organization
        self._resolver = resolver
        self._warn = warn
        self._begin = wall_now
        self._domains: dict[str, dict[PolicyKey, _Count]] = {}

    @classmethod
    def of(
        cls, config: Config, prefix: str, resolver: Resolver, warn: Callable[[str], None], wall_now: float
    ) -> TlsReports:
        """Return the counts of a configuration."""
        return cls(Path(config.text("data_directory"), DIRECTORY), config.text("mydomain"), resolver, warn, wall_now)

    def note(self, domain: str, policy: Policy, target: Target, failure: Failure | None = None) -> None:
        """Count a session with a host of a domain."""
        name = policy_domain(domain)
        if name is None or (name not in self._domains and len(self._domains) >= DOMAINS_MAX):
            return
        policies = self._domains.setdefault(name, {})
        key = policy_key(policy, name)
        if key not in policies and len(policies) >= POLICIES_MAX:
            return
        count = policies.setdefault(key, _Count())
        if failure is None:
            count.successes += 1
            return
        count.failures += 1
        detail = (failure, target.host, target.address)
        if detail in count.details or len(count.details) < DETAILS_MAX:
            count.details[detail] = count.details.get(detail, 0) + 1

    def is_due(self, wall_now: float) -> bool:
        """Return whether a day has ended since the counts began."""
        return int(wall_now // DAY_S) != int(self._begin // DAY_S)

    async def write(self, wall_now: float) -> int:
        """Write the reports of the counts so far, and begin anew; return their number."""
        domains, begin, end = self._domains, self._begin, wall_now
        if self.is_due(wall_now):
            end = (begin // DAY_S + 1) * DAY_S - 1
        self._domains, self._begin = {}, wall_now
        slots = asyncio.Semaphore(LOOKUPS_MAX)

        async def one(domain: str) -> bool:
            async with slots:
                addresses = await self._addresses(domain)
            if not addresses:
                return False
            text = json.dumps(self._report(domain, domains[domain], begin, end), indent=1)
            name = f"{self._organization}!{domain}!{int(begin)}!{int(end)}!{os.getpid()}"
            return await asyncio.to_thread(self._store, name, text, addresses)

        return sum(await asyncio.gather(*map(one, domains)))

    async def _addresses(self, domain: str) -> tuple[str, ...]:
        answer = await self._resolver.lookup(f"_smtp._tls.{domain}", "TXT")
        return report_addresses(answer.list) if isinstance(answer, Records) else ()

    def _report(self, domain: str, policies: dict[PolicyKey, _Count], begin: float, end: float) -> dict[str, object]:
        """Return a report (§4.4)."""
        return {
            "organization-name": self._organization,
            "date-range": {"start-datetime": _date(begin), "end-datetime": _date(end)},
            "contact-info": f"postmaster@{self._organization}",
            "report-id": f"{_date(begin)}_{domain}_{os.getpid()}",
            "policies": [_counted(key, count) for key, count in policies.items()],
        }

    def _store(self, name: str, text: str, addresses: tuple[str, ...]) -> bool:
        """Write the two files of a report, the report last; return whether that succeeded."""
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            for ending, content in ((".rua", "".join(f"{address}\n" for address in addresses)), (".json", text)):
                path = self._directory / f"{name}{ending}"
                new = self._directory / f".{name}{ending}"
                try:
                    new.write_text(content)
                    os.replace(new, path)
                except BaseException:
                    with contextlib.suppress(FileNotFoundError):
                        new.unlink()
                    raise
        except OSError as problem:
            self._warn(f"TLS report {name} cannot be written in {self._directory}: {problem.strerror}")
            return False
        return True


def report_record(records: Sequence[bytes]) -> str | None:
    """Return the record of a domain that wants reports, from its TXT records; None without exactly one (§3)."""
    found = [record for record in records if re.match(rb"v=TLSRPTv1[ \t]*;", record)]
    return found[0].decode("utf-8", "replace") if len(found) == 1 else None


def report_addresses(records: Sequence[bytes]) -> tuple[str, ...]:
    """Return the addresses in the TXT records of a domain; none without exactly one valid record (§3)."""
    record = report_record(records)
    if record is None:
        return ()
    for part in record.split(";")[1:]:
        name, equals, value = part.strip(" \t").partition("=")
        if name == "rua" and equals:
            addresses = [address.strip(" \t") for address in value.split(",")]
            if all(ADDRESS.fullmatch(address) for address in addresses):
                return tuple(addresses[:ADDRESSES_MAX])
            return ()
    return ()


def policy_key(policy: Policy, domain: str) -> PolicyKey:
    """Return what a report says about a policy: TLSA records, then MTA-STS, as they are used."""
    if policy.records:
        return PolicyKey("tlsa", policy.servername, tuple(map(shown, policy.records)))
    if policy.domain is not None and policy.domain.kind:
        published = policy.domain
        return PolicyKey(published.kind, published.name or domain, published.strings, published.mx_patterns)
    return PolicyKey("no-policy-found", domain)


def _counted(key: PolicyKey, count: _Count) -> dict[str, object]:
    policy: dict[str, object] = {"policy-type": key.kind, "policy-domain": key.domain}
    if key.strings:
        policy["policy-string"] = list(key.strings)
    if key.mx_patterns:
        policy["mx-host"] = list(key.mx_patterns)
    counts = {"total-successful-session-count": count.successes, "total-failure-session-count": count.failures}
    report: dict[str, object] = {"policy": policy, "summary": counts}
    if count.details:
        report["failure-details"] = [_detail(*detail, number) for detail, number in count.details.items()]
    return report


def _detail(failure: Failure, host: str, address: str, number: int) -> dict[str, object]:
    found: dict[str, object] = {
        "result-type": failure.kind,
        "receiving-mx-hostname": host,
        "receiving-ip": address,
        "failed-session-count": number,
    }
    if failure.reason:
        found["failure-reason-code"] = failure.reason
    return found


def _date(wall: float) -> str:
    return datetime.fromtimestamp(int(wall), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
