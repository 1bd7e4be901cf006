"""TLS that senders ask for (RFC 8689): `TLS-Required: no`, and REQUIRETLS at each policy, with each kind of server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from postillion.config import ConfigError
from postillion.delivery.smtp.nexthop import NextHop, parse
from postillion.delivery.smtp.targets import Target
from postillion.delivery.smtp.tls.connector import Connector
from postillion.delivery.smtp.tls.level import Level
from postillion.delivery.smtp.tls.policies import TlsPolicies
from postillion.delivery.smtp.tls.policy import NoPolicy, Policy
from postillion.delivery.smtp.tls.requiretls import RequireTlsPolicies, refuse_weaker
from postillion.dns import Resolver
from postillion.tables import TableError
from support.agents import WAIT_S, Mail, Status
from support.certificates import Authority, Certificate
from support.memory_config import config
from support.remote_table import opened
from support.tls_server import TlsScript, context, tls_server
from test_smtp_agent import smtp

HOST = Target("mx1.example.net", "192.0.2.1", 25, mx_secure=False)
NOBODY = Resolver(["127.0.0.1"], 9)
"""Asks nobody: the tests of this file need no name server."""
HERE = "127.0.0.1[127.0.0.1]"
KEYWORDS = ("PIPELINING", "DSN", "REQUIRETLS")
MAIL_FROM = "MAIL FROM:<sender@example.org>"
NOT_VERIFIED = f"REQUIRETLS needs a verified server, but the certificate of host {HERE} is not verified"
NO_OFFER = f"REQUIRETLS needs TLS, but it was not offered by host {HERE}"
REFUSED = f"REQUIRETLS needs TLS, but host {HERE} refused to start it: 454 4.7.0 no"
NO_SUPPORT = f"REQUIRETLS was not offered by host {HERE}"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return an authority that the site trusts."""
    return Authority(tmp_path_factory.mktemp("ca"), "Site Authority")


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    """Return a certificate of mx.example."""
    return authority.sign("/CN=mx.example", "DNS:mx.example")


def parameters(
    level: str, authority: Authority, policy: str = "enforce", match: str = "mx.example", more: str = ""
) -> str:
    """Return the parameters of a site. The server has the name mx.example."""
    return (
        f"smtp_tls_security_level = {level}\nsmtp_tls_CAfile = {authority.cert}\nsmtp_tls_secure_cert_match = {match}\n"
        f"smtp_requiretls_policy = {policy}\n{more}"
    )


def requiring(**more: object) -> Mail:
    """Return a message whose sender asks for REQUIRETLS."""
    return Mail(0, ["rcpt@example.com"], requiretls=True, **more)  # type: ignore[arg-type]


def usual() -> Mail:
    """Return a message whose sender asks for nothing."""
    return Mail(0, ["rcpt@example.com"])


def waiving(**more: object) -> Mail:
    """Return a message with `TLS-Required: no`."""
    return Mail(0, ["rcpt@example.com"], waives_tls=True, **more)  # type: ignore[arg-type]


def told(status: Status) -> tuple[str, str, str]:
    """Return outcome, code and text of a status."""
    return status.outcome, status.dsn, status.text


# TLS-Required: no.


@pytest.mark.parametrize(
    ("values", "limit"),
    [
        ({"smtp_tls_security_level": "none"}, "none"),
        ({"smtp_tls_security_level": "may"}, "may"),
        ({"smtp_tls_security_level": "encrypt"}, "may"),
        ({"smtp_tls_security_level": "fingerprint"}, "may"),
        ({"smtp_tls_security_level": "dane"}, "may"),
        ({"smtp_tls_security_level": "dane-only"}, "may"),
        ({"smtp_tls_security_level": "verify"}, "may"),
        ({"smtp_tls_security_level": "secure"}, "may"),
        ({"smtp_enforce_tls": "yes"}, "may"),
        ({"smtp_tls_security_level": "secure", "smtp_tls_wrappermode": "yes"}, "encrypt"),
        ({"smtp_tls_security_level": "encrypt", "smtp_tls_wrappermode": "yes"}, "encrypt"),
        ({"smtp_tls_policy_maps": "inline:{{example.org=secure}}"}, "none"),
        ({"smtp_tls_policy_maps": "inline:{{example.org=none}}", "smtp_tls_security_level": "verify"}, "may"),
        ({"smtp_tls_per_site": "inline:{{example.org=MUST}}", "smtp_tls_security_level": "encrypt"}, "may"),
        ({"smtp_tls_policy_maps": "fail:no", "smtp_tls_security_level": "secure"}, "may"),
    ],
)
def test_tls_required_no_limits_the_level_of_main_cf_and_asks_no_table(values: dict[str, str], limit: str) -> None:
    policies = TlsPolicies(config(**values), "smtp", NOBODY, lambda _text: None)
    policy = policies.waived(parse("example.org", 25), HOST)
    assert (policy.level, policy.needs_match, policy.records, policy.names) == (limit, False, (), ())


