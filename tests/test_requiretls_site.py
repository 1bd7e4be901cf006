"""REQUIRETLS and `TLS-Required: no` through a whole site: from smtpd and sendmail to servers and bounces."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import tls
from support.certificates import Authority
from support.mta import Site, delivered, local_user, running, start, stop, submitted, wait_for
from support.tls import TlsClient
from support.tls_peer import Kind, TlsPeer, by
from support.tls_server import context

TEXT = "From: s@example.com\r\nSubject: x\r\n\r\nsecret\r\n."
QUEUED = re.compile(r"queued as (\w+)")
REQUIRED = "32"
"""The options of the sender in Postfix's size record: REQUIRETLS, or `TLS-Required: no`."""
WAIVED = "16"
FAR = "r@far.example"
"""A recipient behind the server of the test."""


class Way:
    """A site whose mail for far.example goes to a server of the test."""

    def __init__(self, directory: Path, kind: Kind, authority: Authority, **main_cf: str) -> None:
        self.server = TlsPeer(kind)
        made = authority.sign("/CN=mx.example.org", "DNS:mx.example.org")
        chain = directory / "chain.pem"
        chain.write_text(made.key.read_text() + made.cert.read_text())
        self.user = local_user()
        settings = {
            "smtpd_tls_security_level": "may",
            "smtpd_tls_chain_files": str(chain),
            "smtp_tls_security_level": "secure",
            "smtp_tls_CAfile": str(authority.cert),
            "smtp_tls_secure_cert_match": "mx.example",
            "smtp_requiretls_policy": "enforce",
            "relay_domains": "far.example",
            "transport_maps": f"inline:{{{{far.example=smtp:[127.0.0.1]:{self.server.port}}}}}",
            "smtpd_error_sleep_time": "0",
        }
        self.site = Site(directory, main_cf={**settings, **main_cf})

    def send(self, *parameters: str, text: str = TEXT, to: str = FAR, sender: str = "s@example.com") -> str:
        """Send a message inside TLS with these parameters of MAIL; return its queue ID."""
        client = TlsClient(self.site.port)
        client.starttls(tls.context())
        mail = " ".join((f"MAIL FROM:<{sender}>", *parameters))
        reply = client.say(mail, f"RCPT TO:<{to}>", "DATA", text)[-1]
        client.close()
        found = QUEUED.search(reply)
        assert found, reply
        return found[1]

    def postcat(self, queue_id: str) -> str:
        """Return what postcat shows of a message's envelope."""
        return self.site.run("postcat", "-e", "-q", queue_id).stdout

    @property
    def mails(self) -> list[str]:
        """The MAIL commands that the server has heard."""
        return [line for line in self.server.heard if line.startswith("MAIL")]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "authority")


def kind_of(authority: Authority, *keywords: str, name: str = "mx.example") -> Kind:
    """Return a server with TLS and a certificate of this name, and these keywords."""
    return Kind(by(context(authority.sign(f"/CN={name}", f"DNS:{name}"))), keywords=keywords or ("REQUIRETLS",))


@pytest.fixture
def way(tmp_path: Path, authority: Authority) -> Iterator[Way]:
    """Return a running site and a server with REQUIRETLS."""
    made = Way(tmp_path, kind_of(authority, "DSN", "REQUIRETLS"), authority)
    with running(made.site):
        yield made
    made.server.close()


def size_options(text: str) -> str:
    """Return the last number of the size record that postcat shows."""
    (line,) = (line for line in text.splitlines() if line.startswith("message_size:"))
    return line.split()[-1]


def test_requiretls_is_offered_and_taken_inside_tls_alone(way: Way) -> None:
    client = TlsClient(way.site.port)
    client.reply()
    assert not any("REQUIRETLS" in line for line in client.say("EHLO client.example"))
    assert client.say("MAIL FROM:<s@example.com> REQUIRETLS") == ["555 5.5.4 Unsupported option: REQUIRETLS"]
    client.close()
    client = TlsClient(way.site.port)
    assert client.starttls(tls.context())[-1] == "250 REQUIRETLS"
    client.close()
    queue_id = way.send("REQUIRETLS")
    log = delivered(way.site, queue_id)
    assert "status=sent (250 2.0.0 taken)" in log
    assert way.mails == ["MAIL FROM:<s@example.com> REQUIRETLS"]
    message = way.server.messages[0].decode()
    # As in Postfix, the trace does not tell.
    assert "with ESMTPS id" in message
    assert message.count("REQUIRETLS") == 0
    assert message.count("Require-TLS-ESMTP: yes\r\n") == 1


