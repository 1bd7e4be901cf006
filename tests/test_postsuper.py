"""postsuper: its commands, with and without a queue manager."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import smtplib
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from postillion._core.log import Log
from postillion._core.pickup import MaildropReader
from postillion._core.qmgr import QueueManager
from postillion.commands import postcat, postqueue, postsuper
from postillion.commands.requeue import Mover
from postillion.program import ipc
from support import peers
from support.mta import Site, running, until, wait_for
from support.queue_commands import CONTENT, USEC, command, queue_of_three, run
from support.queue_files import Message, announce, write_segment
from test_qmgr import DEFERRED, SENT, FakeAgent, qmgr

NOBODY = 65534


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """Make a queue of three messages without a queue manager, with its configuration, in the current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "maildrop").mkdir()
    return queue_of_three(tmp_path)


@dataclass
class Traced(Message):
    """A message with the mark of a probe, or of a report of the first attempt."""

    trace: str = ""

    def envelope(self) -> bytes:
        """Return the encoded envelope."""
        flags = {"probe": "512", "record": "1024"}[self.trace]
        self.attributes = {"trace_flags": flags}
        plain = super().envelope()
        at = 8 + 8 + 4 + len(self.sender) + 1
        return plain[:at] + bytes([2 if self.trace == "probe" else 0]) + plain[at + 1 :]


def queues() -> dict[str, str]:
    """Return the queue of each message, as postqueue lists it."""
    rows = map(json.loads, run(postqueue, "-j").stdout.splitlines())
    return {row["queue_id"]: row["queue_name"] for row in rows}


def test_queue_without_queue_manager_is_changed(stopped: list[Message], tmp_path: Path) -> None:
    first, second, third = stopped
    held = run(postsuper, "-h", first.id)
    assert (held.returncode, held.stderr) == (
        0,
        f"postsuper: {first.id}: placed on hold\npostsuper: Placed on hold: 1 message\n",
    )
    deleted = run(postsuper, "-d", "-", stdin=f"{second.id}\n{second.id}\nABCDEF012\n")
    assert deleted.stderr == f"postsuper: {second.id}: removed\npostsuper: Deleted: 1 message\n"
    assert queues() == {first.id: "hold", third.id: "incoming"}
    assert run(postsuper, "-d", "ALL", "deferred").stderr == "postsuper: Deleted: 0 messages\n"
    assert run(postsuper, "-d", "ALL", "hold").stderr == "postsuper: Deleted: 1 message\n"
    assert run(postsuper, "-d", "ALL").stderr == "postsuper: Deleted: 1 message\n"
    assert run(postqueue, "-p").stdout == "Mail queue is empty\n"
    assert list((tmp_path / "incoming").glob("0*")) == [], "the segment is removed with its last message"


def test_options_run_in_order_with_totals(stopped: list[Message]) -> None:
    first, second, third = (message.id for message in stopped)
    done = run(postsuper, "-h", first, "-d", second, "-h", third, "-H", first)
    assert done.stderr.splitlines() == [
        f"postsuper: {first}: placed on hold",
        f"postsuper: {second}: removed",
        f"postsuper: {third}: placed on hold",
        f"postsuper: {first}: released from hold",
        "postsuper: Deleted: 1 message",
        "postsuper: Placed on hold: 2 messages",
        "postsuper: Released from hold: 1 message",
    ]
    expired = run(postsuper, "-f", third, "-f", third)
    assert expired.stderr.splitlines() == [
        f"postsuper: {third}: expired",
        f"postsuper: {third}: released from hold",
        "postsuper: Force-expired: 1 message",
        "postsuper: Released from hold: 1 message",
    ]


def test_invalid_queue_ids_are_skipped_with_warning(stopped: list[Message]) -> None:
    done = run(postsuper, "-h", "-", stdin=f"../x\n\n  {stopped[1].id}\n{stopped[0].id}\n\x1b[31m\n")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "postsuper: warning: invalid mail queue id: ../x",
        "postsuper: warning: invalid mail queue id: ",
        f"postsuper: warning: invalid mail queue id:   {stopped[1].id}",
        "postsuper: warning: invalid mail queue id: ?[31m",
        f"postsuper: {stopped[0].id}: placed on hold",
        "postsuper: Placed on hold: 1 message",
    ]


@pytest.mark.parametrize("argv", [["-x"], ["-d", "ALL", "nowhere"], ["ALL"], ["-d"]])
def test_bad_arguments_are_refused_before_any_change(stopped: list[Message], argv: list[str]) -> None:
    done = run(postsuper, *argv)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert set(queues().values()) == {"incoming"}


