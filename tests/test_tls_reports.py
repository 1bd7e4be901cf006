"""Reports about TLS: counts by policy, addresses in DNS, and the files of a day (RFC 8460)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from postillion.delivery.smtp.targets import Target
from postillion.delivery.smtp.tls import tlsrpt
from postillion.delivery.smtp.tls.policy import Domain, Policy
from postillion.delivery.smtp.tls.tlsrpt import DAY_S, FAILURES, Failure, TlsReports, report_addresses
from postillion.dns import Resolver, Tlsa
from support.name_server import Query, Response, name_servers

ADDRESSES: list[tuple[str, list[bytes], tuple[str, ...]]] = [
    ("mail", [b"v=TLSRPTv1; rua=mailto:reports@example.com"], ("mailto:reports@example.com",)),
    ("web", [b"v=TLSRPTv1;rua=https://reporting.example.com/v1/tlsrpt;"], ("https://reporting.example.com/v1/tlsrpt",)),
    ("both", [b"v=TLSRPTv1; rua=mailto:a@b.c , https://d.e"], ("mailto:a@b.c", "https://d.e")),
    ("an extension first", [b"v=TLSRPTv1; x=y; rua=mailto:a@b.c"], ("mailto:a@b.c",)),
    ("others beside it", [b"v=spf1", b"v=TLSRPTv1; rua=mailto:a@b.c"], ("mailto:a@b.c",)),
    ("none", [], ()),
    ("two", [b"v=TLSRPTv1; rua=mailto:a@b.c"] * 2, ()),
    ("another version", [b"v=TLSRPTv2; rua=mailto:a@b.c"], ()),
    ("no address", [b"v=TLSRPTv1;"], ()),
    ("an empty address", [b"v=TLSRPTv1; rua="], ()),
    ("another scheme", [b"v=TLSRPTv1; rua=http://a.b"], ()),
    ("a line end in the address", [b"v=TLSRPTv1; rua=mailto:a@b.c\r\nBcc: d@e.f"], ()),
]


@pytest.mark.parametrize(("records", "expected"), [row[1:] for row in ADDRESSES], ids=[row[0] for row in ADDRESSES])
def test_record_gives_the_addresses(records: list[bytes], expected: tuple[str, ...]) -> None:
    assert report_addresses(records) == expected


MX = Target("mx.example.org", "192.0.2.1", 25)
NOON = 20_000 * DAY_S + DAY_S / 2
STS = Policy(
    "secure",
    "",
    names=("mx.example.org",),
    domain=Domain("sts", "example.org", 600, ("version: STSv1", "mode: enforce"), ("*.example.org",)),
)
DANE = Policy("dane", "", servername="mx.example.org", records=(Tlsa(3, 1, 1, bytes(32)),))
PLAIN = Policy("may", "")


def script(query: Query) -> list[Response]:
    """Answer that example.org wants reports."""
    wanted = query.name == "_smtp._tls.example.org"
    return [query.answer('TXT "v=TLSRPTv1; rua=mailto:tls@example.org"') if wanted else query.answer()]


async def written(reports: TlsReports, now: float = NOON + DAY_S) -> int:
    """Write the reports with a name server's help; return their number."""
    async with name_servers(script) as servers:
        reports._resolver = Resolver(["127.0.0.1"], servers.port, timeout_s=5)
        return await reports.write(now)


def counting(directory: Path, warnings: list[str]) -> TlsReports:
    """Return counts without any session."""
    return TlsReports(directory, "sender.example", Resolver(["127.0.0.1"], 9), warnings.append, NOON)


