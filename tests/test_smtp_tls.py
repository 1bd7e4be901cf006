"""TLS of the agent smtp: what each level does with each kind of server, and the log lines."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from pathlib import Path

import pytest

from support.agents import WAIT_S, Mail
from support.certificates import Authority, Certificate
from support.tls_server import TlsScript, context, tls_server
from test_smtp_agent import mail, smtp

HOST = r"127\.0\.0\.1\[127\.0\.0\.1\]"
MODERN = r"TLSv1\.3 with cipher TLS_AES_256_GCM_SHA384 \(256/256 bits\) key-exchange X25519 server-signature .*"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return an authority that the site trusts."""
    return Authority(tmp_path_factory.mktemp("ca"), "Site Authority")


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    """Return a certificate of 127.0.0.1 by its name mx.example."""
    return authority.sign("/CN=mx.example", "DNS:mx.example")


def at(level: str, authority: Authority | None = None, more: str = "") -> str:
    """Return the parameters of a level."""
    trust = "" if authority is None else f"smtp_tls_CAfile = {authority.cert}\n"
    return f"smtp_tls_security_level = {level}\nsmtp_tls_loglevel = 1\n{trust}{more}"


@pytest.mark.parametrize("level", ["may", "encrypt"])
@pytest.mark.parametrize("version", [None, ssl.TLSVersion.TLSv1_2])
async def test_mail_goes_out_inside_tls(
    tmp_path: Path, certificate: Certificate, level: str, version: ssl.TLSVersion | None
) -> None:
    script = TlsScript(tls=context(certificate, version))
    content = b"Subject: x\r\n\r\n" + b"y" * 70 + b"\r\n"
    async with tls_server(script), smtp(tmp_path, at(level)) as (hub, daemon):
        result = await hub.deliver(f"[127.0.0.1]:{script.port}", mail(content=content))
        assert result.only.outcome == "sent"
        assert script.received == [content + b".\r\n"]
        assert (script.secured, script.in_clear) == (1, [])
        assert [command.split(" ")[0] for command in script.commands[:3]] == ["EHLO", "STARTTLS", "EHLO"]
        line = daemon.logged()[0]
        wanted = MODERN if version is None else r"TLSv1\.2 with cipher .*"
        assert re.fullmatch(rf"Untrusted TLS connection established to {HOST}:{script.port}: {wanted}", line)


async def test_large_messages_go_out_whole_inside_tls(tmp_path: Path, certificate: Certificate) -> None:
    content = b"".join(b"%07d" % number + b"z" * 70 + b"\r\n" for number in range(40_000))
    script = TlsScript(tls=context(certificate))
    async with tls_server(script), smtp(tmp_path, at("encrypt")) as (hub, _):
        waiting = hub.send(*(hub.job(f"[127.0.0.1]:{script.port}", mail(content=content)) for _ in range(3)))
        results = await asyncio.wait_for(asyncio.gather(*waiting), WAIT_S)
        assert [result.only.outcome for result in results] == ["sent"] * 3
        assert script.received == [content + b".\r\n"] * 3


@pytest.mark.parametrize(
    ("level", "outcome", "text"),
    [
        ("none", "sent", "250 2.0.0 Ok: queued as X"),
        ("may", "sent", "250 2.0.0 Ok: queued as X"),
        ("encrypt", "deferred", rf"TLS is required, but was not offered by host {HOST}"),
        ("secure", "deferred", rf"TLS is required, but was not offered by host {HOST}"),
    ],
)
async def test_server_without_tls_gets_mail_only_where_the_level_allows(
    tmp_path: Path, authority: Authority, level: str, outcome: str, text: str
) -> None:
    script = TlsScript(wrapper=True)
    async with tls_server(script), smtp(tmp_path, at(level, authority)) as (hub, _):
        result = await hub.deliver(f"[127.0.0.1]:{script.port}")
        assert (result.only.outcome, bool(re.fullmatch(text, result.only.text))) == (outcome, True), result
        assert len(script.received) == (outcome == "sent")


