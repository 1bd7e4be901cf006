"""Start and reload with bad input: one line, exit status 1, the old configuration in force, no session cut."""

import contextlib
import os
import re
import signal
import smtplib
import subprocess
from pathlib import Path

import pytest

from postillion.master import answers
from support.mta import Site, listening, local_user, running, wait_for

SESSIONS = 100

BAD_INPUT = [
    (
        "value of a wrong type in -o",
        "",
        "-o smtpd_timeout=soon",
        r'master\.cf, line \d+: bad value "soon" for smtpd_timeout',
    ),
    ("value of a wrong type", "smtpd_timeout = soon", "", r'main\.cf, line \d+: bad value "soon" for smtpd_timeout'),
    (
        "table without a file",
        "transport_maps = hash:{etc}/none",
        "",
        r"main\.cf, line \d+: transport_maps: .*No such file",
    ),
    ("unreadable table", "transport_maps = hash:{etc}/folder", "", r"main\.cf, line \d+: transport_maps: .*directory"),
    (
        "table of an unknown type",
        "transport_maps = nis:{etc}/t",
        "",
        r'main\.cf, line \d+: .*unknown table type "nis"',
    ),
    ("unknown class", "", "-o smtpd_client_restrictions=ours", r'master\.cf, line \d+: .*"ours" is no restriction'),
    (
        "unsafe parameter",
        "content_filter = x:y",
        "",
        r"main\.cf, line \d+: content_filter = .* would pass unfiltered",
    ),
    ("no service", "master_service_disable = inet unix", "", r"master\.cf: no service to start"),
]
NAMES = [name for name, *_ in BAD_INPUT]


class Files:
    """The two files of a site, and their good text."""

    def __init__(self, site: Site) -> None:
        self.main_cf, self.master_cf = site.etc / "main.cf", site.etc / "master.cf"
        self.good = self.main_cf.read_text(), self.master_cf.read_text()
        self.etc = site.etc
        (site.etc / "folder").mkdir()

    def spoil(self, parameter: str, override: str) -> None:
        """Add a parameter to main.cf and an override to the line of smtpd."""
        main_cf, master_cf = self.good
        self.main_cf.write_text(f"{main_cf}{parameter.format(etc=self.etc)}\n")
        self.master_cf.write_text(re.sub(r"(?m) smtpd$", f" smtpd {override}", master_cf))

    def restore(self, more: str = "") -> None:
        """Write the good text again, with `more` at the end of main.cf."""
        self.main_cf.write_text(self.good[0] + more)
        self.master_cf.write_text(self.good[1])


def refusal(result: subprocess.CompletedProcess[str]) -> str:
    """Return the one line of a command that refused."""
    assert (result.returncode, result.stdout) == (1, "")
    found = re.fullmatch(r"postillion: fatal: (.*: .*)\n", result.stderr)
    assert found is not None, result.stderr
    return found[1]


def test_refused_reload_changes_nothing_and_ends_no_session(tmp_path: Path) -> None:
    site = Site(tmp_path)
    files = Files(site)
    with running(site):
        sessions = [smtplib.SMTP("127.0.0.1", site.port, timeout=30) for _ in range(SESSIONS)]
        try:
            for session in sessions:
                assert session.ehlo("client.example")[0] == 250
            master = int((site.queue / "pid" / "master.pid").read_text())
            for number, (name, parameter, override, said) in enumerate(BAD_INPUT, 1):
                files.spoil(parameter, override)
                assert re.search(said, refusal(site.run("postillion", "reload"))), name
                os.kill(master, signal.SIGHUP)
                wait_for(f"the refusal: {name}", lambda n=number: site.log_text().count("reload refused") == n)  # type: ignore[misc]
                line = site.log_text().rpartition("reload refused, the old configuration stays in force: ")[2]
                assert re.search(said, line), name
                assert all(session.noop()[0] == 250 for session in sessions), name
            # An agent that starts now, for the first time, goes by the configuration in force as well.
            user = f"{local_user()}@example.org"
            assert sessions[-1].sendmail("a@example.net", [user], b"Subject: x\r\n\r\ny\r\n") == {}
            wait_for("the message", lambda: site.maildir(local_user()))
            files.restore("smtpd_banner = $myhostname ESMTP another\n")
            assert site.run("postillion", "reload").returncode == 0
            wait_for("the new configuration", lambda: b"another" in greeting(site))
            assert all(session.noop()[0] == 250 for session in sessions)
        finally:
            for session in sessions:
                session.close()


