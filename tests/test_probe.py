"""Probes (`sendmail -bv`) and reports of a delivery (`sendmail -v`): one site, run by Postillion and by Postfix.

The log, the report and what the next hop sees are the same, and nothing of a probe is ever delivered.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.either import PROGRAMS, program
from support.mta import POSTILLION_COMMANDS, Site, local_user, processes, running, submitted, wait_for
from support.ports import free_port
from support.probes import SUBJECT, USER, Line, Mta, groups
from support.wire_sink import WireSink

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
    def command(name: str, *words: str) -> str:
        done = [*mta.site.command(name, mta.program), *words]
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
