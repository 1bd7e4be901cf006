"""The TLS policy of a delivery, from main.cf and its tables; some rows also with Debian's smtp(8)."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postillion.config import ConfigError
from postillion.delivery.smtp.nexthop import NextHop, parse, parse_list
from postillion.delivery.smtp.targets import Target
from postillion.delivery.smtp.tls import entry
from postillion.delivery.smtp.tls.entry import MATCH_MAX, BadEntry, Entry
from postillion.delivery.smtp.tls.level import LEVELS, at_least
from postillion.delivery.smtp.tls.mx_pattern import allows
from postillion.delivery.smtp.tls.policies import TlsPolicies
from postillion.delivery.smtp.tls.policy import Domain, NoPolicy, Policy
from postillion.dns import Resolver
from postillion.tables import TableError
from support.memory_config import config
from support.mta import Site, running, wait_for
from support.peers import postfix_home, root
from support.remote_table import opened
from support.scripted import Scripted

PROBLEM = ("4.7.5", "client TLS configuration problem")
DIGEST = ":".join(["ab"] * 32)
HOST = Target("mx1.example.net", "192.0.2.1", 25, mx_secure=False)
NOBODY = Resolver(["127.0.0.1"], 9)
"""Asks nobody: the tests of this file need no name server."""


Values = dict[str, str]
"""Parameters of main.cf."""


async def policy(values: Values, site: NextHop | str, target: Target = HOST, prefix: str = "smtp") -> Policy:
    """Return the policy with these parameters. Raises `NoPolicy`."""
    return await asked([], values, site, target, prefix)


async def asked(
    warnings: list[str], values: Values, site: NextHop | str, target: Target = HOST, prefix: str = "smtp"
) -> Policy:
    """Return the policy, with the warnings appended to the list. Raises `NoPolicy`."""
    policies = TlsPolicies(config(**values), prefix, NOBODY, warnings.append)
    return await policies.policy_for(parse(site, 25) if isinstance(site, str) else site, target)


async def outcome(values: Values, site: str, target: Target = HOST) -> str:
    """Return the level and the reason in one line, or the status of a host that is not tried."""
    try:
        found = await policy(values, site, target)
    except NoPolicy as none:
        return f"{none.dsn} {none}"
    return f"{found.level}: {found.why}"


ENTRIES: list[tuple[str, Entry]] = [
    ("none", Entry("none")),
    ("none ciphers=high x", Entry("none", ignored=("ciphers=high", "x"))),
    ("may", Entry("may")),
    ("ENCRYPT", Entry("encrypt")),
    (" , encrypt ,", Entry("encrypt")),
    ("may,ciphers=high", Entry("may", ciphers="high")),
    ("encrypt protocols=", Entry("encrypt", protocols="")),
    ("encrypt Protocols=>=TLSv1.2:!TLSv1.3", Entry("encrypt", protocols=">=TLSv1.2:!TLSv1.3")),
    ("encrypt exclude=RC4:aNULL", Entry("encrypt", exclude="RC4:aNULL")),
    ("secure match=a.example:.b.example match=nexthop", Entry("secure", match=("a.example", ".b.example", "nexthop"))),
    ("verify match=::a::", Entry("verify", match=("a",))),
    ("verify tafile=/a tafile=/b", Entry("verify", tafiles=("/a", "/b"))),
    (f"fingerprint match={DIGEST}|cd:ef match=01", Entry("fingerprint", match=(DIGEST, "cd:ef", "01"))),
    ("encrypt servername=hostname", Entry("encrypt", servername="hostname")),
    ("encrypt connection_reuse=YES", Entry("encrypt", connection_reuse=True)),
    ("encrypt connection_reuse=yes connection_reuse=no", Entry("encrypt", connection_reuse=False)),
    ("encrypt enable_rpk=yes", Entry("encrypt")),
    ("encrypt { ciphers = high }", Entry("encrypt", ciphers="high")),
    ("dane-only {protocols=>=TLSv1.3}", Entry("dane-only", protocols=">=TLSv1.3")),
    ("may policy_type=no-policy-found", Entry("may", domain=Domain("no-policy-found"))),
    (
        "secure match=mx1.example.com:.mx.example.net servername=hostname policy_type=sts policy_domain=example.com "
        "policy_ttl=86400 mx_host_pattern=mx1.example.com mx_host_pattern=*.mx.example.net "
        "{ policy_string = version: STSv1 } {policy_string = mode:  enforce }",
        Entry(
            "secure",
            match=("mx1.example.com", ".mx.example.net"),
            servername="hostname",
            domain=Domain(
                "sts",
                "example.com",
                86400,
                ("version: STSv1", "mode: enforce"),
                ("mx1.example.com", "*.mx.example.net"),
            ),
        ),
    ),
    (
        "may policy_type=sts policy_domain=example.com policy_failure=sts-policy-invalid",
        Entry("may", domain=Domain("sts", "example.com", failure="sts-policy-invalid")),
    ),
]

BAD_ENTRIES: list[tuple[str, str]] = [
    ("bogus", 'invalid security level "bogus"'),
    ("half-dane", 'invalid security level "half-dane"'),
    ("encrypt foo=bar", 'invalid attribute name: "foo"'),
    ("encrypt foo", "malformed attribute/value pair \"foo\": missing '=' after attribute name"),
    ("encrypt =x", 'malformed attribute/value pair "=x": missing attribute name'),
    ("encrypt ciphers=", 'attribute "ciphers" has empty value'),
    ("encrypt ciphers=high ciphers=low", 'attribute "ciphers" is specified multiple times'),
    ("encrypt protocols=a protocols=b", 'attribute "protocols" is specified multiple times'),
    ("encrypt exclude=a exclude=b", 'attribute "exclude" is specified multiple times'),
    ("encrypt servername=a servername=b", 'attribute "servername" is specified multiple times'),
    ("encrypt servername=-x-", '"servername=-x-" specifies an invalid hostname'),
    ("encrypt match=x", 'attribute "match" invalid at security level "encrypt"'),
    ("dane match=x", 'attribute "match" invalid at security level "dane"'),
    ("secure match=", 'attribute "match" has empty value'),
    ("encrypt tafile=/x", 'attribute "tafile" invalid at security level "encrypt"'),
]
"""Entries that Debian's Postfix refuses with these words."""

