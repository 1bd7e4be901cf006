"""The producer: the link from a process that commits messages to the queue manager."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from postillion.program.producer import Producer, Tickets
from support.mta import until

WAIT_S = 10.0


class NoCommits:
    """The commits of a journal that has none."""

    def collect(self) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""


class FakeJournal:
    """A journal whose commits the test controls. Its frames are short texts."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self.done: list[tuple[int, str | None]] = []
        self.frames = b""
        self.end = 0

    @property
    def unannounced_octets(self) -> int:
        return len(self.frames)

    def fileno(self) -> int:
        return self.read_end

    def commit(self, ticket: int, error: str | None = None, *, sealed: bool = False) -> None:
        self.done.append((ticket, error))
        if error is None:
            self.end += 1
            self.frames += b"arrived %d\n" % ticket
        if sealed:
            self.frames += b"sealed %d\n" % ticket
        os.write(self.write_end, b"x")

    def completed(self) -> list[tuple[int, str | None]]:
        done, self.done = self.done, []
        if done:
            os.read(self.read_end, 4096)
        return done

    def announcements(self) -> bytes:
        frames, self.frames = self.frames, b""
        return frames

    def hello(self, pid: int) -> bytes:
        self.frames = b"".join(line for line in self.frames.splitlines(True) if line.startswith(b"sealed"))
        return b"hello %d at %d\n" % (pid, self.end)


class Manager:
    """A queue manager that records the lines it receives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: asyncio.Queue[str] = asyncio.Queue()
        self.writers: list[asyncio.StreamWriter] = []
        self.server: asyncio.Server | None = None

    async def listen(self) -> None:
        self.path.unlink(missing_ok=True)
        self.server = await asyncio.start_unix_server(self._serve, self.path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        while line := await reader.readline():
            self.lines.put_nowait(line.decode().strip())

    async def next_line(self) -> str:
        return await asyncio.wait_for(self.lines.get(), WAIT_S)

    async def die(self) -> None:
        assert self.server is not None
        self.server.close()
        for writer in self.writers:
            writer.close()
        self.writers.clear()
        self.path.unlink(missing_ok=True)


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Manager]:
    manager = Manager(tmp_path / "qmgr")
    await manager.listen()
    yield manager
    await manager.die()


async def test_commits_finish_and_are_announced_in_order(manager: Manager) -> None:
    journal, finished = FakeJournal(), []
    producer = Producer(
        journal, Tickets(journal, lambda *outcome: finished.append(outcome)), path=str(manager.path), pid=7
    )
    producer.start()
    assert await manager.next_line() == "hello 7 at 0"
    journal.commit(1)
    journal.commit(2, "452 4.3.1 Insufficient system storage")
    journal.commit(3)
    assert await manager.next_line() == "arrived 1"
    assert await manager.next_line() == "arrived 3"
    assert finished == [(1, None), (2, "452 4.3.1 Insufficient system storage"), (3, None)]
    await producer.close()


async def test_owners_of_commits_are_told_after_the_announcement(tmp_path: Path) -> None:
    """A command that follows a 250 finds the message: the queue manager's socket has the announcement before."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "qmgr"))
        listener.listen()
        journal, received = FakeJournal(), b""
        told = asyncio.Event()

        def tell(_ticket: int, _error: str | None) -> None:
            nonlocal received
            received = link.recv(100, socket.MSG_DONTWAIT)
            told.set()

        producer = Producer(journal, Tickets(journal, tell), path=str(tmp_path / "qmgr"), pid=7)
        producer.start()
        await until(lambda: producer.connected)
        link, _ = listener.accept()
        with link:
            assert link.recv(100) == b"hello 7 at 0\n"
            journal.commit(1)
            await told.wait()
            assert received == b"arrived 1\n"
            await producer.close()


async def test_commits_finish_without_queue_manager_and_next_hello_includes_them(tmp_path: Path) -> None:
    journal, finished = FakeJournal(), []
    manager = Manager(tmp_path / "late")
    producer = Producer(
        journal, Tickets(journal, lambda *outcome: finished.append(outcome)), path=str(manager.path), pid=7
    )
    producer.start()
    journal.commit(1)
    await until(lambda: finished)
    assert not producer.connected
    await manager.listen()
    assert await manager.next_line() == "hello 7 at 1"
    await producer.close()
    await manager.die()


async def test_producer_reconnects_after_queue_manager_restart(manager: Manager) -> None:
    journal, finished = FakeJournal(), []
    producer = Producer(
        journal, Tickets(journal, lambda *outcome: finished.append(outcome)), path=str(manager.path), pid=7
    )
    producer.start()
    assert await manager.next_line() == "hello 7 at 0"
    await manager.die()
    journal.commit(1)
    await until(lambda: finished)
    await manager.listen()
    assert await manager.next_line() == "hello 7 at 1"
    journal.commit(2)
    assert await manager.next_line() == "arrived 2"
    await producer.close()


async def test_segment_sealed_without_queue_manager_is_announced_later(tmp_path: Path) -> None:
    journal, finished = FakeJournal(), []
    manager = Manager(tmp_path / "late")
    producer = Producer(
        journal, Tickets(journal, lambda *outcome: finished.append(outcome)), path=str(manager.path), pid=7
    )
    producer.start()
    journal.commit(1, sealed=True)
    await until(lambda: finished)
    await manager.listen()
    assert await manager.next_line() == "hello 7 at 1"
    assert await manager.next_line() == "sealed 1"
    await producer.close()
    await manager.die()


async def test_close_announces_finished_commits(manager: Manager) -> None:
    journal = FakeJournal()
    producer = Producer(journal, Tickets(journal, lambda *outcome: None), path=str(manager.path), pid=7)
    producer.start()
    assert await manager.next_line() == "hello 7 at 0"
    journal.commit(9)
    await producer.close()
    assert await manager.next_line() == "arrived 9"
