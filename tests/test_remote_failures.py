"""Servers of remote tables that are down at the start, close in the middle, and answer too late, for each type."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from psycopg import OperationalError

from postillion.config import Config
from postillion.tables import TableError, open_table
from postillion.tables.remote import RemoteTable, socketmap
from postillion.tables.remote.parameters import Parameters
from postillion.tables.remote.pgsql import PgsqlSource
from postillion.tables.remote.pool import Pool
from postillion.tables.remote.secret import Secrets
from postillion.tables.table import Table
from support.mta import until
from support.proxy import Proxy
from support.scripted import Scripted
from support.table_servers import PASSWORD, ROWS, MariaDb, Memcached, Postgres, PostSrsd, Slapd

KEY = "alice@example.org"
OTHER = "back\\slash@example.org"
SRS_KEYS = ("alice@example.com", "other@example.com")
CUTS = 20
"""Number of octets, out of all that a lookup takes, behind which the server closes the connection."""
LATE_S = 1.0
"""Longest time of one attempt in the tests of late answers."""
NUMBERS_MAX = 50
"""Maximum number of connections until one has the number of a closed socket."""
NO_CONFIG = Config("", {})
TRUSTED = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x19client_encoding\0UTF8\0Z\0\0\0\x05I"
"""The reply of a PostgreSQL server to a client that needs no password."""
FAREWELL = b"N\0\0\0\x0cSFATAL\0\0"
"""A notice in front of the end."""
LDAP = "python-ldap is not installed (it needs libldap2-dev and libsasl2-dev)"


class Backend(NamedTuple):
    """A running server. `name`: returns the table on a port of 127.0.0.1, with lines of its file."""

    port: int
    name: Callable[[Path, int, str], str]
    keys: tuple[str, str]


SERVERS: dict[str, Callable[[], Slapd | MariaDb | Postgres | Memcached | PostSrsd]] = {
    "ldap": Slapd,
    "mysql": MariaDb,
    "pgsql": Postgres,
    "memcache": Memcached,
    "tcp": PostSrsd,
}


def answer_socketmap(client: socket.socket) -> None:
    """Answer each request of socketmap from `ROWS`."""
    stream = client.makefile("rb")
    while digits := b"".join(iter(lambda: stream.read(1) or b":", b":")):
        key = stream.read(int(digits)).decode().partition(" ")[2]
        stream.read(1)
        client.sendall(socketmap.netstring(f"OK {ROWS[key]}".encode() if key in ROWS else b"NOTFOUND "))


@contextlib.contextmanager
def backend_of(kind: str) -> Iterator[Backend]:
    """Run a server during the block."""
    if kind == "socketmap":
        scripted = Scripted(answer_socketmap)
        try:
            yield Backend(scripted.port, lambda _, port, extra: f"socketmap:inet:127.0.0.1:{port}:map", (KEY, OTHER))
        finally:
            scripted.close()
        return
    if kind == "ldap":
        pytest.importorskip("ldap", reason=LDAP)
    server = SERVERS[kind]()

    def name(directory: Path, port: int, extra: str) -> str:
        if isinstance(server, PostSrsd):
            return f"tcp:127.0.0.1:{port}"
        file = directory / f"{kind}.cf"
        file.write_text(server.file().replace(f":{server.port}", f":{port}") + extra)
        return f"{kind}:{file}"

    try:
        server.begin()
        yield Backend(server.port, name, SRS_KEYS if kind == "tcp" else (KEY, OTHER))
    finally:
        server.remove()


@pytest.fixture(scope="module", params=[*SERVERS, "socketmap"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    with backend_of(request.param) as found:
        yield found


def a_table(
    backend: Backend, directory: Path, port: int, warned: list[str] | None = None, extra: str = ""
) -> RemoteTable:
    """Return the table on a port. `extra`: lines of its file, if it has one."""
    directory.mkdir(exist_ok=True)
    (directory / "main.cf").write_text("")
    warn = None if warned is None else warned.append
    table = open_table(backend.name(directory, port, extra), Config.load(str(directory)), warn=warn)
    assert isinstance(table, RemoteTable)
    return table


async def values(backend: Backend, directory: Path) -> list[str]:
    """Return the values of the keys, from the server itself."""
    table = a_table(backend, directory, backend.port)
    found = [await table.ask(key) for key in backend.keys]
    await table.close()
    assert None not in found
    assert found[0] != found[1]
    return [value for value in found if value is not None]


async def test_a_server_that_closes_in_the_middle_is_a_temporary_failure(backend: Backend, tmp_path: Path) -> None:
    key, right = backend.keys[0], (await values(backend, tmp_path))[0]
    with Proxy(backend.port) as proxy:
        table = a_table(backend, tmp_path, proxy.port)
        assert await table.ask(key) == right
        await table.close()
        total = proxy.received
        for octets in sorted({*range(0, total, max(1, total // CUTS)), total - 1}):
            warned: list[str] = []
            proxy.cut_after(octets)
            table = a_table(backend, tmp_path, proxy.port, warned)
            with pytest.raises(TableError):
                await table.ask(key)
            await table.close()
            assert len(warned) == 1
            assert PASSWORD not in warned[0]
        proxy.cut_after(None)
        table = a_table(backend, tmp_path, proxy.port)
        assert await table.ask(key) == right
        await table.close()


async def test_a_server_that_closes_between_two_lookups_costs_none(backend: Backend, tmp_path: Path) -> None:
    key, right = backend.keys[0], (await values(backend, tmp_path))[0]
    warned: list[str] = []
    with Proxy(backend.port) as proxy:
        table = a_table(backend, tmp_path, proxy.port, warned)
        for _ in range(3):
            assert await table.ask(key) == right
            proxy.cut()
        await table.close()
    assert warned == []


async def test_a_server_that_is_down_at_the_start_is_asked_again(backend: Backend, tmp_path: Path) -> None:
    key, right = backend.keys[0], (await values(backend, tmp_path))[0]
    warned: list[str] = []
    with Proxy(backend.port) as proxy:
        proxy.refuse()
        table = a_table(backend, tmp_path, proxy.port, warned)
        table.refresh()
        assert f"table {table.name}: " in await table.reach()
        for _ in range(5):
            with pytest.raises(TableError):
                await table.ask(key)
        assert len(warned) == 1
        proxy.accept()
        assert await answered(table, key) == right
        await table.close()


async def test_a_late_answer_is_a_temporary_failure_and_reaches_no_other_lookup(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (key, other), (right, right_other) = backend.keys, await values(backend, tmp_path)
    # The types without a timeout of their own have the pool's.
    assert Pool.__init__.__kwdefaults__ is not None
    monkeypatch.setitem(Pool.__init__.__kwdefaults__, "attempt_max_s", LATE_S)
    with Proxy(backend.port) as proxy:
        extra = f"timeout = {LATE_S:.0f}\n"
        # mysql and pgsql warn that they do not have it.
        warm, fresh = (a_table(backend, tmp_path / name, proxy.port, [], extra) for name in ("warm", "fresh"))
        assert await warm.ask(key) == right
        proxy.hold()
        late = [asyncio.create_task(table.ask(key)) for table in (warm, fresh)]
        direct = a_table(backend, tmp_path, backend.port)
        assert await direct.ask(other) == right_other, "a lookup in another table goes on"
        await direct.close()
        for task in late:
            with pytest.raises(TableError):
                await task
        await fresh.close()
        # A thread of ldap that waits for ever would be one less for each failure.
        await until(lambda: not any(thread.name == fresh.name for thread in threading.enumerate()))
        proxy.release()
        assert await answered(warm, other) == right_other
        assert await answered(warm, key) == right
        await warm.close()


async def test_a_lost_connection_of_pgsql_takes_no_other_along(tmp_path: Path) -> None:
    server, file = Postgres(), tmp_path / "t.cf"
    try:
        server.begin()
        file.write_text(server.file())
        source = PgsqlSource("t", Parameters.open(str(file), NO_CONFIG), print, never)
        connect = source._pool._servers[0].connect
        lost = await connect()
        number = lost._libpq.socket
        server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid();")
        await until(lambda: lost.lost)
        # libpq has closed its socket, and one of the next connections gets that number.
        others = [await connect()]
        while number not in (others[-1]._libpq.socket, others[-1]._events.fileno()):
            assert len(others) < NUMBERS_MAX
            others.append(await connect())
        await lost.close()
        async with asyncio.timeout(30):
            assert len(await others[-1].query(b"SELECT 1")) == 1
        for other in others:
            await other.close()
    finally:
        server.remove()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_connection_of_pgsql_that_is_reset_ends_at_once(tmp_path: Path, loop: str) -> None:
    # uvloop calls a reader of such a socket only once.
    factory = pytest.importorskip(loop).new_event_loop
    reset = threading.Event()

    def serve(client: socket.socket) -> None:
        client.recv(4096)
        client.sendall(TRUSTED)
        client.recv(4096)
        client.sendall(FAREWELL)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        reset.set()

    async def ask(port: int) -> None:
        file = tmp_path / "t.cf"
        uri = f"postgresql://u@127.0.0.1:{port}/x?sslmode=disable&gssencmode=disable"
        file.write_text(f"hosts = {uri}\nquery = SELECT 1\n")
        source = PgsqlSource("t", Parameters.open(str(file), NO_CONFIG), print, never)
        link = await source._pool._servers[0].connect()
        asked = asyncio.ensure_future(link.query(b"SELECT 1"))
        await asyncio.sleep(0)
        assert reset.wait(30), "the loop sees the last words and the reset at the same time"
        async with asyncio.timeout(30):
            with contextlib.suppress(OperationalError):
                await asked
        assert link.lost
        await link.close()

    server = Scripted(serve)
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(ask(server.port))
    finally:
        server.close()


async def test_a_reply_that_a_library_does_not_understand_is_a_temporary_failure(tmp_path: Path) -> None:
    # The greeting of a server whose version is no number: asyncmy raises a ValueError.
    scripted = Scripted(lambda client: client.sendall(b"\x4a\0\0\0\nxyzzy".ljust(78, b"\0")))
    file, warned = tmp_path / "t.cf", list[str]()
    file.write_text(f"hosts = 127.0.0.1:{scripted.port}\ndbname = x\nquery = SELECT 1\n")
    try:
        table = open_table(f"mysql:{file}", NO_CONFIG, warn=warned.append)
        assert isinstance(table, RemoteTable)
        assert "ValueError" in await table.reach()
        with pytest.raises(TableError):
            await table.ask(KEY)
        assert len(warned) == 1
        await table.close()
    finally:
        scripted.close()


async def test_a_value_of_another_encoding_is_a_temporary_failure(tmp_path: Path) -> None:
    server, file = Postgres(), tmp_path / "t.cf"
    try:
        server.begin()
        server.sql("CREATE DATABASE octets TEMPLATE template0 ENCODING SQL_ASCII LOCALE 'C';")
        query = f"SELECT CASE '%s' WHEN '{KEY}' THEN E'm\\xFCller' ELSE 'plain' END"
        file.write_text(server.file(query, "encoding = SQL_ASCII\n").replace("= postgres", "= octets"))
        table = open_table(f"pgsql:{file}", NO_CONFIG)
        assert isinstance(table, RemoteTable)
        with pytest.raises(TableError, match="the value is not UTF-8"):
            await table.ask(KEY)
        assert await table.ask(OTHER) == "plain"
        await table.close()
    finally:
        server.remove()


class Bug:
    """A source whose library raises an error of its own."""

    async def ask(self, key: str) -> str | None:
        """Raise the error."""
        raise UnicodeDecodeError("utf-8", key.encode(), 0, 1, "bad")

    async def reach(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    def prepare(self) -> None:
        """Do nothing."""


async def test_an_error_of_a_library_is_a_temporary_failure_with_a_warning() -> None:
    warned: list[str] = []
    table = RemoteTable("x:y", Bug(), warned.append, Secrets(), owner=None)
    for _ in range(2):
        with pytest.raises(TableError, match="table x:y: UnicodeDecodeError: "):
            await table.ask(KEY)
    assert len(warned) == 1


def never(name: str) -> Table:
    """Open no table."""
    raise AssertionError(name)


async def answered(table: RemoteTable, key: str) -> str | None:
    """Return the value of a key, once the server is tried again."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await table.ask(key)
            except TableError:
                await asyncio.sleep(0.05)
