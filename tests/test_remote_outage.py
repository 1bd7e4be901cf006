"""Servers of remote tables that are killed, stopped and absent while mail arrives: 0 lost, 0 wrongly refused."""

from __future__ import annotations

import itertools
import smtplib
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from support.mta import Site, local_user, running, wait_for
from support.sink import Sink
from support.table_servers import PASSWORD, MariaDb, Postgres, Slapd, TableServer, end, person

SENDERS = 4
USERS = 8
OUTAGES = 2
MESSAGES_BETWEEN = 25
"""Messages that are acknowledged before each outage and after the last one."""
QUICK = {
    "minimal_backoff_time": "1s",
    "maximal_backoff_time": "2s",
    "queue_run_delay": "1s",
    "relay_domains": "next.example",
    "smtpd_peername_lookup": "no",
}
USER = "u{}@next.example"


def sql_rows(port: int) -> str:
    """Return SQL for the users."""
    return "".join(f"INSERT INTO aliases VALUES ('{key}', '{value}', '');" for key, value in rows(port).items())


def rows(port: int) -> dict[str, str]:
    """Return the users, each with its transport."""
    return {USER.format(n): f"smtp:[127.0.0.1]:{port}" for n in range(USERS)}


def postgres(port: int) -> tuple[TableServer, str]:
    server = Postgres()
    server.begin()
    server.sql(sql_rows(port))
    return server, server.file()


def mariadb(port: int) -> tuple[TableServer, str]:
    server = MariaDb()
    server.begin()
    server.sql("USE mail;" + sql_rows(port))
    return server, server.file()


def slapd(port: int) -> tuple[TableServer, str]:
    server = Slapd()
    server.begin()
    server.add("\n".join(person(100 + n, key, value) for n, (key, value) in enumerate(rows(port).items())))
    return server, server.file()


SERVERS = {"pgsql": postgres, "mysql": mariadb, "ldap": slapd}