@pytest.mark.parametrize(("level", "outcome"), [("may", "sent"), ("encrypt", "deferred")])
async def test_refused_starttls_is_no_reason_to_lose_mail(tmp_path: Path, level: str, outcome: str) -> None:
    script = TlsScript({"STARTTLS": "454 4.7.0 TLS not available"})
    async with tls_server(script), smtp(tmp_path, at(level)) as (hub, _):
        result = await hub.deliver(f"[127.0.0.1]:{script.port}")
        assert result.only.outcome == outcome
        if outcome == "deferred":
            said = "454 4.7.0 TLS not available"
            text = f"TLS is required, but host 127.0.0.1[127.0.0.1] refused to start TLS: {said}"
            assert (result.only.dsn, result.only.text) == ("4.7.0", text)


@pytest.mark.parametrize(
    ("level", "age_s", "outcome", "connections"),
    [("may", 0, "deferred", 1), ("may", 1000, "sent", 2), ("encrypt", 1000, "deferred", 1)],
)
async def test_only_older_mail_goes_out_in_the_clear_after_tls_has_failed(
    tmp_path: Path, level: str, age_s: int, outcome: str, connections: int
) -> None:
    script = TlsScript()
    async with tls_server(script), smtp(tmp_path, at(level)) as (hub, daemon):
        hub.usec = int((time.time() - age_s) * 1e6)
        number, frame = hub.job(f"[127.0.0.1]:{script.port}", Mail(0, ["rcpt@example.com"]))
        now = int(time.time() * 1e6).to_bytes(8, "little")
        result = await asyncio.wait_for(
            hub.send((number, frame.replace(hub.usec.to_bytes(8, "little"), now, 1)))[0], WAIT_S
        )
        assert result.only.outcome == outcome, daemon.logged()
        assert script.connections == connections
        assert any("SSL_connect error to 127.0.0.1[127.0.0.1]" in line for line in daemon.logged())
        if outcome == "deferred":
            assert (result.only.dsn, result.only.text) == ("4.7.5", "Cannot start TLS: handshake failure")


@pytest.mark.parametrize(
    ("subject", "names", "match", "word", "outcome"),
    [
        ("/CN=mx.example", "DNS:mx.example", "mx.example", "Verified", "sent"),
        ("/CN=mx.example", "DNS:*.mail.example", "mx.mail.example", "Verified", "sent"),
        ("/CN=mx.example", "DNS:a.mx.example", ".mx.example", "Verified", "sent"),
        ("/CN=mx.example", "DNS:other.example", "mx.example", "", "deferred"),
    ],
)
async def test_only_the_right_server_gets_mail_at_secure(
    tmp_path: Path, authority: Authority, subject: str, names: str, match: str, word: str, outcome: str
) -> None:
    script = TlsScript(tls=context(authority.sign(subject, names)))
    more = f"smtp_tls_secure_cert_match = {match}\n"
    async with tls_server(script), smtp(tmp_path, at("secure", authority, more)) as (hub, daemon):
        result = await hub.deliver(f"[127.0.0.1]:{script.port}")
        assert result.only.outcome == outcome, result.only
        lines = daemon.logged()
        if outcome == "sent":
            assert re.fullmatch(rf"{word} TLS connection established to {HOST}:{script.port}: {MODERN}", lines[0])
        else:
            assert (result.only.dsn, result.only.text) == ("4.7.5", "Server certificate not verified")
            assert lines[0].startswith("server certificate verification failed for 127.0.0.1[127.0.0.1]:")
            assert (script.received, script.commands[-1]) == ([], "QUIT")


async def test_policy_table_decides_for_its_next_hop(tmp_path: Path, certificate: Certificate) -> None:
    strict, plain = TlsScript(wrapper=True), TlsScript(tls=context(certificate))
    async with tls_server(strict), tls_server(plain):
        entries = f"{{[127.0.0.1]:{strict.port}=encrypt}}, {{[127.0.0.1]:{plain.port}=none}}"
        more = f"smtp_tls_policy_maps = inline:{{{entries}}}\n"
        async with smtp(tmp_path, at("may", more=more)) as (hub, _):
            assert (await hub.deliver(f"[127.0.0.1]:{strict.port}")).only.dsn == "4.7.4"
            assert (await hub.deliver(f"[127.0.0.1]:{plain.port}")).only.outcome == "sent"
            assert (plain.secured, "STARTTLS" in plain.commands) == (0, False)


