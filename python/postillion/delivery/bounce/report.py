"""Delivery status notifications: multipart/report messages as RFC 3464 and RFC 6522 have them.

Subjects, header fields and the form of the boundary are Postfix's, for the sake of what reads them. The text that a
peer gave as its reason stands in the report on one line, without control characters.
"""

import re
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from postillion.delivery.mailbox.letter import quote

LINE_CHARS = 79
INDENT = "    "
NEVER, SUCCESS, FAILURE, DELAY = 1, 2, 4, 8
"""NOTIFY= as bits (RFC 3461 §4.1)."""
BOUNCE, WARN, CONFIRM = "bounce", "warn", "confirm"
HEADER_LINE = re.compile(rb"[!-9;-~]+[ \t]*:|[ \t]")
UNREADABLE = b"\n\t--- The message can no longer be read ---\n"
REPLY = re.compile(r"^(?:host (?P<host>\S+)\[.*?\](?::\d+)? )?said: (?P<reply>.*?)(?: \(in reply to .*\))?$")

SUBJECTS = {
    (BOUNCE, False): "Undelivered Mail Returned to Sender",
    (BOUNCE, True): "Postmaster Copy: Undelivered Mail",
    (WARN, False): "Delayed Mail (still being retried)",
    (WARN, True): "Postmaster Warning: Delayed Mail",
    (CONFIRM, False): "Successful Mail Delivery Report",
}
"""By kind, and whether it is a copy for the postmaster."""
INTRODUCTIONS = {
    BOUNCE: """\
Your message could not be delivered to one or more of its recipients, and no
further attempt will be made. The reason for each is given below. The message
itself, or its headers, follows as an attachment.

If you need help, write to postmaster, and include this report.""",
    WARN: """\
####################################################################
# This is a warning only. There is no need to send the mail again. #
####################################################################

Your message could not be delivered yet to one or more of its recipients.
Delivery is tried again until {deadline}; you will hear
if that fails as well.

If you need help, write to postmaster, and include this report.""",
    CONFIRM: """\
Your message was delivered to the recipients below, or was handed to a mail
system that sends no reports of its own.

If you need help, write to postmaster, and include this report.""",
}


class Reported(NamedTuple):
    """A recipient and what became of it. `orcpt`: in the form `rfc822;user@example.org`, decoded."""

    address: str
    original: str | None
    orcpt: str | None
    dsn: str
    text: str
    remote: str | None


@dataclass(frozen=True)
class Notification:
    """What a report is about. Times in seconds since 1970.

    `sender`: of the message; `to`: who hears of it. `message`: the original with LF line ends, None when it can't be
    read. `headers_only`: return no more than its header block.
    """

    kind: str
    queue_id: str
    sender: str
    to: str
    arrival: float
    retry_until: float
    envid: str | None
    smtputf8: bool
    message: bytes | None
    headers_only: bool
    message_id: str | None
    recipients: Sequence[Reported]
    postmaster_copy: bool = False


class Reporter(NamedTuple):
    """Who reports: `myhostname`, `myorigin` and `mail_name` of main.cf."""

    myhostname: str
    myorigin: str
    mail_name: str


def wanted(kind: str, notify: int) -> bool:
    """Whether a recipient with this NOTIFY= is to be reported; not saying anything asks for failures and delays.

    Which deliveries are to be confirmed the queue manager has decided.
    """
    if kind == CONFIRM:
        return notify != NEVER
    return notify == 0 or bool(notify & (FAILURE if kind == BOUNCE else DELAY))


