"""Operations on the queue that test_kill_calls.py kills at each of their system calls.

Each operation runs in its own process. It prepares the queue, waits in `observer.ready()`, and then reports each
promise that it makes to others: a 250, a delivery, a reply to postsuper. The kills happen after `ready`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from postillion._core.cleanup import Intake, Options
from postillion._core.delivery import AgentLink
from postillion._core.log import Log
from postillion._core.qmgr import QueueManager
from postillion._core.queue import Journal
from postillion.config import Config
from postillion.program import cleanup
from support.ledger import LARGE_ONE_IN, NUMBER, body, digest, message
from support.queue_files import read_queue

COMMIT_MAX_S = 30.0
SEGMENT_MAX_OCTETS = 12_000
AHEAD_OCTETS = 500
"""Small sizes: a few messages already make the journal write zeros ahead, seal a segment and begin another."""
SMALL = sorted(range(1, 13), key=lambda number: len(body(number)))
HELD, LATER, DELETED, *SENT = SMALL
"""The smallest messages stay in the queue: their segment becomes nearly empty, and the queue manager moves them."""
LARGE = LARGE_ONE_IN
AGENT = 1
POLLS_MAX = 100
MOVE_POLLS, MOVE_POLL_S = 16, 60.0
"""The queue manager moves the messages of a nearly empty segment after five minutes, and removes it after five more."""


class Promise(NamedTuple):
    """A promise that a process made to others. `kind`: acked, delivered, finished, held, released or deleted."""

    kind: str
    number: int


class Observer:
    """The operation's connection to the test."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def ready(self) -> None:
        """Return when the test is ready as well."""
        self._connection.send(None)
        self._connection.recv()

    def promise(self, kind: str, number: int) -> None:
        """Report a promise that holds from now on."""
        self._connection.send(Promise(kind, number))


def run_operation(operation: Callable[[Path, Observer], None], directory: Path, connection: Connection) -> None:
    """Run an operation in this process."""
    operation(directory, Observer(connection))
    connection.close()


def _log() -> Log:
    return Log("mx", "postfix", "operation", 1, 0, "memory:")


class Sender:
    """Commits messages to the journal of a queue directory."""

    def __init__(self, directory: Path) -> None:
        (directory / "main.cf").write_text(f"queue_directory = {directory}\nmyhostname = mx.example.org\n")
        self._settings = cleanup.settings(Config.load(str(directory)))
        self._log = _log()
        self.journal = Journal(str(directory), segment_max_octets=SEGMENT_MAX_OCTETS, ahead_octets=AHEAD_OCTETS)

    def commit(self, number: int) -> str:
        """Commit message `number`; return its queue ID once it is durable."""
        recipients = [(f"to{number}@example.net", None, None, 0)]
        intake = Intake(self._settings, self.journal, self._log, Options.INTERNAL, "", recipients, wall_now=time.time())
        intake.write(message(number, "\n").encode())
        queue_id = intake.commit(number)
        ((ticket, problem),) = self.journal.wait(COMMIT_MAX_S)
        assert (ticket, problem) == (number, None)
        return queue_id


class Manager:
    """A queue manager with an agent and its own clock. `deferring`: numbers of messages that the agent defers."""

    def __init__(self, directory: Path, promise: Callable[[str, int], None], deferring: Iterable[int] = ()) -> None:
        self.deferring = set(deferring)
        self.wrong: list[int] = []
        self._promise = promise
        self._now, self._wall = 1000.0, time.time()
        log = _log()
        self._link = AgentLink(log, str(directory))
        self.core = QueueManager(str(directory), None, log, self._now, self._wall)
        self.core.connected(AGENT)
        self.core.receive(AGENT, self._link.register("smtp", os.getpid(), 100), self._now, self._wall)

    @property
    def messages(self) -> int:
        """Number of messages in the queue."""
        return int(self.core.counts()["messages"])

    def poll(self, passed_s: float = 0.0) -> None:
        """Advance the clock, and handle everything that is due."""
        self._now += passed_s
        self._wall += passed_s
        finishing: list[int] = []
        for _ in range(POLLS_MAX):
            self.core.tick(self._now, self._wall)
            while event := self.core.next_event(self._now, self._wall):
                if event[0] == "resolve":
                    self.core.resolved(event[1], event[2], "smtp", "next.example", None, self._now, self._wall)
            outputs = self.core.outputs()
            for number in finishing:
                self._promise("finished", number)
            if not outputs:
                return
            finishing = [number for _, data in outputs for number in self._deliver(data)]

    def apply(self, verb: str, queue_id: str) -> None:
        """Apply a command of postsuper."""
        self.core.apply(verb, [queue_id], [], self._now, self._wall)
        self.poll()

    def _deliver(self, data: bytes) -> list[int]:
        done = []
        for job in self._link.receive(data):
            content = job.content().replace(b"\r\n", b"\n")
            found = NUMBER.search(content)
            assert found
            number = int(found[1])
            for recipient in job.recipients:
                if number in self.deferring:
                    job.status(recipient.index, "deferred", "4.4.1", "no route")
                else:
                    if digest(content.partition(b"\n\n")[2].rstrip(b"\n")) != digest(body(number)):
                        self.wrong.append(number)
                    self._promise("delivered", number)
                    done.append(number)
                    job.status(recipient.index, "sent", "2.0.0", "ok")
            self.core.receive(AGENT, job.result(), self._now, self._wall)
        return done


def write_queue(directory: Path) -> None:
    """Fill a queue directory for `manage`. Its file `ids` has the queue IDs by number."""
    sender = Sender(directory)
    ids = {number: sender.commit(number) for number in (*SMALL[:3], LARGE, *SENT)}
    sender.journal.close()
    (directory / "ids").write_text(json.dumps(ids))


def states(directory: Path) -> dict[int, str]:
    """Return the queue name of each message on disk, by number."""
    ids = {queue_id: int(number) for number, queue_id in json.loads((directory / "ids").read_text()).items()}
    rows = map(json.loads, read_queue(str(directory)))
    return {ids[row["queue_id"]]: row["queue_name"] for row in rows}


# The operations.


def begin(directory: Path, observer: Observer) -> None:
    """Start a process that accepts mail, commit one message, and end."""
    observer.ready()
    sender = Sender(directory)
    sender.commit(1)
    observer.promise("acked", 1)
    sender.journal.close()


def accept(directory: Path, observer: Observer) -> None:
    """Accept small messages in several segments, and a large one."""
    sender = Sender(directory)
    observer.ready()
    for number in (*SMALL[:6], LARGE, *SMALL[6:8]):
        sender.commit(number)
        observer.promise("acked", number)
    sender.journal.close()


def manage(directory: Path, observer: Observer) -> None:
    """Start a queue manager; deliver, defer, hold, delete, move, release and remove messages."""
    ids = {int(number): queue_id for number, queue_id in json.loads((directory / "ids").read_text()).items()}
    observer.ready()
    manager = Manager(directory, observer.promise, deferring=(HELD, LATER, DELETED))
    manager.poll()
    manager.apply("hold", ids[HELD])
    observer.promise("held", HELD)
    manager.apply("delete", ids[DELETED])
    observer.promise("deleted", DELETED)
    for _ in range(MOVE_POLLS):
        manager.poll(MOVE_POLL_S)
    assert os.listdir(directory / "deferred"), "no message was moved"
    manager.deferring.clear()
    observer.promise("released", HELD)
    manager.apply("release", ids[HELD])
    for _ in range(MOVE_POLLS):
        manager.poll(MOVE_POLL_S)
    assert manager.messages == 0
    manager.core.close()
