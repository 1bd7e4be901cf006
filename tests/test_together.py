"""Lookups that share a connection to PostgreSQL: each has its own answer, whatever the others have."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest

from postillion.config import Config
from postillion.tables import answers, open_table
from postillion.tables.answers import Answer, Batch, MessageLookups
from postillion.tables.remote import RemoteTable, table, together
from postillion.tables.remote.pgsql import PgsqlSource
from postillion.tables.remote.pgsql_link import PgsqlLink
from postillion.tables.remote.pool import LINKS_MAX, Pool, Server
from postillion.tables.remote.together import EXCHANGE_LOOKUPS_MAX
from support.mta import until
from support.table_servers import PASSWORD, ROWS, Postgres

NO_CONFIG = Config("", {})
KEYS = (*ROWS, "absent@example.org", "x' or '1'='1", "x'; drop table aliases; --", "\\' or 1=1 --", "$$", 'a"b')
"""Keys that the table has, one that it does not have, and some that would be SQL without quotes."""
PLAIN = "SELECT v FROM aliases WHERE k='%s'"
SLOW = "slow@example.org"
WAITS = f"SELECT '%s' WHERE CASE '%s' WHEN '{SLOW}' THEN pg_advisory_xact_lock(7) IS NOT NULL ELSE true END"
"""A query that waits, for one key, while the test has the lock."""
Done = Callable[[list[Any] | None], None]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """Return a running server."""
    server = Postgres()
    try:
        server.begin()
        yield server
    finally:
        server.remove()


@contextlib.contextmanager
def locked(server: Postgres) -> Iterator[psycopg.Connection]:
    """Have the lock of `WAITS` during the block."""
    with psycopg.connect(server.uri, password=PASSWORD, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(7)")
        yield connection


class Counted:
    """A table, and the number of lookups of each of its exchanges. No machine is too slow for them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, file: Path, text: str, limit_s: float = 60.0) -> None:
        """`limit_s`: longest time of an exchange."""
        file.write_text(text)
        self.exchanges: list[int] = []
        self.alone: list[str] = []
        self.warned: list[str] = []
        exchange, ask = PgsqlLink.exchange, PgsqlSource.ask

        def counted(link: PgsqlLink, queries: Sequence[bytes], done: Done) -> bool:
            self.exchanges.append(len(queries))
            return exchange(link, queries, done)

        async def asked(source: PgsqlSource, key: str) -> str | None:
            self.alone.append(key)
            return await ask(source, key)

        monkeypatch.setattr(PgsqlLink, "exchange", counted)
        monkeypatch.setattr(PgsqlSource, "ask", asked)
        monkeypatch.setattr(together, "SLOW_S", 60.0)
        monkeypatch.setattr(together, "EXCHANGE_MAX_S", limit_s)
        opened = open_table(f"pgsql:{file}", NO_CONFIG, warn=self.warned.append)
        assert isinstance(opened, RemoteTable)
        self.table = opened

    async def connect(self) -> None:
        """Make the first connection."""
        assert await self.table.reach() == ""

    def begin(self, keys: Sequence[str]) -> tuple[Batch, asyncio.Future[list[Answer]]]:
        """Begin lookups together; return the batch, and its answers."""
        told: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        number = answers.number(self.table)

        def done(found: list[Answer] | Exception) -> None:
            assert not isinstance(found, Exception)
            told.set_result(found)

        batch = MessageLookups().begin([(number, key.encode()) for key in keys], done)
        assert not told.done(), "answers come later, never during the call"
        return batch, told

    async def answers(self, keys: Sequence[str]) -> list[Answer]:
        """Return the answers to lookups that begin together."""
        async with asyncio.timeout(60):
            return await self.begin(keys)[1]


class Opened(Protocol):
    """Open the table with this query."""

    def __call__(self, query: str, more: str = "", *, limit_s: float = 60.0) -> Counted: ...


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, postgres: Postgres) -> Opened:
    """Return a way to open a table of the running server. The test closes it."""

    def opened(query: str, more: str = "", *, limit_s: float = 60.0) -> Counted:
        return Counted(monkeypatch, tmp_path / "t.cf", postgres.file(query, more), limit_s)

    return opened


async def test_lookups_that_begin_together_have_the_answers_of_single_ones(opened: Opened) -> None:
    counted = opened(PLAIN)
    # Without a connection, each lookup makes its own.
    first = await counted.answers(KEYS)
    assert sorted(counted.alone) == sorted(KEYS)
    counted.alone.clear()
    assert await counted.answers(KEYS) == first
    assert counted.alone == []
    assert counted.exchanges == [EXCHANGE_LOOKUPS_MAX, len(KEYS) - EXCHANGE_LOOKUPS_MAX]
    expected: list[Answer] = [("found", ROWS[key].encode()) if ROWS.get(key) else ("not found", None) for key in KEYS]
    assert first == expected
    await counted.table.close()


