"""Probes (`sendmail -bv`) and reports of a delivery (`sendmail -v`): one site, run by Postillion and by Postfix.

The log, the report and what the next hop sees are the same, and nothing of a probe is ever delivered.
"""

from __future__ import annotations

import contextlib
import email
import email.message
import email.policy
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support.either import PROGRAMS, program
from support.mta import POSTILLION_COMMANDS, Site, delivered, local_user, processes, running, submitted, wait_for
from support.ports import free_port
from support.wire_sink import WireSink

USER = f"{local_user()}@example.org"
SUBJECT = "Mail Delivery Status Report"
KEYWORDS = ("PIPELINING", "8BITMIME", "SMTPUTF8", "DSN")
REPLIES = {
    "yes@next.example": "250 2.1.5 Come in",
    "no@next.example": "550 5.1.1 no such user",
    "later@next.example": "450 4.2.1 come again",
}
ALIASES = """\
postmaster: nobody
one: one@next.example
team: a@next.example, b@next.example, c@next.example
command: "|/bin/cat >>{directory}/mail/by-command"
file: {directory}/mail/by-file
folder: {directory}/mail/by-folder/
list: :include:{directory}/etc/list
"""
RELAY = "127.0.0.1[127.0.0.1]:PORT"
SAID = f"host {RELAY.removesuffix(':PORT')} said: "


class Line(NamedTuple):
    """A line of the log about a recipient."""

    to: str
    orig_to: str | None
    relay: str
    dsn: str
    status: str
    text: str


class Mta:
    """A running site of either program."""

    def __init__(self, site: Site, program: str, closed_port: int) -> None:
        self.site = site
        self.program = program
        self.closed_port = closed_port

    def plain(self, text: str) -> str:
        """Return a text without the names that differ from run to run."""
        text = text.replace(str(self.site.directory), "DIR").replace(f":{self.site.next_port}", ":PORT")
        text = text.replace(f":{self.closed_port}", ":CLOSED")
        return re.sub(r"queued as \w+|forwarded as \w+", lambda found: found[0].rsplit(" ", 1)[0] + " ID", text)

    def sendmail(self, *words: str, text: bytes = b"") -> tuple[str, str]:
        """Run sendmail; return the queue ID and what it printed."""
        directory = "/usr/sbin" if self.program == "postfix" else str(POSTILLION_COMMANDS)
        before = len(self.site.log_text())
        done = subprocess.run(
            [f"{directory}/sendmail", "-C", str(self.site.etc), *words],
            input=text,
            capture_output=True,
            timeout=60,
            check=True,
        )
        return submitted(self.site, before), done.stdout.decode()

    def probe(self, *recipients: str, sender: str = USER) -> str:
        """Probe recipients; return the queue ID once the probe is over."""
        queue_id, said = self.sendmail("-bv", "-f", sender, *recipients, text=b"this is not read")
        assert said == f"{SUBJECT} will be mailed to <{sender}>.\n"
        self.over(queue_id)
        return queue_id

    def forget(self, queue_id: str) -> None:
        """Remove a message that waits, if it does."""
        directory = "/usr/sbin" if self.program == "postfix" else str(POSTILLION_COMMANDS)
        command = [f"{directory}/postsuper", "-c", str(self.site.etc), "-d", queue_id]
        subprocess.run(command, capture_output=True, timeout=60, check=False)

    def over(self, queue_id: str) -> None:
        """Wait until a message is removed, and every line about its recipients is in the log."""
        wait_for(f"the end of {queue_id}", lambda: f" {queue_id}: removed" in self.site.log_text())
        delivered(self.site, queue_id)

    def expect(self, queue_id: str, lines: list[Line]) -> None:
        """Check the lines about a message's recipients: an agent may write them after the queue manager's."""
        wait_for(f"the lines of {queue_id}", lambda: len(self.lines(queue_id)) >= len(lines))
        assert self.lines(queue_id) == sorted(lines)

    def lines(self, queue_id: str) -> list[Line]:
        """Return the lines about a message's recipients, in order of their text."""
        pattern = re.compile(
            r": to=<(.*?)>(?:, orig_to=<(.*?)>)?, relay=(.*?)(?:, conn_use=\d+)?, delay=.*?, dsn=(.*?), "
            r"status=(\w+) \((.*)\)"
        )
        found = (pattern.search(line) for line in self.site.log_of(queue_id).splitlines())
        return sorted(
            Line(*(self.plain(part) if part else part for part in match.groups())) for match in found if match
        )

    def report(self, queue_id: str, subject: str = SUBJECT) -> email.message.EmailMessage:
        """Wait for the report about a message; return it."""
        found: list[email.message.EmailMessage] = []

        def arrived() -> bool:
            for path in self.site.maildir(local_user()):
                message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
                assert isinstance(message, email.message.EmailMessage)
                if message["Subject"] == subject and f"Queue-ID: {queue_id}\n" in path.read_text(errors="replace"):
                    found.append(message)
            return bool(found)

        wait_for(f"{subject} about {queue_id}", arrived)
        return found[0]


