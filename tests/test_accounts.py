"""The system's accounts: an outage of the name service stops no session, and nobody becomes an unknown user by it."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import smtplib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from postillion._core import accounts as core
from postillion.config import Config
from postillion.delivery.account import Account, NoAnswerError, account_of, find_account
from postillion.delivery.accounts import Accounts
from postillion.qmgr.control import NAMES_MAX, Control
from postillion.tables import TableError, nsswitch, open_table
from postillion.tables.remote import RemoteTable
from postillion.tables.remote.accounts import THREADS_MAX, AccountSource
from postillion.tables.remote.secret import Secrets
from support.either import PROGRAMS, Server, program
from support.mta import Site, local_user, running, until
from support.name_service import NameService

SOURCES = [
    ("", "passwd", set()),
    ("passwd: files systemd\n", "passwd", {"files", "systemd"}),
    ("  passwd :files  # sss\ngroup: sss\n", "passwd", {"files"}),
    ("passwd: files [NOTFOUND=return] sss\n", "passwd", {"files", "sss"}),
    ("group: files [ SUCCESS=merge ]\tldap [!UNAVAIL=return]", "group", {"files", "ldap"}),
    ("passwd: files\npasswd: nis\n", "passwd", {"files", "nis"}),
    ("#passwd: nis\npasswd files\nshadow: nis\n", "passwd", set()),
]
AT_ONCE = [
    (None, "", True),
    ("passwd: files systemd", "", True),
    ("passwd: compat", "root:x:0:0::/:/bin/sh\n", True),
    ("passwd: compat", "root:x:0:0::/:/bin/sh\n+::::::\n", False),
    ("passwd: compat", "-@netgroup\n", False),
    ("passwd: files sss", "", False),
    ("passwd: files [NOTFOUND=return] ldap", "", False),
    ("passwd: winbind files", "", False),
    ("passwd: files #" + "x" * nsswitch.FILE_MAX_OCTETS, "", False),
]


@pytest.mark.parametrize(("text", "database", "found"), SOURCES)
def test_sources_are_read_as_the_c_library_reads_them(text: str, database: str, found: set[str]) -> None:
    assert nsswitch.sources(text, database) == found


@pytest.mark.parametrize(("text", "accounts", "at_once"), AT_ONCE)
def test_only_files_of_this_machine_are_asked_without_a_thread(
    text: str | None, accounts: str, at_once: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, users = tmp_path / "nsswitch.conf", tmp_path / "passwd"
    if text is not None:
        file.write_text(text)
    users.write_text(accounts)
    monkeypatch.setattr(nsswitch, "NSSWITCH", str(file))
    monkeypatch.setattr(nsswitch, "FILES", {"passwd": str(users)})
    monkeypatch.setattr(nsswitch, "NSCD_SOCKET", str(tmp_path / "socket"))
    assert nsswitch.answers_at_once("passwd") is at_once
    for name in ("unix:passwd.byname", "proxy:unix: passwd.byname", "unionmap:{inline:{a=b},unix:passwd.byname}"):
        assert isinstance(open_table(name, Config("", {})), RemoteTable) is not at_once
    (tmp_path / "socket").touch()
    assert not nsswitch.answers_at_once("passwd")


class Service:
    """A name service whose lookups of `waits` wait for `go_on`."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.asked: list[str] = []

    def line(self, database: str, key: str) -> str | None:
        """Return the line of an account."""
        assert database == "passwd.byname"
        self.asked.append(key)
        self._wait(key)
        return None if key == "unknown" else f"{key}:x:1:1::/:"

    def user(self, name: str) -> Account | None:
        """Return a user."""
        self._wait(name)
        return None if name == "unknown" else Account(name, 1, 1, "/", "/bin/sh")

    def user_of(self, uid: int) -> Account | None:
        """Return the user `waits` for the number 1, none for others."""
        return self.user("waits") if uid == 1 else None

    def _wait(self, name: str) -> None:
        if name == "fails":
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        if name == "waits":
            self.begun.release()
            assert self.go_on.wait(60)

    async def wait_for_lookups(self, number: int = 1) -> None:
        """Wait until lookups have begun."""
        for _ in range(number):
            await until(lambda: self.begun.acquire(blocking=False))


@pytest.fixture
def service() -> Iterator[Service]:
    found = Service()
    yield found
    found.go_on.set()


def table_of(service: Service, warned: list[str], lookup_max_s: float = 30.0) -> RemoteTable:
    source = AccountSource("unix:passwd.byname", "passwd.byname", service.line)
    return RemoteTable(
        "unix:passwd.byname", source, warned.append, Secrets(), owner=0, folds=False, lookup_max_s=lookup_max_s
    )