def test_root_requeues_into_a_maildrop_of_another_group(stopped: list[Message], tmp_path: Path) -> None:
    peers.root()
    shutil.chown(tmp_path / "maildrop", NOBODY, NOBODY - 1)
    for directory in (tmp_path, *tmp_path.parents[:-1]):
        directory.chmod(directory.stat().st_mode | 0o011)
    for path in (tmp_path, *tmp_path.rglob("*")):
        shutil.chown(path, NOBODY)
    assert run(postsuper, "-r", "ALL").stderr == "postsuper: Requeued: 3 messages\n"
    assert {path.stat().st_uid for path in (tmp_path / "maildrop").iterdir()} == {NOBODY}


def test_files_in_maildrop_can_only_be_deleted(stopped: list[Message], tmp_path: Path) -> None:
    for name in ("ABCDE1", "ABCDE2", "ABCDE3"):
        (tmp_path / "maildrop" / name).write_bytes(b"x")
    assert run(postsuper, "-h", "ABCDE1").stderr == "postsuper: Placed on hold: 0 messages\n"
    assert run(postsuper, "-d", "ABCDE1").stderr == "postsuper: ABCDE1: removed\npostsuper: Deleted: 1 message\n"
    assert run(postsuper, "-d", "ABCDE2", "hold").stderr == "postsuper: Deleted: 0 messages\n"
    assert run(postsuper, "-r", "ALL", "maildrop").stderr == "postsuper: Requeued: 0 messages\n"
    assert run(postsuper, "-d", "ALL", "maildrop").stderr == "postsuper: Deleted: 2 messages\n"
    assert len(queues()) == 3


def test_requeued_message_is_a_file_in_maildrop(stopped: list[Message], tmp_path: Path) -> None:
    done = run(postsuper, "-r", stopped[0].id)
    assert done.stderr == f"postsuper: {stopped[0].id}: requeued\npostsuper: Requeued: 1 message\n"
    [path] = (tmp_path / "maildrop").iterdir()
    assert path.stat().st_mode & 0o777 == 0o700
    data = path.read_bytes()
    assert b"S\x12sender@example.org" in data
    assert b"log_ident=" + stopped[0].id.encode() in data
    assert b"R\x0er0@example.netR\x11other@example.eduM\x00" in data
    assert data.endswith(b"M\x00N\x0aSubject: xN\x06X-A: bN\x00N\x04.dotN\x04bodyX\x00E\x00")
    assert stopped[0].id not in queues()
    assert run(postsuper, "-r", "ALL", "hold").stderr == "postsuper: Requeued: 0 messages\n"
    assert run(postsuper, "-r", "ALL").stderr == "postsuper: Requeued: 2 messages\n"
    assert len(list((tmp_path / "maildrop").iterdir())) == 3


@pytest.mark.parametrize(("trace", "flags"), [("probe", b"A\x0ftrace_flags=512"), ("record", b"A\x10trace_flags=1024")])
def test_requeued_probe_stays_one(stopped: list[Message], tmp_path: Path, trace: Any, flags: bytes) -> None:
    message = Traced(USEC + 5, ["r@example.net"], trace=trace)
    write_segment(tmp_path, 2, [message])
    assert f"named_attribute: {flags[2:].decode()}\n" in run(postcat, "-qe", message.id).stdout
    assert run(postsuper, "-r", message.id).stderr.startswith(f"postsuper: {message.id}: requeued\n")
    [path] = (tmp_path / "maildrop").iterdir()
    assert flags in path.read_bytes()
    reader = MaildropReader()
    reader.feed(path.read_bytes())
    assert reader.finish().trace == trace


def test_message_that_cannot_be_moved_stays_in_queue(stopped: list[Message], tmp_path: Path) -> None:
    segment = tmp_path / "incoming" / f"{1:016X}"
    data = segment.read_bytes()
    (tmp_path / "maildrop").rmdir()
    failed = run(postsuper, "-r", stopped[0].id)
    assert (failed.returncode, failed.stderr) == (1, "postsuper: fatal: maildrop: No such file or directory\n")
    (tmp_path / "maildrop").mkdir()
    assert len(queues()) == 3
    # The damage is in the content: Mover finds it when it reads the content.
    warnings: list[str] = []
    mover = Mover(str(tmp_path), warnings.append)
    segment.write_bytes(data.replace(b"..dot", b"..dog"))
    entries = [(stopped[0].id, f"incoming/{1:016X}", 32, 0)]
    assert list(mover.move(entries)) == [[]]
    assert warnings[0].startswith(f"{stopped[0].id}: not requeued: ")
    assert list((tmp_path / "maildrop").iterdir()) == []


