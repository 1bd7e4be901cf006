"""Delivery status notifications: multipart/report messages (RFC 3464, RFC 6522).

From, subject and introduction come from a template. The other header fields and the form of the boundary are Postfix's,
because programs parse them. The text of a peer's reply is in the report on one line, without control characters.
"""

from __future__ import annotations

import re
import textwrap
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from postillion.delivery.bounce import template
from postillion.delivery.bounce.template import US_ASCII, Template
from postillion.delivery.mailbox.letter import quote
from postillion.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from postillion.config import Config

LINE_CHARS = 79
INDENT = "    "
NEVER, SUCCESS, FAILURE, DELAY = 1, 2, 4, 8
"""NOTIFY= as bits (RFC 3461 §4.1)."""
BOUNCE, WARN, CONFIRM, REPORT = "bounce", "warn", "confirm", "report"
HEADER_LINE = re.compile(rb"[!-9;-~]+[ \t]*:|[ \t]")
UNREADABLE = b"\n\t--- The message can no longer be read ---\n"
WHOLE_REPLY = re.compile(r"[2-5]\d\d[ -]")
REPLY = re.compile(r"^(?:host (?P<host>\S+)\[.*?\](?::\d+)? )?said: (?P<reply>.*?)(?: \(in reply to .*\))?$")

TEMPLATES = {BOUNCE: template.FAILURE, WARN: template.DELAY, CONFIRM: template.SUCCESS, REPORT: template.VERIFY}
"""The template of each kind of report."""


class Reported(NamedTuple):
    """A recipient and its result. `orcpt`: `rfc822;user@example.org`, decoded.

    `relay`, `action`: who said so and what it means, in a report of an attempt.
    """

    address: str
    original: str | None
    orcpt: str | None
    dsn: str
    text: str
    remote: str | None
    relay: str | None = None
    action: str | None = None

    @property
    def reason(self) -> str:
        """The text, with the agent or host that it comes from in a report of an attempt."""
        return self.text if self.relay in (None, "none") else f"delivery via {self.relay}: {self.text}"


