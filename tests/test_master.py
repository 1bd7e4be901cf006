"""Master with real processes: sockets, starts, restarts, reload, stop, and the refusal of broken sites."""

import contextlib
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from postillion.master import programs
from postillion.master.service import LIVED_S
from postillion.master.supervisor import IDLE_S, Master
from support.mta import PATIENCE_S, age_s, ended, wait_for
from support.ports import free_port

TESTS = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{TESTS}:{os.environ.get('PYTHONPATH', '')}"}
ROOT = os.geteuid() == 0
SMTPDS = programs.processes("smtpd", 4, programs.processors())
AS_ROOT = pytest.mark.skipif(not ROOT, reason="only root changes to mail_owner")
OWNER = "nobody" if ROOT else pwd.getpwuid(os.geteuid()).pw_name

RELOADS, CLIENTS_A_RELOAD = 3, 20


class Client:
    """A connection to the tiny program."""

    def __init__(self, address: tuple[str, int] | str) -> None:
        self.socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(address)
        self.file = self.socket.makefile("rwb", buffering=0)
        words = self.file.readline().decode().split()
        self.pid, self.uid, self.service, self.limit = int(words[0]), int(words[1]), words[2], int(words[3])
        self.origin = words[4]

    def echo(self, text: str) -> bool:
        self.file.write(text.encode() + b"\n")
        return bool(self.file.readline().decode() == text + "\n")

    def close(self) -> None:
        self.file.close()
        self.socket.close()


class Site:
    """A configuration directory with its queue, and the master that runs on it."""

    def __init__(self, directory: Path, services: str, extra: str = "") -> None:
        self.directory = directory
        self.etc = directory / "etc"
        self.queue = directory / "queue"
        self.log_file = directory / "log"
        self.port = free_port()
        self.etc.mkdir()
        self.write(services, extra)
        self.master: subprocess.Popen[str] | None = None

    def write(self, services: str, extra: str = "") -> None:
        (self.etc / "main.cf").write_text(
            f"queue_directory = {self.queue}\ndata_directory = {self.directory}/data\nmail_owner = {OWNER}\n"
            f"setgid_group = {os.getgid()}\nmaillog_file = {self.log_file}\nmaillog_file_prefixes = {self.directory}\n"
            "import_environment = PYTHONPATH\nmyhostname = mx.example.org\nmyorigin = first.example\n"
            f"{extra}compatibility_level = 3.6\nalias_maps =\nalias_database =\nmydestination =\n"
        )
        (self.etc / "master.cf").write_text(services.format(port=self.port))

    def start(self) -> "Site":
        ours, theirs = os.pipe()
        self.master = subprocess.Popen(
            [sys.executable, str(TESTS / "support" / "tiny_master.py"), "-c", str(self.etc), "-r", str(theirs)],
            env=ENVIRONMENT,
            pass_fds=[theirs],
            text=True,
        )
        os.close(theirs)
        with os.fdopen(ours) as status:
            assert status.read() == "ready\n"
        return self

    def stop(self) -> int:
        assert self.master is not None
        if self.master.poll() is None:
            self.master.terminate()
        return self.master.wait(PATIENCE_S)

    def reload(self) -> None:
        assert self.master is not None
        before = self.log().count("reload")
        self.master.send_signal(signal.SIGHUP)
        wait_for("the reload", lambda: self.log().count("reload") > before)

    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def children(self) -> list[int]:
        assert self.master is not None
        text = Path(f"/proc/{self.master.pid}/task/{self.master.pid}/children").read_text()
        return [int(word) for word in text.split()]

    def client(self) -> Client:
        return Client(("127.0.0.1", self.port))


@contextlib.contextmanager
def running(directory: Path, services: str, extra: str = "") -> Iterator[Site]:
    if ROOT:
        for parent in (directory, *directory.parents[:-1]):
            parent.chmod(parent.stat().st_mode | 0o011)
    site = Site(directory, services, extra).start()
    try:
        yield site
    finally:
        site.stop()


DELIVERY = "qmgr unix n - n - 1 qmgr\nbounce unix - - n - 0 bounce\nsmtp unix - - n - - smtp\n"
"""Services without which the checker refuses a site that accepts mail, or warns about it."""
SMTPD = "127.0.0.1:{port} inet n - n - 4 smtpd\n" + DELIVERY
ANVIL = "anvil unix - - n - 1 anvil\n"


