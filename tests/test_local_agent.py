"""The agents local and bounce between queue manager and journal: log lines, new messages, durability."""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
import os
import re
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from postillion.delivery import submit
from postillion.delivery.bounce.__main__ import BounceAgent
from postillion.delivery.local.__main__ import LocalAgent
from postillion.errors import MessageRefused
from support.agents import WAIT_S, FakeDaemon, Hub, Mail, Result, serving
from support.queue_files import contents, frame, optional, read_queue, text

MORE = """
compatibility_level = 3.6
mydestination = example.org
myorigin = example.org
alias_maps = inline:{{ {{ list = a@far.example, b@far.example }}, {{ other = nouser }}, {{ null = /dev/null }} }}
alias_database =
mail_spool_directory = {directory}/spool/
"""
BOUNCE, WARN, CONFIRM = 1, 2, 3


@asynccontextmanager
async def agent(directory: Path, kind: Any, more: str = "") -> AsyncIterator[tuple[Hub, FakeDaemon]]:
    """Run the agent; yield the queue manager's end and the daemon."""
    (directory / "incoming").mkdir(exist_ok=True)
    daemon = FakeDaemon(directory, MORE.format(directory=directory) + more, "local")
    async with serving(directory, kind, daemon) as hub:
        yield hub, daemon


def queued(directory: Path) -> list[dict[str, Any]]:
    """Return the messages in segments, without those of the test's own jobs."""
    messages = [json.loads(line) for line in read_queue(str(directory))]
    return [
        message for message in messages if message["message_size"] != 0 and message["sender"] != "sender@example.org"
    ]


def report_job(hub: Hub, kind: int, mail: Mail, dsn: tuple[int, int, int], reason: str, remote: str | None) -> Any:
    """Return a job for a report on the only recipient of `mail`."""
    number, data = hub.job("", mail, "bounce")
    payload = bytearray(data[6:])
    payload[8] = kind
    payload[-1:] = (
        b"\1" + struct.pack("<BBHH", {BOUNCE: 2, WARN: 1, CONFIRM: 0}[kind], *dsn) + text(reason) + optional(remote)
    )
    return number, frame(data[5], bytes(payload))


async def ask(hub: Hub, job: Any) -> Result:
    return await asyncio.wait_for(hub.send(job)[0], WAIT_S)


def segments(directory: Path) -> set[Path]:
    """Return every segment."""
    return {path for path in (directory / "incoming").iterdir() if not path.name.startswith("slot")}


def new_content(directory: Path) -> bytes:
    """Return the content of all segments, without those of the test's own jobs."""
    hub_made = {f"{number:016X}" for number in range(1, 100)}
    new = (path for path in segments(directory) if path.name not in hub_made)
    return b"".join(content for path in new for content in contents(path.read_bytes()))


async def test_unknown_user_is_bounced_and_logged(tmp_path: Path) -> None:
    async with agent(tmp_path, LocalAgent) as (hub, daemon):
        result = await hub.deliver("mx.example.org", Mail(0, ["NoUser@example.org"]))
        assert (result.only.outcome, result.only.dsn) == ("bounced", "5.1.1")
        assert result.only.text == 'unknown user: "nouser"'
        (line,) = daemon.logged()
        assert re.fullmatch(
            r"[0-9A-F]+: to=<NoUser@example\.org>, relay=local, delay=[\d.]+, delays=[\d./]+, dsn=5\.1\.1, "
            r'status=bounced \(unknown user: "nouser"\)',
            line,
        )


async def test_log_line_shows_expanded_and_original_recipient(tmp_path: Path) -> None:
    async with agent(tmp_path, LocalAgent) as (hub, daemon):
        result = await hub.deliver("mx.example.org", Mail(0, ["other@example.org"]))
        assert result.only.outcome == "bounced"
        (line,) = daemon.logged()
        assert ": to=<nouser@example.org>, orig_to=<other@example.org>, relay=local, " in line


@pytest.mark.skipif(os.getuid() != 0, reason="a file as nobody")
async def test_alias_to_dev_null_is_delivered(tmp_path: Path) -> None:
    async with agent(tmp_path, LocalAgent) as (hub, _):
        result = await hub.deliver("mx.example.org", Mail(0, ["null@example.org"]))
        assert result.only.text == "delivered to file: /dev/null"