async def test_lookups_of_different_messages_share_a_connection(opened: Opened) -> None:
    counted = opened(PLAIN + ";")
    await counted.connect()
    begun = [counted.begin([key])[1] for key in ("plain", "absent", "alice@example.org")]
    async with asyncio.timeout(60):
        found = await asyncio.gather(*begun)
    assert found == [[("found", b"plain-value")], [("not found", None)], [("found", b"alice")]]
    assert counted.exchanges == [3]
    await counted.table.close()


async def test_a_query_that_fails_takes_no_other_lookup_along(opened: Opened) -> None:
    query = "SELECT 'got %s' WHERE 1 / (CASE '%s' WHEN 'bad@example.org' THEN 0 ELSE 1 END) = 1"
    counted = opened(query)
    await counted.connect()
    keys = ["a@example.org", "bad@example.org", "b@example.org"]
    found = await counted.answers(keys)
    assert found[0] == ("found", b"got a@example.org")
    assert found[1][0] == "failed"
    assert "division by zero" in str(found[1][1])
    assert found[2] == ("found", b"got b@example.org")
    assert counted.exchanges == [3]
    assert counted.alone == keys, "each one again: the server has undone those before the failed one"
    assert len(counted.warned) == 1
    # The connection is of use afterwards.
    assert await counted.answers(keys[:1]) == found[:1]
    assert counted.exchanges == [3, 1]
    await counted.table.close()


@pytest.mark.parametrize("fails", ["at once", "at the end of the transaction"])
async def test_writes_of_a_query_stay_when_another_one_fails(opened: Opened, postgres: Postgres, fails: str) -> None:
    deferred = "" if fails == "at once" else " DEFERRABLE INITIALLY DEFERRED"
    postgres.sql(f"DROP TABLE IF EXISTS seen; CREATE TABLE seen (k TEXT, UNIQUE (k){deferred});")
    counted = opened("INSERT INTO seen VALUES ('%s') RETURNING k")
    await counted.connect()
    found = await counted.answers(["a", "b", "a", "c"])
    assert counted.exchanges == [4]
    assert sorted(kind for kind, _ in found) == ["failed", "found", "found", "found"]
    assert (found[1], found[3]) == (("found", b"b"), ("found", b"c"))
    with psycopg.connect(postgres.uri, password=PASSWORD) as connection:
        assert connection.execute("SELECT k FROM seen ORDER BY k").fetchall() == [("a",), ("b",), ("c",)]
    await counted.table.close()


@pytest.mark.parametrize("direction", ["TO STDOUT", "FROM STDIN"])
async def test_copy_is_a_failure(opened: Opened, direction: str) -> None:
    what = "(SELECT '%s')" if direction == "TO STDOUT" else "aliases"
    query = f"COPY {what} {direction} /* %s */"
    counted = opened(query)
    await counted.connect()
    found = await counted.answers(["a", "b"])
    assert counted.exchanges == [2]
    assert [kind for kind, _ in found] == ["failed", "failed"]
    assert "the query is COPY" in str(found[0][1])
    await counted.table.close()


async def test_a_query_that_cannot_be_made_fails_by_itself(opened: Opened) -> None:
    counted = opened("SELECT '€%s'", "encoding = LATIN1\n")
    for _ in range(2 * LINKS_MAX):
        await counted.connect()
        assert [kind for kind, _ in await counted.answers(["a", "b"])] == ["failed", "failed"]
    assert "can't encode" in counted.warned[0]
    async with asyncio.timeout(60):
        await counted.table.close()


async def test_an_error_behind_one_lookup_leaves_the_others_their_answers(opened: Opened) -> None:
    def fail(_: list[Answer] | Exception) -> None:
        raise ValueError("a bug")

    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    counted = opened(PLAIN)
    await counted.connect()
    MessageLookups().begin([(answers.number(counted.table), b"plain")], fail)
    assert await counted.answers(["plain"]) == [("found", b"plain-value")]
    assert counted.exchanges == [2]
    assert [str(error["exception"]) for error in errors] == ["a bug"]
    await counted.table.close()