def test_programs_start_on_demand_as_mail_owner(tmp_path: Path) -> None:
    with running(tmp_path, SMTPD + ANVIL + "lost unix n - n 0 1 bounce\n") as site:
        wait_for("smtpd", lambda: "smtpd[" in site.log())
        assert "anvil[" not in site.log()
        with contextlib.chdir(site.queue):
            client = Client("private/anvil")
        assert client.echo("hello")
        assert client.uid == pwd.getpwnam(OWNER).pw_uid
        assert (client.service, client.limit) == ("anvil", 1)
        assert site.client().limit == programs.session_limit(4, SMTPDS)
        status = Path(f"/proc/{client.pid}/status").read_text()
        assert re.search(r"^Groups:\s*$", status, re.MULTILINE) or not ROOT
        assert (site.queue / "public" / "lost").is_socket()
        client.close()
        children = site.children()
    assert all(ended(pid) for pid in children)
    assert not list((site.queue / "private").iterdir())
    assert (site.queue / "pid" / "master.pid").read_text() == ""
    assert "terminating on signal 15" in site.log()
    assert "warning" not in site.log()


def test_queue_directories_have_modes_of_postfix(tmp_path: Path) -> None:
    with running(tmp_path, ANVIL) as site:
        modes = {path.name: path.stat().st_mode & 0o7777 for path in site.queue.iterdir()}
        expected = {"pid": 0o755, "incoming": 0o700, "active": 0o700, "maildrop": 0o730, "public": 0o710}
        assert modes.items() >= expected.items()
        assert (site.queue / "private" / "anvil").stat().st_mode & 0o777 == 0o666
        owner = pwd.getpwnam(OWNER).pw_uid
        assert (site.queue / "incoming").stat().st_uid == owner
        assert (site.queue / "pid").stat().st_uid == os.geteuid()


def test_log_lines_have_format_of_postfix(tmp_path: Path) -> None:
    with running(tmp_path, ANVIL, "syslog_name = postfix-out\n") as site:
        line = site.log().splitlines()[0]
    stamp = r"[A-Z][a-z]{2} [ 123]\d \d\d:\d\d:\d\d"
    started = rf"daemon started -- version \S+, configuration {re.escape(str(site.etc))}"
    assert re.fullmatch(rf"{stamp} mx postfix-out/master\[\d+\]: {started}", line)


def test_master_stays_small_and_single_threaded(tmp_path: Path) -> None:
    with running(tmp_path, ANVIL) as site:
        assert site.master is not None
        with contextlib.chdir(site.queue):
            Client("private/anvil").close()
        proc = Path(f"/proc/{site.master.pid}")
        assert "_core" not in (proc / "maps").read_text()
        assert "_asyncio" not in (proc / "maps").read_text()
        assert len(list((proc / "task").iterdir())) == 1
    code = "import sys, postillion.master.__main__ as _; print({'asyncio', 'postillion._core'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_wakeup_comes_at_start_and_conditional_wakeup_after_use(tmp_path: Path) -> None:
    services = DELIVERY + "pickup unix n - n 60 1 pickup\nanvil unix - - n 1? 1 anvil\nerror unix - - n 1 1 error\n"
    with running(tmp_path, services) as site:

        def sessions(program: str) -> int:
            return len(re.findall(rf"{program}\[\d+\]: session", site.log()))

        wait_for("pickup's wakeup", lambda: sessions("pickup") == 1)
        wait_for("a second wakeup", lambda: sessions("error") >= 2)
        assert "anvil[" not in site.log()
        with contextlib.chdir(site.queue):
            Client("private/anvil").close()
        wait_for("anvil's wakeup", lambda: sessions("anvil") >= 2)
        assert sessions("pickup") == 1


def test_killed_process_is_replaced(tmp_path: Path) -> None:
    with running(tmp_path, SMTPD) as site:
        victim = site.client()
        wait_for("a process that has lived long enough", lambda: age_s(victim.pid) > LIVED_S + 0.1)
        os.kill(victim.pid, signal.SIGKILL)
        wait_for("the log line", lambda: f"pid {victim.pid} killed by signal 9" in site.log())
        wait_for("a new process", lambda: len(site.children()) == SMTPDS + 1)
        assert site.client().echo("again")
        assert "throttling" not in site.log()


@pytest.mark.parametrize(
    ("throttled_s", "least_s", "most_s"),
    [(0.5, 0, 0), (-1, 50, IDLE_S), (10, 5, 9.5)],
    ids=["meanwhile", "before", "later"],
)
def test_master_wakes_up_for_throttle_that_ended_during_scan(throttled_s: float, least_s: float, most_s: float) -> None:
    started = time.monotonic() - 1.0
    service = SimpleNamespace(next_wakeup=None, throttled_until=started + throttled_s)
    checks = SimpleNamespace(until=None)
    master = SimpleNamespace(_stop_phase=0, _checking=None, _key_checks=checks, services={"x": service})
    assert least_s <= Master._timeout(cast(Master, master), started) <= most_s


