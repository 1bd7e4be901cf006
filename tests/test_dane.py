"""DANE: the level, names and TLSA records of a host, from signed zones behind a validating resolver, and in scripts.

The same zones are asked by Debian's smtp(8), in a network of its own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dns.flags
import dns.rcode
import dns.rdatatype
import pytest

from postillion.delivery.smtp.nexthop import parse
from postillion.delivery.smtp.targets import Target, TargetSettings, targets
from postillion.delivery.smtp.tls.dane import ALIASES_MAX
from postillion.delivery.smtp.tls.policies import TlsPolicies
from postillion.delivery.smtp.tls.policy import NoPolicy
from postillion.delivery.smtp.tls.tlsa import RECORDS_MAX, usable
from postillion.dns import Resolver, Tlsa
from support.dane_site import DOMAINS, zones
from support.memory_config import config
from support.name_server import Query, Response, name_servers
from support.peers import peer, postfix_home, root
from support.signed_zone import validating

SHA256, SHA512 = bytes(32), bytes(64)
DANE = {"smtp_tls_security_level": "dane", "smtp_dns_support_level": "dnssec", "inet_protocols": "ipv4"}
ONLY = {**DANE, "smtp_tls_security_level": "dane-only"}
ENCRYPT = {**DANE, "smtp_tls_dane_insecure_mx_policy": "encrypt"}
MAY = {**DANE, "smtp_tls_dane_insecure_mx_policy": "may"}
Values = dict[str, str]


@pytest.fixture(scope="module")
def resolver_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run a validating resolver for the zones; yield its port."""
    signed, unsigned, bogus = zones("ab" * 32, "cd" * 32)
    with validating(tmp_path_factory.mktemp("zones"), signed, unsigned, bogus=bogus) as port:
        yield port


async def outcome(port: int, domain: str, values: Values, warnings: list[str] | None = None) -> str:
    """Return the level, the base of the TLSA records and the names in one line, or the failure."""
    settings, resolver = config(**values), Resolver(["127.0.0.1"], port, timeout_s=5)
    told: list[str] = [] if warnings is None else warnings
    policies = TlsPolicies(settings, "smtp", resolver, told.append)
    site = parse(domain, 25)
    (target,) = await targets(site, TargetSettings.of(settings, "smtp"), resolver)
    try:
        policy = await policies.policy_for(site, target)
    except NoPolicy as none:
        return f"{none.dsn} {none}"
    return " ".join((policy.level, policy.servername, *policy.names)).strip()


TARGETS: list[tuple[str, bool, bool | None]] = [
    ("signed.test", True, True),
    ("alias.signed.test", True, True),
    ("out.signed.test", False, True),
    ("plain.test", False, False),
    ("good.plain.test", True, False),
    ("direct.signed.test", True, None),
    ("[good.signed.test]", True, None),
    ("[127.0.0.2]", False, None),
]


@pytest.mark.parametrize(("domain", "secure", "mx_secure"), TARGETS)
async def test_target_says_which_answers_are_validated(
    domain: str, secure: bool, mx_secure: bool | None, resolver_port: int
) -> None:
    settings = TargetSettings.of(config(inet_protocols="ipv4"), "smtp")
    resolver = Resolver(["127.0.0.1"], resolver_port, timeout_s=5)
    found = await targets(parse(domain, 25), settings, resolver)
    assert [(target.secure, target.mx_secure) for target in found] == [(secure, mx_secure)]