async def test_a_lookup_that_waits_delays_no_other_lookup(service: Service) -> None:
    warned: list[str] = []
    table = table_of(service, warned)
    waiting = asyncio.create_task(table.ask("waits"))
    await service.wait_for_lookups()
    assert await table.ask("alice") == "alice:x:1:1::/:"
    assert await table.ask("unknown") is None
    with pytest.raises(TableError, match=r"table unix:passwd\.byname: Connection timed out"):
        await table.ask("fails")
    assert warned == ["table unix:passwd.byname: Connection timed out"]
    assert not waiting.done()
    service.go_on.set()
    assert await waiting == "waits:x:1:1::/:"
    await table.close()


async def test_lookups_without_a_thread_time_out_and_are_not_made_later(service: Service) -> None:
    table = table_of(service, [], lookup_max_s=0.2)
    waiting = [asyncio.create_task(table.ask("waits")) for _ in range(THREADS_MAX)]
    await service.wait_for_lookups(THREADS_MAX)
    with pytest.raises(TableError, match=r"no answer within 0\.2 seconds"):
        await table.ask("alice")
    for lookup in waiting:
        with pytest.raises(TableError, match=r"no answer within 0\.2 seconds"):
            await lookup
    service.go_on.set()
    assert await table.ask("bob") == "bob:x:1:1::/:"
    assert service.asked == ["waits"] * THREADS_MAX + ["bob"]
    await table.close()


async def test_users_are_looked_up_in_threads(service: Service) -> None:
    accounts = Accounts(find=service.user, find_number=service.user_of, at_once=False)
    waiting = asyncio.create_task(accounts.named("waits"))
    await service.wait_for_lookups()
    found = await accounts.named("alice")
    assert found is not None
    assert found.name == "alice"
    assert await accounts.named("unknown") is None
    assert await accounts.numbered(2) is None
    service.go_on.set()
    assert (await waiting) == Account("waits", 1, 1, "/", "/bin/sh")
    accounts.close()


async def test_a_user_without_an_answer_is_not_unknown(service: Service) -> None:
    accounts = Accounts(find=service.user, find_number=service.user_of, at_once=False, lookup_max_s=0.01)
    for found in (accounts.named("waits"), accounts.numbered(1)):
        with pytest.raises(NoAnswerError, match=r"error looking up passwd info for .*: no answer within 0\.01 seconds"):
            await found
    accounts.close()


def test_errors_of_the_name_service_have_their_number_and_text(tmp_path: Path) -> None:
    service = NameService(tmp_path)
    for error in (errno.EIO, errno.ENOENT, errno.EPERM, errno.EINTR, errno.ERANGE):
        service.fail("broken", error)
        service.fail("uid 12345", error)
        code = (
            "from postillion._core import accounts\n"
            "from postillion.delivery.account import account_of, find_account\n"
            "asked = [lambda table=name: accounts.line(f'{table}.byname', 'Broken') for name in ('passwd', 'group')]\n"
            "asked += [lambda: accounts.user('broken'), lambda: accounts.user_of(12345)]\n"
            "asked += [lambda: find_account('broken'), lambda: account_of(12345)]\n"
            "for ask in asked:\n"
            "    try: print(ask())\n"
            "    except Exception as problem: print(getattr(problem, 'errno', problem))\n"
        )
        told = subprocess.run(
            [sys.executable, "-P", "-c", code], env=service.variables, capture_output=True, text=True, timeout=60
        )
        text = os.strerror(error)
        looking = "error looking up passwd info for"
        assert told.stdout.splitlines() == [
            *[str(error)] * 4,
            f"{looking} broken: {text}",
            f"{looking} uid 12345: {text}",
        ], told.stderr


def test_accounts_are_found_by_name_and_number() -> None:
    root = find_account("root")
    assert root is not None
    assert (root.name, root.uid, root.gid) == ("root", 0, 0)
    assert account_of(0) == root
    line = core.line("passwd.byname", "ROOT")
    assert line is not None
    assert line.startswith("root:")
    for name in ("", "a\0b", "no such user", "\udcff", "\ud800"):
        assert find_account(name) is None
    with pytest.raises(ValueError, match=r"passwd\.byname"):
        core.line("shadow", "root")


class Queue:
    """The part of the queue manager that control requests need, for the user of the number 1."""

    def __init__(self) -> None:
        self.core = self
        self.configuration = self
        self.config = Config("", {})
        self.log = self
        self.replies: dict[int, bytes] = {}
        self.polls = 0

    def now(self) -> tuple[float, float]:
        return 0.0, 0.0

    def reply(self, client: int, json: bytes, *, last: bool) -> None:
        assert last
        self.replies[client] = json

    def counts(self) -> dict[str, int]:
        return {"messages": 7}

    def poll_soon(self) -> None:
        self.polls += 1