def test_failing_program_is_throttled_and_others_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "LIVED_S", "60")
    with running(tmp_path, SMTPD + "error unix - - n 1 1 error -v\n") as site:
        wait_for("three starts", lambda: site.log().count("/error: bad command startup -- throttling") >= 3)
        lines = [line for line in site.log().splitlines() if "exit status 3" in line]
        assert re.search(r"warning: process \S*/error pid \d+ exit status 3$", lines[0])
        assert len(lines) <= 4
        assert site.client().echo("still here")


def test_early_error_output_of_program_is_logged(tmp_path: Path) -> None:
    with running(tmp_path, "error unix - - n - 1 error\n") as site:
        log = site.log_file.rename(tmp_path / "moved")
        site.log_file.mkdir()
        with contextlib.chdir(site.queue), socket.socket(socket.AF_UNIX) as trigger:
            trigger.connect("private/error")
        fatal = re.compile(r"/error\[\d+\]: fatal: log file: .*Is a directory")
        wait_for("the fatal line", lambda: fatal.search(log.read_text()))


def test_reload_keeps_connections_and_applies_the_new_configuration(tmp_path: Path) -> None:
    with running(tmp_path, SMTPD + ANVIL) as site:
        before = site.client()
        with contextlib.chdir(site.queue):
            anvil = Client("private/anvil")
        assert before.origin == "first.example"
        site.write(SMTPD + "retry unix - - n - 1 error\n", "myorigin = second.example\n")
        site.reload()
        # The old process may accept one more client before it handles the signal.
        wait_for("the new process", lambda: site.client().origin == "second.example")
        after = site.client()
        assert after.origin == "second.example"
        assert after.pid != before.pid
        assert before.echo("still served by the old process")
        assert anvil.echo("so is the removed service")
        assert not (site.queue / "private" / "anvil").exists()
        assert (site.queue / "private" / "retry").is_socket()
        before.close()
        anvil.close()
        wait_for("the old processes to end", lambda: ended(before.pid) and ended(anvil.pid))
        assert after.echo("the new process continues")


def test_reload_loses_no_connection_under_load(tmp_path: Path) -> None:
    with running(tmp_path, SMTPD) as site:
        site.client().close()

        def served_by() -> int:
            client = site.client()
            assert client.echo("x")
            client.close()
            return client.pid

        def reload() -> None:
            old = set(site.children())
            assert site.master is not None
            site.master.send_signal(signal.SIGHUP)
            for _ in range(CLIENTS_A_RELOAD):
                served_by()
            wait_for("the new processes to serve", lambda: served_by() not in old)

        for _ in range(RELOADS):
            reload()


def test_reload_refuses_bad_configuration_and_keeps_serving(tmp_path: Path) -> None:
    with running(tmp_path, SMTPD) as site:
        client = site.client()
        site.write(SMTPD + "oops\n")
        site.reload()
        assert re.search(
            r"error: reload refused, the old configuration stays in force: \S+/master.cf, line 5: missing", site.log()
        )
        site.write(SMTPD)
        main_cf = site.etc / "main.cf"
        main_cf.write_text(main_cf.read_text().replace("queue_directory =", "#"))
        site.reload()
        assert f"{main_cf}: queue_directory changed" in site.log()
        assert client.echo("untouched")
        assert site.client().pid


def test_programs_end_when_master_is_killed_and_new_master_takes_over(tmp_path: Path) -> None:
    with running(tmp_path, SMTPD) as site:
        site.client()
        children = site.children()
        assert site.master is not None
        site.master.kill()
        site.master.wait()
        # Start at once: the old processes may still hold the port.
        site.start()
        wait_for("the orphans to end", lambda: all(ended(pid) for pid in children))
        assert site.client().echo("new master")


def test_second_master_on_a_queue_refuses(tmp_path: Path) -> None:
    with running(tmp_path, SMTPD) as site:
        assert site.master is not None
        other = tmp_path / "other"
        other.mkdir()
        text = (site.etc / "main.cf").read_text()
        (other / "main.cf").write_text(text)
        (other / "master.cf").write_text(f"127.0.0.1:{free_port()} inet n - n - - smtpd\n" + DELIVERY)
        result = postillion("start", other)
        assert result.returncode == 1
        assert f"another mail system (PID {site.master.pid}) runs on it" in result.stderr
        assert f"{other}/main.cf, line 1: queue_directory" in result.stderr
        (other / "main.cf").write_text(text.replace(str(site.queue), f"{other}/queue"))
        assert "line 2: data_directory" in postillion("start", other).stderr
        assert site.client().echo("undisturbed")


