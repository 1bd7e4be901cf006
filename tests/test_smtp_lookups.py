"""The agent smtp with a remote table of smtp_header_checks and smtp_body_checks: a message waits, and others go on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from postillion.delivery.smtp import agent
from postillion.tables import TableError, answers
from support.agents import WAIT_S, Result, Script, server
from support.mta import until
from support.remote_table import Remote, opened
from test_smtp_agent import mail, smtp

CHECKS = "smtp_header_checks = remote:test\nsmtp_body_checks = remote:test\n"
FAILED = "local data error while talking to 127.0.0.1[127.0.0.1]"


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Remote:
    """Return the table that main.cf calls `remote:test`."""
    return opened(monkeypatch)


def nothing(key: str) -> str | None:
    """Return None: the table has no line."""
    return None


async def test_message_waits_for_its_checks_and_another_one_goes_on(tmp_path: Path, remote: Remote) -> None:
    async with server(Script()) as slow, server(Script()) as quick, smtp(tmp_path, CHECKS) as (hub, daemon):
        first = mail(content=b"Subject: one\r\n\r\nsecret\r\nnote\r\n")
        (waiting,) = hub.send(hub.job(f"[127.0.0.1]:{slow.port}", first))
        await until(lambda: len(remote.open) == 3)
        held, remote.open = remote.open, {}
        (other,) = hub.send(hub.job(f"[127.0.0.1]:{quick.port}", mail(content=b"Subject: two\r\n\r\nbody\r\n")))
        assert await remote.answer(nothing) == ["Subject: two", "body"]
        assert (await asyncio.wait_for(other, WAIT_S)).only.outcome == "sent"
        assert (slow.commands[-1], slow.received, waiting.done()) == ("DATA", [], False)
        # The last answer comes first.
        for key, lookup in reversed(held.items()):
            lookup.set_result({"secret": "IGNORE", "note": "PREPEND .before"}.get(key))
        assert (await asyncio.wait_for(waiting, WAIT_S)).only.outcome == "sent"
        assert slow.received == [b"Subject: one\r\n\r\n..before\r\nnote\r\n.\r\n"]
        assert any(line.endswith(": prepend: body note: .before") for line in daemon.logged())


async def test_a_bug_in_a_table_defers_the_message(tmp_path: Path, remote: Remote) -> None:
    async with server(Script()) as script, smtp(tmp_path, CHECKS) as (hub, _):
        (waiting,) = hub.send(hub.job(f"[127.0.0.1]:{script.port}", mail(content=b"Subject: one\r\n\r\nbody\r\n")))
        await remote.answer(ValueError("a bug"))
        assert (await asyncio.wait_for(waiting, WAIT_S)).only.outcome == "deferred"
        assert script.received == []


async def test_connection_is_used_again_after_a_message_that_waited(tmp_path: Path, remote: Remote) -> None:
    more = CHECKS + "smtp_connection_cache_destinations = [127.0.0.1]:{port}\n"
    async with server(Script()) as script, smtp(tmp_path, more.format(port=script.port)) as (hub, _):
        for number in range(3):
            content = b"Subject: %d\r\n\r\nbody\r\n" % number
            (waiting,) = hub.send(hub.job(f"[127.0.0.1]:{script.port}", mail(content=content)))
            assert await remote.answer(nothing) == [f"Subject: {number}", "body"]
            assert (await asyncio.wait_for(waiting, WAIT_S)).only.outcome == "sent"
        assert (script.connections, len(script.received)) == (1, 3)


async def test_each_piece_of_a_message_has_the_whole_time(
    tmp_path: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[answers.MessageLookups] = []

    class Counted(answers.MessageLookups):
        def __init__(self) -> None:
            super().__init__()
            pieces.append(self)

    monkeypatch.setattr(agent, "MessageLookups", Counted)
    content = b"Subject: x\r\n\r\n" + b"".join(b"a line of twenty %03d\r\n" % line for line in range(999)) * 2
    async with server(Script()) as script, smtp(tmp_path, CHECKS) as (hub, _):
        (waiting,) = hub.send(hub.job(f"[127.0.0.1]:{script.port}", mail(content=content)))
        keys: list[str] = []
        while not waiting.done():
            if remote.open:
                keys += await remote.answer(nothing)
            await asyncio.sleep(0)
        assert waiting.result().only.outcome == "sent"
        assert script.received == [content + b".\r\n"]
        assert len(set(keys)) == 1000
        assert len(pieces) == 3


async def deliver(directory: Path, script: Script) -> tuple[Result, list[str]]:
    """Deliver a message whose lookups the test answers; return its result and the log."""
    async with server(script), smtp(directory, CHECKS) as (hub, daemon):
        result = await hub.deliver(f"[127.0.0.1]:{script.port}", mail(content=b"Subject: x\r\n\r\nbody\r\n"))
        return result, daemon.logged()


async def test_failed_lookup_defers_the_message(tmp_path: Path, remote: Remote) -> None:
    script = Script()
    delivery = asyncio.create_task(deliver(tmp_path, script))
    await remote.answer(TableError("remote:test: the server is down"))
    result, log = await delivery
    assert (result.only.outcome, result.only.dsn, result.only.text) == ("deferred", "4.3.0", FAILED)
    assert (script.commands[-1], script.received) == ("DATA", [])
    assert any("smtp header checks lookup error: remote:test: the server is down" in line for line in log)


async def test_message_has_a_longest_time_for_its_checks(
    tmp_path: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MESSAGE_MAX_S", 0.0)
    script = Script()
    result, log = await deliver(tmp_path, script)
    assert (result.only.dsn, result.only.text, script.received) == ("4.3.0", FAILED, [])
    assert any(str(answers.LATE[1]) in line for line in log)


async def test_server_that_leaves_while_a_message_waits_defers_it(tmp_path: Path, remote: Remote) -> None:
    async def leave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"354 go\r\n")
        await until(lambda: len(remote.open) == 2)
        raise ConnectionResetError

    content = b"Subject: x\r\n\r\nbody\r\n"
    async with server(Script({"DATA": [leave, "354 go"]})) as script, smtp(tmp_path, CHECKS) as (hub, _):
        result = await hub.deliver(f"[127.0.0.1]:{script.port}", mail(content=content))
        text = "lost connection with 127.0.0.1[127.0.0.1] while sending message body"
        assert (result.only.dsn, result.only.text) == ("4.4.2", text)
        # The lookups end with the attempt, and the next one asks anew.
        await until(lambda: all(lookup.cancelled() for lookup in remote.open.values()))
        remote.open.clear()
        (again,) = hub.send(hub.job(f"[127.0.0.1]:{script.port}", mail(content=content)))
        await remote.answer(nothing)
        assert (await asyncio.wait_for(again, WAIT_S)).only.outcome == "sent"
        assert script.received == [content + b".\r\n"]