def test_copied_queue_directory_is_repaired(stopped: list[Message], tmp_path: Path) -> None:
    (tmp_path / "hold").mkdir()
    (tmp_path / "incoming" / f"{1:016X}").rename(tmp_path / "hold" / "x.bak")
    assert queues() == {}
    done = run(postsuper, "-s")
    assert done.returncode == 0
    assert f"postsuper: hold/x.bak: renamed to incoming/{1:016X}\n" in done.stderr
    assert len(queues()) == 3
    assert run(postsuper).stderr == "", "the queue is in order now"


def test_queue_that_root_copied_is_refused_until_it_has_its_owners(tmp_path: Path) -> None:
    peers.root()
    site = Site(tmp_path)
    with running(site):
        pass
    shutil.move(site.queue, tmp_path / "backup")
    subprocess.run(["/bin/cp", "-r", tmp_path / "backup", site.queue], check=True)
    for verb in ("check", "start"):
        refused = site.run("postillion", verb)
        assert refused.returncode == 1
        assert f"{site.queue}/active belongs to uid 0 in place of " in refused.stderr
        assert refused.stderr.endswith(f": run postillion -c {site.etc} set-permissions\n")
        assert refused.stderr.count("\n") == 1
    repaired = subprocess.run([*site.command("postsuper"), "-s"], capture_output=True, text=True, check=True)
    directories = ("hold", "maildrop", "private", "public", "bounce", "saved")
    assert [name for name in directories if f"postsuper: {name}: owner and mode set\n" not in repaired.stderr] == []
    assert site.run("postillion", "check").returncode == 0
    with running(site), smtplib.SMTP("127.0.0.1", site.port) as client:
        client.sendmail("a@example.org", ["nobody@example.org"], "Subject: here\r\n\r\nbody\r\n")
        wait_for("the message", lambda: site.maildir("nobody"))


@pytest.mark.parametrize(
    ("name", "mode", "fixed"), [("maildrop", 0o710, 0o730), ("public", 0o700, 0o710), ("incoming", 0o777, 0o700)]
)
def test_queue_directory_with_a_wrong_mode_is_refused(tmp_path: Path, name: str, mode: int, fixed: int) -> None:
    peers.root()
    site = Site(tmp_path)
    with running(site):
        pass
    (site.queue / name).chmod(mode)
    for verb in ("check", "start"):
        refused = site.run("postillion", verb)
        assert refused.returncode == 1
        assert f"{site.queue}/{name} has mode {mode:o} in place of {fixed:o}: " in refused.stderr
    assert site.run("postillion", "set-permissions").returncode == 0
    assert site.run("postillion", "check").returncode == 0


def test_queue_of_unresponsive_queue_manager_is_not_changed(stopped: list[Message], tmp_path: Path) -> None:
    log = Log("mx", "postfix", "qmgr", 1, 0, "memory:")
    core = QueueManager(str(tmp_path), None, log, time.monotonic(), time.time())
    for argv in (["-d", "ALL"], ["-s"], ["-r", "ALL"]):
        done = run(postsuper, *argv)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "another queue manager" in done.stderr
    core.close()
    assert len(queues()) == 3