@dataclass(frozen=True)
class Notification:
    """The contents of a report. Times are seconds since 1970.

    `sender`: of the message. `to`: the recipient of the report. `message`: the original with LF line ends; None when
    it is unreadable. `headers_only`: return the header block only. `waives_tls`: the report has the original's header
    `TLS-Required: no`.
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
    waives_tls: bool = False


class Reporter(NamedTuple):
    """The reporting system: `myhostname`, `myorigin` and `mail_name` of main.cf, and its templates by name.

    The texts of the templates have the values of their parameters.
    """

    myhostname: str
    myorigin: str
    mail_name: str
    templates: Mapping[str, Template]

    @classmethod
    def of(cls, config: Config, templates: Mapping[str, Template], warn: Callable[[str], None]) -> Reporter:
        """Return the reporting system of a site. `templates`: its templates, by name; they are expanded here.

        `warn` gets a text for each template that is ignored. Raises `ConfigError`.
        """
        expanded = template.expanded(templates, config, warn)
        return cls(config.text("myhostname"), config.text("myorigin"), config.text("mail_name"), expanded)


def wanted(kind: str, notify: int) -> bool:
    """Return whether to report a recipient with this NOTIFY=; without NOTIFY=, failures and delays are reported.

    The report of an attempt was asked for on its own.
    The queue manager decides which deliveries are confirmed.
    """
    if kind == REPORT:
        return True
    if kind == CONFIRM:
        return notify != NEVER
    return notify == 0 or bool(notify & (FAILURE if kind == BOUNCE else DELAY))


def write_report(notification: Notification, reporter: Reporter, wall_now: float) -> bytes:
    """Return the report with LF line ends, without the headers that cleanup adds."""
    original = _original(notification)
    chosen = reporter.templates[TEMPLATES[notification.kind]]
    texts = _Texts(notification, reporter, chosen)
    human, machine = texts.human(), texts.machine()
    eight_bit = not (original.isascii() and human.isascii() and machine.isascii())
    encoding = "8bit" if eight_bit else "7bit"
    charset = "utf-8" if eight_bit and chosen.charset.casefold() == US_ASCII else chosen.charset
    boundary = _boundary(notification.queue_id, reporter.myhostname, wall_now, original)
    universal = "global-" if notification.smtputf8 else ""
    head = [
        f"From: {chosen.sender}",
        f"Subject: {chosen.subject_of(postmaster_copy=notification.postmaster_copy)}",
        f"To: {quote(notification.to)}",
        *texts.threading(),
        *(["TLS-Required: no"] if notification.waives_tls else []),
        f"Auto-Submitted: {'auto-generated' if notification.postmaster_copy else 'auto-replied'}",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type={universal}delivery-status;\n\tboundary="{boundary}"',
        f"Content-Transfer-Encoding: {encoding}",
        "",
        "This is a MIME-encapsulated message.",
        "",
        f"--{boundary}",
        "Content-Description: Notification",
        f"Content-Type: text/plain; charset={charset}",
        f"Content-Transfer-Encoding: {encoding}",
        "",
        "",
    ]
    body = [
        "",
        f"--{boundary}",
        "Content-Description: Delivery report",
        f"Content-Type: message/{universal}delivery-status",
        *([f"Content-Transfer-Encoding: {encoding}"] if universal else []),
        "",
        machine,
        f"--{boundary}",
        f"Content-Description: {'Undelivered ' if notification.kind in (BOUNCE, WARN) else ''}Message"
        f"{' Headers' if notification.headers_only else ''}",
        f"Content-Type: {_content_type(notification)}",
        f"Content-Transfer-Encoding: {encoding}",
        "",
        "",
    ]
    end = f"\n--{boundary}--\n".encode("utf-8", "replace")
    return b"".join((_octets(head), human, _octets(body), original, end))


def _octets(lines: Sequence[str]) -> bytes:
    return "\n".join(lines).encode("utf-8", "replace")


def one_line(text: str, *, universal: bool = True) -> str:
    """Return a text on one line: unprintable characters become `?`, and so does non-ASCII unless `universal`."""
    return printable(text if universal else text.encode("ascii", "replace").decode())


def mail_date(wall: float) -> str:
    """Return a local time in the format of RFC 5322 §3.3, with the name of the zone."""
    local = time.localtime(wall)
    return time.strftime("%a, ", local) + f"{local.tm_mday}" + time.strftime(" %b %Y %H:%M:%S %z (%Z)", local)


class _Texts:
    """The two texts of a report: for people, and for programs."""

    def __init__(self, notification: Notification, reporter: Reporter, chosen: Template) -> None:
        self._notification = notification
        self._reporter = reporter
        self._template = chosen
        # Prefix of X-Postfix-Queue-ID: other characters are not allowed in the name of a field.
        self._name = re.sub(r"[^A-Za-z0-9]", "-", reporter.mail_name)

    def human(self) -> bytes:
        """Return the first part: an introduction for the sender, and a paragraph for each recipient."""
        paragraphs = []
        for recipient in self._notification.recipients:
            expanded = ""
            if recipient.original and recipient.original.casefold() != recipient.address.casefold():
                expanded = f" (expanded from <{recipient.original}>)"
            paragraphs.append(_wrap(self._clean(f"<{recipient.address}>{expanded}: {recipient.reason}")))
        reasons = "\n" + "\n\n".join(paragraphs) + "\n"
        octets = reasons.encode("utf-8" if self._template.is_universal() else "ascii", "replace")
        return octets if self._notification.postmaster_copy else self._template.octets() + octets

    def machine(self) -> str:
        """Return the second part: fields of the message, and of each recipient (RFC 3464 §2.1)."""
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
        """Return the header fields that thread the report with the message (enable_threaded_bounces)."""
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
        if reply := _reply(recipient):
            fields.append(_wrap(self._clean(f"Remote-MTA: dns; {(recipient.remote or '').partition('[')[0]}")))
            fields.append(_wrap(self._clean(f"Diagnostic-Code: smtp; {reply}")))
        else:
            fields.append(_wrap(self._clean(f"Diagnostic-Code: X-{self._name}; {recipient.reason}")))
        if self._notification.kind == WARN:
            fields.append(f"Will-Retry-Until: {mail_date(self._notification.retry_until)}")
        return fields

    def _action(self, recipient: Reported) -> str:
        """Return the Action field (RFC 3464 §2.3.3); mail that another host accepted is `relayed`."""
        if recipient.action:
            return recipient.action
        if self._notification.kind == CONFIRM:
            return "relayed" if recipient.remote else "delivered"
        return "failed" if self._notification.kind == BOUNCE else "delayed"

    def _address(self, address: str) -> str:
        kind = "rfc822" if address.isascii() or not self._notification.smtputf8 else "utf-8"
        return self._clean(f"{kind}; {address}")

    def _clean(self, text: str) -> str:
        return one_line(text, universal=self._notification.smtputf8)


def _reply(recipient: Reported) -> str | None:
    """Return the server's reply in a text; None when no server said it."""
    if not recipient.remote:
        return None
    if WHOLE_REPLY.match(recipient.text):
        return recipient.text
    found = REPLY.match(recipient.text)
    return found and found["reply"]


def xtext_decoded(text: str) -> str:
    """Return the text of an xtext (RFC 3461 §4); an encoded control character becomes `?`."""
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
    """Return a boundary in Postfix's form that is not in the message."""
    boundary = f"{queue_id}.{int(wall_now)}/{myhostname}"
    count = 0
    while boundary.encode() in original:
        count += 1
        boundary = f"{queue_id}.{int(wall_now)}.{count}/{myhostname}"
    return boundary