def postillion(command: str, etc: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "postillion.commands.postillion", "-c", str(etc), command],
        capture_output=True,
        text=True,
        timeout=60,
        env=ENVIRONMENT,
        **options,
    )


def damage(kind: str, site: Site, held: contextlib.ExitStack) -> None:
    if kind == "missing main.cf":
        (site.etc / "main.cf").unlink()
    elif kind == "missing master.cf":
        (site.etc / "master.cf").unlink()
    elif kind == "syntax error in master.cf":
        (site.etc / "master.cf").write_text("# services\nsmtp inet n\n")
    elif kind == "unknown program":
        (site.etc / "master.cf").write_text("smtp unix - - n - - smptd\n")
    elif kind == "port in use":
        listener = held.enter_context(socket.socket())
        listener.bind(("127.0.0.1", site.port))
        listener.listen()
    elif kind == "queue directory is a file":
        site.queue.write_text("")
    elif kind == "bad value":
        with (site.etc / "main.cf").open("a") as file:
            file.write("message_size_limit = big\n")
    elif kind == "unknown owner":
        text = (site.etc / "main.cf").read_text()
        (site.etc / "main.cf").write_text(text.replace(f"mail_owner = {OWNER}", "mail_owner = nosuchuser"))
    elif kind == "log outside its prefixes":
        text = (site.etc / "main.cf").read_text()
        (site.etc / "main.cf").write_text(text.replace(f"maillog_file = {site.directory}", "maillog_file = /tmp"))
    elif kind == "unwritable queue directory" and not ROOT:
        site.queue.mkdir(0o500)
    elif kind in ("full queue directory", "unwritable queue directory"):
        site.queue.mkdir()
        options = "size=64k,nr_inodes=4" if kind.startswith("full") else "ro"
        mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(site.queue)]
        if not ROOT or subprocess.run(mount, capture_output=True).returncode != 0:
            pytest.skip("mounting a small file system needs root")
        held.callback(subprocess.run, ["umount", str(site.queue)], check=True)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing main.cf", r"etc/main\.cf: the file is missing: create it"),
        ("missing master.cf", r"etc/master\.cf: the file is missing: create it"),
        ("syntax error in master.cf", r'etc/master\.cf, line 2: missing "unpriv" field: give eight fields'),
        ("unknown program", r'etc/master\.cf, line 1: unknown program "smptd" .*: did you mean smtpd\?'),
        ("port in use", r"etc/master\.cf, line 1: bind 127.0.0.1 port \d+: Address already in use: stop the program"),
        ("queue directory is a file", r"etc/main\.cf, line 1: queue_directory .*: start as its owner, or name another"),
        ("bad value", r'etc/main\.cf, line 14: bad value "big" for message_size_limit: give a whole number'),
        ("log outside its prefixes", r"etc/main\.cf, line 5: bad value .* for maillog_file: give a path under"),
        (
            "unwritable queue directory",
            r"etc/main\.cf, line 1: queue_directory .*: start as its owner, or name another",
        ),
        ("full queue directory", r"etc/main\.cf, line 1: queue_directory .*: free some space there"),
        pytest.param(
            "unknown owner",
            r"etc/main\.cf, line 3: mail_owner nosuchuser: there is no such account: create it",
            marks=pytest.mark.skipif(not ROOT, reason="only root changes to mail_owner"),
        ),
    ],
)
def test_failed_start_gives_one_line_and_leaves_nothing(tmp_path: Path, kind: str, message: str) -> None:
    site = Site(tmp_path, SMTPD + ANVIL)
    with contextlib.ExitStack() as held:
        damage(kind, site, held)
        result = postillion("start", site.etc)
        assert result.returncode == 1
        assert result.stdout == ""
        assert re.fullmatch(r"postillion: fatal: .*\n", result.stderr), result.stderr
        assert re.search(message, result.stderr), result.stderr
        sockets = [path for path in tmp_path.rglob("*") if path.is_socket()]
        assert sockets == []
        if kind != "port in use":
            assert socket.socket().connect_ex(("127.0.0.1", site.port)) != 0
        assert postillion("status", site.etc).returncode == 1


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("queue_directory", "/proc/postillion", "queue_directory /proc/postillion: the file system of /proc stores no"),
        ("queue_directory", "{file}/queue", "queue_directory {file}/queue: {file} is not a directory: "),
        ("data_directory", "{file}", "data_directory {file}: {file} is not a directory: "),
        pytest.param("setgid_group", "nosuchgrp", "setgid_group nosuchgrp: there is no such group: ", marks=AS_ROOT),
        pytest.param("mail_owner", "root", "mail_owner root: this is root: name an account", marks=AS_ROOT),
        pytest.param("mail_owner", "nosuchuser", 'mail_owner.* no such account|unknown user "', marks=AS_ROOT),
    ],
)
def test_check_refuses_what_stops_a_start(tmp_path: Path, name: str, value: str, message: str) -> None:
    file = tmp_path / "file"
    file.write_text("")
    site = Site(tmp_path, SMTPD + ANVIL)
    with (site.etc / "main.cf").open("a") as main_cf:
        main_cf.write(f"{name} = {value.format(file=file)}\n")
    before = sorted(path for path in tmp_path.rglob("*"))
    checked = postillion("check", site.etc)
    assert sorted(path for path in tmp_path.rglob("*")) == before
    started = postillion("start", site.etc)
    assert (checked.returncode, started.returncode) == (1, 1)
    assert re.search(message.format(file=file), checked.stderr), checked.stderr
    assert re.search(message.format(file=file), started.stderr), started.stderr