async def test_a_slow_name_service_delays_no_other_request_of_the_queue_manager(service: Service) -> None:
    queue = Queue()
    accounts = Accounts(find=service.user, find_number=service.user_of, at_once=False)
    control = Control(queue, accounts)  # type: ignore[arg-type]
    status, counts = msgspec.json.encode({"verb": "status"}), b'{"messages":7}\n'
    control.connected(1, 1)
    control.connected(2, os.geteuid())
    control.connected(3, 1)
    for client in (1, 3, 2):
        control.request(client, status)
    assert queue.replies == {2: counts}
    await service.wait_for_lookups(2)
    control.lost(3)
    assert queue.polls == 0
    service.go_on.set()
    await until(lambda: queue.polls == 2)
    assert queue.replies == {1: counts, 2: counts}
    for _ in range(NAMES_MAX + 1):
        control.request(1, status)
    assert b"wait for the names of their users" in queue.replies[1]
    control.close()


@pytest.fixture(params=PROGRAMS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Server, NameService]]:
    service = NameService(tmp_path / "names")
    main_cf = {"local_recipient_maps": "", "maximal_backoff_time": "1s", "minimal_backoff_time": "1s"}
    site = Site(tmp_path / "site", main_cf=main_cf)
    service.serve(site)
    name = program(request)
    with running(site, name):
        yield Server(site, name), service


def test_mail_waits_while_the_name_service_fails(server: tuple[Server, NameService]) -> None:
    site, service = server
    errors = (errno.EIO, errno.ENOENT, errno.ESRCH, errno.EAGAIN, errno.ETIMEDOUT)
    for error in errors:
        service.fail(f"user{error}", error)
    for error in errors:
        site.send("a@example.org", f"user{error}@example.org", "waits")
        site.log(rf"warning: error looking up passwd info for user{error}: {re.escape(os.strerror(error))}\n")
        site.log(rf"to=<user{error}@example.org>, .* dsn=4\.0\.0, status=deferred \(user lookup error\)")
    service.fail(f"user{errno.EIO}", 0)
    site.command("postqueue", "-f")
    site.log(rf'to=<user{errno.EIO}@example.org>, .* dsn=5\.1\.1, status=bounced \(unknown user: "user{errno.EIO}"\)')


def test_an_outage_stops_no_other_session_and_refuses_nobody(tmp_path: Path) -> None:
    service = NameService(tmp_path / "names")
    site = Site(tmp_path / "site")
    service.serve(site)
    user = f"{local_user()}@example.org"
    service.fail("broken", errno.EIO)
    with running(site), smtplib.SMTP("127.0.0.1", site.port) as one, smtplib.SMTP("127.0.0.1", site.port) as other:
        for client in (one, other):
            client.ehlo("client.example")
            client.mail("a@far.example")
        for end, code in ((errno.EIO, 451), (0, 550)):
            service.block("waits")
            one.putcmd("rcpt", "TO:<waits@example.org>")
            lookup = service.wait_for_lookup("waits")
            assert other.rcpt(user)[0] == 250
            assert other.rcpt("unknown@example.org")[0] == 550
            assert other.rcpt("broken@example.org")[0] == 451
            # smtpd asks again when the table has failed.
            service.recover("waits")
            service.fail("waits", end)
            service.answer(lookup, end)
            assert one.getreply()[0] == code
            service.recover("waits")
        other.rset()
        other.sendmail("a@far.example", [user], "Subject: x\r\n\r\nx\r\n")
        Server(site, "postillion").mail("x", "x")
        postmap = site.command("postmap")
        table = "unix:passwd.byname"
        for key, status, said in (
            (local_user(), 0, f"{local_user()}:"),
            ("unknown", 1, ""),
            ("broken", 1, "Input/output"),
        ):
            asked = subprocess.run(
                [*postmap, "-q", key, table], env=service.variables, capture_output=True, text=True, timeout=60
            )
            assert asked.returncode == status, asked.stderr
            assert said in asked.stdout + asked.stderr
        explained = subprocess.run(
            [*site.command("postillion"), "explain", "broken@example.org"],
            env=service.variables,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "mail waits: 4.3.0 table unix:passwd.byname: Input/output error" in explained.stdout
    assert site.log_text().count(f"warning: table {table}: Input/output error") == 1
    assert "status=bounced" not in site.log_text()
