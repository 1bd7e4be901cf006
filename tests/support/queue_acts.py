"""What a process does to the queue, to be killed at any system call of it: see test_kill_calls.py.

An act runs in a process of its own. It prepares what is not to be killed, waits for `stage.ready()`, and then says what
it would have told others: a message's 250, a delivery, an answer to postsuper.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from postillion._core.cleanup import Submission
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
"""So little that accepting a few messages also writes zeros ahead, seals a segment and begins another."""
SMALL = sorted(range(1, 13), key=lambda number: len(body(number)))
HELD, LATER, DELETED, *SENT = SMALL
"""The smallest messages stay, so that their segment becomes nearly empty and they are moved."""
LARGE = LARGE_ONE_IN
AGENT = 1
TURNS_MAX = 100
MOVING_TURNS, MOVING_TURN_S = 16, 60.0
"""A segment gives its messages away after five minutes and goes after five more."""


class Said(NamedTuple):
    """Something that a process told others. `word`: acked, delivered, settled, held, released or deleted."""

    word: str
    number: int


class Stage:
    """The act's side of the test."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def ready(self) -> None:
        """Return when the test is ready, too."""
        self._connection.send(None)
        self._connection.recv()

    def say(self, word: str, number: int) -> None:
        """Tell what is promised from now on."""
        self._connection.send(Said(word, number))


def perform(act: Callable[[Path, Stage], None], directory: Path, connection: Connection) -> None:
    """Run an act in this process."""
    act(directory, Stage(connection))
    connection.close()


def _log() -> Log:
    return Log("mx", "postfix", "act", 1, 0, "memory:")


class Sender:
    """Commits messages to the journal of a queue directory."""

    def __init__(self, directory: Path) -> None:
        (directory / "main.cf").write_text(f"queue_directory = {directory}\nmyhostname = mx.example.org\n")
        self._settings = cleanup.settings(Config.load(str(directory)))
        self._log = _log()
        self.journal = Journal(str(directory), segment_max_octets=SEGMENT_MAX_OCTETS, ahead_octets=AHEAD_OCTETS)

    def commit(self, number: int) -> str:
        """Return the queue ID of message `number` once it is durable."""
        recipients = [(f"to{number}@example.net", None, None, 0)]
        submission = Submission(self._settings, self.journal, self._log, "", recipients, wall_now=time.time())
        submission.write(message(number, "\n").encode())
        queue_id = submission.commit(number)
        ((ticket, problem),) = self.journal.wait(COMMIT_MAX_S)
        assert (ticket, problem) == (number, None)
        return queue_id


class Manager:
    """A queue manager with an agent, on a clock of its own. `deferring`: numbers that are not delivered yet."""

    def __init__(self, directory: Path, say: Callable[[str, int], None], deferring: Iterable[int] = ()) -> None:
        self.deferring = set(deferring)
        self.wrong: list[int] = []
        self._say = say
        self._now, self._wall = 1000.0, time.time()
        log = _log()
        self._link = AgentLink(log, str(directory))
        self.core = QueueManager(str(directory), {}, log, self._now, self._wall)
        self.core.connected(AGENT)
        self.core.receive(AGENT, self._link.register("smtp", os.getpid(), 100), self._now, self._wall)

    @property
    def messages(self) -> int:
        """How many are in the queue."""
        return int(self.core.counts()["messages"])

    def turn(self, passed_s: float = 0.0) -> None:
        """Let time pass, and do all that can be done then."""
        self._now += passed_s
        self._wall += passed_s
        settling: list[int] = []
        for _ in range(TURNS_MAX):
            self.core.tick(self._now, self._wall)
            while event := self.core.next_event(self._now, self._wall):
                if event[0] == "resolve":
                    self.core.resolved(event[1], "smtp", "next.example", None, self._now, self._wall)
            outputs = self.core.outputs()
            for number in settling:
                self._say("settled", number)
            if not outputs:
                return
            settling = [number for _, data in outputs for number in self._deliver(data)]

    def apply(self, verb: str, queue_id: str) -> None:
        """Do what postsuper asks; it is told afterwards."""
        self.core.apply(verb, [queue_id], [], self._now, self._wall)
        self.turn()

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
                    self._say("delivered", number)
                    done.append(number)
                    job.status(recipient.index, "sent", "2.0.0", "ok")
            self.core.receive(AGENT, job.result(), self._now, self._wall)
        return done


def write_queue(directory: Path) -> None:
    """Fill a queue directory for `manage`; `ids` in it has the queue IDs by number."""
    sender = Sender(directory)
    ids = {number: sender.commit(number) for number in (*SMALL[:3], LARGE, *SENT)}
    sender.journal.close()
    (directory / "ids").write_text(json.dumps(ids))


def states(directory: Path) -> dict[int, str]:
    """Return the queue that each message on disk is in, by number."""
    ids = {queue_id: int(number) for number, queue_id in json.loads((directory / "ids").read_text()).items()}
    rows = map(json.loads, read_queue(str(directory)))
    return {ids[row["queue_id"]]: row["queue_name"] for row in rows}


# The acts.


def begin(directory: Path, stage: Stage) -> None:
    """A process that accepts starts, commits once, and ends."""
    stage.ready()
    sender = Sender(directory)
    sender.commit(1)
    stage.say("acked", 1)
    sender.journal.close()


def accept(directory: Path, stage: Stage) -> None:
    """Small messages in several segments and a large one are accepted."""
    sender = Sender(directory)
    stage.ready()
    for number in (*SMALL[:6], LARGE, *SMALL[6:8]):
        sender.commit(number)
        stage.say("acked", number)
    sender.journal.close()


def manage(directory: Path, stage: Stage) -> None:
    """A queue manager starts; messages are delivered, deferred, held, deleted, moved, released, removed."""
    ids = {int(number): queue_id for number, queue_id in json.loads((directory / "ids").read_text()).items()}
    stage.ready()
    manager = Manager(directory, stage.say, deferring=(HELD, LATER, DELETED))
    manager.turn()
    manager.apply("hold", ids[HELD])
    stage.say("held", HELD)
    manager.apply("delete", ids[DELETED])
    stage.say("deleted", DELETED)
    for _ in range(MOVING_TURNS):
        manager.turn(MOVING_TURN_S)
    assert os.listdir(directory / "deferred"), "nothing was moved"
    manager.deferring.clear()
    stage.say("released", HELD)
    manager.apply("release", ids[HELD])
    for _ in range(MOVING_TURNS):
        manager.turn(MOVING_TURN_S)
    assert manager.messages == 0
    manager.core.close()
