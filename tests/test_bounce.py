"""Delivery status notifications, read back with Python's email parser."""

import email
import email.message
import email.policy
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postillion.delivery.bounce import template
from postillion.delivery.bounce.report import (
    BOUNCE,
    CONFIRM,
    REPORT,
    WARN,
    Notification,
    Reported,
    Reporter,
    wanted,
    write_report,
    xtext_decoded,
)
from postillion.delivery.bounce.template import BUILT_IN, Template
from support import memory_config

CONFIG = memory_config.config(myhostname="mx.example", myorigin="example")
WARNINGS: list[str] = []
REPORTER = Reporter.of(CONFIG, BUILT_IN, WARNINGS.append)
ORIGINAL = b"From: me@b.example\nTo: you@far.example\nSubject: hello\n folded\n\nbody\n.\nFrom here\n"
RECIPIENT = Reported(
    "you@far.example",
    None,
    None,
    "5.1.1",
    "host mx.far.example[192.0.2.1] said: 550 5.1.1 <you@far.example>: no such user (in reply to RCPT TO command)",
    "mx.far.example[192.0.2.1]:25",
)
NOTIFICATION = Notification(
    kind=BOUNCE,
    queue_id="4ABC",
    sender="me@b.example",
    to="me@b.example",
    arrival=1_795_000_000.0,
    retry_until=1_795_432_000.0,
    envid=None,
    smtputf8=False,
    message=ORIGINAL,
    headers_only=False,
    message_id=None,
    recipients=[RECIPIENT],
)


def parse(
    notification: Notification, reporter: Reporter = REPORTER
) -> tuple[email.message.EmailMessage, list[email.message.EmailMessage]]:
    text = write_report(notification, reporter, 1_795_000_100.0)
    message = email.message_from_bytes(text, policy=email.policy.default)
    assert isinstance(message, email.message.EmailMessage)
    assert not message.defects
    parts = message.get_payload()
    assert isinstance(parts, list)
    assert len(parts) == 3
    return message, parts  # type: ignore[return-value]


def fields(part: email.message.EmailMessage) -> list[dict[str, str]]:
    groups = part.get_payload()
    assert isinstance(groups, list)
    return [dict(group.items()) for group in groups]  # type: ignore[union-attr]


def test_report_has_three_parts() -> None:
    message, (human, machine, original) = parse(NOTIFICATION)
    text = write_report(NOTIFICATION, REPORTER, 1_795_000_100.0)
    assert text.startswith(b"From: Mail Delivery System <MAILER-DAEMON>\n")
    assert message["To"] == "me@b.example"
    assert message["Subject"] == "Undelivered Mail Returned to Sender"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert message.get_boundary() == "4ABC.1795000100/mx.example"
    assert message["References"] is None
    assert human.get_content_type() == "text/plain"
    assert human.get_content_charset() == "us-ascii"
    assert "This is the mail system at host mx.example." in human.get_content()
    assert "<you@far.example>: host mx.far.example[192.0.2.1] said: 550 5.1.1" in human.get_content()
    assert max(map(len, human.get_content().splitlines())) < 80
    assert machine.get_content_type() == "message/delivery-status"
    assert original.get_content_type() == "message/rfc822"
    assert original["Content-Description"] == "Undelivered Message"


def test_report_has_fields_of_rfc_3464() -> None:
    _, (_, machine, _) = parse(replace(NOTIFICATION, envid="x+2B1"))
    about, recipient = fields(machine)
    assert about["Reporting-MTA"] == "dns; mx.example"
    assert about["Original-Envelope-Id"] == "x+1"
    assert about["X-Postfix-Queue-ID"] == "4ABC"
    assert about["X-Postfix-Sender"] == "rfc822; me@b.example"
    assert about["Arrival-Date"].endswith(")")
    assert recipient["Final-Recipient"] == "rfc822; you@far.example"
    assert "Original-Recipient" not in recipient
    assert recipient["Action"] == "failed"
    assert recipient["Status"] == "5.1.1"
    assert recipient["Remote-MTA"] == "dns; mx.far.example"
    assert recipient["Diagnostic-Code"] == "smtp; 550 5.1.1 <you@far.example>: no such user"