def groups(report: email.message.EmailMessage) -> list[dict[str, str]]:
    """Return the fields about each recipient of a report, in order of the recipient."""
    status = report.get_payload(1)
    assert isinstance(status, email.message.Message)
    parts = status.get_payload()
    assert isinstance(parts, list)
    fields = [
        {name: " ".join(str(value).split()) for name, value in part.items()}
        for part in parts[1:]
        if isinstance(part, email.message.Message)
    ]
    return sorted(fields, key=lambda one: sorted(one.items()))


def wire(sink: WireSink, before: int) -> list[str]:
    """Return the commands since the first `before`, without the size of the message."""
    return [re.sub(r" SIZE=\d+", "", command) for command in sink.commands[before:]]


@pytest.fixture(scope="module", params=PROGRAMS)
def mta(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mta]:
    """Run the site with one of the programs."""
    with site(tmp_path_factory.mktemp("probe"), program(request)) as running_mta:
        yield running_mta


@contextlib.contextmanager
def site(directory: Path, program: str) -> Iterator[Mta]:
    """Run the site of these tests during the block."""
    settings = {
        "virtual_alias_maps": f"inline:{{{{ virt@example.org = virt1@next.example, {USER} }}}}",
        "recipient_bcc_maps": "inline:{{ bcc@next.example = copy@next.example }}",
        "forward_path": f"{directory}/forward/$user",
        "local_recipient_maps": "",
        "maximal_backoff_time": "1s",
        "minimal_backoff_time": "1s",
        "queue_run_delay": "1s",
    }
    lmtp = "lmtp      unix  -       -       n       -       -       lmtp\n"
    made = Site(directory, main_cf=settings, master_cf=lmtp)
    closed_port = free_port()
    (directory / "forward").mkdir()
    (directory / "forward" / "games").write_text("fwd@next.example\n")
    (directory / "forward" / "mail").write_text("|/bin/false\n")
    (made.etc / "aliases").write_text(ALIASES.format(directory=directory))
    (made.etc / "list").write_text("l1@next.example\nl2@next.example\n")
    routes = {
        "next.example": f"smtp:[127.0.0.1]:{made.next_port}",
        "closed.example": f"smtp:[127.0.0.1]:{closed_port}",
        "lmtp.example": f"lmtp:inet:[127.0.0.1]:{made.next_port}",
        "discard.example": "discard:quietly",
        "error.example": "error:5.7.1 no thanks",
        "retry.example": "retry:4.7.1 not now",
    }
    with (made.etc / "main.cf").open("a") as main_cf:
        entries = ", ".join(f"{{ {domain} = {route} }}" for domain, route in routes.items())
        main_cf.write(f"transport_maps = inline:{{ {entries} }}\n")
    with running(made, program):
        yield Mta(made, program, closed_port)


def local(to: str, text: str, orig_to: str | None = None, *, ok: bool = True) -> Line:
    """Return a line of local."""
    dsn, word = ("2.0.0", "deliverable") if ok else ("5.1.1", "undeliverable")
    return Line(to, orig_to, "local", dsn, word, text)


def forwards(orig_to: str, *targets: str) -> list[Line]:
    """Return the lines of an alias with targets elsewhere."""
    return [local(to, f"forwards to {to}", orig_to) for to in targets]