NEW_BAD_ENTRIES: list[tuple[str, str]] = [
    ("encrypt connection_reuse=maybe", 'attribute "connection_reuse" has bad value: "maybe"'),
    ("encrypt enable_rpk=maybe", 'attribute "enable_rpk" has bad value: "maybe"'),
    ("verify tafile=", 'attribute "tafile" has empty value'),
    ("encrypt {ciphers=high", 'malformed attribute/value pair "{ciphers=high": missing \'}\' in "{ciphers=high"'),
    ("encrypt {a=b}c", 'malformed attribute/value pair "{a=b}c": syntax error after \'}\' in "{a=b}c"'),
    ("encrypt {}", 'malformed attribute/value pair "": missing attribute name'),
    ("secure policy_type=other", 'attribute "policy_type" has an unexpected value: "other"'),
    ("secure policy_type=sts policy_ttl=1d", 'attribute "policy_ttl" has a malformed value: "1d"'),
    ("secure policy_type=sts policy_ttl=", 'attribute "policy_ttl" has a malformed value: ""'),
    ("secure policy_type=sts policy_ttl=99999999999", 'attribute "policy_ttl" has a malformed value: "99999999999"'),
    ("secure policy_type=sts policy_domain=a..b", 'attribute "policy_domain" has a malformed value: "a..b"'),
    ("secure policy_type=sts policy_failure=x", 'attribute "policy_failure" has an unexpected value: "x"'),
    ("secure policy_type=sts policy_type=sts", 'attribute "policy_type" is specified multiple times'),
    ("secure match=" + ":".join("a" * (MATCH_MAX + 1)), f'attribute "match" has more than {MATCH_MAX} values'),
    *(
        (
            f"secure {attribute}",
            "built-in policy has unexpected attribute policy_ttl, policy_domain, policy_string, mx_host_pattern or "
            "policy_failure",
        )
        for attribute in (
            *("policy_ttl=1", "policy_domain=a.example", "{policy_string=x}"),
            *("mx_host_pattern=a", "policy_failure=sts-policy-invalid"),
        )
    ),
]
"""Entries with attributes of later releases."""


@pytest.mark.parametrize(("text", "expected"), ENTRIES)
def test_entry_is_parsed(text: str, expected: Entry) -> None:
    assert entry.parse(text) == expected


