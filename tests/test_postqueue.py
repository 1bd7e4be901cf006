"""postqueue: its output and commands, with and without a queue manager."""

from __future__ import annotations

import asyncio
import fcntl
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from postillion._core.pickup import MaildropWriter, maildrop_envelope
from postillion.commands import postcat, postqueue, postsuper
from postillion.program import ipc
from support.mta import POSTILLION_COMMANDS, Site, running, until
from support.queue_commands import CONTENT, USEC, command, digest, queue_of_three, run
from support.queue_files import Message, announce, write_segment
from test_qmgr import DEFERRED, SENT, FakeAgent, qmgr


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """Make a queue of three messages without a queue manager, with its configuration, in the current directory."""
    monkeypatch.chdir(tmp_path)
    return queue_of_three(tmp_path)


def test_queue_is_read_from_disk_while_mail_system_is_down(stopped: list[Message]) -> None:
    listed = run(postqueue, "-j")
    assert [json.loads(line)["queue_id"] for line in listed.stdout.splitlines()] == [message.id for message in stopped]
    assert "warning: Mail system is down -- accessing queue directly" in listed.stderr
    shown = run(postqueue, "-p").stdout
    assert shown.endswith("\n-- 0 Kbytes in 3 Requests.\n")
    assert shown.count("other@example.edu") == 3
    for mode in (["-f"], ["-i", stopped[0].id]):
        flushed = run(postqueue, *mode)
        assert (flushed.returncode, flushed.stderr) == (
            69,
            "postqueue: fatal: Cannot flush mail queue - mail system is down\n",
        )


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["-p", "-f"],
        ["-x"],
        ["-p", "more"],
        ["-i", "../x"],
        ["-s", "bad_..x"],
    ],
)
def test_bad_arguments_are_refused_before_any_change(stopped: list[Message], argv: list[str]) -> None:
    done = run(postqueue, *argv)
    assert done.returncode == 69
    assert done.stderr.count("\n") == 1


async def test_running_queue_manager_handles_commands(tmp_path: Path) -> None:
    async with qmgr(tmp_path, "fast_flush_domains = example.net\n") as daemon:
        outcome = [DEFERRED]
        agent = await FakeAgent(tmp_path, lambda job: outcome[0](job)).connect("smtp")
        messages = [Message(USEC + n, [f"r{n}@example.net"], content=CONTENT) for n in range(4)]
        announce(tmp_path, 1, messages).close()
        await agent.has(4)
        await until(lambda: daemon.logged())
        held = await command(postsuper, "-h", messages[0].id)
        assert held.stderr.endswith("postsuper: Placed on hold: 1 message\n")
        rows = {row["queue_id"]: row for row in map(json.loads, (await command(postqueue, "-j")).stdout.splitlines())}
        assert rows[messages[0].id]["queue_name"] == "hold"
        assert rows[messages[1].id]["recipients"][0]["delay_reason"] == "come back later"
        assert (await command(postcat, "-qb", messages[1].id)).stdout == "\n.dot\nbody\n"
        outcome[0] = SENT
        assert (await command(postqueue, "-i", messages[1].id)).returncode == 0
        await until(lambda: f"{messages[1].id}: removed" in daemon.logged())
        other = await command(postqueue, "-s", "example.edu")
        assert other.returncode == 69
        assert 'Flush service is not configured for destination "example.edu"' in other.stderr
        assert (await command(postqueue, "-s", "example.net")).returncode == 0
        await until(lambda: f"{messages[3].id}: removed" in daemon.logged())
        assert (await command(postsuper, "-d", "ALL")).stderr == "postsuper: Deleted: 1 message\n"
        assert (await command(postqueue, "-p")).stdout == "Mail queue is empty\n"
        assert (await command(postsuper, "-s")).returncode == 0


