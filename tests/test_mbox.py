"""Delivery to mbox files: locks, quoting, truncation after errors, and refused files."""

import asyncio
import errno
import fcntl
import mailbox
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postillion.delivery.account import Account, account_of
from postillion.delivery.mailbox import mbox
from postillion.delivery.mailbox.letter import Letter, delivery_headers, from_line
from postillion.delivery.mailbox.mbox import MailboxFile, MboxSettings, spool_opener

SETTINGS = MboxSettings(("flock", "fcntl", "dotlock"), 3, 0.01, 500.0, 100_000, True)


def me() -> Account:
    account = account_of(os.getuid())
    assert account is not None
    return account


def place(path: Path, user: str | None = "me") -> MailboxFile:
    return MailboxFile(str(path), me(), me(), me().gid, user)


def message(text: bytes = b"Subject: x\n\nbody\n") -> tuple[bytes, bytes]:
    return from_line("a@b.example", 0) + delivery_headers("a@b.example", "c@d", "c@d"), Letter(text).quoted()


async def test_messages_are_appended_with_from_lines(tmp_path: Path) -> None:
    path = tmp_path / "box"
    for _ in range(2):
        verdict = await mbox.deliver(place(path), message(b"Subject: x\n\nFrom me\n>From you\nno From\n"), SETTINGS)
        assert verdict == ("sent", "2.0.0", "delivered to mailbox")
    one = (
        b"From a@b.example  Thu Jan  1 00:00:00 1970\nReturn-Path: <a@b.example>\nX-Original-To: c@d\n"
        b"Delivered-To: c@d\nSubject: x\n\n>From me\n>From you\nno From\n\n"
    )
    local = time.asctime(time.localtime(0)).encode()
    assert path.read_bytes() == (one + one).replace(b"Thu Jan  1 00:00:00 1970", local)
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["box"]


async def test_verdict_names_the_file(tmp_path: Path) -> None:
    verdict = await mbox.deliver(place(tmp_path / "f", None), message(), SETTINGS)
    assert verdict.text == f"delivered to file: {tmp_path}/f"
    verdict = await mbox.deliver(place(Path("/dev/null"), None), message(), SETTINGS)
    assert verdict.text == "delivered to file: /dev/null"


async def test_delivery_waits_for_locks_of_others_and_finally_defers(tmp_path: Path) -> None:
    path = tmp_path / "box"
    path.write_bytes(b"")
    with open(path, "ab") as other:  # noqa: ASYNC230
        fcntl.flock(other, fcntl.LOCK_EX)
        verdict = await mbox.deliver(place(path), message(), SETTINGS)
    assert (verdict.outcome, verdict.dsn) == ("deferred", "4.2.0")
    assert "unable to lock for exclusive access" in verdict.text
    assert path.read_bytes() == b""
    lock = tmp_path / "box.lock"
    lock.write_text("")
    verdict = await mbox.deliver(place(path), message(), SETTINGS)
    assert "unable to create lock file" in verdict.text
    asyncio.get_running_loop().call_later(0.015, lock.unlink)
    verdict = await mbox.deliver(place(path), message(), SETTINGS._replace(deliver_lock_attempts=50))
    assert verdict.outcome == "sent"


async def test_stale_lock_is_removed(tmp_path: Path) -> None:
    lock = tmp_path / "box.lock"
    lock.write_text("")
    os.utime(lock, (1, 1))
    assert (await mbox.deliver(place(tmp_path / "box"), message(), SETTINGS)).outcome == "sent"
    assert not lock.exists()