def write_report(notification: Notification, reporter: Reporter, wall_now: float) -> bytes:
    """Return the message, with LF line ends and without the headers that every new message is given."""
    original = _original(notification)
    texts = _Texts(notification, reporter)
    human, machine = texts.human(), texts.machine()
    eight_bit = not (original.isascii() and human.isascii() and machine.isascii())
    encoding = "8bit" if eight_bit else "7bit"
    boundary = _boundary(notification.queue_id, reporter.myhostname, wall_now, original)
    universal = "global-" if notification.smtputf8 else ""
    head = [
        f"From: Mail Delivery System <MAILER-DAEMON@{reporter.myorigin}>",
        f"Subject: {SUBJECTS[notification.kind, notification.postmaster_copy]}",
        f"To: {quote(notification.to)}",
        *texts.threading(),
        f"Auto-Submitted: {'auto-generated' if notification.postmaster_copy else 'auto-replied'}",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type={universal}delivery-status;\n\tboundary="{boundary}"',
        f"Content-Transfer-Encoding: {encoding}",
        "",
        "This is a MIME-encapsulated message.",
        "",
        f"--{boundary}",
        "Content-Description: Notification",
        f"Content-Type: text/plain; charset={'utf-8' if eight_bit else 'us-ascii'}",
        f"Content-Transfer-Encoding: {encoding}",
        "",
        human,
        f"--{boundary}",
        "Content-Description: Delivery report",
        f"Content-Type: message/{universal}delivery-status",
        *([f"Content-Transfer-Encoding: {encoding}"] if universal else []),
        "",
        machine,
        f"--{boundary}",
        f"Content-Description: {'M' if notification.kind == CONFIRM else 'Undelivered M'}essage"
        f"{' Headers' if notification.headers_only else ''}",
        f"Content-Type: {_content_type(notification)}",
        f"Content-Transfer-Encoding: {encoding}",
        "",
        "",
    ]
    lines = "\n".join(head).encode("utf-8", "replace")
    return b"".join((lines, original, f"\n--{boundary}--\n".encode("utf-8", "replace")))


def one_line(text: str, *, universal: bool = True) -> str:
    """Return a text fit for a report: one line, `?` for what doesn't print, and for non-ASCII unless `universal`."""
    return "".join(char if char.isprintable() and (universal or char.isascii()) else "?" for char in text)


def mail_date(wall: float) -> str:
    """Return a time as RFC 5322 §3.3 writes it, in local time with the zone's name."""
    local = time.localtime(wall)
    return time.strftime("%a, ", local) + f"{local.tm_mday}" + time.strftime(" %b %Y %H:%M:%S %z (%Z)", local)