async def test_message_is_listed_before_its_announcement(tmp_path: Path) -> None:
    """Between pickup's unlink in maildrop/ and its announcement, `mailq | grep empty` must not match."""
    async with qmgr(tmp_path):
        assert (await command(postqueue, "-p")).stdout == "Mail queue is empty\n"
        message = Message(USEC, ["r@example.net"], content=CONTENT)
        write_segment(tmp_path, 1, [message])
        with (tmp_path / "incoming" / f"{1:016X}").open("rb") as writer:
            # A writer that lives and has no connection, so soon after the start each command waits for it.
            fcntl.flock(writer, fcntl.LOCK_EX)
            rows = [json.loads(line) for line in (await command(postqueue, "-j")).stdout.splitlines()]
            assert [(row["queue_id"], row["queue_name"]) for row in rows] == [(message.id, "incoming")]
            assert rows[0]["waits"] == "for the queue manager to hear of it"
            assert (await command(postqueue, "-p")).stdout.endswith("\n-- 0 Kbytes in 1 Request.\n")
            submit(tmp_path, "ABCDE1234")
            # maildrop/ is read first: a message that pickup takes between the two reads is in both, not in neither.
            rows = [json.loads(line) for line in (await command(postqueue, "-j")).stdout.splitlines()]
            assert [row["queue_name"] for row in rows] == ["maildrop", "incoming"]


def test_no_listing_after_a_start_and_a_sendmail_is_empty(tmp_path: Path) -> None:
    """No next hop listens, so the message stays: each listing has it, whichever program holds it."""
    site = Site(tmp_path)
    with running(site):
        sendmail = [str(POSTILLION_COMMANDS / "sendmail"), "-C", str(site.etc), "r@next.example"]
        subprocess.run(sendmail, input=b"Subject: x\n\nbody\n", timeout=60, check=True)
        seen: set[str] = set()
        while "deferred" not in seen:
            listed = subprocess.run(
                [*site.command("postqueue"), "-j"], capture_output=True, text=True, timeout=60, check=True
            )
            assert listed.stdout, f"an empty listing after {sorted(seen)}"
            seen |= {json.loads(line)["queue_name"] for line in listed.stdout.splitlines()}


def test_missing_socket_means_not_running(tmp_path: Path) -> None:
    with pytest.raises(ipc.NotRunning):
        list(ipc.ask(str(tmp_path / "none"), {"verb": "list"}))


