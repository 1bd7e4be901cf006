"""The command postfix(1): exit statuses, output and log lines as Postfix's own."""

from __future__ import annotations

import fcntl
import gzip
import os
import pty
import pwd
import re
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from postillion.commands import logrotate as rotation
from postillion.commands import postfix, postillion
from postillion.commands.console import Console
from postillion.commands.failure import Failure
from postillion.config import ConfigError
from support import peers
from support.mta import POSTILLION_COMMANDS, Site, processes, running, wait_for
from support.sink import Sink

SCRIPT_LINE = r"^\w{3} [ \d]\d [\d:]{8} \S+ postfix/postfix-script\[\d+\]: "


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site that does not run."""
    return Site(tmp_path)


def run(site: Site, *words: str, program: str = "postillion") -> subprocess.CompletedProcess[str]:
    """Run our `postfix`, or Debian's."""
    command = peers.peer("postfix") if program == "postfix" else str(POSTILLION_COMMANDS / "postfix")
    return subprocess.run(
        [command, "-c", str(site.etc), *words], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["stop"],
        ["abort"],
        ["reload"],
        ["flush"],
        ["check"],
        ["check", "and", "more"],
        ["nosuch"],
        [],
        ["-x"],
        ["logrotate", "and", "more"],
    ],
    ids=" ".join,
)
def test_exit_status_of_stopped_site_is_that_of_postfix(site: Site, words: list[str]) -> None:
    peers.root()
    theirs = run(site, *words, program="postfix")
    mine = run(site, *words)
    assert mine.returncode == theirs.returncode, mine.stderr


def test_start_reload_and_stop_are_logged_as_postfix_script(site: Site) -> None:
    assert (run(site, "start").stderr, run(site, "status").returncode) == ("", 0)
    try:
        [pid] = processes(site, "master")
        again = run(site, "start")
        assert (again.returncode, again.stdout) == (1, "")
        assert f"another mail system (PID {pid}) runs on it" in again.stderr
        assert [run(site, command).returncode for command in ("check", "reload", "flush")] == [0, 0, 0]
    finally:
        stopped = run(site, "stop")
    assert (stopped.returncode, stopped.stdout, stopped.stderr) == (0, "", "")
    assert run(site, "status").returncode == 1
    lines = [re.sub(SCRIPT_LINE, "", line) for line in site.log_text().splitlines() if re.match(SCRIPT_LINE, line)]
    assert [line for line in lines if not line.startswith("fatal: ")] == [
        "starting the Postfix mail system",
        f"the Postfix mail system is running: PID: {pid}",
        "starting the Postfix mail system",
        "refreshing the Postfix mail system",
        "stopping the Postfix mail system",
        "the Postfix mail system is not running",
    ]


def test_reload_right_after_start_stops_no_program(site: Site) -> None:
    with running(site):
        for _ in range(3):
            assert run(site, "reload").returncode == 0
    assert "killed by signal" not in site.log_text()


