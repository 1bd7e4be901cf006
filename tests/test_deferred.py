"""Decisions whose lookups wait, and batches of lookups of a core."""

import asyncio
import gc
import inspect

import pytest

from postillion.tables import Maps, TableError, answers, deferred
from postillion.tables.answers import TOGETHER_MAX, Answer, MessageLookups, answer
from postillion.tables.deferred import LOOKUPS_MAX, decide, decided, once
from postillion.tables.remote.secret import Secrets
from postillion.tables.remote.table import RemoteTable
from support.remote_table import Remote


class Answers:
    """A source with fixed answers; `asked`: the keys so far."""

    def __init__(self, values: dict[str, str | TableError]) -> None:
        self.values = values
        self.asked: list[str] = []
        self.together = 0
        self.together_max = 0

    async def ask(self, key: str) -> str | None:
        self.asked.append(key)
        self.together += 1
        self.together_max = max(self.together_max, self.together)
        await asyncio.sleep(0)
        self.together -= 1
        value = self.values.get(key)
        if isinstance(value, TableError):
            raise value
        return value

    async def reach(self) -> None:
        return None

    async def close(self) -> None:
        return None

    def prepare(self) -> None:
        return None


class Stuck(Answers):
    """A source that answers for -1 alone."""

    def __init__(self) -> None:
        super().__init__({})

    async def ask(self, key: str) -> str | None:
        return "here" if key == "-1" else await asyncio.get_running_loop().create_future()


def table(source: Answers, name: str = "pgsql:x.cf", warned: list[str] | None = None) -> RemoteTable:
    return RemoteTable(name, source, ([] if warned is None else warned).append, Secrets(), owner=0)


async def test_each_lookup_is_made_once_and_each_line_is_logged_once() -> None:
    first, second = Answers({"b": "B"}), Answers({"a": "A"})
    maps = Maps([table(first), table(second, "pgsql:y.cf")])
    lines: list[str] = []
    warn = once(lines.append)

    def function() -> list[str | None]:
        warn("begins")
        found = [maps.lookup("a"), maps.lookup("b"), maps.lookup("c")]
        warn("ends")
        return found

    found = decide(function)
    assert inspect.isawaitable(found)
    assert lines == []
    assert await found == ["A", "B", None]
    assert first.asked == ["a", "b", "c"]
    assert second.asked == ["a", "c"]
    assert lines == ["begins", "ends"]


def test_a_decision_without_remote_tables_needs_no_event_loop() -> None:
    lines: list[str] = []
    warn = once(lines.append)
    assert decide(lambda: warn("x") or 7) == 7
    assert lines == ["x"]


async def test_a_failed_lookup_fails_in_each_run_with_the_same_error() -> None:
    source = Answers({"a": TableError("down"), "b": "B"})
    maps = Maps([table(source)])

    def function() -> str:
        try:
            maps.lookup("a")
        except TableError as problem:
            return f"{problem}; {maps.lookup('b')}"
        return "not reached"

    assert await decided(function) == "table pgsql:x.cf: down; B"
    assert source.asked == ["a", "b"]


async def test_an_exception_of_the_function_reaches_the_caller() -> None:
    maps = Maps([table(Answers({}))])

    def function() -> None:
        maps.lookup("a")
        raise ValueError("own")

    with pytest.raises(ValueError, match="own"):
        await decided(function)


async def test_a_decision_inside_another_is_a_part_of_it() -> None:
    source = Answers({"a": "A"})
    maps = Maps([table(source)])
    assert await decided(lambda: decide(lambda: maps.lookup("a"))) == "A"
    assert source.asked == ["a"]


def test_a_lookup_outside_of_a_decision_fails_for_now() -> None:
    with pytest.raises(TableError, match="cannot be asked here"):
        table(Answers({"a": "A"})).lookup("a")


async def test_an_endless_decision_ends() -> None:
    source = Answers({})
    maps = Maps([table(source)])

    def function() -> int:
        for n in range(10 * LOOKUPS_MAX):
            maps.lookup(str(n))
        return -1

    with pytest.raises(TableError, match=f"more than {LOOKUPS_MAX} lookups"):
        await decided(function)
    assert len(source.asked) == LOOKUPS_MAX


async def test_a_slow_decision_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred, "DECISION_MAX_S", 0.0)
    maps = Maps([table(Answers({}))])
    with pytest.raises(TableError, match="seconds"):
        await decided(lambda: [maps.lookup("a"), maps.lookup("b")])


