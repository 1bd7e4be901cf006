"""Delivery to Maildirs: whole messages or none, with Postfix's names and the documented syncs."""

import asyncio
import errno
import multiprocessing
import os
import pwd
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postillion.delivery.account import Account, account_of
from postillion.delivery.mailbox import maildir
from postillion.delivery.mailbox.maildir import Maildirs, prepare_in_spool
from postillion.delivery.verdict import sent
from support.mta import let_others_pass
from support.peers import root

NAME = re.compile(r"\d+\.V[0-9a-f]+I[0-9a-f]+M\d{1,6}\.mx\.example\Z")


def me() -> Account:
    account = account_of(os.getuid())
    assert account is not None
    return account


async def test_message_is_in_new_with_name_as_in_postfix(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "Maildir"
    verdict = await Maildirs("mx.example").deliver(f"{path}/", b"Return-Path: <>\n", b"Subject: x\n\nbody\n", me())
    assert verdict == sent("delivered to maildir")
    (name,) = os.listdir(path / "new")
    assert NAME.match(name)
    file = path / "new" / name
    assert file.read_bytes() == b"Return-Path: <>\nSubject: x\n\nbody\n"
    status = file.stat()
    assert f"V{status.st_dev:x}I{status.st_ino:x}M" in name
    assert (status.st_mode & 0o777, status.st_nlink) == (0o600, 1)
    assert os.listdir(path / "tmp") == []
    assert all((path / part).stat().st_mode & 0o777 == 0o700 for part in ("tmp", "new", "cur"))


async def test_concurrent_deliveries_share_directory_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directories = 0
    fsync = os.fsync

    def counted(file: int) -> None:
        nonlocal directories
        directories += os.fstat(file).st_mode & 0o170000 == 0o040000
        fsync(file)

    maildirs = Maildirs("mx")
    await maildirs.deliver(f"{tmp_path}/M/", b"", b"first", me())
    monkeypatch.setattr(os, "fsync", counted)
    verdicts = await asyncio.gather(*(maildirs.deliver(f"{tmp_path}/M/", b"", b"%d" % n, me()) for n in range(20)))
    assert {verdict.outcome for verdict in verdicts} == {"sent"}
    bodies = {(tmp_path / "M/new" / name).read_bytes() for name in os.listdir(tmp_path / "M/new")}
    assert bodies == {b"first", *(b"%d" % n for n in range(20))}
    assert directories == 1


@pytest.mark.parametrize(
    ("call", "error", "dsn"),
    [
        ("writev", errno.ENOSPC, "4.3.0"),
        ("writev", errno.EDQUOT, "4.2.2"),
        ("fsync", errno.EIO, "4.2.0"),
        ("link", errno.ENOSPC, "4.3.0"),
        ("open", errno.EMFILE, "4.3.0"),
    ],
)
async def test_failed_delivery_defers_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: int, dsn: str
) -> None:
    maildirs = Maildirs("mx")
    await maildirs.deliver(f"{tmp_path}/M/", b"", b"first", me())

    def fail(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error), "somewhere")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        verdict = await maildirs.deliver(f"{tmp_path}/M/", b"h", b"second", me())
    assert (verdict.outcome, verdict.dsn) == ("deferred", dsn)
    assert verdict.text.startswith("maildir delivery failed: create maildir file")
    assert len(os.listdir(tmp_path / "M/new")) == 1
    assert os.listdir(tmp_path / "M/tmp") == []


async def test_failed_directory_sync_removes_the_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maildirs = Maildirs("mx")
    await maildirs.deliver(f"{tmp_path}/M/", b"", b"first", me())
    fsync = os.fsync

    def fail(file: int) -> None:
        if os.fstat(file).st_mode & 0o170000 == 0o040000:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(file)

    monkeypatch.setattr(os, "fsync", fail)
    verdict = await maildirs.deliver(f"{tmp_path}/M/", b"", b"second", me())
    assert verdict.outcome == "deferred"
    assert len(os.listdir(tmp_path / "M/new")) == 1


async def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writev, write = os.writev, os.write
    monkeypatch.setattr(os, "writev", lambda file, parts: writev(file, [parts[0][:3]]))
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:2]))
    await Maildirs("mx").deliver(f"{tmp_path}/M/", b"abcdef", b"ghijklm", me())
    (name,) = os.listdir(tmp_path / "M/new")
    assert (tmp_path / "M/new" / name).read_bytes() == b"abcdefghijklm"