def test_tls_required_no_never_means_clear_text_in_wrapper_mode() -> None:
    values = {"smtp_tls_security_level": "may", "smtp_tls_wrappermode": "yes"}
    policies = TlsPolicies(config(**values), "smtp", NOBODY, lambda _text: None)
    with pytest.raises(NoPolicy, match="server unavailable"):
        policies.waived(parse("example.org", 25), HOST)


@pytest.mark.parametrize(
    ("level", "keywords", "more", "usual", "waived"),
    [
        ("encrypt", (), "", "deferred", "sent"),
        ("secure", (), "", "deferred", "sent"),
        ("secure", ("STARTTLS",), "", "deferred", "sent"),
        ("none", ("STARTTLS",), "smtp_tls_policy_maps = static:encrypt\n", "sent", "sent"),
        ("none", (), "smtp_tls_policy_maps = static:encrypt\n", "deferred", "sent"),
        ("may", (), "smtp_tls_policy_maps = fail:broken\n", "deferred", "sent"),
        ("secure", ("STARTTLS",), "tls_required_enable = no\n", "deferred", "deferred"),
    ],
)
async def test_tls_required_no_gets_mail_to_a_server_that_other_mail_avoids(
    tmp_path: Path, authority: Authority, certificate: Certificate, level: str, keywords: tuple[str, ...], more: str,
    usual: str, waived: str,
) -> None:  # fmt: skip
    # With wrapper, the script has no STARTTLS of its own.
    script = TlsScript(tls=context(certificate), wrapper=not keywords)
    script.tls = script.tls if keywords else None
    text = parameters(level, authority, match="other.example", more=more)
    async with tls_server(script), smtp(tmp_path, text) as (hub, _):
        nexthop = f"[127.0.0.1]:{script.port}"
        for mail, expected in ((None, usual), (waiving(), waived), (None, usual)):
            assert (await hub.deliver(nexthop, mail)).only.outcome == expected
        assert len(script.received) == 2 * (usual == "sent") + (waived == "sent")


async def test_tls_required_no_prefers_tls_all_the_same(
    tmp_path: Path, authority: Authority, certificate: Certificate
) -> None:
    script = TlsScript(tls=context(certificate))
    text = parameters("secure", authority, match="other.example")
    async with tls_server(script), smtp(tmp_path, text) as (hub, _):
        assert (await hub.deliver(f"[127.0.0.1]:{script.port}", waiving())).only.outcome == "sent"
        assert (script.secured, script.in_clear) == (1, [])


async def test_requiretls_wins_over_tls_required_no(
    tmp_path: Path, authority: Authority, certificate: Certificate
) -> None:
    script = TlsScript(tls=context(certificate), keywords=KEYWORDS)
    text = parameters("secure", authority, match="other.example")
    async with tls_server(script), smtp(tmp_path, text) as (hub, _):
        result = await hub.deliver(f"[127.0.0.1]:{script.port}", requiring(waives_tls=True))
        assert told(result.only) == ("bounced", "5.7.10", NOT_VERIFIED)
        assert script.received == []


# REQUIRETLS: the policy.

TABLES = "inline:{{example.org=disable}, {.example.org=Opportunistic}, {xn--mnchen-3ya.example=opportunistic}}"