@pytest.mark.parametrize("program", ["postillion", "postfix"])
def test_log_lines_are_also_printed_to_a_terminal(site: Site, program: str) -> None:
    peers.root()
    command = peers.peer("postfix") if program == "postfix" else str(POSTILLION_COMMANDS / "postfix")
    ours, theirs = pty.openpty()
    done = subprocess.run([command, "-c", str(site.etc), "status"], stderr=theirs, timeout=60, check=False)
    os.close(theirs)
    assert done.returncode == 1
    assert os.read(ours, 4096) == b"postfix/postfix-script: the Postfix mail system is not running\r\n"
    os.close(ours)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tls", "nosuch"], "unknown tls command: 'nosuch'. usage: postfix tls enable-client (or "),
        (["-D", "start"], "-D: no debugger is started "),
        (["init"], "unknown command: 'init'. Usage: postfix start (or stop, reload, "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_missing_commands_are_refused_in_one_line(
    site: Site, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert postfix.main(["-c", str(site.etc), *words]) == 1
    stderr = capsys.readouterr().err
    assert stderr.count("\n") == 1
    assert said in stderr


# logrotate


@pytest.fixture
def served(site: Site) -> Iterator[Site]:
    """The site, running, with a next hop."""
    with Sink(site.next_port), running(site):
        yield site


def rotated(site: Site) -> list[Path]:
    """Return the old logs."""
    return sorted(site.log.parent.glob("maillog.*"))


def test_after_logrotate_every_program_writes_to_the_new_file(served: Site) -> None:
    wait_for("the queue manager", lambda: (served.queue / "private" / "qmgr").is_socket())
    before = served.log_text()
    done = run(served, "logrotate")
    assert (done.returncode, done.stderr) == (0, "")
    [old] = rotated(served)
    assert re.fullmatch(r"maillog\.\d{8}-\d{6}\.gz", old.name)
    assert gzip.decompress(old.read_bytes()).decode().startswith(before)
    with smtplib.SMTP("127.0.0.1", served.port) as client:
        client.sendmail("s@example.org", ["r@next.example"], "Subject: 0\r\n\r\nbody\r\n")
    # Each program writes its lines in batches, so the order of the programs is open.
    for program in ("master", "smtpd", "smtp", "qmgr"):
        wait_for(f"{program}'s log", lambda name=program: re.search(rf"postfix/{name}\[\d+\]: ", served.log_text()))  # type: ignore[misc]
    assert rotated(served) == [old]


def test_log_is_not_rotated_when_reload_would_be_refused(served: Site) -> None:
    master = served.etc / "master.cf"
    good = master.read_text()
    master.write_text(good + "bad line\n")
    done = run(served, "logrotate")
    master.write_text(good)
    assert done.returncode == 1
    assert "master.cf, line" in done.stderr
    assert rotated(served) == []


def test_log_of_a_stopped_site_is_rotated(site: Site) -> None:
    site.log.write_text("one line\n")
    assert run(site, "logrotate").returncode == 0
    [old] = rotated(site)
    assert gzip.decompress(old.read_bytes()) == b"one line\n"
    assert not site.log.exists()


def test_open_log_file_is_not_compressed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "WRITERS_MAX_S", 0.0)
    site.log.write_text("one line\n")
    with site.log.open("a") as writer:
        assert not rotation._is_let_go(str(site.log))
        writer.write("another\n")
    assert rotation._is_let_go(str(site.log))
    with site.log.open("rb") as file:
        # Nothing is left of the lease.
        assert fcntl.fcntl(file, fcntl.F_GETLEASE) == fcntl.F_UNLCK


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("maillog_file = /dev/stdout\nmaillog_file_prefixes = /dev", "not rotating '/dev/stdout'"),
        ("maillog_file =", "empty 'maillog_file' parameter value - logfile rotation failed"),
        ("maillog_file_compressor = /bin/false", "rotation failed: /bin/false: exit status 1"),
        ("maillog_file_compressor = /nonexistent", "rotation failed: /nonexistent: No such file or directory"),
    ],
)
def test_failed_rotation_gives_its_reason(site: Site, setting: str, said: str) -> None:
    site.log.write_text("one line\n")
    with (site.etc / "main.cf").open("a") as file:
        file.write(setting + "\n")
    with pytest.raises(Failure, match=re.escape(said)):
        rotation.logrotate(str(site.etc), Console("postillion"))


# set-permissions


def test_set_permissions_repairs_the_queue_and_follows_no_links(site: Site) -> None:
    peers.root()
    with running(site):
        pass
    account = pwd.getpwnam("postfix")
    outside, submitted = site.directory / "outside", site.queue / "maildrop" / "ABC"
    outside.write_text("")
    submitted.write_text("")
    kept = site.queue / "deferred" / "kept"
    kept.write_text("")
    (site.queue / "corrupt" / "link").symlink_to(outside)
    for name, mode in (("maildrop", 0o777), ("public", 0o755), ("deferred", 0o755)):
        os.chown(site.queue / name, 0, 0)
        (site.queue / name).chmod(mode)
    assert run(site, "set-permissions").returncode == 0
    found = {
        name: ((site.queue / name).stat().st_uid, (site.queue / name).stat().st_mode & 0o7777)
        for name in ("pid", "maildrop", "public", "deferred", "private")
    }
    assert found == {
        "pid": (0, 0o755),
        "maildrop": (account.pw_uid, 0o730),
        "public": (account.pw_uid, 0o710),
        "deferred": (account.pw_uid, 0o700),
        "private": (account.pw_uid, 0o700),
    }
    assert kept.stat().st_uid == account.pw_uid
    assert (outside.stat().st_uid, submitted.stat().st_uid) == (0, 0)


@pytest.mark.parametrize("command", ["set-permissions", "upgrade-configuration", "create-missing"])
def test_assignments_go_into_main_cf_unless_one_is_bad(site: Site, command: str) -> None:
    peers.root()
    before = (site.etc / "main.cf").read_text()
    act = getattr(postillion, command.replace("-", "_"))
    with pytest.raises(ConfigError):
        act(str(site.etc), Console("postillion"), "message_size_limit=1000", "queue_run_delay=often")
    assert (site.etc / "main.cf").read_text() == before
    act(str(site.etc), Console("postillion"), "message_size_limit=1000")
    assert (site.etc / "main.cf").read_text() == before + "message_size_limit = 1000\n"
    assert (site.queue / "incoming").is_dir()