YES = Line("yes@next.example", None, RELAY, "2.1.5", "deliverable", "250 2.1.5 Come in")
NO = Line(
    "no@next.example",
    None,
    RELAY,
    "5.1.1",
    "undeliverable",
    f"{SAID}550 5.1.1 no such user (in reply to RCPT TO command)",
)
LATER = Line(
    "later@next.example",
    None,
    RELAY,
    "4.2.1",
    "undeliverable",
    f"{SAID}450 4.2.1 come again (in reply to RCPT TO command)",
)
UNKNOWN = local("nosuch@example.org", 'unknown user: "nosuch"', ok=False)
OWN = local(USER, "delivers to maildir")
OK = "250 2.1.0 Ok"


@pytest.mark.parametrize(
    ("recipients", "lines"),
    [
        ([USER], [OWN]),
        (["one@example.org"], forwards("one@example.org", "one@next.example")),
        (["team@example.org"], forwards("team@example.org", "a@next.example", "b@next.example", "c@next.example")),
        (["list@example.org"], forwards("list@example.org", "l1@next.example", "l2@next.example")),
        (["games@example.org"], forwards("games@example.org", "fwd@next.example")),
        (
            ["command@example.org"],
            [local("command@example.org", "delivers to command: /bin/cat >>DIR/mail/by-command")],
        ),
        (["mail@example.org"], [local("mail@example.org", "delivers to command: /bin/false")]),
        (["file@example.org"], [local("file@example.org", "delivers to file: DIR/mail/by-file")]),
        (["folder@example.org"], [local("folder@example.org", "delivers to file: DIR/mail/by-folder/")]),
        (["nosuch@example.org"], [UNKNOWN]),
        (
            ["virt@example.org"],
            [
                OWN._replace(orig_to="virt@example.org"),
                Line("virt1@next.example", "virt@example.org", RELAY, "2.1.0", "deliverable", OK),
            ],
        ),
        (
            ["bcc@next.example"],
            [Line(f"{name}@next.example", None, RELAY, "2.1.0", "deliverable", OK) for name in ("bcc", "copy")],
        ),
        (["d@discard.example"], [Line("d@discard.example", None, "none", "2.0.0", "deliverable", "quietly")]),
        (["e@error.example"], [Line("e@error.example", None, "none", "5.7.1", "undeliverable", "no thanks")]),
        (["r@retry.example"], [Line("r@retry.example", None, "none", "4.7.1", "undeliverable", "not now")]),
        (["bad@"], [Line("bad@", None, "none", "5.1.3", "undeliverable", "bad address syntax")]),
        (["l@lmtp.example"], [Line("l@lmtp.example", None, RELAY, "2.1.0", "deliverable", OK)]),
        (
            ["x@closed.example"],
            [
                Line(
                    "x@closed.example",
                    None,
                    "none",
                    "4.4.1",
                    "undeliverable",
                    "connect to 127.0.0.1[127.0.0.1]:CLOSED: Connection refused",
                )
            ],
        ),
        (["yes@next.example"], [YES]),
        (["no@next.example"], [NO]),
        (["later@next.example"], [LATER]),
        (
            [USER, "yes@next.example", "no@next.example,later@next.example", "nosuch@example.org"],
            [OWN, YES, NO, LATER, UNKNOWN],
        ),
    ],
    ids=lambda value: ",".join(value) if value and isinstance(value[0], str) else "",
)
def test_probe_is_logged_and_reported_and_delivers_nothing(mta: Mta, recipients: list[str], lines: list[Line]) -> None:
    with WireSink(mta.site.next_port, KEYWORDS, REPLIES) as sink:
        queue_id = mta.probe(*recipients)
        mta.expect(queue_id, lines)
        report = mta.report(queue_id)
        assert not any(command.startswith("DATA") for command in sink.commands)
        assert sink.messages == {}
    text = " ".join(str(report.get_payload(0)).split())
    expected = []
    for line in lines:
        reason = line.text if line.relay == "none" else f"delivery via {line.relay}: {line.text}"
        expanded = f" (expanded from <{line.orig_to}>)" if line.orig_to else ""
        assert f"<{line.to}>{expanded}: {reason}" in mta.plain(text)
        fields = {"Final-Recipient": f"rfc822; {line.to}", "Action": line.status, "Status": line.dsn}
        if line.relay == RELAY:
            reply = line.text.removeprefix(SAID).removesuffix(" (in reply to RCPT TO command)")
            fields |= {"Remote-MTA": "dns; 127.0.0.1", "Diagnostic-Code": f"smtp; {reply}"}
        else:
            fields |= {"Diagnostic-Code": f"X-Postfix; {reason}"}
        expected.append(fields)
    told = [{name: mta.plain(value) for name, value in group.items()} for group in groups(report)]
    for group, line in zip(told, sorted(lines), strict=True):
        original = group.pop("Original-Recipient", None)
        assert line.orig_to is None or (original or "").replace(" ", "") == f"rfc822;{line.orig_to}"
    assert told == sorted(expected, key=lambda one: sorted(one.items()))
    # The headers of the probe, and nothing else, are returned.
    assert report.get_payload(2).get_content_type() == "text/rfc822-headers"  # type: ignore[union-attr]
    assert "\nSubject: probe\n" in str(report.get_payload(2))
    assert not [name for name in os.listdir(mta.site.mail) if name.startswith("by-")]
    assert ": sender delivery status notification: " in mta.site.log_of(queue_id)
    assert "postmaster" not in mta.site.log_of(queue_id)