class _Texts:
    """The two accounts of the same events: for people, and for programs."""

    def __init__(self, notification: Notification, reporter: Reporter) -> None:
        self._notification = notification
        self._reporter = reporter
        # X-Postfix-Queue-ID: a header's name takes no other characters.
        self._name = re.sub(r"[^A-Za-z0-9]", "-", reporter.mail_name)

    def human(self) -> str:
        """The first part: an introduction, and a paragraph for each recipient."""
        notification = self._notification
        deadline = mail_date(notification.retry_until)
        paragraphs = [
            f"This is the mail system at host {self._reporter.myhostname}.",
            INTRODUCTIONS[notification.kind].replace("{deadline}", deadline),
            " " * 19 + "The mail system",
        ]
        for recipient in notification.recipients:
            expanded = ""
            if recipient.original and recipient.original.casefold() != recipient.address.casefold():
                expanded = f" (expanded from <{recipient.original}>)"
            paragraphs.append(_wrap(self._clean(f"<{recipient.address}>{expanded}: {recipient.text}")))
        return "\n\n".join(paragraphs) + "\n"

    def machine(self) -> str:
        """The second part: a group of fields for the message, and one for each recipient (RFC 3464 §2.1)."""
        notification = self._notification
        message = [f"Reporting-MTA: dns; {self._reporter.myhostname}"]
        if notification.envid:
            message.append(f"Original-Envelope-Id: {self._clean(xtext_decoded(notification.envid))}")
        message.append(f"X-{self._name}-Queue-ID: {notification.queue_id}")
        if notification.sender:
            message.append(f"X-{self._name}-Sender: {self._address(notification.sender)}")
        message.append(f"Arrival-Date: {mail_date(notification.arrival)}")
        groups = ["\n".join(message)]
        groups += ["\n".join(self._recipient(recipient)) for recipient in notification.recipients]
        return "\n\n".join(groups) + "\n"

    def threading(self) -> list[str]:
        """The header fields that sort the report under the message, when the site wants them."""
        message_id = self._notification.message_id
        if not message_id:
            return []
        message_id = self._clean(message_id)
        return [f"References: {message_id}", f"In-Reply-To: {message_id}"]

    def _recipient(self, recipient: Reported) -> list[str]:
        fields = [f"Final-Recipient: {self._address(recipient.address)}"]
        if recipient.orcpt:
            kind, _, address = recipient.orcpt.partition(";")
            fields.append(f"Original-Recipient: {self._clean(f'{kind}; {xtext_decoded(address)}'.strip())}")
        elif recipient.original:
            fields.append(f"Original-Recipient: {self._address(recipient.original)}")
        fields.append(f"Action: {self._action(recipient)}")
        fields.append(f"Status: {recipient.dsn}")
        said = REPLY.match(recipient.text) if recipient.remote else None
        if said and recipient.remote:
            fields.append(_wrap(self._clean(f"Remote-MTA: dns; {recipient.remote.partition('[')[0]}")))
            fields.append(_wrap(self._clean(f"Diagnostic-Code: smtp; {said['reply']}")))
        else:
            fields.append(_wrap(self._clean(f"Diagnostic-Code: X-{self._name}; {recipient.text}")))
        if self._notification.kind == WARN:
            fields.append(f"Will-Retry-Until: {mail_date(self._notification.retry_until)}")
        return fields

    def _action(self, recipient: Reported) -> str:
        """What became of it (RFC 3464 §2.3.3). What another host took may not have reached its recipient yet."""
        if self._notification.kind == CONFIRM:
            return "relayed" if recipient.remote else "delivered"
        return "failed" if self._notification.kind == BOUNCE else "delayed"

    def _address(self, address: str) -> str:
        kind = "rfc822" if address.isascii() or not self._notification.smtputf8 else "utf-8"
        return self._clean(f"{kind}; {address}")

    def _clean(self, text: str) -> str:
        return one_line(text, universal=self._notification.smtputf8)


def xtext_decoded(text: str) -> str:
    """Return what an xtext (RFC 3461 §4) stands for; a control character that it hides becomes `?`."""
    decoded = re.sub(r"\+([0-9A-F]{2})", lambda found: chr(int(found.group(1), 16)), text)
    return one_line(decoded)


def _wrap(text: str) -> str:
    lines = textwrap.wrap(
        text,
        LINE_CHARS,
        subsequent_indent=INDENT,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
        replace_whitespace=False,
    )
    return "\n".join(lines)


def _original(notification: Notification) -> bytes:
    text = UNREADABLE if notification.message is None else notification.message
    if not text.endswith(b"\n"):
        text += b"\n"
    if notification.headers_only:
        text = _header_block(text)
    return f"Return-Path: <{one_line(notification.sender)}>\n".encode("utf-8", "replace") + text


def _header_block(text: bytes) -> bytes:
    end = 0
    while end < len(text) and HEADER_LINE.match(text, end):
        end = text.find(b"\n", end) + 1 or len(text)
    return text[:end]


def _content_type(notification: Notification) -> str:
    if notification.smtputf8:
        return "message/global-headers" if notification.headers_only else "message/global"
    return "text/rfc822-headers" if notification.headers_only else "message/rfc822"


def _boundary(queue_id: str, myhostname: str, wall_now: float, original: bytes) -> str:
    """Postfix's form. A message can't know it beforehand; one that does all the same gets another."""
    boundary = f"{queue_id}.{int(wall_now)}/{myhostname}"
    count = 0
    while boundary.encode() in original:
        count += 1
        boundary = f"{queue_id}.{int(wall_now)}.{count}/{myhostname}"
    return boundary