@pytest.mark.parametrize("kind", ["symlink", "dangling", "hardlink", "fifo", "directory"])
async def test_non_mailbox_is_refused_and_not_changed(tmp_path: Path, kind: str) -> None:
    path, victim = tmp_path / "box", tmp_path / "victim"
    victim.write_text("precious")
    if kind == "symlink":
        os.symlink(victim, path)
    elif kind == "dangling":
        os.symlink(tmp_path / "nothing", path)
    elif kind == "hardlink":
        os.link(victim, path)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    verdict = await asyncio.wait_for(mbox.deliver(place(path), message(), SETTINGS), 5)
    assert (verdict.outcome, verdict.dsn) == ("bounced", "5.2.0")
    assert verdict.text.startswith(f"cannot update mailbox {path} for user me. destination {path} ")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "nothing").exists()
    assert not (tmp_path / "box.lock").exists()


async def test_executable_files_and_foreign_mailboxes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    verdict = await mbox.deliver(place(path, None), message(), SETTINGS)
    assert (verdict.outcome, verdict.dsn, verdict.text[-18:]) == ("bounced", "5.7.1", "file is executable")
    if os.getuid() == 0:
        os.chown(path, 65534, 65534)
        verdict = await mbox.deliver(place(path), message(), SETTINGS)
        assert (verdict.outcome, verdict.text.rpartition(" is ")[2]) == ("deferred", "not owned by recipient")


async def test_full_mailbox_bounces_and_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "box"
    path.write_bytes(b"x" * 99_990)
    verdict = await mbox.deliver(place(path), message(), SETTINGS)
    assert (verdict.outcome, verdict.dsn) == ("bounced", "5.2.2")
    assert path.stat().st_size == 99_990


@pytest.mark.parametrize(("call", "error", "dsn"), [("fsync", errno.EIO, "4.2.0"), ("writev", errno.ENOSPC, "4.3.0")])
async def test_failed_write_is_truncated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: int, dsn: str
) -> None:
    path = tmp_path / "box"
    path.write_bytes(b"old\n")
    real = getattr(os, call)

    def fail(file: int, *arguments: object) -> None:
        if call == "writev":
            os.write(file, b"half a mess")
        if os.fstat(file).st_size > 4:
            raise OSError(error, os.strerror(error))
        real(file, *arguments)

    monkeypatch.setattr(os, call, fail)
    verdict = await mbox.deliver(place(path), message(), SETTINGS)
    assert (verdict.outcome, verdict.dsn) == ("deferred", dsn)
    assert path.read_bytes() == b"old\n"


async def test_missing_directory_defers(tmp_path: Path) -> None:
    verdict = await mbox.deliver(place(tmp_path / "no" / "box"), message(), SETTINGS)
    assert (verdict.outcome, verdict.dsn) == ("deferred", "4.2.0")


@pytest.mark.skipif(os.getuid() != 0, reason="only root chooses")
@pytest.mark.parametrize(("mode", "uid", "gid"), [(0o1777, 65534, 65534), (0o2775, 65534, 8), (0o755, 0, 0)])
def test_spool_is_opened_with_least_rights(tmp_path: Path, mode: int, uid: int, gid: int) -> None:
    os.chown(tmp_path, 0, 8)
    os.chmod(tmp_path, mode)
    user = Account("nobody", 65534, 65534, "/", "/bin/sh")
    opener, group = spool_opener(str(tmp_path), user)
    assert (opener.uid, group) == (uid, gid)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(codec="ascii", exclude_characters="\r\0"), max_size=80), min_size=1, max_size=4))
def test_python_mailbox_module_reads_messages_back(tmp_path_factory: pytest.TempPathFactory, bodies: list[str]) -> None:
    path = tmp_path_factory.mktemp("mbox") / "box"

    async def deliver() -> None:
        for body in bodies:
            text = b"Subject: x\n\n" + body.encode()
            assert (await mbox.deliver(place(path), message(text), SETTINGS)).outcome == "sent"

    asyncio.run(deliver())
    found = [part.get_payload() for part in mailbox.mbox(path)]
    assert len(found) == len(bodies)
    for body, payload in zip(bodies, found, strict=True):
        lines = [f">{line}" if line.startswith("From ") else line for line in body.split("\n")]
        expected = "\n".join(lines)
        assert str(payload).rstrip("\n") == expected.rstrip("\n")
