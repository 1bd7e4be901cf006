"""Servers of remote tables are killed, stopped and absent while mail arrives: no mail is lost or wrongly refused."""

from __future__ import annotations

import re
import smtplib
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from support.mta import POSTILLION_COMMANDS, Site, local_user, running, wait_for, write_aliases
from support.outages import ALIAS, CASES, HELD, LIST, SENDER, USER, Case, Load, message
from support.ports import free_port
from support.scripted import Scripted
from support.sink import Sink
from support.table_servers import PASSWORD, Postgres, end

OUTAGES = 2
MESSAGES_BETWEEN = 25
"""Number of messages that are acknowledged before each outage and after the last one."""
SUBMITTED = 5
"""Number of messages that sendmail(1) submits during an outage. A larger number would end a scan of pickup."""
REFUSING = [kind for kind in CASES if kind != "memcache"]
"""Tables without which cleanup cannot go on. memcache has a backup that answers."""
QUICK = {
    "minimal_backoff_time": "1s",
    "maximal_backoff_time": "2s",
    "queue_run_delay": "1s",
    "relay_domains": "next.example",
    "smtpd_peername_lookup": "no",
}


@pytest.mark.parametrize("kind", CASES)
def test_no_mail_is_lost_or_wrongly_refused_while_the_server_is_killed(kind: str, tmp_path: Path) -> None:
    if kind == "ldap":
        pytest.importorskip("ldap", reason="python-ldap is not installed (it needs libldap2-dev and libsasl2-dev)")
    next_port = free_port()
    case = CASES[kind](tmp_path, next_port)
    site = Site(tmp_path / "site", main_cf=QUICK | case.main_cf)
    try:
        with Sink(next_port) as sink, running(site), Load(site.port) as load:
            load.acknowledged(MESSAGES_BETWEEN)
            for _ in range(OUTAGES):
                outage(site, case, load)
                load.acknowledged(MESSAGES_BETWEEN)
            load.stop()
            wait_for("all mail", lambda: len(arrived(site, sink)) >= len(load.taken), 120)
            contents = arrived(site, sink)
        assert load.wrong == []
        assert contents.keys() == set(load.taken)
        assert all(b"X-Seen: yes" in content for content in contents.values()), "no mail passes unchecked"
        assert all(received.mail_from.startswith(case.sender) for received in sink.messages), "nor with its old sender"
        assert {address for received in sink.messages for address in received.rcpt_tos}.isdisjoint({ALIAS, LIST})
        assert "status=bounced" not in site.log_text()
        assert len(re.findall(r"/smtpd\[\d+\]: warning: table ", site.log_text())) < 20, "smtpd's warnings are rare"
        if not case.refuses:
            assert load.replies[451] == 0, "the backup answers"
        assert_hidden(site)
    finally:
        end([case.server])


def outage(site: Site, case: Case, load: Load) -> None:
    """Kill the server, let each program meet that, and start the server again."""
    held = [load.hold(recipient) for recipient in (HELD, USER.format(1), LIST)]
    case.server.kill()
    subprocess.run([*site.command("postsuper"), "-H", "ALL"], check=True, capture_output=True, timeout=60)
    if case.defers:
        # Generic addresses fail in smtp, the transport in qmgr, aliases in local.
        wait_for("the delay of all", lambda: all("status=deferred" in site.log_of(queue_id) for queue_id in held))
    if case.refuses:
        load.refused_for_now()
    else:
        load.acknowledged(MESSAGES_BETWEEN)
    case.server.start()


def arrived(site: Site, sink: Sink) -> dict[int, bytes]:
    """Return the contents that have arrived, by their numbers."""
    contents = [received.content for received in sink.messages]
    contents += [path.read_bytes() for path in site.maildir(local_user())]
    return {int(re.findall(rb"Subject: n(\d+)", content)[0]): content for content in contents}