def test_next_hop_sees_rset_instead_of_data(mta: Mta, tmp_path: Path) -> None:
    # A site of its own has no connection of another test.
    with site(tmp_path, mta.program) as own, WireSink(own.site.next_port, KEYWORDS, REPLIES) as sink:
        own.probe("yes@next.example", "no@next.example")
        wait_for("QUIT", lambda: "QUIT" in sink.commands)
        hello, mail, *rcpt, rset, quit_ = wire(sink, 0)
    assert (hello, mail, rset, quit_) == ("EHLO mx.example.org", f"MAIL FROM:<{USER}>", "RSET", "QUIT")
    # Postfix sorts the recipients.
    assert sorted(rcpt) == [f"RCPT TO:<{to}@next.example> ORCPT=rfc822;{to}@next.example" for to in ("no", "yes")]


def test_probe_of_the_null_sender_tells_nobody(mta: Mta) -> None:
    with WireSink(mta.site.next_port, KEYWORDS, REPLIES):
        queue_id = mta.probe("yes@next.example", "no@next.example", sender="")
    log = mta.site.log_of(queue_id)
    assert f"{queue_id}: not sending trace/success notification for single-bounce message" in log
    assert len(mta.lines(queue_id)) == 2
    assert "non-delivery" not in log


DELIVERED = {
    USER: ("delivered", "delivery via local: delivered to maildir"),
    "one@example.org": ("relayed", "delivery via local: forwarded as ID"),
    "team@example.org": ("relayed", "delivery via local: forwarded as ID"),
    "yes@next.example": ("relayed", "250 2.0.0 Kept"),
    "no@next.example": ("failed", "550 5.1.1 no such user"),
    "later@next.example": ("delayed", "450 4.2.1 come again"),
    "l@lmtp.example": ("relayed", "250 2.0.0 Kept"),
    "d@discard.example": ("delivered", "quietly"),
    "e@error.example": ("failed", "no thanks"),
    "x@closed.example": ("delayed", "connect to 127.0.0.1[127.0.0.1]:CLOSED: Connection refused"),
}


@pytest.mark.parametrize("recipients", [[one] for one in DELIVERED] + [["yes@next.example", "no@next.example", USER]])
def test_first_attempt_of_mail_is_reported(mta: Mta, recipients: list[str]) -> None:
    with WireSink(mta.site.next_port, KEYWORDS, REPLIES):
        text = b"Subject: real mail\n\nbody\n"
        queue_id, said = mta.sendmail("-v", "-f", USER, *recipients, text=text)
        assert said == f"{SUBJECT} will be mailed to <{USER}>.\n"
        report = mta.report(queue_id)
        told = {
            group["Final-Recipient"].removeprefix("rfc822; "): (
                group["Action"],
                mta.plain(group["Diagnostic-Code"].partition("; ")[2]),
            )
            for group in groups(report)
        }
        assert told == {recipient: DELIVERED[recipient] for recipient in recipients}
        assert "\n\nbody\n" not in str(report)
        mta.forget(queue_id)