HOSTS: list[tuple[str, Values, str]] = [
    ("signed.test", DANE, "dane good.signed.test"),
    ("signed.test", ONLY, "dane good.signed.test"),
    ("[good.signed.test]", ONLY, "dane good.signed.test"),
    ("none.signed.test", DANE, "may"),
    ("none.signed.test", ONLY, "4.7.5 no TLSA records found"),
    ("unusable.signed.test", DANE, "encrypt"),
    ("unusable.signed.test", ONLY, "4.7.5 TLSA records unusable"),
    ("odd.signed.test", DANE, "encrypt"),
    ("odd.signed.test", ONLY, "4.7.5 TLSA records unusable"),
    ("mixed.signed.test", DANE, "dane mixedhost.signed.test"),
    ("alias.signed.test", DANE, "dane good.signed.test"),
    ("both.signed.test", DANE, "dane bothhost.signed.test"),
    ("out.signed.test", DANE, "dane outhost.signed.test"),
    ("cname.signed.test", DANE, "dane direct.signed.test"),
    ("direct.signed.test", DANE, "dane direct.signed.test"),
    ("plainhost.signed.test", DANE, "may"),
    ("plainhost.signed.test", ONLY, "4.7.5 no TLSA records found"),
    ("broken.signed.test", DANE, "4.7.5 TLSA lookup error for brokenhost.signed.test:25"),
    ("broken.signed.test", ONLY, "4.7.5 TLSA lookup error for brokenhost.signed.test:25"),
    ("anchor.signed.test", DANE, "dane anchorhost.signed.test anchorhost.signed.test anchor.signed.test"),
    ("[anchorhost.signed.test]", DANE, "dane anchorhost.signed.test anchorhost.signed.test"),
    ("plain.test", DANE, "may"),
    ("mx.plain.test", DANE, "may"),
    ("mx.plain.test", {**DANE, "smtp_tls_force_insecure_host_tlsa_lookup": "yes"}, "may"),
    ("plain.test", ONLY, "4.7.5 non DNSSEC destination"),
    ("good.plain.test", DANE, "half-dane good.signed.test"),
    ("good.plain.test", ENCRYPT, "encrypt"),
    ("good.plain.test", MAY, "may"),
    ("good.plain.test", ONLY, "4.7.5 non DNSSEC destination"),
    ("none.plain.test", ENCRYPT, "may"),
    ("unusable.plain.test", ENCRYPT, "encrypt"),
    ("[127.0.0.2]", DANE, "may"),
    ("[127.0.0.2]", ONLY, "4.7.5 no TLSA records found"),
    ("signed.test", {**DANE, "smtp_dns_support_level": ""}, "may"),
    ("signed.test", {**DANE, "ignore_mx_lookup_error": "yes"}, "may"),
    ("signed.test", {**DANE, "smtp_dns_resolver_options": "res_defnames"}, "may"),
    ("signed.test", {**ONLY, "ignore_mx_lookup_error": "yes"}, "4.7.5 client TLS configuration problem"),
    ("signed.test", {**DANE, "tls_dane_digests": "sha512"}, "encrypt"),
]


@pytest.mark.parametrize(("domain", "values", "expected"), HOSTS)
async def test_dane_gives_the_level_and_the_names(
    domain: str, values: Values, expected: str, resolver_port: int
) -> None:
    assert await outcome(resolver_port, domain, values) == expected


WARNINGS: list[tuple[str, Values, str]] = [
    ("unusable.signed.test", DANE, "_25._tcp.unusablehost.signed.test unsupported TLSA certificate usage: 0 0 1 0000"),
    ("odd.signed.test", DANE, "oddhost.signed.test[127.0.0.2]:25: unusable TLSA RR: 3 1 1 00"),
    (
        "broken.signed.test",
        DANE,
        "DANE TLSA lookup problem: Host or domain name not found. Name service error for "
        "name=_25._tcp.brokenhost.signed.test type=TLSA: Host not found, try again",
    ),
    (
        "signed.test",
        {**DANE, "smtp_dns_support_level": ""},
        "signed.test: dane configured with dnssec lookups disabled",
    ),
    (
        "signed.test",
        {**ONLY, "ignore_mx_lookup_error": "yes"},
        "signed.test: dane-only configured with MX lookup errors ignored",
    ),
    (
        "signed.test",
        {**DANE, "smtp_dns_resolver_options": "res_dnsrch"},
        "signed.test: dns resolver options incompatible with dane TLS",
    ),
]


@pytest.mark.parametrize(("domain", "values", "expected"), WARNINGS)
async def test_problem_is_logged_in_the_words_of_postfix(
    domain: str, values: Values, expected: str, resolver_port: int
) -> None:
    warnings: list[str] = []
    await outcome(resolver_port, domain, values, warnings)
    assert [line for line in warnings if line.startswith(expected)]


async def test_dane_is_refused_for_a_socket_in_the_file_system() -> None:
    values = {"lmtp_tls_security_level": "dane", "lmtp_dns_support_level": "dnssec"}
    warnings: list[str] = []
    policies = TlsPolicies(config(**values), "lmtp", Resolver(["127.0.0.1"], 9), warnings.append)
    with pytest.raises(NoPolicy, match=r"^client TLS configuration problem$"):
        await policies.policy_for(parse("unix:/run/lmtp", 24, lmtp=True), Target("localhost", "/run/lmtp", 0))
    assert warnings == [
        'unix:/run/lmtp: the "dane" security level is invalid for delivery via unix-domain sockets',
        "TLS policy lookup for unix:/run/lmtp/localhost: client TLS configuration problem",
    ]


