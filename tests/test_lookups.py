"""Messages that wait for a remote table: under smtpd, pickup and the agents' way into the queue."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from postillion._core.cleanup import CleanupSettings, Intake, Options
from postillion._core.log import Log
from postillion._core.pickup import Maildrop
from postillion._core.queue import Journal
from postillion.errors import MessageRefused
from postillion.pickup.maildrop import Maildrop as Directory
from postillion.pickup.maildrop import Submitted
from postillion.pickup.service import Pickup, Site
from postillion.tables import TableError, answers
from postillion.tables.checks import open_checks
from support.dialogue import Server, site
from support.memory_config import cleanup_settings, config
from support.mta import until
from support.queue_files import read_queue
from support.remote_table import Remote, opened
from test_pickup import record_file

ENVELOPE = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<user@example.org>\r\nDATA\r\n"
EHLO = b"EHLO client.example\r\n"
CONTENT = b"Subject: x\r\n\r\nbody\r\n.\r\n"
FAILED = "451 4.3.0 Error: queue file write error\r\n"


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Remote:
    """Return the table that main.cf calls `remote:test`."""
    return opened(monkeypatch)


def alias(key: str) -> str | None:
    """Return the value of the one alias."""
    return "other@next.example" if key == "user@example.org" else None


def queued(directory: Path) -> int:
    """Return the number of messages in the queue."""
    return len(list(read_queue(str(directory / "queue"))))


async def test_smtpd_answers_when_the_remote_table_has_answered(tmp_path: Path, remote: Remote) -> None:
    server = Server(site(tmp_path, ["virtual_alias_maps = remote:test"]))
    client = server.connect()
    client.send(EHLO)
    client.send(ENVELOPE)
    client.written.clear()
    client.send(CONTENT)
    client.send(b"NOOP\r\n")
    assert client.written == b"", "input behind the message waits"
    assert await remote.answer(alias) == ["user@example.org"]
    await remote.answer(alias, rounds=2)
    await until(lambda: client.core is not None and client.core.committing)
    server.finish_commits(client)
    client.receive()
    assert client.written.startswith(b"250 2.0.0 Ok: queued as ")
    assert client.written.endswith(b"\r\n250 2.0.0 Ok\r\n")
    assert queued(tmp_path) == 1
    client.leave()
    server.journal.close()


async def test_a_recipient_and_its_message_share_the_lookups(tmp_path: Path, remote: Remote) -> None:
    options = ["relay_recipient_maps = inline:{ first@relay.example=x }", "virtual_alias_maps = remote:test"]
    server = Server(site(tmp_path, options))
    client = server.connect()
    client.send(EHLO)
    client.send(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<first@relay.example>\r\n")
    client.written.clear()

    def of_relay(key: str) -> str | None:
        return "other@next.example" if key == "user@relay.example" else None

    async def heard() -> str:
        await until(lambda: client.receive() or client.written)
        words = client.written.decode()
        client.written.clear()
        return words

    client.send(b"RCPT TO:<unknown@relay.example>\r\n")
    assert await remote.answer(of_relay, rounds=2) == ["unknown@relay.example", "@relay.example"]
    assert (await heard()).startswith("550 5.1.1 <unknown@relay.example>: Recipient address rejected: User unknown in")
    assert "first@relay.example" in remote.decisions
    assert "unknown@relay.example" not in remote.decisions, "nobody asks again"
    client.send(b"RCPT TO:<user@relay.example>\r\nRCPT TO:<User@relay.example>\r\n")
    assert await remote.answer(of_relay) == ["user@relay.example"]
    assert await heard() == "250 2.1.5 Ok\r\n" * 2
    client.send(b"DATA\r\n")
    client.written.clear()
    client.send(CONTENT)
    asked = await remote.answer(of_relay, rounds=2)
    assert asked == ["first@relay.example", "other@next.example", "@relay.example", "@next.example"]
    await until(lambda: client.core is not None and client.core.committing)
    server.finish_commits(client)
    assert (await heard()).startswith("250 2.0.0 Ok: queued as ")
    client.leave()
    server.journal.close()


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("virtual_alias_maps", "virtual_alias_maps map lookup problem for user@example.org"),
        ("header_checks", "header_checks map lookup problem -- message not accepted, try again later"),
    ],
)
async def test_smtpd_refuses_for_now_when_the_remote_table_fails(
    tmp_path: Path, remote: Remote, parameter: str, said: str
) -> None:
    server = Server(site(tmp_path, [f"{parameter} = remote:test"]))
    client = server.connect()
    client.send(EHLO)
    client.send(ENVELOPE)
    client.written.clear()
    client.send(CONTENT)
    await remote.answer(TableError("remote:test: the server is down"))
    await until(lambda: client.receive() or client.written)
    assert client.written.decode() == FAILED
    assert queued(tmp_path) == 0
    client.leave()
    log = "\n".join(server.log.take_lines())
    assert "remote:test: the server is down" in log
    assert said in log
    server.journal.close()


@pytest.mark.parametrize("parameter", ["virtual_alias_maps", "header_checks"])
async def test_a_bug_in_a_table_closes_the_connection(tmp_path: Path, remote: Remote, parameter: str) -> None:
    server = Server(site(tmp_path, [f"{parameter} = remote:test"]))
    client = server.connect()
    client.send(EHLO)
    client.send(ENVELOPE)
    client.send(CONTENT)
    await remote.answer(ValueError("a bug"))
    await until(lambda: client.receive() and client.closed)
    assert "ValueError: a bug" in "\n".join(server.log.take_lines())
    assert queued(tmp_path) == 0
    server.journal.close()


async def test_client_that_leaves_during_a_lookup_leaves_no_message(tmp_path: Path, remote: Remote) -> None:
    server = Server(site(tmp_path, ["virtual_alias_maps = remote:test"]))
    client = server.connect()
    client.send(EHLO)
    client.send(ENVELOPE)
    client.send(CONTENT)
    await until(lambda: remote.open)
    waiting = list(remote.open.values())
    assert client.connection is not None
    client.connection.abort()
    await until(lambda: all(lookup.cancelled() for lookup in waiting))
    assert queued(tmp_path) == 0
    server.journal.close()


async def test_message_has_a_longest_time_for_its_lookups(
    tmp_path: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MESSAGE_MAX_S", 0.0)
    server = Server(site(tmp_path, ["virtual_alias_maps = remote:test"]))
    client = server.connect()
    client.send(EHLO)
    client.send(ENVELOPE)
    client.written.clear()
    client.send(CONTENT)
    await until(lambda: client.receive() or client.written)
    assert client.written.decode() == FAILED
    client.leave()
    server.journal.close()


def warns(key: str) -> str | None:
    """Return the action for a line."""
    return f"WARN {key[:9]}" if "note" in key else None


async def test_smtpd_reads_on_when_the_tables_of_checks_have_answered(tmp_path: Path, remote: Remote) -> None:
    server = Server(site(tmp_path, ["header_checks = remote:test", "body_checks = remote:test"]))
    client = server.connect()
    client.send(EHLO)
    client.send(ENVELOPE)
    client.written.clear()
    client.send(b"Subject: note\r\nTo: x\r\n")
    client.send(b"\r\nbody note\r\n")
    await until(lambda: remote.open)
    # Another client does not wait.
    other = server.connect()
    other.send(EHLO)
    assert b"\r\n250 " in other.written
    keys = await remote.answer(warns)
    assert keys[0].startswith("Received: from ")
    client.send(b".\r\n")
    while not (client.core is not None and client.core.committing):
        client.receive()
        if remote.open:
            keys += await remote.answer(warns)
        await asyncio.sleep(0)
    assert keys[1:] == ["Subject: note", "To: x", "body note"]
    server.finish_commits(client)
    client.receive()
    assert client.written.startswith(b"250 2.0.0 Ok: queued as ")
    assert queued(tmp_path) == 1
    client.leave()
    other.leave()
    log = "\n".join(server.log.take_lines())
    assert ": warning: header Subject: note from " in log
    assert ": warning: body body note from " in log
    server.journal.close()


async def test_pickup_waits_for_the_tables_of_checks(tmp_path: Path, remote: Remote) -> None:
    values = config(header_checks="remote:test")
    harness = Harness(tmp_path, CleanupSettings(values, 0, "UTC", open_checks(values)))
    harness.drop()
    scan = asyncio.create_task(harness.pickup.scan())
    await remote.answer(TableError("remote:test: the server is down"))
    await scan
    assert (harness.left(), queued(tmp_path), harness.pickup.in_flight) == (["one"], 0, 0)
    scan = asyncio.create_task(harness.pickup.scan())
    keys: list[str] = []
    while not scan.done():
        if remote.open:
            keys += await remote.answer(warns)
        await asyncio.sleep(0)
    assert any(key.startswith("Received: by ") for key in keys)
    for ticket, error in harness.journal.wait(20.0):
        harness.pickup.committed(ticket, error)
    assert (harness.left(), queued(tmp_path)) == ([], 1)
    harness.journal.close()


class Harness:
    """pickup, and the agents' way into the queue, without their processes."""

    def __init__(self, directory: Path, settings: CleanupSettings) -> None:
        for name in ("active", "corrupt", "deferred", "incoming", "maildrop", "private", "public"):
            (directory / "queue" / name).mkdir(parents=True)
        self.queue = directory / "queue"
        self.settings = settings
        self.log = Log("mx", "postfix", "pickup", 7, 0, "memory:")
        self.journal = Journal(str(self.queue))
        self.directory = Directory(1_000_000, str(self.queue / "maildrop"), str(self.queue / "corrupt"))
        self.pickup = Pickup(
            Site("mx.example.org", True), self.directory, settings, self.journal, self.log, self._report
        )

    def _report(self, file: Submitted, envelope: Maildrop, queue_id: str, refusal: MessageRefused) -> bytes | None:
        raise AssertionError("a failed lookup is not permanent")

    def drop(self) -> None:
        """Leave a message for user@example.org in maildrop/."""
        path = self.queue / "maildrop" / "one"
        path.write_bytes(record_file(recipients=["user@example.org"]))
        path.chmod(0o744)

    def left(self) -> list[str]:
        """Return the names in maildrop/."""
        return os.listdir(self.queue / "maildrop")


