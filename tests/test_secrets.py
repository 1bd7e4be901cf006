"""Passwords of remote tables: a canary that no log, listing, error or core dump shows."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from postillion.config import Config, secrets
from support.mta import Site, ended, processes, running, site_programs, start, wait_for
from support.table_servers import PASSWORD, MariaDb, Postgres, Slapd, TableServer

CANARY = "c4n4ry-Gelb"
WAIT_MAX_S = 60.0

SHOWN = [
    ("users_bind_pw", "x", "[password]"),
    ("password", "x y", "[password]"),
    ("users_password", "", ""),
    ("users_hosts", "a:5432 unix:/b", "a:5432 unix:/b"),
    ("hosts", "postgresql://mail:x@h/db", "postgresql://mail:[password]@h/db"),
    ("hosts", "postgresql://mail:x/y@z@h:5/db b", "postgresql://mail:[password]@h:5/db b"),
    ("hosts", "postgres://a:1@h,postgres://b:2@h", "postgres://a:[password]@h,postgres://b:[password]@h"),
    ("hosts", "postgresql://h/db?user=a&password=x&a=b c", "postgresql://h/db?user=a&password=[password]&a=b c"),
    ("hosts", "postgresql://h/?sslpassword=x", "postgresql://h/?sslpassword=[password]"),
    ("hosts", "postgresql://mail:x@[::1]:5432/", "postgresql://mail:[password]@[::1]:5432/"),
    ("hosts", "postgresql://mail@h/db", "postgresql://mail@h/db"),
    ("server_host", "ldap://[::1]:389/o=x??sub?(m=a@b)", "ldap://[::1]:389/o=x??sub?(m=a@b)"),
    ("server_host", "ldap://h:389/o=x?m?sub?(m=a@b)", "ldap://h:389/o=x?m?sub?(m=a@b)"),
    ("smtp_sasl_password_maps", "hash:/etc/x", "hash:/etc/x"),
]


@pytest.mark.parametrize(("name", "value", "expected"), SHOWN)
def test_passwords_are_hidden_and_nothing_else(name: str, value: str, expected: str) -> None:
    assert secrets.shown(name, value) == expected
    assert secrets.shown_pair(f"{name}={value}") == f"{name}={expected}"


LINES = [
    ("users_password x", "users_password [password]"),
    ("users_bind_pw: x y", "users_bind_pw [password]"),
    ("smtp_sasl_password_maps hash:/etc/x", "smtp_sasl_password_maps hash:/etc/x"),
    ("hosts postgresql://a:x@h", "hosts postgresql://a:[password]@h"),
]


@pytest.mark.parametrize(("line", "expected"), LINES)
def test_malformed_lines_are_shown_without_passwords(line: str, expected: str) -> None:
    assert secrets.shown_line(line) == expected


MAIN_CF = f"""\
compatibility_level = 3.6
myhostname = mx.example.org
mynetworks = 127.0.0.0/8
virtual_alias_maps = ldap:users, pgsql:src, mysql:third
shared = first-{CANARY}
shared = {CANARY}
users_server_host = ldap://127.0.0.1
users_bind_pw = $shared
src_hosts = postgresql://mail:{CANARY}@127.0.0.1 postgresql://127.0.0.1/db?user=a&password={CANARY}
src_user = ${{users_bind_pw?{{mail}}}}
src_password = {CANARY}$$x
third_hosts = mysql://a:{CANARY}@h
third_password = {CANARY}
    {CANARY}