@pytest.mark.parametrize(
    ("text", "domain", "expected"),
    [
        ("", "example.org", "enforce"),
        ("disable", "example.org", "disable"),
        ("Opportunistic+STARTTLS", "example.org", "opportunistic+starttls"),
        (TABLES, "example.org", "disable"),
        (TABLES, "mx.example.org", "opportunistic"),
        (TABLES, "a.mx.example.org", "opportunistic"),
        (TABLES, "example.net", "enforce"),
        (TABLES, "xn--mnchen-3ya.example", "opportunistic"),
        (f"{TABLES}, opportunistic+starttls enforce", "example.net", "opportunistic+starttls"),
        ("cidr:{{192.0.2.0/24 opportunistic}} disable", "192.0.2.7", "opportunistic"),
        ("cidr:{{192.0.2.0/24 opportunistic}} disable", "198.51.100.7", "disable"),
        ("cidr:{{192.0.2.0/24 opportunistic}} disable", "example.org", "disable"),
        # A pattern is asked for the name alone.
        (r"regexp:{{/^\.example\.org$$/ disable}} opportunistic", "mx.example.org", "opportunistic"),
        (r"regexp:{{/example\.org$$/ disable}} opportunistic", "mx.example.org", "disable"),
    ],
)
async def test_first_word_or_table_with_the_next_hop_decides(text: str, domain: str, expected: str) -> None:
    policies = RequireTlsPolicies(config(smtp_requiretls_policy=text), "smtp", lambda _text: None)
    assert await policies.policy_of(domain) == expected


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("example.org", "opportunistic"),
        ("mx.example.org", "opportunistic"),
        ("localhost", "opportunistic"),
        ("192.0.2.1", "opportunistic"),
        ("2001:db8::1", "opportunistic"),
        ("example.net", "enforce"),
        ("notexample.org", "enforce"),
    ],
)
async def test_default_enforces_outside_the_site(domain: str, expected: str) -> None:
    values = config(mydomain="example.org")
    assert await RequireTlsPolicies(values, "smtp", lambda _text: None).policy_of(domain) == expected
    assert await RequireTlsPolicies(values, "lmtp", lambda _text: None).policy_of(domain) == "opportunistic"


@pytest.mark.parametrize("text", ["enforced", "opportunistic+tls", "{enforce}", "error", "nosuch:table"])
def test_unknown_policy_stops_the_start(text: str) -> None:
    with pytest.raises(ConfigError, match="smtp_requiretls_policy: "):
        RequireTlsPolicies(config(smtp_requiretls_policy=text), "smtp", lambda _text: None)


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("fail:x opportunistic", "smtp_requiretls_policy: "),
        ("inline:{{example.org=maybe}} opportunistic", 'unknown policy "maybe" for "example.org" in '),
        ("inline:{{example.org=enforce opportunistic}}", 'unknown policy "enforce opportunistic" for '),
        ("static:inline:x", 'unknown policy "inline:x" for '),
    ],
)
async def test_table_without_an_answer_makes_the_mail_wait(text: str, warning: str) -> None:
    warnings: list[str] = []
    policies = RequireTlsPolicies(config(smtp_requiretls_policy=text), "smtp", warnings.append)
    with pytest.raises(NoPolicy) as none:
        await policies.policy_of("example.org")
    assert (none.value.dsn, str(none.value)) == ("4.7.10", "REQUIRETLS policy problem")
    assert len(warnings) == 1
    assert warning in warnings[0]


async def test_remote_policy_table_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    remote = opened(monkeypatch)
    policies = RequireTlsPolicies(config(smtp_requiretls_policy="remote:test disable"), "smtp", lambda _text: None)
    waiting = asyncio.create_task(policies.policy_of("a.example.org"))
    assert await remote.answer(lambda _key: None) == ["a.example.org"]
    assert await remote.answer(lambda _key: "opportunistic") == [".example.org"]
    assert await waiting == "opportunistic"
    failing = asyncio.create_task(policies.policy_of("a.example.org"))
    await remote.answer(TableError("no answer"))
    with pytest.raises(NoPolicy):
        await failing