async def test_a_batch_is_answered_in_its_order_and_with_a_limit() -> None:
    source = Answers({str(n): f"v{n}" for n in range(0, 200, 2)} | {"7": TableError("down")})
    found = await answer(
        [table(Answers({}), "a:b"), table(source)], [(n % 2, str(n // 2).encode()) for n in range(400)]
    )
    assert found[1] == ("found", b"v0")
    assert found[0] == ("not found", None)
    assert found[3] == ("not found", None)
    assert found[15] == ("failed", "table pgsql:x.cf: down")
    assert source.together_max <= TOGETHER_MAX
    assert await answer([table(source)], [(0, b"2")]) == [("found", b"v2")]
    assert await answer([table(source)], []) == []


async def test_lookups_of_a_batch_fail_together_when_the_messages_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MESSAGE_MAX_S", 0.2)
    remote = table(Stuck())
    number = answers.number(remote)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    rounds = MessageLookups()
    found = await rounds.answers([(number, str(n).encode()) for n in range(-1, 3 * TOGETHER_MAX)])
    assert found[0] == ("found", b"here"), "an answer that came in time counts"
    assert found[1:] == [answers.LATE] * (3 * TOGETHER_MAX)
    assert await rounds.answers([(number, b"-1")]) == [answers.LATE]
    assert loop.time() - begin < 5.0


@pytest.mark.parametrize("number_of_lookups", [0, 1, TOGETHER_MAX, TOGETHER_MAX + 1])
async def test_a_batch_that_has_begun_ends_once(number_of_lookups: int) -> None:
    source = Answers({str(n): f"v{n}" for n in range(number_of_lookups)})
    number, told = answers.number(table(source)), asyncio.Queue[list[Answer] | Exception]()
    MessageLookups().begin([(number, str(n).encode()) for n in range(number_of_lookups)], told.put_nowait)
    assert told.empty(), "not during the call"
    async with asyncio.timeout(60):
        assert await told.get() == [("found", f"v{n}".encode()) for n in range(number_of_lookups)]
    assert told.empty()


@pytest.mark.parametrize("number_of_lookups", [1, TOGETHER_MAX, TOGETHER_MAX + 1])
async def test_a_bug_in_a_table_ends_a_batch_that_has_begun(number_of_lookups: int) -> None:
    number, told = answers.number(Wrong()), asyncio.Queue[list[Answer] | Exception]()
    MessageLookups().begin([(number, b"x")] * number_of_lookups, told.put_nowait)
    async with asyncio.timeout(60):
        assert str(await told.get()) == "a bug"
    await asyncio.sleep(0)
    assert told.empty()


@pytest.mark.filterwarnings("error")
async def test_a_batch_that_is_cancelled_at_once_tells_nothing() -> None:
    number, told = answers.number(table(Answers({}))), asyncio.Queue[list[Answer] | Exception]()
    for number_of_lookups in (1, TOGETHER_MAX + 1):
        MessageLookups().begin([(number, b"x")] * number_of_lookups, told.put_nowait).cancel()
    gc.collect()
    for _ in range(10):
        await asyncio.sleep(0)
    gc.collect()
    assert told.empty()


class Wrong(Remote):
    """A table with a bug."""

    async def ask(self, key: str) -> str | None:
        raise ValueError("a bug")


async def test_keys_that_no_remote_table_has_are_not_sent() -> None:
    source = Answers({})
    for key in (b"", b"a\0b", b"\xff"):
        assert await answer([table(source)], [(0, key)]) == [("not found", None)]
    assert source.asked == []


async def test_warnings_about_a_table_are_rare_and_hide_its_password() -> None:
    warned: list[str] = []
    now = [0.0]
    secrets = Secrets()
    secrets.add("s3cret/x")
    remote = RemoteTable(
        "pgsql:x.cf",
        Answers({"a": TableError("server said s3cret/x s3cret%2Fx")}),
        warned.append,
        secrets,
        owner=0,
        clock=lambda: now[0],
    )
    for at in (0.0, 1.0, 59.0, 61.0):
        now[0] = at
        with pytest.raises(TableError) as caught:
            await remote.ask("a")
        assert "s3cret" not in str(caught.value)
    assert warned == [
        "table pgsql:x.cf: server said [password] [password]",
        "table pgsql:x.cf: server said [password] [password] (2 more failed lookups since the last such warning)",
    ]


async def test_a_lookup_without_an_answer_times_out() -> None:
    class Silent(Answers):
        async def ask(self, key: str) -> str | None:
            await asyncio.Event().wait()
            return None

    remote = RemoteTable("tcp:x:1", Silent({}), print, Secrets(), owner=0, lookup_max_s=0.01)
    with pytest.raises(TableError, match=r"tcp:x:1: no answer within 0\.01 seconds"):
        await remote.ask("a")
    await remote.close()