def test_request_survives_hold_restart_and_requeue(tmp_path: Path, authority: Authority) -> None:
    way = Way(tmp_path, kind_of(authority, "DSN", "REQUIRETLS"), authority, defer_transports="smtp")
    with running(way.site):
        queue_id = way.send("REQUIRETLS", text=f"TLS-Required: no\r\n{TEXT}")
        wait_for("the message to be deferred", lambda: "status=deferred" in way.site.log_of(queue_id))
        assert size_options(way.postcat(queue_id)) == str(int(REQUIRED) + int(WAIVED))
        assert way.site.run("postsuper", "-h", queue_id).returncode == 0
    start(way.site, "postillion")
    try:
        assert size_options(way.postcat(queue_id)) == str(int(REQUIRED) + int(WAIVED))
        before = len(way.site.log_text())
        assert way.site.run("postsuper", "-r", queue_id).returncode == 0
        again = submitted(way.site, before)
        wait_for("the message to be deferred", lambda: "status=deferred" in way.site.log_of(again))
        assert size_options(way.postcat(again)) == str(int(REQUIRED) + int(WAIVED))
        assert way.server.heard == []
        subprocess.run([*way.site.command("postconf"), "defer_transports="], check=True, timeout=60)
        assert way.site.run("postfix", "reload").returncode == 0
        assert "status=sent" in delivered_again(way.site, again)
        assert way.mails == ["MAIL FROM:<s@example.com> REQUIRETLS"]
    finally:
        stop(way.site, "postillion")
        way.server.close()


def delivered_again(site: Site, queue_id: str) -> str:
    """Wait until a deferred message is sent; return its lines."""

    def is_sent() -> bool:
        site.run("postqueue", "-i", queue_id)
        return "status=sent" in site.log_of(queue_id)

    wait_for("a second attempt", is_sent)
    return site.log_of(queue_id)


def test_sendmail_asks_for_requiretls(way: Way) -> None:
    for words, expected in (
        (("-O", "requiretls=yes"), " REQUIRETLS"),
        (("-ORequireTLS=YES",), " REQUIRETLS"),
        (("-O", "requiretls=yes", "-O", "requiretls=no"), ""),
        ((), ""),
    ):
        before, count = len(way.site.log_text()), len(way.mails)
        command = [*way.site.command("sendmail")[:1], "-C", str(way.site.etc), "-f", "s@example.com", *words, FAR]
        subprocess.run(command, input=b"Subject: x\n\nx\n", check=True, timeout=60)
        delivered(way.site, submitted(way.site, before))
        assert way.mails[count:] == [f"MAIL FROM:<s@example.com>{expected}"], words


def test_header_for_content_filters_stands_for_the_parameter(way: Way) -> None:
    queue_id = way.send(text=f"Require-TLS-ESMTP: yes\r\n{TEXT}")
    delivered(way.site, queue_id)
    assert way.mails == ["MAIL FROM:<s@example.com> REQUIRETLS"]
    assert way.server.messages[0].count(b"Require-TLS-ESMTP") == 1


@pytest.mark.parametrize(
    ("parameters", "header", "headers_only", "waives"),
    [
        (("REQUIRETLS", "RET=FULL"), "", True, False),
        (("REQUIRETLS",), "TLS-Required: no\r\n", True, False),
        ((), "TLS-Required: no\r\n", False, True),
        ((), "", False, False),
    ],
)
def test_bounce_shows_no_more_than_the_sender_wants(
    tmp_path: Path, authority: Authority, parameters: tuple[str, ...], header: str, headers_only: bool, waives: bool
) -> None:
    kind = kind_of(authority, "DSN")._replace(replies={"RCPT": "550 5.1.1 nobody"})
    way = Way(tmp_path, kind, authority)
    with running(way.site):
        queue_id = way.send(*parameters, text=header + TEXT, sender=f"{way.user}@example.org")
        wait_for("the bounce", lambda: way.site.maildir(way.user))
        (path,) = way.site.maildir(way.user)
        text = path.read_text()
        assert ("secret" in text) == (not headers_only)
        outer = text.partition("\n\n")[0]
        assert ("TLS-Required: no" in outer) == waives
        assert "Require-TLS-ESMTP" not in outer
        log = way.site.log_of(queue_id)
        if "REQUIRETLS" in parameters:
            # The server has no REQUIRETLS.
            assert "dsn=5.7.30, status=bounced (REQUIRETLS was not offered by host 127.0.0.1[127.0.0.1])" in log
            assert (way.mails, way.server.messages) == ([], [])
        else:
            assert "dsn=5.1.1, status=bounced" in log
        report_id = re.search(r"sender non-delivery notification: (\w+)", log)
        assert report_id is not None
    way.server.close()