def test_local_reasons_have_type_x_postfix() -> None:
    mine = Reported("u@example", "list@example", "rfc822;li+2Bst@example", "5.1.1", 'unknown user: "u"', None)
    _, (human, machine, _) = parse(replace(NOTIFICATION, recipients=[mine, RECIPIENT]))
    _, first, second = fields(machine)
    assert first["Diagnostic-Code"] == 'X-Postfix; unknown user: "u"'
    assert first["Original-Recipient"] == "rfc822; li+st@example"
    assert "Remote-MTA" not in first
    assert second["Final-Recipient"] == "rfc822; you@far.example"
    assert '<u@example> (expanded from <list@example>): unknown user: "u"' in human.get_content()


def test_report_of_an_attempt_tells_who_said_what() -> None:
    lines = [
        Reported("a@x", "list@x", None, "2.0.0", "delivers to maildir", None, "local", "deliverable"),
        Reported("b@y", None, None, "2.1.5", "250 2.1.5 Ok", "mx.y[192.0.2.1]:25", "mx.y[192.0.2.1]:25", "deliverable"),
        RECIPIENT._replace(relay="mx.far.example[192.0.2.1]:25", action="undeliverable"),
        Reported("c@z", None, None, "4.4.1", "later", None, "none", "undeliverable"),
    ]
    notification = replace(NOTIFICATION, kind=REPORT, headers_only=True, recipients=lines)
    message, (human, machine, original) = parse(notification)
    assert message["Subject"] == "Mail Delivery Status Report"
    assert message["Auto-Submitted"] == "auto-replied"
    assert original["Content-Description"] == "Message Headers"
    text = " ".join(human.get_content().split())
    assert "<a@x> (expanded from <list@x>): delivery via local: delivers to maildir" in text
    assert "<b@y>: delivery via mx.y[192.0.2.1]:25: 250 2.1.5 Ok" in text
    assert "<c@z>: later" in text
    _, first, second, third, fourth = fields(machine)
    assert (first["Action"], first["Diagnostic-Code"]) == (
        "deliverable",
        "X-Postfix; delivery via local: delivers to maildir",
    )
    assert (second["Remote-MTA"], second["Diagnostic-Code"]) == ("dns; mx.y", "smtp; 250 2.1.5 Ok")
    assert (third["Action"], third["Diagnostic-Code"]) == (
        "undeliverable",
        "smtp; 550 5.1.1 <you@far.example>: no such user",
    )
    assert "Remote-MTA" not in fourth


def test_original_is_returned_byte_for_byte() -> None:
    text = write_report(NOTIFICATION, REPORTER, 1.0)
    assert b"\n\nReturn-Path: <me@b.example>\n" + ORIGINAL + b"\n--4ABC.1/mx.example--\n" in text


def test_headers_only_report_omits_the_body() -> None:
    _, (_, _, original) = parse(replace(NOTIFICATION, headers_only=True))
    assert original.get_content_type() == "text/rfc822-headers"
    assert original["Content-Description"] == "Undelivered Message Headers"
    text = original.get_payload()
    assert isinstance(text, str)
    assert text.endswith("Subject: hello\n folded\n")
    assert "body" not in text


def test_headers_only_report_ends_at_end_of_headers() -> None:
    for message in (b"no header\nSubject: x\n", b"", b"Subject: x", b"\nbody\n"):
        text = write_report(replace(NOTIFICATION, message=message, headers_only=True), REPORTER, 1.0)
        assert b"no header" not in text
        assert b"\nbody" not in text


def test_warning_names_the_retry_deadline() -> None:
    message, (human, machine, _) = parse(replace(NOTIFICATION, kind=WARN, headers_only=True))
    assert message["Subject"] == "Delayed Mail (still being retried)"
    assert fields(machine)[1]["Action"] == "delayed"
    assert fields(machine)[1]["Will-Retry-Until"]
    assert "until the message is 120 hour(s) old" in human.get_content()