def test_check_refuses_an_address_that_the_machine_lacks(tmp_path: Path) -> None:
    site = Site(tmp_path, "192.0.2.7:{port} inet n - n - - smtpd\n" + DELIVERY)
    checked, started = postillion("check", site.etc), postillion("start", site.etc)
    assert (checked.returncode, started.returncode) == (1, 1)
    problem = f"line 1: bind 192.0.2.7 port {site.port}: Cannot assign requested address: give an address of this mac"
    assert problem in checked.stderr
    assert problem in started.stderr


@pytest.mark.skipif(not ROOT, reason="needs a directory that mail_owner cannot enter")
def test_programs_run_below_directory_that_mail_owner_cannot_enter(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    site = Site(tmp_path, SMTPD + ANVIL).start()
    try:
        with contextlib.chdir(site.queue):
            client = Client("private/anvil")
        assert client.uid == pwd.getpwnam(OWNER).pw_uid
        assert client.echo("served")
        wait_for("a log line of anvil", lambda: "anvil[" in site.log())
    finally:
        site.stop()


REST = "local unix - n n - - local\nerror unix - - n - - error\n"
"""The other services that the configuration of `init` needs."""


def test_commands_start_status_reload_and_stop(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    assert postillion("init", etc).returncode == 0
    assert postillion("init", etc).returncode == 1
    master = etc / "master.cf"
    master.write_text(f"127.0.0.1:{free_port()} inet n - n - - smtpd\n" + DELIVERY + REST)
    assert postillion("check", etc).returncode == 0
    assert "not running" in postillion("status", etc).stderr
    assert postillion("stop", etc).returncode == 1
    started = postillion("start", etc)
    assert (started.returncode, started.stderr) == (0, "")
    try:
        result = postillion("status", etc)
        assert re.fullmatch(r"the Postillion mail system is running: PID: \d+\n", result.stdout)
        assert postillion("start", etc).returncode == 1
        good = master.read_text()
        master.write_text(good + "bad line\n")
        assert "line 7" in postillion("reload", etc).stderr
        master.write_text(good)
        assert postillion("reload", etc).returncode == 0
    finally:
        stopped = postillion("stop", etc)
    assert (stopped.returncode, stopped.stderr) == (0, "")
    assert postillion("status", etc).returncode == 1


def test_start_fg_logs_to_standard_output_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    site = Site(tmp_path, ANVIL, "maillog_file = /dev/stdout\nmaillog_file_prefixes = /dev/stdout\n")
    result = postillion("start", site.etc)
    assert "start-fg" in result.stderr
    command = [sys.executable, "-m", "postillion.commands.postillion", "-c", str(site.etc), "start-fg"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "daemon started" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert "terminating on signal 2" in process.stdout.read()
        assert process.wait(PATIENCE_S) == 0


def test_configuration_of_init_can_log_to_standard_output(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    assert postillion("init", etc).returncode == 0
    main_cf = etc / "main.cf"
    main_cf.write_text(re.sub("(?m)^maillog_file =.*", "maillog_file = /dev/stdout", main_cf.read_text()))
    assert postillion("check", etc).returncode == 0
    assert postillion("start", etc).stderr.endswith("use start-fg, or log to a file\n")


def test_version_is_printed() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "postillion.commands.postillion", "--version"], capture_output=True, text=True
    )
    assert re.fullmatch(r"postillion \d+\.\d+\.\d+\n", result.stdout)
