"""soft_bounce = yes: no refusal or bounce is permanent. One site, run by Postillion and by Postfix."""

from __future__ import annotations

import json
import re
import smtplib
from collections.abc import Iterator

import pytest

from support.either import PROGRAMS, Server, program
from support.mta import Site, local_user, running
from support.sink import Sink

REFUSED = {"bad@next.example": "550 5.1.1 no such user", "full@next.example": "552 mailbox full"}


@pytest.fixture(scope="module", params=PROGRAMS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server with long backoff times, so that deferred mail stays deferred."""
    mta = program(request)
    settings = {
        "soft_bounce": "yes",
        "minimal_backoff_time": "3600s",
        "maximal_backoff_time": "4000s",
        "relay_domains": "next.example",
        "smtpd_recipient_restrictions": "reject_unauth_destination",
    }
    site = Site(tmp_path_factory.mktemp(mta), main_cf=settings)
    with (site.etc / "aliases").open("a") as aliases:
        aliases.write('fails: "|/bin/false"\n')
    with (site.etc / "main.cf").open("a") as main_cf:
        main_cf.write("default_transport = smtp\n")
    with running(site, mta):
        yield Server(site, mta)


@pytest.mark.parametrize(
    ("recipient", "dsn", "reason"),
    [
        ("bad@next.example", "4.1.1", "said: 550 5.1.1 no such user"),
        ("full@next.example", "4.0.0", "said: 552 mailbox full"),
        ("fails@example.org", "4.3.0", 'Command died with status 1: "/bin/false"'),
    ],
    ids=["next hop", "next hop without enhanced code", "local command"],
)
def test_permanently_refused_recipient_is_deferred(server: Server, recipient: str, dsn: str, reason: str) -> None:
    with Sink(server.site.next_port, refuse=REFUSED):
        queue_id = server.send(server.user, recipient, "it bounces softly")
        server.log(rf"{queue_id}: to=<{recipient}>,.* dsn={dsn}, status=SOFTBOUNCE \(.*{re.escape(reason)}")
    listed = [json.loads(line) for line in server.command("postqueue", "-j").splitlines()]
    [message] = [message for message in listed if message["queue_id"] == queue_id]
    assert message["queue_name"] == "deferred"
    [waiting] = message["recipients"]
    assert reason in waiting["delay_reason"]
    assert not server.site.maildir(local_user()), "the sender gets no report"
    server.command("postsuper", "-d", queue_id)


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("RCPT TO:<x@elsewhere.example>", b"454 4.7.1 <x@elsewhere.example>: Relay access denied"),
        (
            "RCPT TO:<nobody-knows-me@example.org>",
            b"450 4.1.1 <nobody-knows-me@example.org>: Recipient address rejected",
        ),
        ("RCPT TO:", b"401 4.5.4 Syntax: RCPT TO:<address>"),
        ("NONSENSE", b"400 4.5.2 Error: command not recognized"),
    ],
)
def test_client_gets_4xx_instead_of_5xx(server: Server, command: str, reply: bytes) -> None:
    with smtplib.SMTP("127.0.0.1", server.site.port) as client:
        client.ehlo("client.example")
        client.mail("a@client.example")
        code, text = client.docmd(command)
        assert (b"%d " % code + text).startswith(reply)