def test_postmaster_copy_has_its_own_subject() -> None:
    message, _ = parse(replace(NOTIFICATION, postmaster_copy=True, to="postmaster@example"))
    assert message["Subject"] == "Postmaster Copy: Undelivered Mail"
    assert message["Auto-Submitted"] == "auto-generated"


def test_postmaster_copy_has_no_text_of_the_template() -> None:
    _, (human, _, _) = parse(replace(NOTIFICATION, postmaster_copy=True, to="postmaster@example"))
    assert human.get_content().lstrip().startswith("<you@far.example>: host mx.far.example")


def reporter_with(*templates: Template) -> Reporter:
    """Return the reporter of a site with these templates, not expanded."""
    return REPORTER._replace(templates={**BUILT_IN, **{one.name: one for one in templates}})


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (BOUNCE, template.FAILURE),
        (WARN, template.DELAY),
        (CONFIRM, template.SUCCESS),
        (REPORT, template.VERIFY),
    ],
)
def test_each_kind_has_its_template(kind: str, name: str) -> None:
    site = Template(name, "Our words.\n", "our subject", "our copy", "Us <us@site.example>")
    message, (human, _, _) = parse(replace(NOTIFICATION, kind=kind), reporter_with(site))
    assert (message["Subject"], message["From"]) == ("our subject", "Us <us@site.example>")
    assert human.get_content().startswith("Our words.\n\n<you@far.example>: ")
    message, (human, _, _) = parse(replace(NOTIFICATION, kind=kind, postmaster_copy=True), reporter_with(site))
    assert (message["Subject"], message["From"]) == ("our copy", "Us <us@site.example>")
    assert "Our words" not in human.get_content()


@pytest.mark.parametrize(
    ("charset", "octets", "text", "reason", "shown"),
    [
        ("iso-8859-1", b"Gr\xfc\xdfe\n", "Gr\u00fc\u00dfe\n", "nein", "nein"),
        ("iso-8859-1", b"Gr\xfc\xdfe\n", "Gr\u00fc\u00dfe\n", "n\u00f6", "n?"),
        ("UTF-8", b"Gr\xc3\xbc\xc3\x9fe\n", "Gr\u00fc\u00dfe\n", "n\u00f6", "n\u00f6"),
        ("us-ascii", b"Hello\n", "Hello\n", "n\u00f6", "n\u00f6"),
    ],
)
def test_text_of_a_template_keeps_its_charset(charset: str, octets: bytes, text: str, reason: str, shown: str) -> None:
    site = Template(template.FAILURE, octets.decode("utf-8", "surrogateescape"), "s", charset=charset)
    recipient = RECIPIENT._replace(text=reason, remote=None)
    notification = replace(NOTIFICATION, smtputf8=True, recipients=[recipient], message=b"Subject: x\n\n")
    written = write_report(notification, reporter_with(site), 1.0)
    declared = "utf-8" if charset == "us-ascii" else charset
    assert f"Content-Type: text/plain; charset={declared}\nContent-Transfer-Encoding: 8bit\n\n".encode() in written
    assert b"\n\n" + octets + b"\n<you@far.example>: " in written
    human = email.message_from_bytes(written, policy=email.policy.default).get_payload(0)
    assert isinstance(human, email.message.EmailMessage)
    assert human.get_content() == f"{text}\n<you@far.example>: {shown}\n"


def test_message_id_becomes_references_and_in_reply_to() -> None:
    message, _ = parse(replace(NOTIFICATION, message_id="<1@b.example>"))
    assert message["References"] == message["In-Reply-To"] == "<1@b.example>"


def test_tls_required_no_is_in_the_header_of_the_report() -> None:
    for waives_tls in (False, True):
        message, _ = parse(replace(NOTIFICATION, waives_tls=waives_tls))
        assert message["TLS-Required"] == ("no" if waives_tls else None)


def test_8bit_text_is_declared() -> None:
    message, (human, machine, original) = parse(
        replace(NOTIFICATION, message=b"Subject: gr\xc3\xbc\xc3\x9fe\n\n\xff\n")
    )
    assert message["Content-Transfer-Encoding"] == "8bit"
    assert original["Content-Transfer-Encoding"] == "8bit"
    assert human.get_content_charset() == "utf-8"
    assert machine["Content-Transfer-Encoding"] is None