def test_bounce_keeps_requiretls_where_it_is_not_redacted(tmp_path: Path, authority: Authority) -> None:
    way = Way(tmp_path, kind_of(authority, "DSN"), authority, requiretls_redact_dsn="no", defer_transports="local")
    with running(way.site):
        queue_id = way.send("REQUIRETLS", sender=f"{way.user}@example.org")
        pattern = re.compile(r"sender non-delivery notification: (\w+)")
        wait_for("the bounce", lambda: pattern.search(way.site.log_of(queue_id)))
        found = pattern.search(way.site.log_of(queue_id))
        assert found is not None
        wait_for("the report to be deferred", lambda: "status=deferred" in way.site.log_of(found[1]))
        assert size_options(way.postcat(found[1])) == REQUIRED
        assert "secret" in way.site.run("postcat", "-q", found[1]).stdout
    way.server.close()


def test_tls_required_no_reaches_a_server_with_the_wrong_certificate(tmp_path: Path, authority: Authority) -> None:
    way = Way(tmp_path, kind_of(authority, name="other.example"), authority)
    with running(way.site):
        usual, waived = way.send(), way.send(text=f"TLS-Required: No\r\n{TEXT}")
        assert "status=sent" in delivered(way.site, waived)
        assert "status=deferred (Server certificate not verified)" in delivered(way.site, usual)
        assert size_options(way.postcat(usual)) == "0"
        assert len(way.server.messages) == 1
        assert b"TLS-Required: No\r\n" in way.server.messages[0]
    way.server.close()


def test_malformed_tls_required_is_a_warning(way: Way) -> None:
    queue_id = way.send(text=f"TLS-Required: maybe\r\n{TEXT}")
    delivered(way.site, queue_id)
    assert f"warning: {queue_id}: ignoring malformed header: 'TLS-Required: maybe'" in way.site.log_text()


def test_site_without_requiretls_does_not_know_it(tmp_path: Path, authority: Authority) -> None:
    way = Way(tmp_path, kind_of(authority), authority, requiretls_enable="no")
    with running(way.site):
        client = TlsClient(way.site.port)
        assert not any("REQUIRETLS" in line for line in client.starttls(tls.context()))
        assert client.say("MAIL FROM:<s@example.com> REQUIRETLS") == ["555 5.5.4 Unsupported option: REQUIRETLS"]
        client.close()
        command = [*way.site.command("sendmail")[:1], "-C", str(way.site.etc), "-f", "s@example.com"]
        command += ["-O", "requiretls=yes", FAR]
        before = len(way.site.log_text())
        done = subprocess.run(command, input=b"x\n", capture_output=True, check=True, timeout=60)
        assert b"requiretls_enable = no" in done.stderr
        delivered(way.site, submitted(way.site, before))
        assert way.mails == ["MAIL FROM:<s@example.com>"]
    way.server.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for local delivery as a user")
def test_forwarded_mail_keeps_the_request(tmp_path: Path, authority: Authority) -> None:
    way = Way(tmp_path, kind_of(authority), authority)
    (way.site.etc / "aliases").write_text(f"postmaster: nobody\nfriend: {FAR}\n")
    with running(way.site):
        queue_id = way.send("REQUIRETLS", to="friend@example.org")
        wait_for("the forwarded message", lambda: way.mails)
        assert way.mails == ["MAIL FROM:<s@example.com> REQUIRETLS"]
        delivered(way.site, queue_id)
    way.server.close()