async def test_mail_to_system_user_is_delivered_to_spool(tmp_path: Path) -> None:
    import pwd

    me = pwd.getpwuid(os.getuid()).pw_name
    (tmp_path / "spool").mkdir()
    content = b"Subject: x\r\n\r\n..dot\r\nFrom me\r\n\xff\r\n"
    async with agent(tmp_path, LocalAgent, "forward_path =\n") as (hub, daemon):
        jobs = [hub.job("x", Mail(0, [f"{me}@example.org"], content=content)) for _ in range(10)]
        results = await asyncio.gather(*hub.send(*jobs))
        assert {result.only.text for result in results} == {"delivered to maildir"}
        assert len(daemon.logged()) == 10
    files = list((tmp_path / "spool" / me / "new").iterdir())
    assert len(files) == 10
    head = f"Return-Path: <sender@example.org>\nX-Original-To: {me}@example.org\nDelivered-To: {me}@example.org\n"
    assert {file.read_bytes() for file in files} == {head.encode() + b"Subject: x\n\n.dot\nFrom me\n\xff\n"}


async def test_forwarded_mail_is_a_new_message(tmp_path: Path) -> None:
    async with agent(tmp_path, LocalAgent) as (hub, daemon):
        mail = Mail(0, ["list@example.org"], sender="me@b.example", notify=2 | 4, orcpt="rfc822;x@y")
        result = await hub.deliver("mx.example.org", mail)
        assert result.only.outcome == "sent"
        found = re.fullmatch(r"forwarded as ([0-9A-F]+)", result.only.text)
        assert found is not None
        new_id = found.group(1)
        (message,) = [message for message in queued(tmp_path) if message["queue_id"] == new_id]
        assert message["sender"] == "me@b.example"
        assert {recipient["address"] for recipient in message["recipients"]} == {"a@far.example", "b@far.example"}
        assert any(line.startswith(f"{new_id}: message-id=") for line in daemon.logged())
        content = new_content(tmp_path)
        assert b"Received: by mx.example.org (Postfix)\r\n\tid " + new_id.encode() + b"; " in content
        assert b"\r\nDelivered-To: list@example.org\r\nSubject: x\r\n\r\nbody\r\n" in content


async def test_probe_names_each_target_and_queues_nothing(tmp_path: Path) -> None:
    async with agent(tmp_path, LocalAgent) as (hub, daemon):
        recipients = ["list@example.org", "null@example.org", "nouser@example.org"]
        result = await hub.deliver("mx.example.org", Mail(0, recipients, trace="probe"))
        assert "sent" not in {status.outcome for status in result.recipients.values()}
        assert [(address, action, status.text) for _, address, action, _, status in hub.traced] == [
            ("a@far.example", "deliverable", "forwards to a@far.example"),
            ("b@far.example", "deliverable", "forwards to b@far.example"),
            ("null@example.org", "deliverable", "delivers to file: /dev/null"),
            ("nouser@example.org", "undeliverable", 'unknown user: "nouser"'),
        ]
        assert len(daemon.logged()) == 4
        assert queued(tmp_path) == []


@pytest.mark.skipif(os.getuid() != 0, reason="mail for another user")
@pytest.mark.parametrize(
    ("more", "text"),
    [
        ("", "delivers to maildir"),
        ("mail_spool_directory = {directory}/spool\n", "delivers to mailbox"),
        ("home_mailbox = Maildir/\n", "delivers to maildir"),
        ("home_mailbox = mbox\n", "delivers to mailbox"),
        ("mailbox_command = /bin/false\n", "delivers to command: /bin/false"),
    ],
)
async def test_probe_of_a_user_writes_and_runs_nothing(tmp_path: Path, more: str, text: str) -> None:
    (tmp_path / "spool").mkdir()
    async with agent(tmp_path, LocalAgent, "forward_path =\n" + more.format(directory=tmp_path)) as (hub, daemon):
        await hub.deliver("mx.example.org", Mail(0, ["nobody@example.org"], trace="probe"))
        [line] = daemon.logged()
        assert line.endswith(f"dsn=2.0.0, status=deliverable ({text})")
    assert list((tmp_path / "spool").iterdir()) == []


async def test_failed_forwarding_defers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MessageRefused(452, "4.3.1", "Insufficient system storage")

    monkeypatch.setattr(submit, "Intake", full)
    async with agent(tmp_path, LocalAgent) as (hub, _):
        result = await hub.deliver("mx.example.org", Mail(0, ["list@example.org"]))
        assert (result.only.outcome, result.only.dsn) == ("deferred", "4.3.1")
        assert result.only.text == "cannot forward: Insufficient system storage"


async def test_delivered_to_header_reveals_loop(tmp_path: Path) -> None:
    async with agent(tmp_path, LocalAgent) as (hub, _):
        content = b"Delivered-To: LIST@example.org\r\n\r\nbody\r\n"
        result = await hub.deliver("mx.example.org", Mail(0, ["list@example.org"], content=content))
        assert (result.only.dsn, result.only.text) == ("5.4.6", "mail forwarding loop for list@example.org")