async def test_pickup_waits_and_a_failed_lookup_leaves_the_file(tmp_path: Path, remote: Remote) -> None:
    harness = Harness(tmp_path, cleanup_settings(virtual_alias_maps="remote:test"))
    harness.drop()
    scan = asyncio.create_task(harness.pickup.scan())
    await remote.answer(TableError("remote:test: the server is down"))
    await scan
    assert (harness.left(), queued(tmp_path), harness.pickup.in_flight) == (["one"], 0, 0)
    assert any("it stays there" in line for line in harness.log.take_lines())
    scan = asyncio.create_task(harness.pickup.scan())
    keys = await remote.answer(alias, rounds=3)
    await scan
    assert keys[0] == "user@example.org"
    for ticket, error in harness.journal.wait(20.0):
        harness.pickup.committed(ticket, error)
    assert (harness.left(), queued(tmp_path)) == ([], 1)
    harness.journal.close()


@pytest.mark.parametrize("parameter", ["virtual_alias_maps", "header_checks"])
async def test_a_bug_in_a_table_leaves_the_file_in_maildrop(tmp_path: Path, remote: Remote, parameter: str) -> None:
    values = config(**{parameter: "remote:test"})
    harness = Harness(tmp_path, CleanupSettings(values, 0, "UTC", open_checks(values)))
    harness.drop()
    scan = asyncio.create_task(harness.pickup.scan())
    await remote.answer(ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        await scan
    assert (harness.left(), os.listdir(harness.queue / "corrupt"), queued(tmp_path)) == (["one"], [], 0)
    harness.journal.close()


async def test_submission_is_committed_after_its_lookups_only(tmp_path: Path, remote: Remote) -> None:
    harness = Harness(tmp_path, cleanup_settings(virtual_alias_maps="remote:test", always_bcc="copy@example.org"))

    def intake() -> Intake:
        recipients = [("user@example.org", None, None, 0)]
        journal, log = harness.journal, harness.log
        return Intake(harness.settings, journal, log, Options.INTERNAL, "", recipients, wall_now=1_795_000_000.0)

    early = intake()
    with pytest.raises(MessageRefused, match=r"4\.3\.0"):
        early.commit(1)
    message = intake()
    task = asyncio.create_task(answers.answer_all(message))
    keys = await remote.answer(alias, rounds=3)
    await task
    assert "copy@example.org" not in keys, "nobody gets a copy of the mail system's own mail"
    message.commit(2)
    assert [ticket for ticket, error in harness.journal.wait(20.0) if error is None] == [2]
    harness.journal.close()