GOOD = "TLSA 3 1 1 " + "00" * 32
HOST = Target("mx.test", "127.0.0.2", 25, secure=True, mx_secure=True)
SCRIPTS: list[tuple[str, dict[str, tuple[str, ...]], Target, Values, str]] = [
    ("secure", {"_25._tcp.mx.test TLSA": ("AD", GOOD)}, HOST, DANE, "dane"),
    ("answer without AD", {"_25._tcp.mx.test TLSA": (GOOD,)}, HOST, DANE, "may"),
    ("answer without AD", {"_25._tcp.mx.test TLSA": (GOOD,)}, HOST, ONLY, "no TLSA records found"),
    ("server failure", {"_25._tcp.mx.test TLSA": ("SERVFAIL",)}, HOST, DANE, "TLSA lookup error for mx.test:25"),
    ("no answer", {"_25._tcp.mx.test TLSA": ("none",)}, HOST, DANE, "TLSA lookup error for mx.test:25"),
    ("alias fails", {"mx.test CNAME": ("SERVFAIL",)}, HOST, DANE, "TLSA lookup error for mx.test:25"),
    ("address not secure", {"_25._tcp.mx.test TLSA": ("AD", GOOD)}, HOST._replace(secure=False), DANE, "may"),
    (
        "address not secure, lookup forced",
        {"_25._tcp.mx.test TLSA": ("AD", GOOD)},
        HOST._replace(secure=False),
        {**DANE, "smtp_tls_force_insecure_host_tlsa_lookup": "yes"},
        "dane",
    ),
    (
        "alias not secure",
        {"mx.test CNAME": ("CNAME other.test.",), "_25._tcp.mx.test TLSA": ("AD", GOOD)},
        HOST._replace(secure=False),
        DANE,
        "may",
    ),
    (
        "second of two bases fails",
        {"mx.test CNAME": ("AD", "CNAME other.test."), "_25._tcp.mx.test TLSA": ("SERVFAIL",)},
        HOST,
        DANE,
        "TLSA lookup error for mx.test:25",
    ),
    ("aliases in a circle", {"mx.test CNAME": ("AD", "CNAME mx.test.")}, HOST, DANE, "may"),
    ("port 587", {"_587._tcp.mx.test TLSA": ("AD", GOOD)}, HOST._replace(port=587), DANE, "dane"),
    (
        "MX record not secure",
        {"_25._tcp.mx.test TLSA": ("AD", GOOD)},
        HOST._replace(mx_secure=False),
        DANE,
        "half-dane",
    ),
    ("no MX record", {"_25._tcp.mx.test TLSA": ("AD", GOOD)}, HOST._replace(mx_secure=None), ONLY, "dane"),
]


@pytest.mark.parametrize(("script", "target", "values", "expected"), [row[1:] for row in SCRIPTS])
async def test_only_validated_answers_count(
    script: dict[str, tuple[str, ...]], target: Target, values: Values, expected: str
) -> None:
    def answer(query: Query) -> list[Response]:
        kind = dns.rdatatype.to_text(query.message.question[0].rdtype)
        words = script.get(f"{query.name} {kind}")
        if words == ("none",):
            return []
        if words == ("SERVFAIL",):
            return [query.answer(code=dns.rcode.SERVFAIL)]
        response = query.answer(*(word for word in words or () if word != "AD"))
        if words and "AD" in words:
            response.flags |= dns.flags.AD
        return [response]

    async with name_servers(answer) as servers:
        resolver = Resolver(["127.0.0.1"], servers.port, timeout_s=0.3)
        policies = TlsPolicies(config(**values), "smtp", resolver, lambda _text: None)
        try:
            found: str = (await policies.policy_for(parse("test", 25), target)).level
        except NoPolicy as none:
            found = str(none)
        assert found == expected
        assert len(servers.queries) <= ALIASES_MAX + 4


def tlsa(usage: int, selector: int, matching: int, data: bytes) -> Tlsa:
    return Tlsa(usage, selector, matching, data)