def test_internationalized_mail_uses_global_content_types() -> None:
    recipient = RECIPIENT._replace(address="jürgen@far.example", text="weiß nicht", remote=None)
    notification = replace(NOTIFICATION, smtputf8=True, sender="ä@b.example", recipients=[recipient])
    text = write_report(notification, REPORTER, 1.0).decode()
    assert "Final-Recipient: utf-8; jürgen@far.example\n" in text
    assert "X-Postfix-Sender: utf-8; ä@b.example\n" in text
    assert "Content-Type: message/global-delivery-status\n" in text
    assert "Content-Type: message/global\n" in text
    assert "weiß nicht" in text
    plain = write_report(replace(notification, smtputf8=False), REPORTER, 1.0).decode()
    assert "wei? nicht" in plain
    assert "message/global" not in plain


def test_missing_message_is_still_reported() -> None:
    _, (_, _, original) = parse(replace(NOTIFICATION, message=None))
    assert "can no longer be read" in str(original.get_payload(0))


def test_message_with_the_boundary_gets_another_boundary() -> None:
    notification = replace(NOTIFICATION, message=ORIGINAL + b"--4ABC.1795000100/mx.example--\nmore\n")
    message, parts = parse(notification)
    assert message.get_boundary() == "4ABC.1795000100.1/mx.example"
    assert len(parts) == 3


@pytest.mark.parametrize(
    ("kind", "notify", "expected"),
    [
        (BOUNCE, 0, True),
        (BOUNCE, 1, False),
        (BOUNCE, 2, False),
        (BOUNCE, 4, True),
        (BOUNCE, 8, False),
        (WARN, 0, True),
        (WARN, 1, False),
        (WARN, 4, False),
        (WARN, 8, True),
        (WARN, 12, True),
    ],
)
def test_notify_selects_reports(kind: str, notify: int, expected: bool) -> None:
    assert wanted(kind, notify) is expected


@pytest.mark.parametrize(("xtext", "text"), [("a+2Bb", "a+b"), ("a+0Ab", "a?b"), ("a+", "a+"), ("+2x", "+2x")])
def test_decoded_xtext_has_no_line_ends(xtext: str, text: str) -> None:
    assert xtext_decoded(xtext) == text


HOSTILE = st.text(min_size=1, max_size=200) | st.sampled_from(["\n\nFinal-Recipient: x", "a\r\nSubject: y", "\u2028z"])


@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, st.booleans())
def test_reasons_and_addresses_cannot_add_fields(
    address: str, text: str, remote: str, sender: str, envid: str, smtputf8: bool
) -> None:
    recipient = Reported(address, sender, text, "5.0.0", text, remote)
    notification = replace(
        NOTIFICATION,
        recipients=[recipient],
        sender=sender,
        to=sender,
        envid=envid,
        smtputf8=smtputf8,
        message_id=text,
    )
    report = write_report(notification, REPORTER, 1.0).decode("utf-8", "replace")
    head, _, rest = report.partition("\n\n")
    names = [line.partition(":")[0] for line in head.split("\n") if not line.startswith("\t")]
    assert names == [
        *("From", "Subject", "To", "References", "In-Reply-To", "Auto-Submitted", "MIME-Version"),
        *("Content-Type", "Content-Transfer-Encoding"),
    ]
    start = rest.index("Reporting-MTA:")
    machine = rest[start : rest.index("\n--4ABC.1/mx.example", start)]
    known: tuple[str, ...] = (
        "Reporting-MTA",
        "Original-Envelope-Id",
        "X-Postfix-",
        "Arrival-Date",
        "Final-Recipient",
        "Action",
    )
    known += ("Original-Recipient", "Status", "Remote-MTA", "Diagnostic-Code", "    ", "\n")
    assert all(not line or line.startswith(known) for line in machine.split("\n"))
    assert machine.count("\nFinal-Recipient:") == 1
    assert machine.count("\n\n") == 1
