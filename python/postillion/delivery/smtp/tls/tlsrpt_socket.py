"""Send the result of each TLS session to a collector on this machine (smtp_tlsrpt_socket_name): it writes reports.

    reports.note(site.host, policy, target, failure)        # after each session, or attempt

A result is one datagram of JSON, version 1 of the form of libtlsrpt, which tlsrpt-reporter reads. The collector gets
results for domains that ask for reports (RFC 8460 §3). A collector that is down or behind loses results: mail waits for
no report.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from postillion.delivery.smtp.tls.policy import Policy
from postillion.delivery.smtp.tls.policy_domain import policy_domain
from postillion.delivery.smtp.tls.tlsrpt import Failure, PolicyKey, policy_key, report_record
from postillion.dns import Records, Resolver

if TYPE_CHECKING:
    from postillion.delivery.smtp.targets import Target

VERSION: Final = "1"
POLICY_KINDS: Final = {"tlsa": 1, "sts": 2, "no-policy-found": 9}
FAILURE_CODES: Final = {
    "starttls-not-supported": 201,
    "certificate-host-mismatch": 202,
    "certificate-not-trusted": 203,
    "certificate-expired": 204,
    "validation-failure": 205,
    "sts-policy-fetch-error": 301,
    "sts-policy-invalid": 302,
    "sts-webpki-invalid": 303,
    "tlsa-invalid": 304,
    "dnssec-invalid": 305,
    "dane-required": 306,
}
"""The numbers of the kinds of failures."""
PATH_MAX_OCTETS: Final = 107
"""Maximum length of a socket's path (unix(7))."""
PENDING_MAX: Final = 1000
"""Maximum number of results that wait for DNS; further ones are dropped."""
WARNING_PAUSE_S: Final = 60.0
"""Minimum time between two warnings about the collector."""


class TlsReportSocket:
    """The collector's socket. `log`: gets a line for each result. `warn`: gets the problems of the socket."""

    def __init__(
        self,
        path: str,
        resolver: Resolver,
        log: Callable[[str], None],
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`path`: absolute, or relative to the working directory, which is queue_directory."""
        self._path = path
        self._resolver = resolver
        self._log = log
        self._warn = warn
        self._clock = clock
        self._warned: float | None = None
        self._pending: set[asyncio.Task[None]] = set()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    def note(self, domain: str, policy: Policy, target: Target, failure: Failure | None = None) -> None:
        """Send the result of a session with a host of a domain, once DNS says that the domain wants reports."""
        name = policy_domain(domain)
        if name is None:
            return
        if len(self._pending) >= PENDING_MAX:
            self._complain(f"more than {PENDING_MAX} results wait for DNS")
            return
        task = asyncio.get_running_loop().create_task(self._tell(name, policy, target, failure))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    def is_due(self, _wall_now: float) -> bool:
        """Return False: results are sent at once."""
        return False

    async def write(self, _wall_now: float) -> int:
        """Wait for the results that are not sent yet; return their number."""
        return len(await asyncio.gather(*self._pending))

    async def _tell(self, name: str, policy: Policy, target: Target, failure: Failure | None) -> None:
        answer = await self._resolver.lookup(f"_smtp._tls.{name}", "TXT")
        record = report_record(answer.list) if isinstance(answer, Records) else None
        if record is None:
            return
        self._log(_line(name, target, failure))
        datagram = _datagram(name, record, policy_key(policy, name), target, failure)
        try:
            self._socket.sendto(datagram, self._path)
        except OSError as problem:
            self._complain(problem.strerror or str(problem))

    def _complain(self, problem: str) -> None:
        now = self._clock()
        if self._warned is None or now - self._warned >= WARNING_PAUSE_S:
            self._warned = now
            self._warn(f"TLSRPT: results are lost: {self._path}: {problem}")


def _line(name: str, target: Target, failure: Failure | None) -> str:
    """Return the line for the log, as Postfix has it."""
    server = f"domain={name}, receiving_mx={target.host}[{target.address}]"
    if failure is None:
        return f"TLSRPT: status=success, {server}"
    why = f", failure_type={failure.kind.replace('-', '_')}"
    if failure.reason:
        why += f", failure_reason={failure.reason.replace(' ', '_')}"
    return f"TLSRPT: status=failure, {server}{why}"


def _datagram(name: str, record: str, key: PolicyKey, target: Target, failure: Failure | None) -> bytes:
    """Return a result. `record`: the domain's record in DNS."""
    policy: dict[str, object] = {"policy-type": POLICY_KINDS[key.kind]}
    if key.kind != "no-policy-found":
        policy["policy-domain"] = key.domain
    if key.strings:
        policy["policy-string"] = list(key.strings)
    if key.mx_patterns:
        policy["mx-host"] = list(key.mx_patterns)
    if failure is not None:
        detail: dict[str, object] = {"c": FAILURE_CODES[failure.kind], "n": target.host, "r": target.address}
        if failure.reason:
            detail["f"] = failure.reason
        policy["failure-details"] = [detail]
    failed = int(failure is not None)
    whole = {"dpv": VERSION, "d": name, "pr": record, "policies": [{**policy, "t": failed, "f": failed}]}
    return json.dumps(whole, separators=(",", ":")).encode()