def test_reload_returns_when_master_has_decided(tmp_path: Path) -> None:
    site = Site(tmp_path)
    files = Files(site)
    with running(site):
        for number in range(3):
            files.restore(f"smtpd_banner = $myhostname ESMTP {number}\n")
            assert site.run("postillion", "reload").returncode == 0
            assert site.log_text().count("reload -- version") == number + 1
        # The checker opens no log file, so the command and the checker pass this, and master refuses it.
        files.restore(f"maillog_file = {files.etc}/folder\n")
        result = site.run("postillion", "reload")
        assert result.returncode == 1
        assert f"postillion: fatal: {files.etc}/folder: Is a directory" in result.stderr
        assert "reload refused" in site.log_text()
        # A command that was killed leaves its fifo behind.
        stale = site.queue / "pid" / "reload.1"
        os.mkfifo(stale)
        files.restore()
        with contextlib.ExitStack() as stack:
            commands = [
                stack.enter_context(subprocess.Popen([*site.command("postillion"), "reload"])) for _ in range(3)
            ]
            assert [command.wait(60) for command in commands] == [0, 0, 0]
        assert [path.name for path in (site.queue / "pid").iterdir() if path.name.startswith("reload.")] == []


def test_reload_of_a_master_that_dies_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "pid").mkdir()
    question = answers.Question(str(tmp_path))
    try:
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as master:
            assert answers.asked(str(tmp_path)) == [str(tmp_path / "pid" / f"reload.{os.getpid()}")]
            assert master.stdin is not None
            master.stdin.close()
            assert question.wait(master.pid, 30) is None
    finally:
        question.close()
    assert answers.asked(str(tmp_path)) == []


def greeting(site: Site) -> bytes:
    """Return the greeting of a new session."""
    with smtplib.SMTP() as session:
        return session.connect("127.0.0.1", site.port)[1]


@pytest.mark.parametrize(("parameter", "override", "said"), [row[1:] for row in BAD_INPUT], ids=NAMES)
def test_start_and_check_refuse_bad_input(tmp_path: Path, parameter: str, override: str, said: str) -> None:
    site = Site(tmp_path)
    Files(site).spoil(parameter, override)
    for command in ("check", "start"):
        assert re.search(said, refusal(site.run("postillion", command)))
    assert not listening(site.port)
    assert site.run("postillion", "status").returncode == 1


@pytest.mark.parametrize("stale", ["a process that runs", "no process", "no number", "empty"])
def test_stale_pid_file_does_not_block_start(tmp_path: Path, stale: str) -> None:
    site = Site(tmp_path)
    (site.queue / "pid").mkdir()
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    text = {"a process that runs": f"{os.getpid():>12}\n", "no process": f"{gone.pid:>12}\n", "no number": "x\n"}
    for path in (site.queue / "pid" / "master.pid", site.directory / "data" / "master.lock"):
        path.write_text(text.get(stale, ""))
    assert site.run("postillion", "status").returncode == 1
    with running(site):
        assert greeting(site).startswith(b"mx.example.org")


def test_start_after_kill_of_master_takes_over(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with running(site):
        master = int((site.queue / "pid" / "master.pid").read_text())
        os.kill(master, signal.SIGKILL)
        assert site.run("postillion", "start").returncode == 0
        assert int((site.queue / "pid" / "master.pid").read_text()) != master
        assert greeting(site).startswith(b"mx.example.org")