async def test_report_has_the_sessions_of_each_policy(tmp_path: Path) -> None:
    reports = counting(tmp_path / "reports", [])
    for _ in range(3):
        reports.note("example.org", STS, MX)
    reports.note("EXAMPLE.org.", STS, MX, Failure("certificate-expired"))
    reports.note("example.org", STS, MX, Failure("certificate-expired"))
    reports.note("example.org", STS, MX._replace(address="192.0.2.2"), Failure("validation-failure", "bad record mac"))
    reports.note("example.org", DANE, MX)
    reports.note("example.org", PLAIN, MX, Failure("starttls-not-supported"))
    reports.note("example.net", PLAIN, MX)
    assert not reports.is_due(NOON + DAY_S / 2 - 1)
    assert reports.is_due(NOON + DAY_S / 2)
    assert await written(reports) == 1
    name = f"sender.example!example.org!{int(NOON)}!{20_001 * DAY_S - 1}!{os.getpid()}"
    assert sorted(path.name for path in (tmp_path / "reports").iterdir()) == [f"{name}.json", f"{name}.rua"]
    assert (tmp_path / "reports" / f"{name}.rua").read_text() == "mailto:tls@example.org\n"
    assert json.loads((tmp_path / "reports" / f"{name}.json").read_text()) == {
        "organization-name": "sender.example",
        "date-range": {"start-datetime": "2024-10-04T12:00:00Z", "end-datetime": "2024-10-04T23:59:59Z"},
        "contact-info": "postmaster@sender.example",
        "report-id": f"2024-10-04T12:00:00Z_example.org_{os.getpid()}",
        "policies": [
            {
                "policy": {
                    "policy-type": "sts",
                    "policy-domain": "example.org",
                    "policy-string": ["version: STSv1", "mode: enforce"],
                    "mx-host": ["*.example.org"],
                },
                "summary": {"total-successful-session-count": 3, "total-failure-session-count": 3},
                "failure-details": [
                    {
                        "result-type": "certificate-expired",
                        "receiving-mx-hostname": "mx.example.org",
                        "receiving-ip": "192.0.2.1",
                        "failed-session-count": 2,
                    },
                    {
                        "result-type": "validation-failure",
                        "receiving-mx-hostname": "mx.example.org",
                        "receiving-ip": "192.0.2.2",
                        "failed-session-count": 1,
                        "failure-reason-code": "bad record mac",
                    },
                ],
            },
            {
                "policy": {
                    "policy-type": "tlsa",
                    "policy-domain": "mx.example.org",
                    "policy-string": ["3 1 1 " + "00" * 32],
                },
                "summary": {"total-successful-session-count": 1, "total-failure-session-count": 0},
            },
            {
                "policy": {"policy-type": "no-policy-found", "policy-domain": "example.org"},
                "summary": {"total-successful-session-count": 0, "total-failure-session-count": 1},
                "failure-details": [
                    {
                        "result-type": "starttls-not-supported",
                        "receiving-mx-hostname": "mx.example.org",
                        "receiving-ip": "192.0.2.1",
                        "failed-session-count": 1,
                    }
                ],
            },
        ],
    }


async def test_counts_begin_anew_after_a_report(tmp_path: Path) -> None:
    reports = counting(tmp_path, [])
    reports.note("example.org", PLAIN, MX)
    assert await written(reports) == 1
    assert not reports.is_due(NOON + DAY_S)
    assert await written(reports, NOON + 2 * DAY_S) == 0


async def test_counts_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tlsrpt, "DOMAINS_MAX", 2)
    monkeypatch.setattr(tlsrpt, "POLICIES_MAX", 2)
    monkeypatch.setattr(tlsrpt, "DETAILS_MAX", 2)
    reports = counting(tmp_path, [])
    for domain in ("example.org", "a.example", "b.example", "localhost", "192.0.2.1", "a..b"):
        reports.note(domain, PLAIN, MX)
    for number in range(4):
        reports.note("example.org", PLAIN, MX._replace(address=f"192.0.2.{number}"), Failure(FAILURES[0]))
        reports.note("example.org", Policy("dane", "", servername=f"mx{number}.example.org", records=DANE.records), MX)
    assert list(reports._domains) == ["example.org", "a.example"]
    plain, dane = reports._domains["example.org"].values()
    assert (plain.successes, plain.failures, len(plain.details), dane.successes) == (1, 4, 2, 1)


async def test_problem_of_the_disk_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    warnings: list[str] = []
    reports = counting(tmp_path / "file", warnings)
    reports.note("example.org", PLAIN, MX)
    assert await written(reports) == 0
    assert len(warnings) == 1
    assert "cannot be written" in warnings[0]