class Load:
    """Clients that send until they are told to stop. `taken`: numbers of acknowledged messages."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.taken: list[int] = []
        self.wrong: list[str] = []
        self.replies: Counter[int] = Counter()
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        while not self._stop.is_set():
            number = next(self._numbers)
            with smtplib.SMTP("127.0.0.1", self.port, timeout=60) as client:
                client.ehlo("client.example")
                client.mail("s@sender.example")
                code, text = client.rcpt("unknown@next.example")
                self._note(code, text, 550)
                code, text = client.rcpt(USER.format(number % USERS))
                self._note(code, text, 250)
                if code != 250:
                    # Not faster than a real client tries again.
                    self._stop.wait(0.05)
                    continue
                code, _ = client.data(f"Subject: n{number}\r\n\r\nbody\r\n".encode())
                if code == 250:
                    self.taken.append(number)

    def _note(self, code: int, text: bytes, right: int) -> None:
        self.replies[code] += 1
        if code != right and not 400 <= code < 500:
            self.wrong.append(f"{code} {text.decode()}")

    def acknowledged(self, more: int) -> None:
        """Wait until this many more messages are acknowledged."""
        goal = len(self.taken) + more
        wait_for(f"{goal} acknowledged messages", lambda: len(self.taken) >= goal, 120)

    def refused_for_now(self) -> None:
        """Wait until a client gets 451."""
        before = self.replies[451]
        wait_for("a temporary refusal", lambda: self.replies[451] > before, 60)


@pytest.mark.parametrize("kind", SERVERS)
def test_no_mail_is_lost_or_wrongly_refused_while_the_server_is_killed(kind: str, tmp_path: Path) -> None:
    if kind == "ldap":
        pytest.importorskip("ldap", reason="python-ldap is not installed (it needs libldap2-dev and libsasl2-dev)")
    file = tmp_path / "table.cf"
    name = f"{kind}:{file}"
    site = Site(tmp_path / "site", main_cf=QUICK | {"relay_recipient_maps": name, "transport_maps": name})
    server, text = SERVERS[kind](site.next_port)
    try:
        file.write_text(text)
        file.chmod(0o600)
        with Sink(site.next_port) as sink, running(site), Load(site.port) as load:
            load.acknowledged(MESSAGES_BETWEEN)
            for _ in range(OUTAGES):
                server.kill()
                load.refused_for_now()
                server.start()
                load.acknowledged(MESSAGES_BETWEEN)
            load.__exit__()
            wait_for("all mail", lambda: len(sink.messages) >= len(load.taken), 120)
            subjects = (message.content.partition(b"Subject: n")[2] for message in sink.messages)
            arrived = {subject.partition(b"\r\n")[0] for subject in subjects}
        assert load.wrong == []
        assert arrived >= {str(number).encode() for number in load.taken}
        assert "status=bounced" not in site.log_text()
        assert site.log_text().count(f" table {name}: ") < 20, "warnings are rare"
        assert_hidden(site)
    finally:
        end([server])


def test_a_silent_server_delays_only_the_mail_that_needs_it(tmp_path: Path) -> None:
    file = tmp_path / "table.cf"
    site = Site(tmp_path / "site", main_cf=QUICK | {"relay_recipient_maps": f"pgsql:{file}"})
    server, text = postgres(site.next_port)
    try:
        file.write_text(text)
        with running(site):
            said: list[int] = []
            with smtplib.SMTP("127.0.0.1", site.port) as client:
                client.ehlo("client.example")
                client.mail("s@sender.example")
                assert client.rcpt(USER.format(1))[0] == 250
            server.pause()
            waiting = threading.Thread(target=lambda: said.append(ask(site, USER.format(2))))
            waiting.start()
            with smtplib.SMTP("127.0.0.1", site.port) as client:
                client.sendmail("s@sender.example", [f"{local_user()}@example.org"], "Subject: x\r\n\r\nx\r\n")
            wait_for("the local mail", lambda: site.maildir(local_user()))
            assert said == [], "the other client still waits for its table"
            waiting.join(60)
            assert said == [451]
            server.go_on()
            wait_for("the table's answer", lambda: ask(site, USER.format(3)) == 250, 60)
    finally:
        end([server])


def test_a_server_that_is_down_at_the_start_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "table.cf"
    site = Site(tmp_path / "site", main_cf=QUICK | {"relay_recipient_maps": f"pgsql:{file}"})
    server, text = postgres(site.next_port)
    try:
        server.kill()
        file.write_text(text)
        checked = subprocess.run([*site.command("postillion"), "check"], capture_output=True, text=True, timeout=60)
        assert checked.returncode == 0
        assert f"warning: table pgsql:{file}: " in checked.stdout + checked.stderr
        assert PASSWORD not in checked.stdout + checked.stderr
        with running(site):
            assert ask(site, USER.format(1)) == 451
            server.start()
            wait_for("the table's answer", lambda: ask(site, USER.format(2)) == 250, 60)
        assert_hidden(site)
    finally:
        end([server])


BAD: dict[str, tuple[Callable[[str], str], str]] = {
    "wrong password": (lambda text: text.replace(PASSWORD, f"{PASSWORD}x"), ""),
    "unknown letter": (lambda text: text.replace("'%s'", "'%x'"), 'line 5: query: "%x" has no meaning'),
    "no query": (lambda text: text.replace("query", "# query"), "query is missing"),
    "no database": (lambda text: text.replace("dbname", "# dbname"), "dbname is missing"),
    "bad limit": (lambda text: f"{text}expansion_limit = many\n", 'line 6: bad value "many" for expansion_limit'),
    "no equals sign": (lambda text: f"{text}expansion_limit\n", "line 6: missing '=' after attribute name"),
    "bad host": (lambda text: text.replace("hosts = 127.0.0.1:", "hosts = a:b:c"), ""),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_an_error_with_its_line(name: str, tmp_path: Path) -> None:
    change, expected = BAD[name]
    file = tmp_path / "table.cf"
    site = Site(tmp_path / "site", main_cf=QUICK | {"relay_recipient_maps": f"pgsql:{file}"})
    text = f"hosts = 127.0.0.1:{site.next_port}\nuser = mail\npassword = {PASSWORD}\ndbname = x\n"
    file.write_text(change(f"{text}query = SELECT v FROM aliases WHERE k='%s'\n"))
    checked = subprocess.run([*site.command("postillion"), "check"], capture_output=True, text=True, timeout=60)
    said = checked.stdout + checked.stderr
    assert PASSWORD not in said
    if expected:
        assert checked.returncode != 0
        assert str(file) in said
        assert expected in said
    else:
        assert checked.returncode == 0, said


def ask(site: Site, recipient: str) -> int:
    """Return the code of the reply to RCPT."""
    with smtplib.SMTP("127.0.0.1", site.port, timeout=60) as client:
        client.ehlo("client.example")
        client.mail("s@sender.example")
        return client.rcpt(recipient)[0]


def assert_hidden(site: Site) -> None:
    """Check that the password is neither in the log nor in what commands print."""
    assert PASSWORD not in site.log_text()
    for command in (["postconf"], ["postconf", "-n"], ["postillion", "check"]):
        done = subprocess.run([*site.command(command[0]), *command[1:]], capture_output=True, text=True, timeout=60)
        assert PASSWORD not in done.stdout + done.stderr