def test_later_attempts_are_not_reported(mta: Mta) -> None:
    replies = dict(REPLIES)
    with WireSink(mta.site.next_port, KEYWORDS, replies) as sink:
        queue_id, _ = mta.sendmail("-v", "-f", USER, "later@next.example", text=b"Subject: x\n\nbody\n")
        mta.report(queue_id)
        del replies["later@next.example"]
        sink.wait({"later@next.example"})
        mta.over(queue_id)
    reports = re.findall(rf" {queue_id}: sender delivery status notification", mta.site.log_text())
    assert len(reports) == 1


def test_report_of_mail_with_notify_success_is_the_only_one(mta: Mta) -> None:
    words = ["-v", "-N", "success", "-f", USER, USER]
    queue_id, _ = mta.sendmail(*words, text=b"Subject: x\n\nbody\n")
    mta.report(queue_id)
    mta.over(queue_id)
    assert len(re.findall(rf" {queue_id}: sender delivery status notification", mta.site.log_text())) == 1


def test_held_probe_is_shown_as_one_and_answered_after_its_release(mta: Mta) -> None:
    commands = "/usr/sbin" if mta.program == "postfix" else str(POSTILLION_COMMANDS)

    def command(name: str, *words: str) -> str:
        done = [f"{commands}/{name}", "-c", str(mta.site.etc), *words]
        return subprocess.run(done, capture_output=True, text=True, timeout=60, check=True).stdout

    hold = mta.site.etc / "main.cf"
    text = hold.read_text()
    try:
        hold.write_text(text + "header_checks = pcre:{{/^Subject: probe/ HOLD}}\n")
        command("postfix", "reload")
        queue_id, _ = mta.sendmail("-bv", "-f", USER, USER)
        wait_for(
            "the hold queue", lambda: f'"queue_name": "hold", "queue_id": "{queue_id}"' in command("postqueue", "-j")
        )
    finally:
        hold.write_text(text)
        command("postfix", "reload")
    assert "named_attribute: trace_flags=512\n" in command("postcat", "-qe", queue_id)
    command("postsuper", "-H", queue_id)
    command("postqueue", "-f")
    mta.over(queue_id)
    assert mta.lines(queue_id) == [OWN]


def test_postfix_takes_a_probe_of_our_sendmail(mta: Mta) -> None:
    command = [str(POSTILLION_COMMANDS / "sendmail"), "-C", str(mta.site.etc), "-bv", "-f", USER, USER]
    before = len(mta.site.log_text())
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    queue_id = submitted(mta.site, before)
    mta.over(queue_id)
    assert mta.lines(queue_id) == [OWN]
    log = mta.site.log_text()[before:]
    assert "warning" not in log, log


def test_probe_survives_a_killed_queue_manager(tmp_path: Path) -> None:
    """A queue manager that dies before the report is queued leaves a probe, not mail."""
    with site(tmp_path, "postillion") as mta:
        mta.probe(USER)
        [bounce] = processes(mta.site, "bounce")
        os.kill(bounce, signal.SIGSTOP)
        try:
            with WireSink(mta.site.next_port, KEYWORDS, REPLIES) as sink:
                queue_id, _ = mta.sendmail("-bv", "-f", USER, USER, "yes@next.example")
                wait_for("both answers", lambda: len(mta.lines(queue_id)) == 2)
                [qmgr] = processes(mta.site, "qmgr")
                os.kill(qmgr, signal.SIGKILL)
                wait_for("both answers again", lambda: len(mta.lines(queue_id)) == 4)
                os.kill(bounce, signal.SIGCONT)
                mta.over(queue_id)
                assert mta.lines(queue_id) == sorted([OWN, OWN, YES, YES])
                assert sink.messages == {}
        finally:
            os.kill(bounce, signal.SIGCONT)
        assert {group["Action"] for group in groups(mta.report(queue_id))} == {"deliverable"}
        subjects = [path.read_text(errors="replace") for path in mta.site.maildir(local_user())]
        assert all(f"\nSubject: {SUBJECT}\n" in text for text in subjects)