third_password = $src_password
unused_password = {CANARY}
note = $users_bind_pw $src_hosts
smtpd_banner = $note
"""
MASTER_CF = f"""\
smtp inet n - n - - smtpd
  -o users_bind_pw={CANARY} -o {{ src_password = {CANARY} {CANARY} }} -o src_user=u
  -o {{ src_hosts = postgresql://u:{CANARY}@h }} -o shared=$src_password -o other_bind_pw={CANARY}
pipe unix - n n - - pipe
  flags=R user=nobody argv=/bin/x --uri=postgresql://u:{CANARY}@h
"""


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "main.cf").write_text(MAIN_CF)
    (tmp_path / "master.cf").write_text(MASTER_CF)
    return tmp_path


def postconf(etc: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run our postconf; check that it shows no password."""
    command = [sys.executable, "-m", "postillion.commands.postconf", "-c", str(etc), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_MAX_S)
    assert CANARY not in done.stdout + done.stderr
    return done


LISTINGS: tuple[list[str], ...] = (
    *([], ["-n"], ["-nj"], ["-nx"], ["-nxj"], ["-nf"], ["-nh"], ["-p"], ["-C", "user"], ["-xh", "smtpd_banner"]),
    *(["src_hosts"], ["-x", "src_hosts"], ["shared"], ["-x", "src_password"], ["-o", f"shared={CANARY}", "-nx"]),
    *(["-M"], ["-Mf"], ["-Mx"], ["-Mj"], ["-Mxj", "smtp"], ["-F"], ["-Fx"], ["-Fj"], ["-Fh", "smtp/inet/command"]),
    *(["-P"], ["-Px"], ["-Pj"], ["-Ph"], ["-Pf"], ["-PP", "smtp/inet"], ["-PPx"], ["-P", "smtp/inet/users_bind_pw"]),
)


@pytest.mark.parametrize("words", LISTINGS, ids=" ".join)
def test_listings_show_no_password(etc: Path, words: list[str]) -> None:
    done = postconf(etc, *words)
    assert done.returncode == 0, done.stderr
    assert "[password]" in done.stdout


def test_listings_show_what_is_no_password(etc: Path) -> None:
    lines = postconf(etc, "-n").stdout.splitlines()
    assert f"src_user = {'${users_bind_pw?{mail}}'}" in lines
    hosts = "postgresql://mail:[password]@127.0.0.1 postgresql://127.0.0.1/db?user=a&password=[password]"
    assert f"src_hosts = {hosts}" in lines
    assert "shared = [password]" in lines
    expanded = postconf(etc, "-nx").stdout.splitlines()
    assert "src_user = mail" in expanded
    assert f"smtpd_banner = [password] {hosts}" in expanded
    assert postconf(etc, "-Ph", "smtp/inet/src_user").stdout == "u\n"
    [line] = postconf(etc, "-M", "smtp/inet").stdout.splitlines()
    assert line.endswith(
        "smtpd -o users_bind_pw=[password] -o src_password=[password] -o src_user=u"
        " -o src_hosts=postgresql://u:[password]@h -o shared=$src_password -o other_bind_pw=[password]"
    )


def test_a_change_writes_the_true_password(etc: Path) -> None:
    before = (etc / "main.cf").read_text(), (etc / "master.cf").read_text()
    new = f"new-{CANARY}"
    done = postconf(etc, "-e", f"src_password={new}", f"fourth_password = x{CANARY}", f"fourth_password = {new}")
    assert done.returncode == 0, done.stderr
    text = (etc / "main.cf").read_text()
    assert text == before[0].replace(f"src_password = {CANARY}$$x", f"src_password = {new}") + (
        f"fourth_password = {new}\n"
    )
    postconf(etc, "-P", "-e", f"smtp/inet/users_bind_pw={new}", f"none/inet/users_bind_pw={new}")
    text = (etc / "master.cf").read_text()
    assert f"-o users_bind_pw={new}" in text
    assert "[password]" not in text
    for kept in (f"src_password={CANARY} {CANARY}", f"postgresql://u:{CANARY}@h", f"other_bind_pw={CANARY}"):
        assert kept in text
    postconf(etc, "-M", "-e", f"smtp/inet=smtp inet n - n - 1 smtpd -o users_password={new}")
    postconf(etc, "-F", "-e", f"pipe/unix/command=pipe -o users_password={new}")
    text = (etc / "master.cf").read_text()
    assert text.count(f"users_password={new}") == 2
    assert "[password]" not in text


ERRORS = [
    ("main.cf", f"users_password {CANARY}\n", '"users_password [password]"'),
    ("main.cf", f"users_password =\n{CANARY}\n", "missing '=' after attribute name"),
    ("main.cf", f"users_password = {CANARY}\n{CANARY}\n", "missing '=' after attribute name"),
    ("main.cf", f"more_hosts postgresql://u:{CANARY}@h\n", "missing '=' after attribute name"),
    ("main.cf", f"src_password = a${{{CANARY}\n", "write $$ for a dollar"),
    ("main.cf", f"src_hosts = postgresql://u:$({CANARY}@h\n", "write $$ for a dollar"),
    ("main.cf", f"more_hosts = postgresql://u:${CANARY}@h\n", ""),
    ("main.cf", f"more_password = a${CANARY}\n", "more_password: undefined parameter (write $$ for a dollar)"),
    ("master.cf", f"x unix - - - - - smtp\n  -o {{users_password = {CANARY}\n", ""),
    ("master.cf", f"x unix - - users_password={CANARY}\n", ""),
    ("master.cf", f"x unix - - - users_password={CANARY} - smtp\n", 'bad value: "users_password [password]"'),
    ("master.cf", f"x unix - - - - - smtp -o users_password:{CANARY}\n", ""),
]


@pytest.mark.parametrize(("file", "lines", "said"), ERRORS)
def test_errors_and_warnings_show_no_password(etc: Path, file: str, lines: str, said: str) -> None:
    with (etc / file).open("a") as text:
        text.write(lines)
    found = [postconf(etc, *options).stderr for options in (["-n"], ["-nx"], ["-M"], ["-Mx"], ["-P"], ["-F"])]
    command = [sys.executable, "-m", "postillion.checker", "-c", str(etc)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_MAX_S)
    assert CANARY not in checked.stdout + checked.stderr
    assert any(said in text for text in found)


COMMANDS = [
    ["-e", f"users_password {CANARY}"],
    ["-o", f"users_password {CANARY}", "-n"],
    ["-P", "-e", f"a/b/c/users_password={CANARY}"],
    ["-M", "-e", f"smtp/inet=smtp inet n - n - 1 smtpd -o {{users_password={CANARY}"],
    ["-M", "-e", f"smtp/inet=smtp inet n - n users_password={CANARY} 1 smtpd"],
    ["-F", "-e", f"smtp/inet/maxproc=users_password={CANARY}"],
    ["-X", f"users_password={CANARY}"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_errors_of_command_lines_show_no_password(etc: Path, words: list[str]) -> None:
    assert postconf(etc, *words).returncode == 1


def test_an_override_shows_no_password_as_its_place(etc: Path) -> None:
    given = [("shared", CANARY), ("src_password", CANARY), ("syslog_name", "a")]
    config = Config.load(str(etc), given)
    places = [setting.path for setting in config.settings.values() if setting.line is None]
    assert places == ["-o shared=[password]", "-o src_password=[password]", "-o syslog_name=a"]
    assert config.text("users_bind_pw") == CANARY


FORMS = ["file", "main.cf", "uri", "query", "both"]


def table(server: TableServer, form: str, site: Site) -> str:
    """Give a site a table whose password its server refuses; return the table's name."""
    text: str = server.file()  # type: ignore[attr-defined]
    kind = {"Postgres": "pgsql", "MariaDb": "mysql", "Slapd": "ldap"}[type(server).__name__]
    text = text.replace(PASSWORD, CANARY)
    if form in ("uri", "query", "both"):
        login = f"mail:{CANARY}@" if form != "query" else ""
        words = f"?user=mail&password={CANARY}" if form == "query" else ""
        host = f"127.0.0.1:{server.port}"
        text = f"hosts = postgresql://{login}{host}/postgres{words}\nquery = SELECT v FROM aliases WHERE k='%s'\n"
        if form == "both":
            text = text.replace("\nquery", f" {host}\nuser = mail\npassword = {CANARY}\ndbname = postgres\nquery")
    name = f"{kind}:source"
    if form == "file":
        file = site.directory / "table.cf"
        file.write_text(text)
        name = f"{kind}:{file}"
    lines = "" if form == "file" else "".join(f"source_{line}\n" for line in text.splitlines())
    with (site.etc / "main.cf").open("a") as main_cf:
        main_cf.write(f"relay_domains = next.example\nrelay_recipient_maps = {name}\n{lines}")
    return name


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, TableServer]]:
    """Servers, by the name of their class, that a test starts when it needs them."""
    found: dict[str, TableServer] = {}
    yield found
    for server in found.values():
        server.remove()


CASES = [*((Postgres, form) for form in FORMS), *((kind, form) for kind in (MariaDb, Slapd) for form in FORMS[:2])]


@pytest.mark.parametrize(("kind", "form"), CASES)
def test_commands_show_no_password_that_a_server_refuses(
    servers: dict[str, TableServer], kind: type[TableServer], form: str, tmp_path: Path
) -> None:
    if kind is Slapd:
        pytest.importorskip("ldap", reason="python-ldap is not installed (it needs libldap2-dev and libsasl2-dev)")
    if kind.__name__ not in servers:
        server = kind()
        servers[kind.__name__] = server
        server.begin()
    site = Site(tmp_path)
    name = table(servers[kind.__name__], form, site)
    runs = {
        "explain": ["postillion", "explain", "u@next.example"],
        "explain a client": ["postillion", "explain", "u@next.example", "--client", "192.0.2.1"],
        "postmap -q": ["postmap", "-q", "u@next.example", name],
        "postmap -q -": ["postmap", "-q", "-", name],
        "check": ["postillion", "check"],
        "postconf": ["postconf"],
        "postconf -nx": ["postconf", "-nx"],
    }
    said = {}
    for run, (program, *words) in runs.items():
        command = [*site.command(program), *words]
        done = subprocess.run(command, input="u\n", capture_output=True, text=True, timeout=WAIT_MAX_S)
        said[run] = done.stdout + done.stderr
        assert CANARY not in said[run], run
    for run in ("explain", "explain a client", "postmap -q", "postmap -q -", "check"):
        assert f"table {name}: " in said[run], run
    with running(site), smtplib.SMTP("127.0.0.1", site.port, timeout=WAIT_MAX_S) as client:
        client.ehlo("client.example")
        client.mail("s@sender.example")
        assert client.rcpt("u@next.example")[0] == 451
        wait_for("the warning", lambda: f"warning: table {name}: " in site.log_text())
    assert CANARY not in site.log_text()


@contextlib.contextmanager
def core_dumps_allowed() -> Iterator[None]:
    """Let the programs that the block starts leave core dumps, unless they forbid it themselves."""
    limits = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (limits[1], limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, limits)


class Silent:
    """A server that takes connections and answers nothing, so that its client waits with the password in memory."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(WAIT_MAX_S)
        self.port: int = self._socket.getsockname()[1]

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def abort_client(self, command: list[str]) -> bool:
        """Start a command, and abort it when it has connected; return whether the kernel wrote a core dump."""
        with core_dumps_allowed():
            client = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self._socket.accept()[0].close()
        except TimeoutError:
            client.kill()
            client.wait()
            raise
        os.kill(client.pid, signal.SIGABRT)
        _, status = os.waitpid(client.pid, 0)
        client.returncode = os.waitstatus_to_exitcode(status)
        assert client.returncode == -signal.SIGABRT
        return os.WCOREDUMP(status)


def core_files(directory: Path) -> list[Path]:
    """Return the core dumps in a directory."""
    return sorted(directory.glob("core*"))


def dumped(site: Site, server: Silent, program: str, line: str) -> bool:
    """Return whether a program that asks a table dumps core. `line`: a line of the table's file."""
    file = site.directory / "table.cf"
    file.write_text(f"hosts = 127.0.0.1:{server.port}\n{line}\ndbname = x\nquery = SELECT '%s'\n")
    commands = {
        "postmap": [*site.command("postmap"), "-q", "u@next.example", f"pgsql:{file}"],
        "explain": [*site.command("postillion"), "explain", "u@next.example"],
        "checker": [sys.executable, "-m", "postillion.checker", "-c", str(site.etc)],
    }
    # Programs go to the queue directory; a relative core_pattern means a file there, or here.
    with contextlib.chdir(site.queue):
        return server.abort_client(commands[program])


@pytest.mark.parametrize("program", ["postmap", "explain", "checker"])
def test_a_program_with_a_password_leaves_no_core_dump(program: str, tmp_path: Path) -> None:
    maps = {"relay_domains": "next.example", "relay_recipient_maps": f"pgsql:{tmp_path}/table.cf"}
    site = Site(tmp_path, main_cf=maps)
    with Silent() as server:
        if not dumped(site, server, program, f"user = {CANARY}"):
            pytest.skip("this machine writes no core dumps")
        for core in core_files(site.queue):
            assert CANARY.encode() in core.read_bytes()
            core.unlink()
        assert not dumped(site, server, program, f"password = {CANARY}")
    assert core_files(site.queue) == []


MARKS = """
import ctypes, resource, sys
from postillion.config import Config, core_dumps
Config.load(sys.argv[1])
def marks():
    return ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)[0]
print(*marks())
ctypes.CDLL(None).prctl(4, ctypes.c_ulong(1), *[ctypes.c_ulong(0)] * 3)
core_dumps.renew()
print(*marks())
"""
"""Prints PR_GET_DUMPABLE and the limit of core dumps, and again when something has made the process dumpable."""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"users_password = {CANARY}", ["0 1", "0 1"]),
        (f"users_hosts = postgresql://u:{CANARY}@h", ["0 1", "0 1"]),
        ("smtp_sasl_password_maps = hash:/etc/x", ["0 1", "0 1"]),
        ("# users_password = x", ["1 4096", "1 4096"]),
        ("mydestination = example.org", ["1 4096", "1 4096"]),
    ],
)
def test_only_a_process_that_read_a_password_is_marked(line: str, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text(f"compatibility_level = 3.6\n{line}\n")
    command = ["/bin/sh", "-c", 'ulimit -S -c 8 && exec "$@"', "sh", sys.executable, "-c", MARKS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_MAX_S)
    if "ulimit" in done.stderr:
        pytest.skip("the hard limit of core dumps is 0 here")
    assert done.stdout.splitlines() == expected, done.stderr


def abort_master(site: Site) -> list[Path]:
    """Abort master, and wait for the end of its programs; return the core dumps."""
    pid = int((site.queue / "pid" / "master.pid").read_text())
    os.kill(pid, signal.SIGABRT)
    wait_for("master's end", lambda: ended(pid))
    wait_for("the end of the programs", lambda: not list(site_programs(site)))
    return core_files(site.queue)


def test_running_programs_with_a_password_leave_no_core_dump_and_have_no_password_in_their_title(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path / "secret", main_cf={"users_password": CANARY})
    text = (site.etc / "master.cf").read_text()
    (site.etc / "master.cf").write_text(text.replace(" smtpd\n", f" smtpd -o users_bind_pw={CANARY}\n"))
    with core_dumps_allowed():
        start(site, "postillion")
    for program in ("master", "smtpd", "qmgr"):
        wait_for(f"the title of {program}", lambda name=program: processes(site, name))  # type: ignore[misc]

    def is_titled(pid: int, program: str) -> bool:
        return Path(f"/proc/{pid}/comm").read_text().strip() == program

    wait_for("the titles", lambda: all(is_titled(pid, program) for pid, program, _ in site_programs(site)))
    for pid, program, words in site_programs(site):
        limits = Path(f"/proc/{pid}/limits").read_text()
        found = re.search(r"^Max core file size +(\S+)", limits, re.MULTILINE)
        assert found is not None
        assert found[1] == "1", program
        assert CANARY not in " ".join(words)
        if program == "smtpd":
            assert "users_bind_pw=[password]" in words
    assert abort_master(site) == []
    plain = Site(tmp_path / "plain")
    with core_dumps_allowed():
        start(plain, "postillion")
    cores = abort_master(plain)
    if not cores:
        pytest.skip("this machine writes no core files here")
    for core in cores:
        core.unlink()