@pytest.mark.parametrize(("text", "problem"), [*BAD_ENTRIES, *NEW_BAD_ENTRIES, (" ,", "invalid empty policy")])
def test_bad_entry_is_refused_in_the_words_of_postfix(text: str, problem: str) -> None:
    with pytest.raises(BadEntry, match=f"^{re.escape(problem)}$"):
        entry.parse(text)


WORDS = (
    "secure",
    "fingerprint",
    "none",
    " ",
    ",",
    "=",
    "{",
    "}",
    "match",
    "policy_type=sts",
    "policy_ttl=",
    "1",
    "\x00",
    "ü",
)


@given(st.text(max_size=100) | st.lists(st.sampled_from(WORDS)).map("".join))
def test_any_text_is_an_entry_or_a_refusal(text: str) -> None:
    with contextlib.suppress(BadEntry):
        assert entry.parse(text).level in LEVELS


def test_levels_are_in_order_of_strength() -> None:
    assert [level for level in LEVELS if at_least(level, "encrypt")] == list(LEVELS[2:])
    found = [(level, Policy(level, "").needs_tls, Policy(level, "").needs_match) for level in LEVELS]
    assert [row[0] for row in found if not row[1]] == ["none", "may"]
    assert [row[0] for row in found if row[1] and not row[2]] == ["encrypt"]


OLD = "yes"
DEFAULTS: list[tuple[Values, str]] = [
    ({}, "none: smtp_tls_security_level"),
    ({"smtp_tls_security_level": "encrypt"}, "encrypt: smtp_tls_security_level"),
    ({"smtp_tls_security_level": "may", "smtp_enforce_tls": OLD}, "may: smtp_tls_security_level"),
    ({"smtp_tls_security_level": "none", "smtp_use_tls": OLD}, "none: smtp_tls_security_level"),
    ({"smtp_use_tls": OLD}, "may: smtp_use_tls"),
    ({"smtp_enforce_tls": OLD}, "verify: smtp_enforce_tls"),
    ({"smtp_enforce_tls": OLD, "smtp_use_tls": OLD}, "verify: smtp_enforce_tls"),
    ({"smtp_enforce_tls": OLD, "smtp_tls_enforce_peername": "no"}, "encrypt: smtp_enforce_tls"),
    ({"smtp_tls_enforce_peername": "yes"}, "none: smtp_tls_security_level"),
]


@pytest.mark.parametrize(("values", "expected"), DEFAULTS)
async def test_older_parameters_count_while_the_level_is_empty(values: Values, expected: str) -> None:
    assert await outcome({"smtp_tls_security_level": ""} | values, "example.org") == expected


BAD_PARAMETERS: list[tuple[str, str]] = [
    ("smtp_tls_security_level", "strong"),
    ("smtp_tls_security_level", "half-dane"),
    ("smtp_tls_fingerprint_digest", "sha3000"),
    ("smtp_tls_dane_insecure_mx_policy", "verify"),
    ("tls_dane_digests", "sha512 md5"),
    ("tls_dane_digests", "sha256=9"),
    ("smtp_tls_policy_maps", "nosuch:table"),
    ("smtp_tls_per_site", "nosuch:table"),
]