@pytest.mark.parametrize(
    ("level", "enforce", "starttls"),
    [
        ("none", True, True),
        ("may", True, False),
        ("encrypt", True, False),
        ("fingerprint", False, False),
        ("half-dane", False, False),
        ("dane", False, False),
        ("verify", False, False),
        ("secure", False, False),
    ],
)
def test_tls_level_must_be_able_to_give_what_is_asked(level: Level, enforce: bool, starttls: bool) -> None:
    policy = Policy(level, "test")
    for requiretls, refused in (("enforce", enforce), ("opportunistic+starttls", starttls)):
        if not refused:
            refuse_weaker(requiretls, policy, HOST)  # type: ignore[arg-type]
            continue
        with pytest.raises(NoPolicy) as none:
            refuse_weaker(requiretls, policy, HOST)  # type: ignore[arg-type]
        assert none.value.dsn == "5.7.10"
        assert str(none.value).endswith(f"and the TLS level of mx1.example.net is {level}")
    refuse_weaker("opportunistic", policy, HOST)
    refuse_weaker("disable", policy, HOST)


@pytest.mark.parametrize(
    ("site", "prefix", "expected"),
    [
        (parse("[mx.example.org]:587", 25), "smtp", "mx.example.org"),
        (parse("M\u00fcnchen.example", 25), "smtp", "xn--mnchen-3ya.example"),
        (parse("[192.0.2.1]:25", 25), "smtp", "192.0.2.1"),
        (parse("[IPv6:2001:DB8::1]:25", 25), "smtp", "2001:db8::1"),
        (parse("inet:host.example:24", 24, lmtp=True), "lmtp", "host.example"),
        (parse("unix:/run/lmtp", 24, lmtp=True), "lmtp", "mx.example.org"),
    ],
)
def test_key_is_the_next_hop_without_brackets_and_port(site: NextHop, prefix: str, expected: str) -> None:
    policies = TlsPolicies(config(myhostname="mx.example.org"), prefix, NOBODY, lambda _text: None)
    assert policies.domain_of(site) == expected


async def test_mail_with_requiretls_is_refused_even_where_no_connection_uses_tls() -> None:
    connector = Connector(config(smtp_requiretls_policy="enforce"), "smtp", NOBODY, lambda _text: None)
    site = parse("example.org", 25)
    assert connector.known(site, HOST, "usual") is not None
    assert connector.known(site, HOST, "waived") is not None
    assert connector.known(site, HOST, "required") is None
    with pytest.raises(NoPolicy, match=r"the TLS level of mx1\.example\.net is none"):
        await connector.of(site, HOST, "required")


# REQUIRETLS: the dialogue.


@pytest.mark.parametrize(
    ("policy", "level", "match", "offers", "status", "parameters_said"),
    [
        ("enforce", "secure", "mx.example", True, "sent", " REQUIRETLS"),
        ("enforce", "secure", "mx.example", False, ("bounced", "5.7.30", NO_SUPPORT), None),
        ("enforce", "secure", "other.example", True, ("bounced", "5.7.10", NOT_VERIFIED), None),
        ("opportunistic+starttls", "may", "", True, "sent", " REQUIRETLS"),
        ("opportunistic+starttls", "may", "", False, "sent", " RET=HDRS"),
        ("opportunistic+starttls", "encrypt", "", False, "sent", " RET=HDRS"),
        (
            "opportunistic+starttls",
            "secure",
            "other.example",
            True,
            ("deferred", "4.7.5", "Server certificate not verified"),
            None,
        ),
        ("opportunistic", "may", "", True, "sent", " REQUIRETLS"),
        ("opportunistic", "may", "", False, "sent", " RET=HDRS"),
        ("disable", "may", "", True, "sent", ""),
        ("disable", "may", "", False, "sent", ""),
    ],
)
async def test_server_with_tls_gets_what_the_policy_allows(
    tmp_path: Path, authority: Authority, certificate: Certificate, policy: str, level: str, match: str, offers: bool,
    status: str | tuple[str, str, str], parameters_said: str | None,
) -> None:  # fmt: skip
    script = TlsScript(tls=context(certificate), keywords=KEYWORDS if offers else KEYWORDS[:-1])
    text = parameters(level, authority, policy, match or "mx.example")
    async with tls_server(script), smtp(tmp_path, text) as (hub, _):
        result = await hub.deliver(f"[127.0.0.1]:{script.port}", requiring())
        if isinstance(status, tuple):
            assert told(result.only) == status
        assert result.only.outcome == (status if isinstance(status, str) else status[0])
        said = [command for command in script.commands if command.startswith("MAIL")]
        assert said == ([] if parameters_said is None else [MAIL_FROM + parameters_said])
        assert script.in_clear == []