def test_other_users_are_refused(stopped: list[Message], tmp_path: Path) -> None:
    peers.root()
    shutil.chown(tmp_path, NOBODY - 1)
    for directory in (tmp_path, *tmp_path.parents[:-1]):
        directory.chmod(directory.stat().st_mode | 0o011)
    program = "import sys; from postillion.commands import postsuper; sys.exit(postsuper.main())"
    # Drop root after the imports: the interpreter's files may be readable for root only.
    drop = f"import os; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY}); "
    done = subprocess.run(
        [sys.executable, "-c", program.replace("sys.exit", f"{drop}sys.exit"), "-c", ".", "-d", "ALL"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        1,
        "postsuper: fatal: use of this command is reserved for the superuser\n",
    )


async def test_running_queue_manager_handles_commands(tmp_path: Path) -> None:
    (tmp_path / "maildrop").mkdir()
    async with qmgr(tmp_path) as daemon:
        agent = await FakeAgent(tmp_path, DEFERRED).connect("smtp")
        messages = [Message(USEC + n, [f"r{n}@example.net"], content=CONTENT) for n in range(4)]
        announce(tmp_path, 1, messages).close()
        await agent.has(4)
        await until(lambda: sum("status=deferred" in line for line in daemon.logged()) == 4 or len(agent.jobs) == 4)
        held = await command(postsuper, "-h", messages[0].id, "-r", messages[1].id)
        assert held.stderr.endswith("postsuper: Requeued: 1 message\npostsuper: Placed on hold: 1 message\n")
        assert len(list((tmp_path / "maildrop").iterdir())) == 1
        assert (await command(postsuper, "-s")).returncode == 0
        assert (await command(postsuper, "-d", "ALL", "hold")).stderr == "postsuper: Deleted: 1 message\n"
        assert (await command(postsuper, "-r", "ALL")).stderr == "postsuper: Requeued: 2 messages\n"
        assert len(list((tmp_path / "maildrop").iterdir())) == 3


async def test_message_in_delivery_is_not_requeued(tmp_path: Path) -> None:
    (tmp_path / "maildrop").mkdir()
    async with qmgr(tmp_path):
        agent = await FakeAgent(tmp_path, None).connect("smtp")
        message = Message(USEC, ["a@example.net"])
        announce(tmp_path, 1, [message]).close()
        await agent.has(1)
        done = await command(postsuper, "-r", message.id)
        assert done.stderr == (
            f"postsuper: warning: {message.id}: not requeued: it is being delivered\npostsuper: Requeued: 0 messages\n"
        )
        assert list((tmp_path / "maildrop").iterdir()) == []


async def test_killed_requeue_loses_no_message(tmp_path: Path) -> None:
    async with qmgr(tmp_path):
        announce(tmp_path, 1, [Message(USEC, ["a@example.net"])]).close()
        agent = await FakeAgent(tmp_path, DEFERRED).connect("smtp")
        await agent.has(1)
        await asyncio.sleep(0)

        def die() -> int:
            with ipc.Session("public/qmgr") as session:
                return len(session.do({"verb": "leave"})["messages"])

        moved = await asyncio.to_thread(die)
        assert moved == 1
        rows = (await command(postqueue, "-j")).stdout.splitlines()
        assert [json.loads(row)["queue_name"] for row in rows] == ["deferred"]


async def test_expired_mail_bounces_to_its_sender(tmp_path: Path) -> None:
    async with qmgr(tmp_path) as daemon:
        agent = await FakeAgent(tmp_path, DEFERRED).connect("smtp")
        bounce = await FakeAgent(tmp_path, SENT).connect("bounce")
        message = Message(int(time.time() * 1e6), ["a@example.net"])
        announce(tmp_path, 1, [message]).close()
        await agent.has(1)
        expired = await command(postsuper, "-e", message.id)
        assert expired.stderr == f"postsuper: {message.id}: expired\npostsuper: Force-expired: 1 message\n"
        [report] = await bounce.has(1)
        assert report.kind == "bounce"
        await until(lambda: f"{message.id}: removed" in daemon.logged())
        assert f"{message.id}: from=<sender@example.org>, status=force-expired, returned to sender" in daemon.lines


def test_requeued_message_passes_cleanup_again(tmp_path: Path) -> None:
    site = Site(tmp_path, main_cf={"default_transport": "smtp:[127.0.0.1]:1", "minimal_backoff_time": "1h"})
    with running(site):
        submit = [*site.command("sendmail"), "-i", "-f", "s@example.org", "a@far.example"]
        submit[1] = "-C"
        subprocess.run(submit, input=b"Subject: x\n\nbody\n", check=True, timeout=30)

        def listed() -> list[str]:
            done = subprocess.run([*site.command("postqueue"), "-j"], capture_output=True, check=True, timeout=30)
            rows = map(json.loads, done.stdout.splitlines())
            return [row["queue_id"] for row in rows if row["queue_name"] == "deferred"]

        wait_for("a deferred message", listed)
        [name] = listed()
        subprocess.run([*site.command("postsuper"), "-r", name], check=True, timeout=30)
        wait_for("the message with another queue ID", lambda: [found for found in listed() if found != name])
        [new] = listed()
        uid = os.stat(site.queue / "incoming").st_uid
        line = f"{new}: uid={uid} from=<s@example.org> orig_id={name}"
        wait_for("pickup's line", lambda: line in site.log_text())
        shown = subprocess.run([*site.command("postcat"), "-qh", new], capture_output=True, check=True, timeout=30)
        assert shown.stdout.count(b"Received: ") == 2
        assert not any((site.queue / "maildrop").iterdir())


def test_all_messages_of_two_segments_are_requeued(stopped: list[Message], tmp_path: Path) -> None:
    write_segment(tmp_path, 2, [Message(USEC + 10, ["a@example.net"])])
    assert len(queues()) == 4
    assert run(postsuper, "-r", "ALL", "incoming", "deferred").stderr == "postsuper: Requeued: 4 messages\n"