def test_closed_output_ends_the_command(stopped: list[Message]) -> None:
    reader = subprocess.Popen(
        [sys.executable, "-m", postqueue.__name__, "-c", ".", "-j"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert isinstance(reader.stdout, io.BufferedReader)
    reader.stdout.close()
    _, errors = reader.communicate(timeout=30)
    assert b"Traceback" not in errors


def submit(directory: Path, name: str, sender: str = "s@example.org") -> None:
    """Put a complete message into maildrop/."""
    (directory / "maildrop").mkdir(exist_ok=True)
    writer = MaildropWriter(dot_ends=False)
    data = maildrop_envelope(sender, [("m@example.net", None, None, 0)], wall_now=1_795_000_000)
    path = directory / "maildrop" / name
    path.write_bytes(data + writer.feed(b"Subject: x\n\nbody\n")[0] + writer.finish())
    path.chmod(0o744)


def test_mail_in_maildrop_is_listed_first_and_nothing_changes(stopped: list[Message], tmp_path: Path) -> None:
    submit(tmp_path, "ABCDE1234")
    (tmp_path / "maildrop" / "hostile").symlink_to("/etc/passwd")
    before = digest(tmp_path)
    rows = [json.loads(line) for line in run(postqueue, "-j").stdout.splitlines()]
    assert [row["queue_id"] for row in rows] == ["ABCDE1234", *(message.id for message in stopped)]
    assert (rows[0]["queue_name"], rows[0]["sender"]) == ("maildrop", "s@example.org")
    assert [to["address"] for to in rows[0]["recipients"]] == ["m@example.net"]
    assert run(postqueue, "-p").stdout.count("@example.net\n") == 4
    assert digest(tmp_path) == before


async def test_listing_shows_why_each_message_waits_and_its_next_attempt(tmp_path: Path) -> None:
    async with qmgr(tmp_path, "smtp_destination_concurrency_limit = 1\ninitial_destination_concurrency = 1\n"):
        submit(tmp_path, "ABCDE1234")
        agent = await FakeAgent(tmp_path, None).connect("smtp")
        now_us = int(time.time() * 1e6)
        first, second, third = (Message(now_us + n, ["a@example.net"]) for n in range(3))
        announce(tmp_path, 1, [first, second, third]).close()
        await agent.has(1)
        await command(postsuper, "-h", third.id)
        rows = {row["queue_id"]: row for row in map(json.loads, (await command(postqueue, "-j")).stdout.splitlines())}
        assert rows[first.id]["waits"] == "for the answer of smtp:example.net"
        assert rows[second.id]["waits"] == "for one of 1 deliveries to smtp:example.net to end"
        assert rows[third.id]["waits"] == "until it is released from hold"
        assert rows["ABCDE1234"]["waits"] == "for pickup"
        DEFERRED(agent.jobs[0])
        agent.writer.write(agent.jobs[0].result())
        await agent.has(2)
        [deferred] = [
            row
            for row in map(json.loads, (await command(postqueue, "-j")).stdout.splitlines())
            if row["queue_name"] == "deferred"
        ]
        assert (deferred["queue_id"], deferred["waits"]) == (first.id, "for its next attempt")
        assert deferred["next_attempt"] > now_us / 1e6
        shown = (await command(postqueue, "-p", "-v")).stdout
        moment = time.ctime(deferred["next_attempt"])
        assert f"    waits for its next attempt: {moment} (1 attempt so far)\n" in shown
        assert "    waits until it is released from hold (" in shown
        assert "waits" not in (await command(postqueue, "-p")).stdout


@pytest.mark.parametrize(
    ("octets", "nice"),
    [([10, 89], []), ([10, 90], [postqueue.NICE]), ([200, 200, 200], [postqueue.NICE])],
    ids=["short", "long", "longer"],
)
def test_long_listing_lowers_its_priority(monkeypatch: pytest.MonkeyPatch, octets: list[int], nice: list[int]) -> None:
    became: list[int] = []
    written: list[bytes] = []

    def write(descriptor: int, data: memoryview) -> int:
        """Write half of the data, as a pipe may."""
        assert descriptor == 1
        written.append(bytes(data[: -(-len(data) // 2)]))
        return len(written[-1])

    monkeypatch.setattr(postqueue, "LONG_OCTETS", 100)
    monkeypatch.setattr(os, "nice", became.append)
    monkeypatch.setattr(os, "write", write)
    output = postqueue.Output()
    pieces = [bytes([n]) * size for n, size in enumerate(octets)]
    for piece in pieces:
        output.write(piece)
    assert became == nice
    assert b"".join(written) == b"".join(pieces)


async def test_queue_manager_works_while_listings_are_not_read(tmp_path: Path) -> None:
    async with qmgr(tmp_path):
        agent = await FakeAgent(tmp_path, DEFERRED).connect("smtp")
        long = [f"{n}{'x' * 200}@example.net" for n in range(2000)]
        (await asyncio.to_thread(announce, tmp_path, 1, [Message(USEC + n, long) for n in range(8)])).close()
        await agent.has(8)

        def stall() -> tuple[ipc.Session, Iterator[bytes]]:
            session = ipc.Session("public/qmgr")
            chunks = session.chunks({"verb": "list"})
            assert next(chunks)
            return session, chunks

        stalled = [await asyncio.to_thread(stall) for _ in range(16)]
        refused = await command(postqueue, "-j")
        assert refused.returncode == 69
        assert "too many listings of the queue at a time" in refused.stderr
        assert (await command(postqueue, "-f")).returncode == 0
        for session, chunks in stalled:
            chunks.close()  # type: ignore[attr-defined]
            session.close()

        async def listed() -> bool:
            return (await command(postqueue, "-j")).returncode == 0

        async with asyncio.timeout(30):
            while not await listed():
                pass