@pytest.mark.parametrize(
    ("policy", "level", "refuses", "status"),
    [
        ("enforce", "secure", False, ("bounced", "5.7.30", NO_OFFER)),
        ("enforce", "secure", True, ("bounced", "5.7.10", REFUSED)),
        (
            "enforce",
            "may",
            False,
            ("bounced", "5.7.10", "REQUIRETLS needs a verified server, and the TLS level of 127.0.0.1 is may"),
        ),
        (
            "enforce",
            "none",
            False,
            ("bounced", "5.7.10", "REQUIRETLS needs a verified server, and the TLS level of 127.0.0.1 is none"),
        ),
        ("opportunistic+starttls", "may", False, ("bounced", "5.7.30", NO_OFFER)),
        ("opportunistic+starttls", "may", True, ("bounced", "5.7.10", REFUSED)),
        (
            "opportunistic+starttls",
            "none",
            False,
            ("bounced", "5.7.10", "REQUIRETLS needs TLS, and the TLS level of 127.0.0.1 is none"),
        ),
        ("opportunistic", "may", False, "sent"),
        ("opportunistic", "may", True, "sent"),
        ("opportunistic", "none", False, "sent"),
        ("disable", "none", False, "sent"),
    ],
)
async def test_server_without_tls_gets_mail_only_by_opportunistic_policies(
    tmp_path: Path, authority: Authority, policy: str, level: str, refuses: bool, status: str | tuple[str, str, str]
) -> None:
    # It has REQUIRETLS outside TLS, which nobody believes.
    script = TlsScript({"STARTTLS": "454 4.7.0 no"}, keywords=KEYWORDS, wrapper=not refuses)
    text = parameters(level, authority, policy, more="maximal_queue_lifetime = 1d\n")
    async with tls_server(script), smtp(tmp_path, text) as (hub, _):
        result = await hub.deliver(f"[127.0.0.1]:{script.port}", requiring())
        if isinstance(status, tuple):
            assert told(result.only) == status
            assert script.received == []
            return
        assert result.only.outcome == status
        (said,) = [command for command in script.commands if command.startswith("MAIL")]
        assert said == MAIL_FROM + ("" if policy == "disable" else " RET=HDRS")


async def test_mail_with_requiretls_goes_on_to_the_next_server(
    tmp_path: Path, authority: Authority, certificate: Certificate
) -> None:
    bare, lacking = TlsScript(wrapper=True), TlsScript(tls=context(certificate), keywords=("DSN",))
    wrong = TlsScript(tls=context(authority.sign("/CN=wrong.example", "DNS:wrong.example")), keywords=KEYWORDS)
    right = TlsScript(tls=context(certificate), keywords=KEYWORDS)
    async with (
        tls_server(bare),
        tls_server(lacking),
        tls_server(wrong),
        tls_server(right),
        smtp(tmp_path, parameters("secure", authority)) as (hub, daemon),
    ):
        nexthop = ", ".join(f"[127.0.0.1]:{script.port}" for script in (bare, lacking, wrong, right))
        assert (await hub.deliver(nexthop, requiring())).only.outcome == "sent"
        assert [len(script.received) for script in (bare, lacking, wrong, right)] == [0, 0, 0, 1]
        lines = "\n".join(daemon.logged())
        for reason in (NO_OFFER, NO_SUPPORT, NOT_VERIFIED):
            assert f": {reason}\n" in lines


async def test_a_server_that_is_down_keeps_the_mail_in_the_queue(
    tmp_path: Path, authority: Authority, certificate: Certificate
) -> None:
    lacking = TlsScript(tls=context(certificate), keywords=("DSN",))
    async with tls_server(lacking), tls_server(TlsScript()) as gone:
        port = gone.port
    async with tls_server(lacking), smtp(tmp_path, parameters("secure", authority)) as (hub, _):
        result = await hub.deliver(f"[127.0.0.1]:{lacking.port}, [127.0.0.1]:{port}", requiring())
        assert (result.only.outcome, result.only.dsn) == ("deferred", "4.4.1")
        # A backup without REQUIRETLS says nothing about the server that is down.
        result = await hub.deliver(f"[127.0.0.1]:{port}, [127.0.0.1]:{lacking.port}", requiring())
        assert (result.only.outcome, result.only.dsn) == ("deferred", "4.7.30")
        assert lacking.received == []


