"""Results of TLS sessions for a collector: datagrams in libtlsrpt's form, log lines, and collectors that are down."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from postillion._core.log import Log
from postillion.config import ConfigError
from postillion.delivery.smtp.targets import Target
from postillion.delivery.smtp.tls import tlsrpt_socket
from postillion.delivery.smtp.tls.policy import Domain, Policy
from postillion.delivery.smtp.tls.reports import open_reports
from postillion.delivery.smtp.tls.tlsrpt import FAILURES, Failure, TlsReports
from postillion.delivery.smtp.tls.tlsrpt_socket import FAILURE_CODES, PATH_MAX_OCTETS, TlsReportSocket
from postillion.dns import Resolver
from support.memory_config import config
from support.name_server import Query, Response, name_servers
from test_tls_reports import DANE, MX, PLAIN, STS

RECORD = "v=TLSRPTv1; rua=mailto:tls@example.org"
HEAD = {"dpv": "1", "d": "example.org", "pr": RECORD}
SERVER = {"n": "mx.example.org", "r": "192.0.2.1"}
STARTTLS = Failure("starttls-not-supported")
EXPIRED = Failure("certificate-expired", "certificate has expired")


class Collector:
    """A collector's socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def taken(self) -> list[dict[str, Any]]:
        """Return the datagrams since the last call."""
        found = []
        while True:
            try:
                found.append(json.loads(self._socket.recv(65536)))
            except BlockingIOError:
                return found

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


@contextmanager
def collecting(path: Path) -> Iterator[Collector]:
    """Run a collector."""
    collector = Collector(path)
    try:
        yield collector
    finally:
        collector.close()


def script(query: Query) -> list[Response]:
    """Answer that example.org wants reports."""
    return [query.answer(f'TXT "{RECORD}"') if query.name == "_smtp._tls.example.org" else query.answer()]


Session = tuple[str, Policy, Target, Failure | None]


async def told(path: Path, sessions: list[Session]) -> tuple[list[str], list[str]]:
    """Send the results of sessions; return the log lines and the warnings."""
    lines: list[str] = []
    warnings: list[str] = []
    async with name_servers(script) as servers:
        resolver = Resolver(["127.0.0.1"], servers.port, timeout_s=5)
        reports = TlsReportSocket(str(path), resolver, lines.append, warnings.append, clock=lambda: 0.0)
        for session in sessions:
            reports.note(*session)
        assert await reports.write(0.0) == len([name for name, *_ in sessions if "." in name])
        assert await reports.write(0.0) == 0
    return lines, warnings


POLICIES: list[tuple[Policy, Failure | None, dict[str, Any], str]] = [
    (PLAIN, None, {"policy-type": 9, "t": 0, "f": 0}, "status=success"),
    (
        PLAIN,
        STARTTLS,
        {"policy-type": 9, "failure-details": [{"c": 201, **SERVER}], "t": 1, "f": 1},
        "failure_type=starttls_not_supported",
    ),
    (
        STS,
        EXPIRED,
        {
            "policy-type": 2,
            "policy-domain": "example.org",
            "policy-string": ["version: STSv1", "mode: enforce"],
            "mx-host": ["*.example.org"],
            "failure-details": [{"c": 204, **SERVER, "f": "certificate has expired"}],
            "t": 1,
            "f": 1,
        },
        "failure_type=certificate_expired, failure_reason=certificate_has_expired",
    ),
    (
        DANE,
        None,
        {"policy-type": 1, "policy-domain": "mx.example.org", "policy-string": ["3 1 1 " + "00" * 32], "t": 0, "f": 0},
        "status=success",
    ),
    (Policy("may", "", domain=Domain("no-policy-found")), None, {"policy-type": 9, "t": 0, "f": 0}, "status=success"),
]


@pytest.mark.parametrize(("policy", "failure", "expected", "line"), POLICIES)
async def test_result_has_the_form_of_libtlsrpt(
    tmp_path: Path, policy: Policy, failure: Failure | None, expected: dict[str, Any], line: str
) -> None:
    with collecting(tmp_path / "sock") as collector:
        lines, warnings = await told(tmp_path / "sock", [("example.org", policy, MX, failure)])
        found = collector.taken()
        assert found == [{**HEAD, "policies": [expected]}]
    assert warnings == []
    status = "failure" if failure else "success"
    assert len(lines) == 1
    assert lines[0].startswith(f"TLSRPT: status={status}, domain=example.org, receiving_mx=mx.example.org[192.0.2.1]")
    assert line in lines[0]


async def test_only_domains_that_ask_get_reports(tmp_path: Path) -> None:
    with collecting(tmp_path / "sock") as collector:
        sessions: list[Session] = [(name, PLAIN, MX, None) for name in ("example.net", "localhost", "EXAMPLE.org.")]
        lines, warnings = await told(tmp_path / "sock", sessions)
        assert [datagram["d"] for datagram in collector.taken()] == ["example.org"]
    assert (len(lines), warnings) == (1, [])


async def test_collector_that_is_down_costs_a_warning_a_minute(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    _, warnings = await told(path, [("example.org", PLAIN, MX, None)] * 5)
    assert warnings == [f"TLSRPT: results are lost: {path}: No such file or directory"]


async def test_collector_that_is_behind_loses_results_and_delays_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with collecting(path) as collector:
        _, warnings = await told(path, [("example.org", PLAIN, MX, None)] * 900)
        assert 0 < len(collector.taken()) < 900
    assert warnings == [f"TLSRPT: results are lost: {path}: Resource temporarily unavailable"]


async def test_number_of_results_that_wait_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tlsrpt_socket, "PENDING_MAX", 3)
    warnings: list[str] = []
    resolver = Resolver(["127.0.0.1"], 9, timeout_s=0.1)
    reports = TlsReportSocket(str(tmp_path / "sock"), resolver, print, warnings.append)
    for _ in range(5):
        reports.note("example.org", PLAIN, MX, None)
    assert await reports.write(0.0) == 3
    assert warnings == [f"TLSRPT: results are lost: {tmp_path}/sock: more than 3 results wait for DNS"]


def test_each_kind_of_failure_has_a_number() -> None:
    assert sorted(FAILURE_CODES) == sorted(FAILURES)
    assert len(set(FAILURE_CODES.values())) == len(FAILURES)


def test_results_go_to_the_socket_if_one_is_named() -> None:
    log, resolver = Log("mx", "postfix", "smtp", 1, 0, "memory:"), Resolver(["127.0.0.1"], 9)
    enabled = {"smtp_tlsrpt_enable": "yes"}
    for values, kind in [
        ({}, type(None)),
        ({"smtp_tlsrpt_socket_name": "run/sock"}, type(None)),
        (enabled, TlsReports),
        ({**enabled, "smtp_tlsrpt_socket_name": "run/sock"}, TlsReportSocket),
        ({**enabled, "smtp_tlsrpt_socket_name": "x" * PATH_MAX_OCTETS}, TlsReportSocket),
    ]:
        assert type(open_reports(config(**values), "smtp", resolver, log, 0.0)) is kind
    long = {**enabled, "smtp_tlsrpt_socket_name": "x" * (PATH_MAX_OCTETS + 1)}
    with pytest.raises(ConfigError, match="at most 107 octets"):
        open_reports(config(**long), "smtp", resolver, log, 0.0)