async def test_file_at_the_path_of_the_maildir_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "M").write_text("not a directory")
    verdict = await Maildirs("mx").deliver(f"{tmp_path}/M/", b"", b"x", me())
    assert verdict.outcome == "deferred"
    assert (tmp_path / "M").read_text() == "not a directory"


async def test_symbolic_link_in_tmp_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maildirs = Maildirs("mx")
    await maildirs.deliver(f"{tmp_path}/M/", b"", b"first", me())
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000 * 10**9)
    for count in range(3, 3 + maildir.TMP_NAME_ATTEMPTS):
        os.symlink(victim, tmp_path / f"M/tmp/1000000000.P{os.getpid()}Q{count}.mx")
    verdict = await maildirs.deliver(f"{tmp_path}/M/", b"", b"second", me())
    assert verdict.outcome == "deferred"
    assert victim.read_text() == "precious"


def test_spool_maildir_must_belong_to_user(tmp_path: Path) -> None:
    account = me()
    assert prepare_in_spool(f"{tmp_path}/new/", account, account, account.gid) is None
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    os.symlink(tmp_path, tmp_path / "link")
    (tmp_path / "file").write_text("")
    for name in ("link", "file"):
        verdict = prepare_in_spool(f"{tmp_path}/{name}/", account, account, account.gid)
        assert verdict is not None
        assert verdict.outcome == "bounced"
    other = account._replace(uid=account.uid + 1)
    if os.getuid() == 0:
        verdict = prepare_in_spool(f"{tmp_path}/new/", other, account, account.gid)
        assert verdict is not None
        assert "not owned by recipient" in verdict.text


def nobody() -> Account:
    account = account_of(pwd.getpwnam("nobody").pw_uid)
    assert account is not None
    return account


def spool(tmp_path: Path) -> Path:
    """Return a mail spool directory that any user may write to."""
    root()
    directory = tmp_path / "mail"
    directory.mkdir()
    directory.chmod(0o1777)
    let_others_pass(tmp_path)
    return directory


def test_concurrent_processes_can_create_the_same_maildir(tmp_path: Path) -> None:
    directory, account, opener = spool(tmp_path), nobody(), me()
    processes, rounds = 3, 100
    fork = multiprocessing.get_context("fork")
    barrier, problems = fork.Barrier(processes), fork.Queue()

    def make() -> None:
        for number in range(rounds):
            barrier.wait(60)
            problem = prepare_in_spool(f"{directory}/{number}/", account, opener, opener.gid)
            if problem is not None:
                problems.put(problem.text)
        problems.put(None)

    makers = [fork.Process(target=make) for _ in range(processes)]
    for maker in makers:
        maker.start()
    reported = [problems.get(timeout=60) for _ in makers]
    for maker in makers:
        maker.join(60)
    assert reported == [None] * processes
    assert sorted(os.listdir(directory)) == sorted(map(str, range(rounds)))
    assert {path.stat().st_uid for path in directory.iterdir()} == {account.uid}


@pytest.mark.parametrize("other", ["link", "file", "maildir"])
def test_replacement_of_a_new_maildir_does_not_change_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    directory, account, opener = spool(tmp_path), nobody(), me()
    precious = tmp_path / "precious"
    precious.mkdir()
    rename = os.rename

    def too_late(new: str, path: str) -> None:
        match other:
            case "link":
                os.symlink(precious, path)
            case "file":
                Path(path).touch()
            case "maildir":
                os.makedirs(f"{path}/tmp")
                os.chown(path, account.uid, account.gid)
        rename(new, path)

    monkeypatch.setattr(os, "rename", too_late)
    verdict = prepare_in_spool(f"{directory}/nobody/", account, opener, opener.gid)
    if other == "maildir":
        assert verdict is None
    else:
        assert verdict is not None
        assert verdict.text.endswith("is not a directory")
        assert (directory / "nobody").lstat().st_uid == 0
    assert precious.stat().st_uid == 0
    assert os.listdir(directory) == ["nobody"]


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=3000), st.binary(max_size=100))
def test_any_message_arrives_byte_for_byte(tmp_path_factory: pytest.TempPathFactory, text: bytes, head: bytes) -> None:
    path = tmp_path_factory.mktemp("m")
    asyncio.run(Maildirs("mx").deliver(f"{path}/M/", head, text, me()))
    (name,) = os.listdir(path / "M/new")
    assert (path / "M/new" / name).read_bytes() == head + text