async def test_bad_policy_makes_mail_wait(tmp_path: Path, certificate: Certificate) -> None:
    script = TlsScript(tls=context(certificate))
    async with tls_server(script):
        more = f"smtp_tls_policy_maps = inline:{{{{[127.0.0.1]:{script.port}=encrypt protocols=TLSv9}}}}\n"
        async with smtp(tmp_path, at("may", more=more)) as (hub, daemon):
            result = await hub.deliver(f"[127.0.0.1]:{script.port}")
            assert (result.only.dsn, result.only.text) == ("4.7.5", "client TLS configuration problem")
            assert any("TLSv9" in line for line in daemon.logged())
            assert script.connections == 0


@pytest.mark.parametrize(("reuse", "connections"), [("no", 3), ("yes", 1)])
async def test_connections_with_tls_are_reused_only_on_request(
    tmp_path: Path, certificate: Certificate, reuse: str, connections: int
) -> None:
    script = TlsScript(tls=context(certificate))
    async with tls_server(script):
        more = f"smtp_tls_connection_reuse = {reuse}\nsmtp_connection_cache_destinations = [127.0.0.1]:{script.port}\n"
        async with smtp(tmp_path, at("encrypt", more=more)) as (hub, _):
            for _ in range(3):
                assert (await hub.deliver(f"[127.0.0.1]:{script.port}")).only.outcome == "sent"
            assert (script.connections, len(script.received)) == (connections, 3)


async def test_sessions_are_resumed_with_a_cache(tmp_path: Path, certificate: Certificate) -> None:
    script = TlsScript(tls=context(certificate))
    more = "smtp_tls_session_cache_database = btree:smtp_scache\n"
    async with tls_server(script), smtp(tmp_path, at("encrypt", more=more)) as (hub, _):
        for _ in range(3):
            assert (await hub.deliver(f"[127.0.0.1]:{script.port}")).only.outcome == "sent"
        assert (script.secured, script.resumed) == (3, 2)


async def test_wrapper_mode_greets_inside_tls(tmp_path: Path, certificate: Certificate) -> None:
    script = TlsScript(tls=context(certificate), wrapper=True)
    async with tls_server(script), smtp(tmp_path, at("encrypt", more="smtp_tls_wrappermode = yes\n")) as (hub, _):
        assert (await hub.deliver(f"[127.0.0.1]:{script.port}")).only.outcome == "sent"
        assert (script.secured, script.commands[0]) == (1, "EHLO mx.example.org")


async def test_server_name_is_asked_for(tmp_path: Path, certificate: Certificate) -> None:
    script = TlsScript(tls=context(certificate))
    more = "smtp_tls_servername = sni.example\n"
    async with tls_server(script), smtp(tmp_path, at("encrypt", more=more)) as (hub, _):
        assert (await hub.deliver(f"[127.0.0.1]:{script.port}")).only.outcome == "sent"
        assert script.names == ["sni.example"]


async def test_key_that_cannot_be_used_stops_the_start_where_tls_is_required(tmp_path: Path) -> None:
    more = f"smtp_tls_cert_file = {tmp_path}/none.pem\n"
    with pytest.raises(Exception, match=r"smtp_tls_cert_file: .*none\.pem"):
        async with smtp(tmp_path, at("encrypt", more=more)):
            pass


async def test_reports_count_what_servers_did(tmp_path: Path, authority: Authority, certificate: Certificate) -> None:
    right, wrong, plain = (
        TlsScript(tls=context(certificate)),
        TlsScript(tls=context(authority.sign("/CN=other", "DNS:other.example"))),
        TlsScript(wrapper=True),
    )
    more = "smtp_tlsrpt_enable = yes\nsmtp_tls_secure_cert_match = mx.example\n"
    counted: list[tuple[str, object]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "postillion.delivery.smtp.tls.tlsrpt.TlsReports.note",
            lambda _, domain, policy, target, failure: counted.append((policy.level, failure and failure.kind)),
        )
        async with (
            tls_server(right),
            tls_server(wrong),
            tls_server(plain),
            smtp(tmp_path, at("secure", authority, more)) as (hub, _),
        ):
            for script in (right, wrong, plain):
                await hub.deliver(f"[127.0.0.1]:{script.port}")
    assert counted == [
        ("secure", None),
        ("secure", "certificate-host-mismatch"),
        ("secure", "starttls-not-supported"),
    ]
