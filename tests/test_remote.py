"""The protocols, templates, connections and files of remote tables, against servers of the test."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from postillion.config import Config, ConfigError
from postillion.tables import TableError, TableTypeError, open_maps, open_table
from postillion.tables.remote import RemoteTable, memcache, socketmap, tcp
from postillion.tables.remote.limit import TimeLimit
from postillion.tables.remote.pool import LINKS_MAX, RETRY_MIN_S, LinkLost, Pool, Server
from postillion.tables.remote.stream import Stream, connect
from postillion.tables.remote.template import Template, TemplateError
from support.ports import free_port
from support.scripted import Scripted

REPLIES: list[tuple[Callable[[bytes], Any], bytes, Any]] = [
    (tcp.reply, b"200 a%20b\n", (200, b"a%20b")),
    (tcp.reply, b"500 \n", (500, b"")),
    (tcp.reply, b"400 later\n", (400, b"later")),
    (lambda octets: socketmap.parse(octets, 100), b"8:OK value,", b"OK value"),
    (lambda octets: socketmap.parse(octets, 100), b"9:NOTFOUND ,", b"NOTFOUND "),
    (lambda octets: socketmap.parse(octets, 100), b"0:,", b""),
    (lambda octets: memcache.value(octets, b"k", 100), b"VALUE k 0 3\r\na\r\n\r\nEND\r\n", b"a\r\n"),
    (lambda octets: memcache.value(octets, b"k", 100), b"END\r\n", None),
    (memcache.stored, b"STORED\r\n", b"STORED"),
]
MALFORMED: list[tuple[Callable[[bytes], Any], bytes]] = [
    (tcp.reply, b"200\n"),
    (tcp.reply, b"200x\n"),
    (tcp.reply, b"999 x\n"),
    (tcp.reply, b"\n"),
    (tcp.reply, b"200 " + b"x" * 4096 + b"\n"),
    (lambda octets: socketmap.parse(octets, 100), b"x:OK ,"),
    (lambda octets: socketmap.parse(octets, 100), b":OK ,"),
    (lambda octets: socketmap.parse(octets, 100), b"3:OK ;"),
    (lambda octets: socketmap.parse(octets, 100), b"101:x"),
    (lambda octets: socketmap.parse(octets, 100), b"1111111111111"),
    (lambda octets: memcache.value(octets, b"k", 100), b"VALUE other 0 1\r\n"),
    (lambda octets: memcache.value(octets, b"k", 100), b"VALUE k 0 101\r\n"),
    (lambda octets: memcache.value(octets, b"k", 100), b"VALUE k 0 1\r\nabcdefghijk"),
    (lambda octets: memcache.value(octets, b"k", 100), b"SERVER_ERROR x\r\n"),
]


@pytest.mark.parametrize(("parse", "octets", "reply"), REPLIES)
def test_a_reply_is_the_same_in_any_split(parse: Callable[[bytes], Any], octets: bytes, reply: Any) -> None:
    for end in range(len(octets)):
        assert parse(octets[:end]) is None
    assert parse(octets) == (reply, len(octets))
    assert parse(octets + b"trailing") == (reply, len(octets))


@pytest.mark.parametrize(("parse", "octets"), MALFORMED)
def test_a_malformed_reply_is_an_error(parse: Callable[[bytes], Any], octets: bytes) -> None:
    with pytest.raises(ValueError):
        parse(octets)


@pytest.mark.parametrize(
    ("text", "key", "value", "query", "result"),
    [
        ("%s|%S", "u@a.b", "v@c", "u@a.b|u@a.b", "v@c|u@a.b"),
        ("%u %d %U %D", "u@a.b", "v@c", "u a.b u a.b", "v c u a.b"),
        ("%1.%2", "u@a.b", "v", "b.a", "b.a"),
        ("%3", "u@a.b", "v", None, None),
        ("%d", "plain", "v", None, None),
        ("%u", "@a.b", "v", None, "v"),
        ("%u", "a@b@c", "v", "a@b", "v"),
        ("%u", "plain", "v", "plain", "v"),
        ("%%s%%", "k", "v", "%s%", "%s%"),
        ("x", "k", "v", "x", "x"),
        ("%d", "u@", "v", None, None),
        ("%2", "u@a..b", "v", None, None),
    ],
)
def test_templates(text: str, key: str, value: str, query: str | None, result: str | None) -> None:
    template = Template(text)
    assert template.query(key, str) == query
    assert template.result(key, value) == result


@pytest.mark.parametrize("text", ["%", "%x", "%0", "a%"])
def test_unknown_letters_are_errors(text: str) -> None:
    with pytest.raises(TemplateError):
        Template(text)


def test_a_request_encodes_what_would_end_it() -> None:
    assert tcp.request(b"a b%\n\xe9~!") == b"get a%20b%25%0A%E9~!\n"
    assert socketmap.netstring(b"map k") == b"5:map k,"


Serve = Callable[[socket.socket], None]


@pytest.fixture
def scripted() -> Iterator[Callable[[Serve], Scripted]]:
    servers: list[Scripted] = []

    def serve(work: Serve) -> Scripted:
        servers.append(Scripted(work))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


def echo(client: socket.socket) -> None:
    """Answer each request of tcp with its key."""
    for line in client.makefile("rb"):
        client.sendall(b"200 " + line[4:])


def a_table(name: str, directory: Path, warned: list[str] | None = None) -> RemoteTable:
    (directory / "main.cf").write_text("")
    found = open_table(name, Config.load(str(directory)), warn=None if warned is None else warned.append)
    assert isinstance(found, RemoteTable)
    return found


async def test_connections_are_reused_and_limited(scripted: Callable[[Serve], Scripted], tmp_path: Path) -> None:
    server = scripted(echo)
    table = a_table(f"tcp:127.0.0.1:{server.port}", tmp_path)
    found = await asyncio.gather(*(table.ask(f"k{n}") for n in range(200)))
    assert found == [f"k{n}" for n in range(200)]
    assert server.connections <= 8
    before = server.connections
    assert await table.ask("again") == "again"
    assert server.connections == before
    await table.close()


async def test_a_server_that_closes_an_idle_connection_costs_no_lookup(
    scripted: Callable[[Serve], Scripted], tmp_path: Path
) -> None:
    def once(client: socket.socket) -> None:
        line = client.makefile("rb").readline()
        client.sendall(b"200 " + line[4:])

    server = scripted(once)
    table = a_table(f"tcp:127.0.0.1:{server.port}", tmp_path)
    for n in range(5):
        assert await table.ask(f"k{n}") == f"k{n}"
    await table.close()


@pytest.mark.parametrize("reply", [b"", b"200 half", b"999 x\n", b"200 " + b"x" * 100_000])
async def test_a_server_that_ends_in_the_middle_is_a_temporary_failure(
    scripted: Callable[[Serve], Scripted], tmp_path: Path, reply: bytes
) -> None:
    def broken(client: socket.socket) -> None:
        client.recv(1000)
        client.sendall(reply)

    warned: list[str] = []
    table = a_table(f"tcp:127.0.0.1:{scripted(broken).port}", tmp_path, warned)
    for _ in range(3):
        with pytest.raises(TableError):
            await table.ask("k")
    assert len(warned) == 1
    await table.close()


async def test_a_second_reply_reaches_no_other_lookup(scripted: Callable[[Serve], Scripted], tmp_path: Path) -> None:
    def twice(client: socket.socket) -> None:
        for line in client.makefile("rb"):
            client.sendall(b"200 " + line[4:] + b"200 wrong\n")

    table = a_table(f"tcp:127.0.0.1:{scripted(twice).port}", tmp_path)
    for n in range(20):
        assert await table.ask(f"k{n}") == f"k{n}"
    await table.close()


async def test_a_late_answer_reaches_no_other_lookup(scripted: Callable[[Serve], Scripted]) -> None:
    release = threading.Event()

    def late(client: socket.socket) -> None:
        for line in client.makefile("rb"):
            if line == b"get slow\n":
                release.wait(30)
            client.sendall(b"200 " + line[4:])

    server = scripted(late)
    pool: Pool[Stream] = Pool(
        [Server("s", lambda: connect("127.0.0.1", str(server.port), 100))], links_max=1, attempt_max_s=0.2
    )

    async def ask(key: str) -> bytes:
        async def work(stream: Stream) -> bytes:
            return (await stream.exchange(tcp.request(key.encode()), tcp.reply))[1]

        return await pool.run(work)

    assert await ask("a") == b"a"
    with pytest.raises(TableError, match=r"no answer within 0\.2 seconds"):
        await ask("slow")
    with pytest.raises(TableError):
        await ask("b")  # The server is left alone for a second.
    release.set()
    async with asyncio.timeout(30):
        while True:
            try:
                assert await ask("c") == b"c"
                break
            except TableError:
                await asyncio.sleep(0.05)
    await pool.close()


async def test_a_lookup_that_is_cancelled_leaves_no_answer_behind(scripted: Callable[[Serve], Scripted]) -> None:
    server = scripted(echo)
    pool: Pool[Stream] = Pool([Server("s", lambda: connect("127.0.0.1", str(server.port), 100))], links_max=1)
    asked = asyncio.Event()

    async def work(stream: Stream) -> None:
        asked.set()
        await stream.exchange(tcp.request(b"cancelled"), lambda octets: None)

    task = asyncio.create_task(pool.run(work))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async def second(stream: Stream) -> bytes:
        return (await stream.exchange(tcp.request(b"second"), tcp.reply))[1]

    assert await pool.run(second) == b"second"
    await pool.close()


async def test_waiting_lookups_keep_their_order_when_some_are_cancelled(scripted: Callable[[Serve], Scripted]) -> None:
    server = scripted(echo)
    pool: Pool[Stream] = Pool([Server("s", lambda: connect("127.0.0.1", str(server.port), 100))], links_max=1)
    held, release = asyncio.Event(), asyncio.Event()
    order: list[int] = []

    async def hold(_stream: Stream) -> None:
        held.set()
        await release.wait()

    async def note(number: int, _stream: Stream) -> None:
        order.append(number)

    async def first() -> None:
        await pool.run(hold)
        # The next lookup may begin, but its task has not run yet.
        waiting[1].cancel()

    leading = asyncio.create_task(first())
    await held.wait()
    waiting = [asyncio.create_task(pool.run(partial(note, number))) for number in range(5)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    waiting[4].cancel()
    release.set()
    await leading
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert [isinstance(end, asyncio.CancelledError) for end in ends] == [True, True, False, False, True]
    assert order == [2, 3]
    await pool.run(partial(note, 5))
    assert order == [2, 3, 5]
    await pool.close()


async def test_the_next_server_answers_when_one_is_down(scripted: Callable[[Serve], Scripted]) -> None:
    up, down = scripted(echo), scripted(echo)
    down.close()
    servers = [Server(str(found.port), partial(connect, "127.0.0.1", str(found.port), 100)) for found in (down, up)]
    pool: Pool[Stream] = Pool(servers, in_order=True)

    async def work(stream: Stream) -> bytes:
        return (await stream.exchange(tcp.request(b"k"), tcp.reply))[1]

    for _ in range(3):
        assert await pool.run(work) == b"k"
    await pool.close()


class Silent:
    """A connection whose server never answers."""

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("refuses", [True, False])
async def test_attempts_that_fail_together_leave_the_server_alone_as_one(refuses: bool) -> None:
    begun, refused = asyncio.Semaphore(0), asyncio.Event()

    async def connect_in_vain() -> Silent:
        begun.release()
        await refused.wait()
        if refuses:
            raise LinkLost("refused")
        return Silent()

    async def work(_link: Silent) -> None:
        await asyncio.Event().wait()

    server = Server("s", connect_in_vain)
    pool = Pool([server], attempt_max_s=30.0 if refuses else 0.05)
    lookups = [asyncio.create_task(pool.run(work)) for _ in range(LINKS_MAX)]
    for _ in lookups:
        await begun.acquire()
    refused.set()
    ends = await asyncio.gather(*lookups, return_exceptions=True)
    assert all(isinstance(end, TableError) for end in ends)
    assert server.failures == 1
    assert server.retry_at <= asyncio.get_running_loop().time() + RETRY_MIN_S
    await pool.close()


async def test_lookups_share_the_connections_of_a_server_that_takes_no_more() -> None:
    links = 0

    async def connect_to_full() -> Silent:
        nonlocal links
        if links == 2:
            raise LinkLost("too many connections")
        links += 1
        return Silent()

    async def work(_link: Silent) -> str:
        await asyncio.sleep(0.001)
        return "found"

    async def lost(_link: Silent) -> str:
        await asyncio.sleep(0.001)
        raise LinkLost("lost")

    pool = Pool([Server("s", connect_to_full)])
    lookups = [asyncio.create_task(pool.run(work)) for _ in range(5 * LINKS_MAX)]
    await asyncio.sleep(0)
    lookups.pop(2).cancel()
    async with asyncio.timeout(10):
        assert set(await asyncio.gather(*lookups)) == {"found"}
        ends = await asyncio.gather(*(pool.run(lost) for _ in range(LINKS_MAX)), return_exceptions=True)
    assert all(isinstance(end, TableError) for end in ends), "none waits for a connection that has ended"
    await pool.close()


async def test_an_attempt_that_is_cancelled_leaves_the_server_alone_no_longer() -> None:
    begun, attempts = asyncio.Event(), 0

    async def connect_at_last() -> Silent:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise LinkLost("refused")
        if attempts == 2:
            begun.set()
            await asyncio.Event().wait()
        return Silent()

    async def work(_link: Silent) -> str:
        return "found"

    server = Server("s", connect_at_last)
    pool = Pool([server])
    with pytest.raises(TableError, match="refused"):
        await pool.run(work)
    server.retry_at = 0.0
    lookup = asyncio.create_task(pool.run(work))
    await begun.wait()
    with pytest.raises(TableError, match="refused"):
        await pool.run(work)
    lookup.cancel()
    await asyncio.gather(lookup, return_exceptions=True)
    assert await pool.run(work) == "found"
    await pool.close()


@pytest.mark.parametrize(
    "name",
    ["tcp:host", "tcp::1", "socketmap:inet:host:1", "socketmap:host:1:x", "socketmap:unix:/x", "socketmap:inet:x"],
)
def test_bad_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(TableTypeError):
        a_table(name, tmp_path)


def test_a_prefix_that_main_cf_does_not_have_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='no parameter begins with "users_"'):
        a_table("sqlite:users", tmp_path)


def test_parameters_with_the_same_file_share_a_remote_table(tmp_path: Path) -> None:
    file = tmp_path / "users.cf"
    file.write_text("dbpath = /nowhere\nquery = SELECT v FROM t WHERE k = '%s'\n")
    in_a_file = ("virtual_alias_maps", "canonical_maps", "alias_maps")
    in_main_cf = ("sender_bcc_maps", "recipient_bcc_maps")
    lines = [
        f"virtual_alias_maps = proxy:sqlite:{file}",
        f"canonical_maps = sqlite:{file}",
        f"alias_maps = sqlite:{file}",
    ]
    lines += [f"{name} = sqlite:users" for name in in_main_cf]
    lines += ["users_dbpath = /nowhere", "users_query = SELECT v FROM t WHERE k = '%s'"]
    (tmp_path / "main.cf").write_text("\n".join(lines) + "\n")
    config = Config.load(str(tmp_path))
    aliases, canonical, mailboxes = (open_maps(name, config).tables[0] for name in in_a_file)
    assert aliases is canonical
    assert mailboxes is not aliases, "the results of alias_maps contain no text of the key"
    first, second = (open_maps(name, config).tables[0] for name in in_main_cf)
    assert first is not second, "a service may have other parameters in master.cf"


async def test_a_member_that_fails_warns_once_and_all_connections_are_closed(
    scripted: Callable[[Serve], Scripted], tmp_path: Path
) -> None:
    server = scripted(echo)
    warned: list[str] = []
    down = f"tcp:127.0.0.1:{free_port()}"
    table = a_table(f"unionmap:{{tcp:127.0.0.1:{server.port},static:x}}", tmp_path, warned)
    assert await table.ask("K") == "K,x"
    assert not table.takes_parts
    assert await table.reach() == ""
    await table.close()
    table = a_table(f"pipemap:{{static:x,unionmap:{{{down}}}}}", tmp_path, warned)
    with pytest.raises(TableError, match=down):
        await table.ask("K")
    assert down in await table.reach()
    assert len(warned) == 1
    await table.close()


async def test_lookups_in_a_debug_table_are_logged(scripted: Callable[[Serve], Scripted], tmp_path: Path) -> None:
    server = scripted(echo)
    logged: list[str] = []
    warned: list[str] = []
    up, down = f"tcp:127.0.0.1:{server.port}", f"proxy:tcp:127.0.0.1:{free_port()}"
    (tmp_path / "main.cf").write_text(
        f"virtual_alias_maps = proxy:debug:{up} debug:debug:pipemap:{{{up},debug:inline:{{a=b}}}} debug:{down}\n"
    )
    config = Config.load(str(tmp_path))
    config.log, config.warn = logged.append, warned.append
    plain, nested, broken = open_maps("virtual_alias_maps", config).tables
    assert isinstance(plain, RemoteTable)
    assert isinstance(nested, RemoteTable)
    assert isinstance(broken, RemoteTable)
    assert await plain.ask("K") == "K"
    assert not plain.takes_parts
    assert logged == [f'{up} lookup: "K" = "K"']
    logged.clear()
    assert [await nested.ask(key) for key in ("a", "c")] == ["b", None]
    pipe = f"pipemap:{{{up},debug:inline:{{a=b}}}}"
    assert logged == [
        f'{name} lookup: "{key}" = "{shown}"'
        for key, shown in (("a", "b"), ("c", "not_found"))
        for name in ("inline:{a=b}", pipe, f"debug:{pipe}")
    ]
    logged.clear()
    assert warned == []
    with pytest.raises(TableError, match=down):
        await broken.ask("K")
    assert down in await broken.reach()
    assert logged == [f'{down} lookup: "K" = "error"']
    assert len(warned) == 1
    for table in (plain, nested, broken):
        await table.close()


def test_tables_within_tables_are_limited(tmp_path: Path) -> None:
    for name in ("unionmap:{" * 20 + "tcp:127.0.0.1:1" + "}" * 20, f"unionmap:{{{'tcp:127.0.0.1:1,' * 1001}}}"):
        with pytest.raises(TableTypeError, match="more than"):
            a_table(name, tmp_path)


async def test_a_missing_file_is_a_temporary_failure(tmp_path: Path) -> None:
    table = a_table(f"sqlite:{tmp_path}/x.cf", tmp_path)
    with pytest.raises(TableError, match="No such file"):
        table.refresh()
    with pytest.raises(TableError, match="No such file"):
        await table.ask("k")


async def test_sqlite_sees_changes_and_a_new_file_and_stops_endless_queries(tmp_path: Path) -> None:
    path, file = tmp_path / "db", tmp_path / "x.cf"

    def fill(where: Path, value: str) -> None:
        database = sqlite3.connect(where)
        database.execute("CREATE TABLE IF NOT EXISTS t (k TEXT, v TEXT)")
        database.execute("DELETE FROM t")
        database.execute("INSERT INTO t VALUES ('k', ?)", (value,))
        database.commit()
        database.close()

    fill(path, "one")
    file.write_text(f"dbpath = {path}\nquery = SELECT v FROM t WHERE k = '%s'\n")
    table = a_table(f"sqlite:{file}", tmp_path)
    table.refresh()
    assert await table.ask("K") == "one"
    fill(path, "two")
    assert await table.ask("k") == "two"
    fill(tmp_path / "new", "three")
    (tmp_path / "new").rename(path)
    assert await table.ask("k") == "three"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(TableError):
        await table.ask("k")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(TableError, match="not a regular file"):
        await table.ask("k")
    await table.close()
    fill(tmp_path / "other", "x")
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(x) FROM n WHERE '%s' <> ''"
    file.write_text(f"dbpath = {tmp_path}/other\nquery = {endless}\n")
    table = a_table(f"sqlite:{file}", tmp_path)
    with pytest.raises(TableError, match="interrupted"):
        await table.ask("k")
    await table.close()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT zeroblob(20000000) WHERE '%s' <> ''", "string or blob too big"),
        ("WITH n(x) AS (SELECT '%s' UNION ALL SELECT x FROM n LIMIT 5) SELECT zeroblob(9000000) FROM n", "octets"),
        ("WITH n(x) AS (SELECT '%s' UNION ALL SELECT x FROM n LIMIT 200000) SELECT 1 FROM n", "more than 100000 rows"),
        ("SELECT '%s'; SELECT 1", "one statement"),
    ],
)
async def test_a_result_of_sqlite_has_a_limit(tmp_path: Path, query: str, said: str) -> None:
    sqlite3.connect(tmp_path / "db").close()
    file = tmp_path / "x.cf"
    file.write_text(f"dbpath = {tmp_path}/db\nquery = {query}\n")
    table = a_table(f"sqlite:{file}", tmp_path)
    with pytest.raises(TableError, match=said):
        await table.ask("k")
    await table.close()


async def test_domains_of_a_table_are_a_match_list(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "users").close()
    (tmp_path / "domains").write_text("a.example # b.example\n!c.example inline:{d.example=x}\n")
    query = "SELECT 'here'"
    (tmp_path / "users.cf").write_text(f"dbpath = {tmp_path}/users\nquery = {query}\ndomain = {tmp_path}/domains\n")
    warned: list[str] = []
    table = a_table(f"sqlite:{tmp_path}/users.cf", tmp_path, warned)
    for domain, found in (("a", "here"), ("b", None), ("c", None), ("d", "here"), ("#", None)):
        assert await table.ask(f"user@{domain}.example") == found, domain
    assert [text.partition(": domain: ")[2] for text in warned] == [
        f"{tmp_path}/domains, line 1: comment at end of line is not supported: # b.example"
    ]
    await table.close()


def test_unknown_parameters_are_warned_about_and_repeated_passwords_are_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "x.cf"
    file.write_text("dbpath = /x\nquery = SELECT '%s'\npassword = s3cret\npassword = s3cret2\nqeury = x\n")
    warned: list[str] = []
    table = a_table(f"sqlite:{file}", tmp_path, warned)
    assert warned == [
        f"{file}, line 4: unknown parameter password is ignored",
        f"{file}, line 5: unknown parameter qeury is ignored",
    ]
    assert "s3cret" not in repr(table) + repr(vars(table))


async def test_time_limit_cuts_off_the_oldest_wait_first() -> None:
    limit = TimeLimit(0.05)
    ended = []

    async def one(name: str, answer: asyncio.Future[None]) -> None:
        try:
            with limit.wait():
                await answer
        except TimeoutError:
            ended.append(f"{name} late")
        else:
            ended.append(f"{name} in time")

    loop = asyncio.get_running_loop()
    prompt: asyncio.Future[None] = loop.create_future()
    tasks = [asyncio.create_task(one(name, loop.create_future())) for name in ("first", "second")]
    tasks.append(asyncio.create_task(one("third", prompt)))
    await asyncio.sleep(0)
    prompt.set_result(None)
    await asyncio.gather(*tasks)
    assert ended == ["third in time", "first late", "second late"]
    await one("again", loop.create_future())
    assert ended[-1] == "again late"


async def test_time_limit_passes_a_cancellation_and_an_error_on() -> None:
    limit = TimeLimit(30.0)
    outer = TimeLimit(0.01)
    with pytest.raises(TimeoutError), outer.wait(), limit.wait():
        await asyncio.get_running_loop().create_future()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    with pytest.raises(KeyError), limit.wait():
        raise KeyError

    async def wait() -> None:
        with limit.wait():
            await asyncio.get_running_loop().create_future()

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_time_limit_works_in_one_loop_after_another() -> None:
    limit = TimeLimit(0.01)

    async def wait() -> None:
        with limit.wait():
            await asyncio.get_running_loop().create_future()

    for _ in range(2):
        with pytest.raises(TimeoutError):
            asyncio.run(wait())
        asyncio.run(asyncio.wait_for(_at_once(limit), 1.0))


async def _at_once(limit: TimeLimit) -> None:
    """End a wait at once, and leave its timer behind."""
    with limit.wait():
        await asyncio.sleep(0)