async def test_report_is_queued_before_recipient_is_finished(tmp_path: Path) -> None:
    async with agent(tmp_path, BounceAgent) as (hub, daemon):
        mail = Mail(0, ["you@far.example"], sender="me@b.example", content=b"Subject: hi\r\n\r\n..\r\nbody\r\n")
        result = await ask(hub, report_job(hub, BOUNCE, mail, (5, 1, 1), "no such user", None))
        assert result.only.outcome == "sent"
        (line,) = [line for line in daemon.logged() if "notification" in line]
        found = re.fullmatch(r"([0-9A-F]+): sender non-delivery notification: ([0-9A-F]+)", line)
        assert found is not None
        assert found.group(1) == mail.id
        (message,) = [message for message in queued(tmp_path) if message["queue_id"] == found.group(2)]
        assert message["sender"] in ("", "MAILER-DAEMON")
        assert [recipient["address"] for recipient in message["recipients"]] == ["me@b.example"]
        assert not any("status=" in line for line in daemon.logged())
        content = new_content(tmp_path)
        start = content.index(b"Received: by ")
        report = email.message_from_bytes(content[start:], policy=email.policy.default)
        assert report["Subject"] == "Undelivered Mail Returned to Sender"
        assert report["From"].addresses[0].addr_spec == "MAILER-DAEMON@example.org"
        assert report["Date"] is not None
        assert report["Message-Id"] is not None
        assert [part.get_content_type() for part in report.iter_parts()] == [
            "text/plain",
            "message/delivery-status",
            "message/rfc822",
        ]
        assert b"X-Postfix-Queue-ID: " + mail.id.encode() in content
        assert b"Subject: hi\r\n\r\n..\r\nbody\r\n" in content


@pytest.mark.parametrize(
    ("kind", "more", "settings", "subjects"),
    [
        (BOUNCE, {"sender": ""}, "", []),
        (BOUNCE, {"sender": "double-bounce@example.org"}, "notify_classes = 2bounce\n", []),
        (BOUNCE, {"sender": ""}, "notify_classes = 2bounce\n", ["Postmaster Copy: Undelivered Mail"]),
        (BOUNCE, {"sender": "", "notify": 1}, "notify_classes = 2bounce\n", ["Postmaster Copy: Undelivered Mail"]),
        (CONFIRM, {"sender": "me@b.example", "notify": 2}, "", ["Successful Mail Delivery Report"]),
        (CONFIRM, {"sender": "me@b.example"}, "notify_classes = bounce\n", ["Successful Mail Delivery Report"]),
        (CONFIRM, {"sender": ""}, "", []),
        (BOUNCE, {"sender": "me@b.example", "notify": 1}, "", []),
        (BOUNCE, {"sender": "me@b.example", "notify": 8}, "", []),
        (WARN, {"sender": "me@b.example"}, "", ["Delayed Mail (still being retried)"]),
        (WARN, {"sender": "me@b.example", "notify": 4}, "", []),
        (
            BOUNCE,
            {"sender": "me@b.example"},
            "notify_classes = bounce\n",
            ["Undelivered Mail Returned to Sender", "Postmaster Copy: Undelivered Mail"],
        ),
    ],
)
async def test_reports_go_to_sender_and_postmaster_as_configured(
    tmp_path: Path, kind: int, more: dict[str, Any], settings: str, subjects: list[str]
) -> None:
    async with agent(tmp_path, BounceAgent, settings) as (hub, _):
        job = report_job(hub, kind, Mail(0, ["you@far.example"], **more), (5, 0, 0), "no", None)
        result = await ask(hub, job)
        assert result.only.outcome == "sent"
        found = re.findall(rb"^Subject: ((?:Un|Post|Del|Succ).*)\r$", new_content(tmp_path), re.MULTILINE)
        assert [subject.decode() for subject in found] == subjects


@pytest.mark.parametrize(("size", "ret", "whole"), [(100, 0, True), (60_000, 0, False), (100, 2, False)])
async def test_ret_and_bounce_size_limit_select_whole_message_or_headers(
    tmp_path: Path, size: int, ret: int, whole: bool
) -> None:
    async with agent(tmp_path, BounceAgent) as (hub, _):
        content = b"Subject: x\r\n\r\n" + b"0123456789\r\n" * (size // 11)
        mail = Mail(0, ["you@far.example"], sender="me@b.example", content=content, ret=ret)
        job = report_job(hub, BOUNCE, mail, (5, 0, 0), "no", None)
        assert (await ask(hub, job)).only.outcome == "sent"
        assert (b"0123456789" in new_content(tmp_path)) is whole


async def test_report_that_cannot_be_queued_is_deferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MessageRefused(452, "4.3.1", "Insufficient system storage")

    monkeypatch.setattr(submit, "Intake", full)
    async with agent(tmp_path, BounceAgent) as (hub, _):
        job = report_job(hub, BOUNCE, Mail(0, ["you@far.example"], sender="me@b.example"), (5, 0, 0), "no", None)
        result = await ask(hub, job)
        assert (result.only.outcome, result.only.dsn) == ("deferred", "4.3.1")