async def test_a_lookup_that_is_made_again_counts_once(monkeypatch: pytest.MonkeyPatch, opened: Opened) -> None:
    counted = opened(PLAIN)
    monkeypatch.setattr(table, "WAITING_MAX", len(KEYS))
    # Without a connection, all are made again.
    assert all(kind != "failed" for kind, _ in await counted.answers(KEYS))
    assert sorted(counted.alone) == sorted(KEYS)
    await counted.table.close()


async def test_a_slow_lookup_delays_the_others_for_a_limited_time(opened: Opened, postgres: Postgres) -> None:
    counted = opened(WAITS, limit_s=0.2)
    await counted.connect()
    with locked(postgres):
        _, slow = counted.begin([SLOW])
        _, fast = counted.begin(["a@example.org", "b@example.org"])
        async with asyncio.timeout(60):
            assert await fast == [("found", b"a@example.org"), ("found", b"b@example.org")]
        assert not slow.done()
    async with asyncio.timeout(60):
        assert await slow == [("found", SLOW.encode())]
    assert counted.exchanges == [3]
    assert counted.alone == [SLOW, "a@example.org", "b@example.org"]
    assert counted.warned == []
    await counted.table.close()


async def test_a_slow_table_gets_each_lookup_by_itself(monkeypatch: pytest.MonkeyPatch, opened: Opened) -> None:
    counted = opened(PLAIN)
    await counted.connect()
    monkeypatch.setattr(together, "SLOW_S", 0.0)
    await counted.answers(["plain"])
    assert (counted.exchanges, counted.alone) == ([1], [])
    await counted.answers(["plain"])
    assert (counted.exchanges, counted.alone) == ([1], ["plain"])
    # An answer in time ends that.
    monkeypatch.setattr(together, "SLOW_S", 60.0)
    await counted.answers(["plain"])
    assert (counted.exchanges, counted.alone) == ([1], ["plain", "plain"])
    await counted.answers(["plain"])
    assert (counted.exchanges, counted.alone) == ([1, 1], ["plain", "plain"])
    await counted.table.close()


async def test_a_connection_that_ends_under_way_loses_no_lookup(opened: Opened, postgres: Postgres) -> None:
    counted = opened(WAITS)
    await counted.connect()
    with locked(postgres) as other:
        _, told = counted.begin([SLOW, "a@example.org"])
        await until(lambda: counted.exchanges)
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        await until(lambda: counted.alone)
    async with asyncio.timeout(60):
        assert await told == [("found", SLOW.encode()), ("found", b"a@example.org")]
    assert counted.warned == []
    await counted.table.close()


async def test_a_client_that_leaves_leaves_the_connection_to_others(opened: Opened) -> None:
    counted = opened(PLAIN)
    await counted.connect()
    batch, told = counted.begin(["plain"])
    _, other = counted.begin(["alice@example.org"])
    batch.cancel()
    async with asyncio.timeout(60):
        assert await other == [("found", b"alice")]
    assert not told.done()
    assert await counted.answers(["absent", "plain"]) == [("not found", None), ("found", b"plain-value")]
    assert (counted.exchanges, counted.alone) == ([2, 2], [])
    await counted.table.close()


async def test_a_table_closes_after_its_lookups(opened: Opened) -> None:
    counted = opened(PLAIN)
    await counted.connect()
    _, told = counted.begin(["plain"])
    async with asyncio.timeout(60):
        await counted.table.close()
    assert told.result() == [("found", b"plain-value")]


async def test_a_query_of_several_commands_is_not_shared(opened: Opened) -> None:
    counted = opened("SELECT 'x'; SELECT '%s'")
    await counted.connect()
    assert await counted.answers(["a", "b"]) == [("found", b"x"), ("found", b"x")]
    assert (counted.exchanges, counted.alone) == ([], ["a", "b"])
    await counted.table.close()


async def test_connections_that_are_lent_count() -> None:
    made: list[Silent] = []

    async def connect() -> Silent:
        made.append(Silent())
        return made[-1]

    async def use(link: Silent) -> Silent:
        return link

    pool = Pool([Server("x", connect)], links_max=1)
    assert pool.borrow() is None, "none is idle"
    await pool.run(use)
    loan = pool.borrow()
    assert loan is not None
    assert pool.borrow() is None
    waiting = asyncio.ensure_future(pool.run(use))
    await asyncio.sleep(0)
    assert not waiting.done()
    pool.give_back(loan, usable=True)
    assert await waiting is made[0]
    loan = pool.borrow()
    assert loan is not None
    pool.give_back(loan, usable=False)
    await until(lambda: made[0].closed)
    assert await pool.run(use) is made[1]


class Silent:
    """A connection."""

    closed = False

    async def close(self) -> None:
        """Close it."""
        self.closed = True
