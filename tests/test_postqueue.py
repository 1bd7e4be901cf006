"""postqueue, with and without a queue manager, and what it prints."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from postillion import ipc
from postillion.commands import postcat, postqueue, postsuper, showq
from queue_commands import CONTENT, USEC, command, queue_of_three, run
from queue_files import Message, announce
from test_qmgr import DEFERRED, SENT, FakeAgent, qmgr, until


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """Three messages in a queue that nobody manages; the current directory is the queue and configuration directory."""
    monkeypatch.chdir(tmp_path)
    return queue_of_three(tmp_path)


def row(**members: Any) -> dict[str, Any]:
    return {
        "queue_name": "deferred",
        "queue_id": "C25E99981A3",
        "arrival_time": 0,
        "message_size": 253,
        "forced_expire": False,
        "sender": "MAILER-DAEMON",
        "recipients": [{"address": "a@example.net", "delay_reason": "deferred transport"}],
        **members,
    }


def test_the_listing_has_the_columns_of_postfix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    long_reason = "x" * 80
    rows = [
        row(),
        row(queue_id="BE6E49981A1", queue_name="hold", message_size=1024, sender="s@example.org"),
        row(queue_name="active", recipients=[{"address": "a"}, {"address": "b\x1b[31m", "delay_reason": long_reason}]),
        row(forced_expire=True),
    ]
    assert "".join(showq.text(rows, long_queue_ids=False)) == (
        "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------\n"
        "C25E99981A3     253 Thu Jan  1 00:00:00  MAILER-DAEMON\n"
        "                                                          (deferred transport)\n"
        "                                         a@example.net\n"
        "\n"
        "BE6E49981A1!    1024 Thu Jan  1 00:00:00  s@example.org\n"
        "                                                          (deferred transport)\n"
        "                                         a@example.net\n"
        "\n"
        "C25E99981A3*     253 Thu Jan  1 00:00:00  MAILER-DAEMON\n"
        "                                         a\n"
        f"({long_reason})\n"
        "                                         b?[31m\n"
        "\n"
        "C25E99981A3#     253 Thu Jan  1 00:00:00  MAILER-DAEMON\n"
        "                                                          (deferred transport)\n"
        "                                         a@example.net\n"
        "\n"
        "-- 1 Kbytes in 4 Requests.\n"
    )
    assert "".join(showq.text([], long_queue_ids=True)) == "Mail queue is empty\n"


def test_the_queue_is_read_from_disk_while_the_mail_system_is_down(stopped: list[Message]) -> None:
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
def test_bad_arguments_are_refused_before_anything_is_touched(stopped: list[Message], argv: list[str]) -> None:
    done = run(postqueue, *argv)
    assert done.returncode == 69
    assert done.stderr.count("\n") == 1


async def test_a_running_queue_manager_does_it(tmp_path: Path) -> None:
    async with qmgr(tmp_path, "fast_flush_domains = example.net\n") as daemon:
        fate = [DEFERRED]
        agent = await FakeAgent(tmp_path, lambda job: fate[0](job)).connect("smtp")
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
        fate[0] = SENT
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


def test_a_socket_that_is_no_queue_manager_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ipc.NotRunning):
        list(ipc.ask(str(tmp_path / "none"), {"verb": "list"}))


def test_a_reader_that_has_seen_enough_ends_the_command(stopped: list[Message]) -> None:
    reader = subprocess.Popen(
        [sys.executable, "-m", postqueue.__name__, "-c", ".", "-j"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert isinstance(reader.stdout, io.BufferedReader)
    reader.stdout.close()
    _, errors = reader.communicate(timeout=30)
    assert b"Traceback" not in errors