KEY = b"\x30\x03\x02\x01\x00"
RECORDS: list[tuple[str, list[Tlsa], list[Tlsa]]] = [
    ("both digests: the stronger one", [tlsa(3, 1, 1, SHA256), tlsa(3, 1, 2, SHA512)], [tlsa(3, 1, 2, SHA512)]),
    (
        "digests of other selectors and usages stay",
        [tlsa(3, 0, 1, SHA256), tlsa(3, 1, 2, SHA512), tlsa(2, 1, 1, SHA256)],
        [tlsa(2, 1, 1, SHA256), tlsa(3, 0, 1, SHA256), tlsa(3, 1, 2, SHA512)],
    ),
    ("full data stays", [tlsa(3, 1, 0, KEY), tlsa(3, 1, 2, SHA512)], [tlsa(3, 1, 0, KEY), tlsa(3, 1, 2, SHA512)]),
    ("a malformed digest is not stronger", [tlsa(3, 1, 2, SHA256), tlsa(3, 1, 1, SHA256)], [tlsa(3, 1, 1, SHA256)]),
    ("a record twice", [tlsa(3, 1, 1, SHA256), tlsa(3, 1, 1, SHA256)], [tlsa(3, 1, 1, SHA256)]),
    *(
        (f"unusable {record[:3]}", [record], [])
        for record in (
            *(tlsa(0, 0, 1, SHA256), tlsa(1, 1, 1, SHA256), tlsa(4, 1, 1, SHA256), tlsa(255, 1, 1, SHA256)),
            *(tlsa(3, 2, 1, SHA256), tlsa(3, 1, 3, SHA256), tlsa(3, 1, 1, b""), tlsa(3, 1, 2, SHA256)),
            *(tlsa(3, 1, 0, b""), tlsa(3, 1, 0, KEY + b"\x00"), tlsa(3, 1, 0, KEY[:-1]), tlsa(3, 1, 0, b"\x30\x80")),
            *(tlsa(2, 0, 0, b"\x31\x00"), tlsa(2, 0, 0, b"\x30\x84\x00\x00\x00\x00")),
        )
    ),
    ("a long form of the length", [tlsa(2, 0, 0, b"\x30\x82\x01\x00" + bytes(256))],
     [tlsa(2, 0, 0, b"\x30\x82\x01\x00" + bytes(256))]),
]  # fmt: skip


@pytest.mark.parametrize(("records", "expected"), [row[1:] for row in RECORDS])
def test_usable_records_have_known_fields_and_the_strongest_digest(records: list[Tlsa], expected: list[Tlsa]) -> None:
    assert list(usable(records, (2, 1))) == expected


def test_number_of_records_is_limited() -> None:
    records = [tlsa(3, 1, 1, number.to_bytes(32, "big")) for number in range(RECORDS_MAX + 1)]
    assert len(usable(records, (1,))) == RECORDS_MAX


PEER_SETTINGS = (DANE, ONLY, ENCRYPT, MAY)
WORDS = {"dane": "Verified", "half-dane": "Trusted", "encrypt": "Untrusted", "may": "Untrusted"}
"""How Postfix calls a connection at each level, if the server matches."""
MISMATCH = "(Server certificate not verified)"


def peer_logs(values: Values, directory: Path) -> list[list[str]]:
    """Return the lines of Debian's smtp(8) about a delivery to each of the domains."""
    own_network = [peer("unshare"), "--mount", "--net", sys.executable, "-m", "support.dane_site", str(directory)]
    settings = [f"{name}={value}" for name, value in values.items()]
    run = subprocess.run(
        [*own_network, *settings], capture_output=True, text=True, check=True, cwd=Path(__file__).parent, timeout=120
    )
    logs: list[list[str]] = json.loads(run.stdout.splitlines()[-1])
    return logs


@pytest.mark.parametrize("values", PEER_SETTINGS, ids=["dane", "dane-only", "encrypt", "may"])
async def test_postfix_comes_to_the_same_level(values: Values, resolver_port: int, tmp_path: Path) -> None:
    root()
    postfix_home()
    theirs, ours = {}, {}
    for domain, lines in zip(DOMAINS, peer_logs(values, tmp_path), strict=True):
        status = re.search(r" dsn=(\S+), status=\w+ \((.*)\)$", lines[-1])
        assert status is not None
        used = re.search(r"(\w+) TLS connection established", "\n".join(lines))
        theirs[domain] = used[1] if used is not None else f"{status[1]} {status[2]}"
        if domain == "wrong.signed.test":
            # Its certificate does not match, so the connection says nothing about the level.
            assert lines[-1].endswith(MISMATCH)
            theirs[domain] = WORDS["dane"]
        if domain == "odd.signed.test" and values == ONLY:
            # postconf(5) says: "If no TLSA records are found, or none are usable, no connection is made".
            assert theirs[domain] == WORDS["encrypt"]
            theirs[domain] = "4.7.5 TLSA records unusable"
        found = await outcome(resolver_port, domain, values)
        ours[domain] = WORDS.get(found.split()[0], found)
    assert ours == theirs