@pytest.mark.parametrize(("name", "value"), BAD_PARAMETERS)
def test_bad_parameter_stops_the_start(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        TlsPolicies(config(**{name: value}), "smtp", NOBODY, lambda _text: None)


POLICIES = (
    "inline:{{example.org=encrypt}, {.example.org=may}, {.org=verify}, {[mx.example.org]=secure}, {b.example:26=none}}"
)
KEYS: list[tuple[str, str]] = [
    ("example.org", f'encrypt: smtp_tls_policy_maps: "example.org" in {POLICIES}'),
    ("EXAMPLE.ORG", f'encrypt: smtp_tls_policy_maps: "EXAMPLE.ORG" in {POLICIES}'),
    ("a.example.org", f'may: smtp_tls_policy_maps: ".example.org" in {POLICIES}'),
    ("b.a.example.org", f'may: smtp_tls_policy_maps: ".example.org" in {POLICIES}'),
    ("other.org", f'verify: smtp_tls_policy_maps: ".org" in {POLICIES}'),
    ("org", "none: smtp_tls_security_level"),
    ("example.net", "none: smtp_tls_security_level"),
    ("[mx.example.org]", f'secure: smtp_tls_policy_maps: "[mx.example.org]" in {POLICIES}'),
    ("[mx.example.org]:25", "none: smtp_tls_security_level"),
    ("[example.org]", "none: smtp_tls_security_level"),
    ("a.example.org:25", "none: smtp_tls_security_level"),
    ("b.example:26", f'none: smtp_tls_policy_maps: "b.example:26" in {POLICIES}'),
    ("b.example", "none: smtp_tls_security_level"),
]


@pytest.mark.parametrize(("site", "expected"), KEYS)
async def test_key_is_the_next_hop_as_written_then_the_domains_above(site: str, expected: str) -> None:
    assert await outcome({"smtp_tls_policy_maps": POLICIES, "smtp_tls_security_level": ""}, site) == expected


async def test_lmtp_keys_have_no_socket_type() -> None:
    tables = {"lmtp_tls_policy_maps": "inline:{{/run/lmtp=encrypt}, {mail.example:24=verify}}"}
    path, host = (parse_list(text, 24, lmtp=True)[0] for text in ("unix:/run/lmtp", "inet:mail.example:24"))
    local = Target("localhost", "/run/lmtp", 0)
    assert (await policy(tables, path, local, "lmtp")).level == "encrypt"
    assert (await policy(tables, host, HOST, "lmtp")).level == "verify"
    found = await policy({"lmtp_tls_security_level": "secure", "lmtp_tls_servername": "hostname"}, path, local, "lmtp")
    assert (found.names, found.servername) == (("mx.example.org",), "mx.example.org")


SITES = (
    "inline:{{example.org=MAY}, {none.example=none}, {must.example=MUST}, {bad.example=SHOULD}, "
    "{mx.none.example=NONE}, {mx.may.example=MAY}, {mx.must.example=MUST}, {mx.noname.example=MUST_NOPEERMATCH}}"
)
PER_SITE: list[tuple[str, str, str, str]] = [
    ("", "example.org", "mx.other.example", "may"),
    ("", "other.example", "mx.other.example", "none"),
    ("verify", "other.example", "mx.other.example", "verify"),
    ("verify", "example.org", "mx.other.example", "verify"),
    ("encrypt", "example.org", "mx.may.example", "encrypt"),
    ("verify", "example.org", "mx.none.example", "none"),
    ("verify", "none.example", "mx.may.example", "none"),
    ("may", "none.example", "mx.must.example", "verify"),
    ("may", "must.example", "mx.none.example", "verify"),
    ("may", "must.example", "mx.noname.example", "verify"),
    ("may", "example.org", "mx.noname.example", "encrypt"),
    ("may", "a.example.org", "a.mx.must.example", "may"),
    ("may", "other.example", "mx.must.example", "verify"),
    ("may", "bad.example", "mx.must.example", "client TLS configuration problem"),
]


@pytest.mark.parametrize(("level", "site", "host", "expected"), PER_SITE)
async def test_per_site_levels_of_next_hop_and_host_are_combined(
    level: str, site: str, host: str, expected: str
) -> None:
    values = {"smtp_tls_per_site": SITES, "smtp_tls_security_level": level}
    assert (await outcome(values, site, HOST._replace(host=host))).partition(":")[0] in (
        expected,
        f"4.7.5 {expected}",
    )


async def test_policy_maps_replace_per_site() -> None:
    warnings: list[str] = []
    tables = {"smtp_tls_policy_maps": "inline:{a.example=may}", "smtp_tls_per_site": "static:MUST"}
    assert (await asked(warnings, {"smtp_tls_security_level": "none", **tables}, "b.example")).level == "none"
    assert warnings == ["smtp_tls_per_site ignored when smtp_tls_policy_maps is not empty."]


FAILURES: list[tuple[Values, tuple[str, str], list[str]]] = [
    (
        {"smtp_tls_policy_maps": "fail:x"},
        PROBLEM,
        ['smtp_tls_policy_maps, next-hop destination "example.org": policy table lookup error'],
    ),
    (
        {"smtp_tls_policy_maps": "inline:{{example.org=}}"},
        PROBLEM,
        [
            "smtp_tls_policy_maps lookup of example.org returns an empty string result",
            'smtp_tls_policy_maps, next-hop destination "example.org": policy table lookup error',
        ],
    ),
    (
        {"smtp_tls_policy_maps": "inline:{{example.org=bogus}}"},
        PROBLEM,
        ['smtp_tls_policy_maps, next-hop destination "example.org": invalid security level "bogus"'],
    ),
    (
        {"smtp_tls_per_site": "fail:x"},
        ("4.3.0", "Temporary lookup error"),
        ['smtp_tls_per_site: next-hop destination "example.org": per-site table lookup error'],
    ),
    (
        {"smtp_tls_per_site": "inline:{{example.org=SHOULD}}"},
        PROBLEM,
        ["smtp_tls_per_site: unknown TLS policy 'SHOULD' for next-hop destination example.org"],
    ),
    (
        {"smtp_tls_security_level": "fingerprint", "smtp_tls_fingerprint_cert_match": "xx"},
        PROBLEM,
        [
            "malformed fingerprint value: xx",
            "nexthop domain example.org: configured at fingerprint security level, but with no fingerprints to match.",
        ],
    ),
    (
        {"smtp_tls_security_level": "may", "smtp_tls_servername": "-x"},
        PROBLEM,
        ['"smtp_tls_servername = -x" specifies an invalid hostname'],
    ),
    (
        {"smtp_tls_security_level": "secure", "smtp_tls_trust_anchor_file": "/nonexistent"},
        PROBLEM,
        ["error opening trust anchor file: /nonexistent: No such file or directory"],
    ),
    (
        {"smtp_tls_wrappermode": "yes", "smtp_tls_security_level": "may"},
        ("4.3.0", "server unavailable or unable to receive mail"),
        ['smtp_tls_wrappermode requires "smtp_tls_security_level = encrypt" (or stronger)'],
    ),
    (
        {"smtp_tls_security_level": "dane-only"},
        PROBLEM,
        ["example.org: dane-only configured with dnssec lookups disabled"],
    ),
]


@pytest.mark.parametrize(("values", "status", "expected"), FAILURES)
async def test_failure_and_bad_configuration_make_the_mail_wait(
    values: Values, status: tuple[str, str], expected: list[str]
) -> None:
    warnings: list[str] = []
    with pytest.raises(NoPolicy) as caught:
        await asked(warnings, values, "example.org")
    assert (caught.value.dsn, str(caught.value)) == status
    told = f"TLS policy lookup for example.org/mx1.example.net: {status[1]}"
    assert [line for line in warnings if line != told][-len(expected) :] == expected
    assert (warnings[-1] == told) is ("smtp_tls_wrappermode" not in values)


BASE = Policy("may", "")
SECURE = replace(BASE, level="secure")
VALUES: list[tuple[str, Values, Policy]] = [
    ("none", {}, Policy("none", "")),
    ("may", {}, BASE),
    ("encrypt", {}, replace(BASE, level="encrypt")),
    ("encrypt exclude=AES ciphers=low protocols=TLSv1", {"smtp_tls_mandatory_exclude_ciphers": "MD5"},
     replace(BASE, level="encrypt", protocols="TLSv1", ciphers="low", exclude="AES")),
    ("secure exclude=", {"smtp_tls_exclude_ciphers": "RC4"},
     replace(SECURE, names=("example.org", ".example.org"), exclude="")),
    ("secure", {}, replace(SECURE, names=("example.org", ".example.org"))),
    ("secure", {"smtp_tls_secure_cert_match": "nexthop:a.example"},
     replace(SECURE, names=("example.org", "a.example"))),
    ("secure match=hostname:.B.example:nexthop", {},
     replace(SECURE, names=("mx1.example.net", ".b.example", "example.org"))),
    ("secure match=nexthop:nexthop:.", {}, replace(SECURE, names=("example.org",))),
    ("secure match=bücher.example:.bücher.example", {},
     replace(SECURE, names=("xn--bcher-kva.example", ".xn--bcher-kva.example"))),
    ("verify", {}, replace(SECURE, level="verify", names=("mx1.example.net",))),
    ("verify", {"smtp_tls_verify_cert_match": "dot-nexthop, hostname"},
     replace(SECURE, level="verify", names=(".example.org", "mx1.example.net"))),
    ("verify tafile=/dev/null", {"smtp_tls_trust_anchor_file": "/etc/hosts"},
     replace(SECURE, level="verify", names=("mx1.example.net",), trust_files=("/dev/null",))),
    ("verify", {"smtp_tls_trust_anchor_file": "/dev/null, /etc/hosts"},
     replace(SECURE, level="verify", names=("mx1.example.net",), trust_files=("/dev/null", "/etc/hosts"))),
    ("fingerprint", {"smtp_tls_fingerprint_cert_match": f"{DIGEST}, xx, AB"},
     replace(SECURE, level="fingerprint", fingerprints=("ab" * 32, "ab"), fingerprint_digest="sha256")),
    ("fingerprint match=CD:EF|01", {"smtp_tls_fingerprint_cert_match": DIGEST, "smtp_tls_fingerprint_digest": "SHA1"},
     replace(SECURE, level="fingerprint", fingerprints=("cdef", "01"), fingerprint_digest="sha1")),
    ("may", {"smtp_tls_servername": "hostname"}, replace(BASE, servername="mx1.example.net")),
    ("may", {"smtp_tls_servername": "nexthop"}, replace(BASE, servername="example.org")),
    ("may servername=nexthop", {}, replace(BASE, servername="example.org")),
    ("may servername=a.example", {"smtp_tls_servername": "-"}, replace(BASE, servername="a.example")),
    ("may", {"smtp_tls_connection_reuse": "yes"}, replace(BASE, connection_reuse=True)),
    ("may connection_reuse=no", {"smtp_tls_connection_reuse": "yes"}, BASE),
    ("dane", {}, BASE),
    ("encrypt", {"smtp_tls_wrappermode": "yes"}, replace(BASE, level="encrypt")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "values", "expected"), VALUES)
async def test_entry_overrides_the_parameters_of_its_level(
    text: str, values: Values, expected: Policy, tmp_path: Path
) -> None:
    (tmp_path / "policy").write_text(f"example.org {text}\n")
    tables = {"smtp_tls_policy_maps": f"texthash:{tmp_path}/policy"}
    found = await policy({"compatibility_level": "3.6", **tables, **values}, "example.org")
    assert replace(found, why="") == expected


async def test_address_is_no_server_name() -> None:
    values = {"smtp_tls_security_level": "may", "smtp_tls_servername": "hostname"}
    for host in ("192.0.2.1", "ipv6:2001:db8::1"):
        assert (await policy(values, f"[{host}]", HOST._replace(host=host))).servername == ""


STS = "secure match=mx1.example.net:.mx.example.net servername=hostname policy_type=sts policy_domain=example.org "
PATTERNS = "mx_host_pattern=mx1.example.net mx_host_pattern=*.mx.example.net"


async def test_mta_sts_patterns_choose_hosts_and_the_certificate_has_the_host_name(tmp_path: Path) -> None:
    (tmp_path / "policy").write_text(f"example.org {STS}{PATTERNS}\n")
    tables = {"smtp_tls_policy_maps": f"texthash:{tmp_path}/policy"}
    found = await policy(tables, "example.org")
    assert (found.level, found.names, found.servername) == ("secure", ("mx1.example.net",), "mx1.example.net")
    below, two_below = HOST._replace(host="b.mx.example.net"), HOST._replace(host="a.b.mx.example.net")
    assert (await policy(tables, "example.org", below)).names == ("b.mx.example.net",)
    told = "MX host a.b.mx.example.net is not in the MTA-STS policy of example.org"
    with pytest.raises(NoPolicy, match=f"^{re.escape(told)}$"):
        await policy(tables, "example.org", two_below)
    old = await policy({**tables, "smtp_tls_enforce_sts_mx_patterns": "no"}, "example.org")
    assert old.names == ("mx1.example.net", ".mx.example.net")


@pytest.mark.parametrize(
    ("pattern", "host", "expected"),
    [
        ("mx.example.org", "MX.example.org.", True),
        ("mx.example.org", "a.mx.example.org", False),
        ("*.example.org", "a.example.org", True),
        ("*.example.org", "a.b.example.org", False),
        ("*.example.org", "example.org", False),
        ("*.example.org", ".example.org", False),
        (".example.org", "a.example.org", False),
        ("*", "localhost", False),
        ("", "", False),
    ],
)
def test_pattern_of_mta_sts_stands_for_one_label(pattern: str, host: str, expected: bool) -> None:
    assert allows(pattern, host) is expected


async def test_remote_table_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    remote = opened(monkeypatch)
    values = {"smtp_tls_policy_maps": "remote:test", "smtp_tls_security_level": "may"}
    waiting = asyncio.create_task(policy(values, "a.example.org"))
    assert await remote.answer(lambda _key: None) == ["a.example.org"]
    assert await remote.answer(lambda _key: "encrypt") == [".example.org"]
    assert (await waiting).level == "encrypt"
    failing = asyncio.create_task(outcome(values, "a.example.org"))
    await remote.answer(TableError("no answer"))
    assert await failing == " ".join(PROBLEM)


WITHOUT_TLS = "TLS is required, but was not offered by host"
PEER_ROWS: list[str] = [
    *(text for text, _ in BAD_ENTRIES),
    *("none", "none ciphers=high", "may", "encrypt", "ENCRYPT", "", "secure match=a:b match=.c", "may,ciphers=high"),
    *(
        "secure tafile=/nonexistent",
        "encrypt connection_reuse=maybe",
        "encrypt protocols=",
        "encrypt servername=nexthop",
    ),
    *("fingerprint", "fingerprint match=xx", "fingerprint match=aa:bb", f"fingerprint match=zz|{'ab' * 32}"),
    *("dane", "dane-only", "encrypt exclude=", "verify tafile="),
]
"""Entries, each for a next hop of its own. The server offers no TLS."""


def without_tls(client: socket.socket) -> None:
    """Answer an SMTP client, without STARTTLS."""
    with client.makefile("rwb") as stream:
        stream.write(b"220 mx\r\n")
        stream.flush()
        in_data = False
        for line in stream:
            if in_data:
                if line == b".\r\n":
                    in_data = False
                    stream.write(b"250 ok\r\n")
            else:
                in_data = line.startswith(b"DATA")
                stream.write(b"354 go\r\n" if in_data else b"250 ok\r\n")
            stream.flush()


def next_hop(row: int, port: int) -> str:
    """Return the next hop of a row: an address of the loopback network."""
    return f"[127.0.0.{row + 2}]:{port}"


@pytest.fixture(scope="module")
def peer_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int, str]]:
    """Deliver one message for each row with Debian's Postfix; return the table, the port and the log."""
    root()
    postfix_home()
    directory = tmp_path_factory.mktemp("peer")
    server = Scripted(without_tls, host="0.0.0.0")
    table = directory / "policy"
    hops = [next_hop(row, server.port) for row in range(len(PEER_ROWS))]
    table.write_text("".join(f"/^{re.escape(hop)}$/ {text}\n" for hop, text in zip(hops, PEER_ROWS, strict=True)))
    routes = " ".join(f"{{ d{row}.example = smtp:{hop} }}" for row, hop in enumerate(hops))
    main_cf = {"transport_maps": f"inline:{{ {routes} }}", "smtp_tls_policy_maps": f"regexp:{table}"}
    tlsmgr = "tlsmgr    unix  -       -       n       1000?   1       tlsmgr\n"
    site = Site(directory, main_cf=main_cf, master_cf=tlsmgr)
    try:
        with running(site, "postfix"):
            for row in range(len(PEER_ROWS)):
                command = ["/usr/sbin/sendmail", "-C", str(site.etc), "-f", "a@example.org", f"u@d{row}.example"]
                subprocess.run(command, input="Subject: x\n\nx\n", text=True, check=True)
            done = re.compile(r" to=<u@d(\d+)\.example>.* status=")
            wait_for("all rows", lambda: len(set(done.findall(site.log_text()))) == len(PEER_ROWS))
        yield table, server.port, site.log_text()
    finally:
        server.close()


