"""Addresses at the border: Postfix and Postillion give the same answers from one main.cf."""

from __future__ import annotations

import re
import smtplib
import subprocess
from collections.abc import Iterator

import pytest

from support.either import PROGRAMS, Server, program
from support.mta import Site, commands_of, delivered, local_user, running, submitted

MAIN_CF = {
    "recipient_delimiter": "+",
    "relay_domains": "next.example",
    "relocated_maps": "inline:{ {gone@example.org=there@far.example} }",
    "transport_maps": "inline:{{ next.example = discard: }}",
}
BAD_RECIPIENT = (501, "5.1.3 Bad recipient address syntax")
BAD_SENDER = (501, "5.1.7 Bad sender address syntax")
TAKEN = (250, "2.1.5 Ok")
SENDER_TAKEN = (250, "2.1.0 Ok")
UNKNOWN = "5.1.1 <{}>: Recipient address rejected: User unknown in local recipient table"
MOVED = "5.1.6 <{}>: Recipient address rejected: User has moved to there@far.example"

RECIPIENTS = [
    ("<{user}+@example.org>", TAKEN),
    ("<{user}++x@example.org>", TAKEN),
    ("<+{user}@example.org>", (550, UNKNOWN.format("+{user}@example.org"))),
    ("<-x@next.example>", BAD_RECIPIENT),
    ("<-x@example.org>", BAD_RECIPIENT),
    ('<"-x"@next.example>', BAD_RECIPIENT),
    ("<u-@next.example>", TAKEN),
    ("<u@127.0.0.1>", BAD_RECIPIENT),
    ("<u@1.2.3>", BAD_RECIPIENT),
    ("<u@1>", BAD_RECIPIENT),
    ("<u@-a.next.example>", BAD_RECIPIENT),
    ("<u@a-.next.example>", BAD_RECIPIENT),
    ("<u@a..next.example>", BAD_RECIPIENT),
    ("<{user}@>", BAD_RECIPIENT),
    (r"<a\.b@next.example>", TAKEN),
    (r"<{user[0]}\{user[1]}{user_tail}@example.org>", TAKEN),
    ("<u@next.example.>", TAKEN),
    ("<u%next.example@example.org>", TAKEN),
    ("<next.example!u@example.org>", TAKEN),
    ('<"u@next.example"@example.org>', TAKEN),
    ("<u%next.example>", TAKEN),
    ("<{user}%localhost@example.org>", TAKEN),
    ("<nosuch%localhost@example.org>", (550, UNKNOWN.format("nosuch%localhost@example.org"))),
    ("<gone@example.org>", (550, MOVED.format("gone@example.org"))),
    ("<gone+x%example.org@localhost>", (550, MOVED.format("gone+x%example.org@localhost"))),
    ("<u@far.example>", (550, "5.1.1 <u@far.example>: Recipient address rejected: no mail leaves this machine")),
]
SENDERS = [
    ("<-x@next.example>", BAD_SENDER),
    ("<-x>", BAD_SENDER),
    ("<u@127.0.0.1>", BAD_SENDER),
    ("<u@-a.example>", BAD_SENDER),
    ("<u@>", BAD_SENDER),
    (r"<a\.b@next.example>", SENDER_TAKEN),
    ("<+x@b.example>", SENDER_TAKEN),
    ("<a> AUTH=<>", SENDER_TAKEN),
    ("<a@b.example> AUTH=x@y", SENDER_TAKEN),
    ("<a@b.example> AUTH=", SENDER_TAKEN),
]


@pytest.fixture(scope="module", params=PROGRAMS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    name = program(request)
    site = Site(tmp_path_factory.mktemp(name), main_cf=MAIN_CF)
    with running(site, name):
        yield Server(site, name)


def named(text: str) -> str:
    """Return a row's text with the local user's name in it."""
    user = local_user()
    return text.format(user=user, user_tail=user[2:])


def replies(server: Server, rows: list[tuple[str, tuple[int, str]]], *before: str, verb: str) -> dict[str, object]:
    """Return the reply to each row's address."""
    found: dict[str, object] = {}
    with smtplib.SMTP("127.0.0.1", server.site.port) as client:
        client.ehlo("client.example")
        for text, _ in rows:
            client.rset()
            for command in before:
                client.docmd(command)
            code, reply = client.docmd(f"{verb}:{named(text)}")
            found[text] = code, reply.decode()
            if len(found) % 5 == 0:
                # Errors slow a session down; a new one is fast again.
                client.quit()
                client.connect("127.0.0.1", server.site.port)
                client.ehlo("client.example")
    return found


def test_recipients_are_taken_or_refused_by_their_syntax(server: Server) -> None:
    found = replies(server, RECIPIENTS, "MAIL FROM:<s@next.example>", verb="RCPT TO")
    assert found == {text: (code, named(reply)) for text, (code, reply) in RECIPIENTS}


def test_senders_are_taken_or_refused_by_their_syntax(server: Server) -> None:
    assert replies(server, SENDERS, verb="MAIL FROM") == dict(SENDERS)


def submit(server: Server, *recipients: str) -> None:
    """Hand a message to sendmail(1) for these recipients."""
    sendmail = str(commands_of(server.program) / "sendmail")
    command = [sendmail, "-C", str(server.site.etc), "-f", "s@next.example", "--", *recipients]
    subprocess.run(command, input=b"Subject: x\n\nx\n", check=True, capture_output=True, timeout=60)


def deliveries(server: Server, recipients: tuple[str, ...]) -> list[str]:
    """Submit to `recipients`; return the addresses and statuses of the deliveries."""
    seen = len(server.site.log_text())
    submit(server, *recipients)
    log = delivered(server.site, submitted(server.site, seen))
    found = re.findall(r"to=<([^>]*)>.* dsn=([\d.]+), status=(\w+)", log)
    return sorted(f"{to} {dsn} {status}" for to, dsn, status in found)


@pytest.mark.parametrize(
    ("recipients", "expected"),
    [
        (("a@NEXT.example", "a@next.example", "A@next.example"), ["a@NEXT.example 2.0.0 sent"]),
        (("{user}@example.org", "{USER}@EXAMPLE.org"), ["{user}@example.org 2.0.0 sent"]),
        (("{user}+x@example.org", "{user}+X@example.org"), ["{user}+x@example.org 2.0.0 sent"]),
        (("{user}+@example.org",), ["{user}+@example.org 2.0.0 sent"]),
        (("{user}@",), ["{user}@ 5.1.3 bounced"]),
        (("-x@next.example",), ["-x@next.example 5.1.3 bounced"]),
        (("u@127.0.0.1",), ["u@127.0.0.1 5.1.3 bounced"]),
        (("u@-a.example",), ["u@-a.example 5.1.3 bounced"]),
        ((r"a\.b@next.example",), ["a.b@next.example 2.0.0 sent"]),
        (("u%next.example@example.org",), ["u@next.example 2.0.0 sent"]),
        (("next.example!u@example.org",), ["u@next.example 2.0.0 sent"]),
        (('"u@next.example"@example.org',), ["u@next.example 2.0.0 sent"]),
        (("{user}%localhost@example.org",), ["{user}@localhost 2.0.0 sent"]),
        (("gone@example.org",), ["gone@example.org 5.1.6 bounced"]),
    ],
)
def test_submitted_mail_is_delivered_once_or_bounced(
    server: Server, recipients: tuple[str, ...], expected: list[str]
) -> None:
    names = {"user": local_user(), "USER": local_user().upper()}
    given = tuple(recipient.format(**names) for recipient in recipients)
    assert deliveries(server, given) == [text.format(**names) for text in expected]