async def test_requiretls_of_a_site_that_does_not_want_it_is_usual_mail(
    tmp_path: Path, authority: Authority, certificate: Certificate
) -> None:
    script = TlsScript(tls=context(certificate), keywords=KEYWORDS)
    text = parameters("may", authority, more="requiretls_enable = no\n")
    async with tls_server(script), smtp(tmp_path, text) as (hub, _):
        assert (await hub.deliver(f"[127.0.0.1]:{script.port}", requiring())).only.outcome == "sent"
        assert MAIL_FROM in script.commands


async def test_lmtp_has_a_policy_of_its_own(tmp_path: Path, authority: Authority, certificate: Certificate) -> None:
    script = TlsScript(tls=context(certificate), keywords=KEYWORDS)
    text = f"lmtp_tls_security_level = secure\nlmtp_tls_CAfile = {authority.cert}\n"
    text += (
        "lmtp_tls_secure_cert_match = mx.example\nlmtp_requiretls_policy = enforce\nsmtp_requiretls_policy = disable\n"
    )
    async with tls_server(script), smtp(tmp_path, text, "lmtp") as (hub, _):
        assert (await hub.deliver(f"inet:127.0.0.1:{script.port}", requiring())).only.outcome == "sent"
        assert f"{MAIL_FROM} REQUIRETLS" in script.commands


@pytest.mark.parametrize(("policy", "connections"), [("opportunistic", 2), ("disable", 2), ("enforce", 1)])
async def test_a_kept_connection_never_outlives_its_policy(
    tmp_path: Path, authority: Authority, certificate: Certificate, policy: str, connections: int
) -> None:
    """The policy of the next message may be `enforce`."""
    script = TlsScript(tls=context(certificate), keywords=KEYWORDS)
    async with tls_server(script):
        nexthop = f"[127.0.0.1]:{script.port}"
        more = f"smtp_tls_connection_reuse = yes\nsmtp_connection_cache_destinations = {nexthop}\n"
        text = parameters("secure", authority, more=f"{more}smtp_requiretls_policy = {policy}\n")
        async with smtp(tmp_path, text) as (hub, _):
            for _ in range(2):
                assert (await hub.deliver(nexthop, requiring())).only.outcome == "sent"
            assert script.connections == connections


async def test_connections_are_not_shared_between_requests(
    tmp_path: Path, authority: Authority, certificate: Certificate
) -> None:
    """A server that other mail may use must not get mail with REQUIRETLS on the connection of other mail."""
    script = TlsScript(tls=context(certificate), keywords=KEYWORDS)
    cache = "smtp_tls_connection_reuse = yes\n"
    async with tls_server(script):
        nexthop = f"[127.0.0.1]:{script.port}"
        more = f"{cache}smtp_connection_cache_destinations = {nexthop}\n"
        text = parameters("secure", authority, more=more)
        async with smtp(tmp_path, text) as (hub, _):
            # One after the other, so that each connection is idle before the next job.
            for mail in (None, requiring(), waiving(), None, requiring(), waiving()):
                assert (await hub.deliver(nexthop, mail)).only.outcome == "sent"
            assert (script.connections, len(script.received)) == (3, 6)
            said = [command.removeprefix(MAIL_FROM) for command in script.commands if command.startswith("MAIL")]
            assert said == ["", " REQUIRETLS", "", "", " REQUIRETLS", ""]
            # All at once.
            jobs = [hub.job(nexthop, make()) for make in (usual, requiring, waiving) for _ in range(5)]
            results = await asyncio.wait_for(asyncio.gather(*hub.send(*jobs)), WAIT_S)
            assert [result.only.outcome for result in results] == ["sent"] * 15
            said = [command.removeprefix(MAIL_FROM) for command in script.commands if command.startswith("MAIL")]
            assert (said.count(" REQUIRETLS"), said.count("")) == (2 + 5, 4 + 10)