@pytest.mark.parametrize(("row", "text"), list(enumerate(PEER_ROWS)))
async def test_entry_gives_the_warnings_and_the_status_of_postfix(
    row: int, text: str, peer_log: tuple[Path, int, str]
) -> None:
    table, port, log = peer_log
    status = re.search(rf" to=<u@d{row}\.example>.* dsn=(\S+), status=\w+ \((.*)\)$", log, re.MULTILINE)
    assert status is not None
    hop = next_hop(row, port)
    ours: list[str] = []
    target = Target(f"127.0.0.{row + 2}", f"127.0.0.{row + 2}", port)
    values = {"smtp_tls_policy_maps": f"regexp:{table}", "compatibility_level": "3.6", "smtp_tls_security_level": ""}
    try:
        found = await asked(ours, values, hop, target)
        expected = ("4.7.4", WITHOUT_TLS) if found.needs_tls else ("2.0.0", "250 ok")
    except NoPolicy as none:
        expected = (none.dsn, str(none))
    assert (status[1], status[2][: len(expected[1])]) == expected
    theirs = re.findall(rf"warning: (.*{re.escape(hop)}.*)", log)
    assert {line for line in ours if hop in line} == set(theirs), text
    for line in ours:
        assert f"warning: {line}" in log or line.startswith("no replacement text") or "regexp" in line