@pytest.mark.parametrize("kind", REFUSING)
def test_mail_of_sendmail_waits_in_maildrop_while_the_server_is_killed(kind: str, tmp_path: Path) -> None:
    if kind == "ldap":
        pytest.importorskip("ldap", reason="python-ldap is not installed (it needs libldap2-dev and libsasl2-dev)")
    next_port = free_port()
    case = CASES[kind](tmp_path, next_port)
    site = Site(tmp_path / "site", main_cf=QUICK | case.main_cf)
    wake_up_pickup_each_second(site)
    maildrop = site.queue / "maildrop"
    try:
        with Sink(next_port) as sink, running(site):
            # pickup has a connection when the server ends.
            submit(site, 0)
            wait_for("the first message", lambda: arrived(site, sink).keys() == {0})
            wait_for("the end of its file", lambda: not list(maildrop.iterdir()))
            case.server.kill()
            for number in range(1, SUBMITTED + 1):
                submit(site, number)
            files = {path.name for path in maildrop.iterdir()}
            assert len(files) == SUBMITTED
            stays = re.compile(r"/pickup\[\d+\]: warning: maildrop/(\S+): .*; it stays there")
            wait_for("a warning for each", lambda: files == set(stays.findall(site.log_text())))
            assert {path.name for path in maildrop.iterdir()} == files
            assert arrived(site, sink).keys() == {0}
            case.server.start()
            wait_for("all mail", lambda: arrived(site, sink).keys() == set(range(SUBMITTED + 1)), 60)
            wait_for("an empty maildrop", lambda: not list(maildrop.iterdir()))
            contents = arrived(site, sink)
        assert len(sink.messages) == SUBMITTED + 1, "each message once"
        assert all(b"X-Seen: yes" in content for content in contents.values()), "no mail passes unchecked"
        assert all(received.mail_from.startswith(case.sender) for received in sink.messages), "nor with its old sender"
        assert "status=bounced" not in site.log_text()
        assert "sender non-delivery notification" not in site.log_text()
    finally:
        end([case.server])


def wake_up_pickup_each_second(site: Site) -> None:
    """Change the wakeup time of pickup."""
    master_cf = site.etc / "master.cf"
    master_cf.write_text(re.sub(r"(?m)^(pickup\b.*) 60 ", r"\1 1 ", master_cf.read_text()))


def submit(site: Site, number: int) -> None:
    """Hand a message to sendmail(1)."""
    command = [str(POSTILLION_COMMANDS / "sendmail"), "-C", str(site.etc), "-f", SENDER, "--", USER.format(number)]
    subprocess.run(command, input=message(number).replace(b"\r\n", b"\n"), check=True, timeout=60)


def test_a_silent_server_delays_only_the_mail_that_needs_it(tmp_path: Path) -> None:
    file = tmp_path / "table.cf"
    server = CASES["pgsql"](tmp_path, free_port()).server
    assert isinstance(server, Postgres)
    site = Site(tmp_path / "site", main_cf=QUICK | {"relay_recipient_maps": f"pgsql:{file}"})
    try:
        file.write_text(server.file())
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


def test_a_stop_ends_sessions_that_wait_for_a_table_without_an_error(tmp_path: Path) -> None:
    silent = Scripted(lambda client: [*iter(lambda: client.recv(4096), b"")].clear())
    tables = {"relay_recipient_maps": f"tcp:127.0.0.1:{silent.port}", "header_checks": f"tcp:127.0.0.1:{silent.port}"}
    site = Site(tmp_path / "site", main_cf=QUICK | tables)
    try:
        with running(site):
            clients = [smtplib.SMTP("127.0.0.1", site.port) for _ in range(2)]
            for client, recipient in zip(clients, (USER.format(1), f"{local_user()}@example.org"), strict=True):
                client.ehlo("client.example")
                text = f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{recipient}>\r\nBDAT {len(message(1))} LAST\r\n"
                client.send(text.encode() + message(1))
            wait_for("the lookups", lambda: silent.connections >= 2)
        for client in clients:
            client.close()
        assert "error: " not in site.log_text()
    finally:
        silent.close()


def test_a_server_that_is_down_at_the_start_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "table.cf"
    server = CASES["pgsql"](tmp_path, free_port()).server
    assert isinstance(server, Postgres)
    site = Site(tmp_path / "site", main_cf=QUICK | {"relay_recipient_maps": f"pgsql:{file}"})
    try:
        server.kill()
        file.write_text(server.file())
        checked = check(site)
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
    checked = check(site)
    said = checked.stdout + checked.stderr
    assert PASSWORD not in said
    if expected:
        assert checked.returncode != 0
        assert str(file) in said
        assert expected in said
    else:
        assert checked.returncode == 0, said


def check(site: Site) -> subprocess.CompletedProcess[str]:
    """Run the checker."""
    write_aliases(site.etc / "aliases")
    return site.run("postillion", "check")


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
