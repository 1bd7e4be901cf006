"""SIGKILL at each system call on files of accepting, deferring, holding, moving and removing a message.

What was said before the process died holds: an acknowledged message is delivered, once; a delivery that the queue
manager has noted is not repeated; what was held is held, and what was deleted is gone.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.calls import Act, Place, Theatre
from support.queue_acts import (
    DELETED,
    HELD,
    LARGE,
    LATER,
    SENT,
    Manager,
    Said,
    accept,
    begin,
    manage,
    states,
    write_queue,
)

K_MAX = 300
LAST_TURNS, LAST_TURN_S = 40, 400.0


@dataclass
class Tally:
    """What all runs of an act came to."""

    faults: int = 0
    acked: int = 0
    lost: list[str] = field(default_factory=list)
    duplicates: int = 0
    in_flight: int = 0

    def __str__(self) -> str:
        numbers = f"{self.faults} faults, {self.acked} acked, {len(self.lost)} lost"
        return f"{numbers}, {self.duplicates} duplicates (of {self.in_flight} in flight)"


@pytest.fixture(scope="module")
def theatre() -> Theatre:
    """Where the acts are played."""
    return Theatre()


def places(theatre: Theatre, act: Act, directory: Path) -> Generator[Place, bool, None]:
    """Yield the places at which to kill an act; send `True` when it came to its end before."""
    calls = theatre.rehearse(act, directory)
    assert calls
    for thread, call in sorted(calls):
        # Until a run comes to its end: a count may differ from run to run.
        for k in range(1, K_MAX):
            if (yield Place(thread, call, k)):
                break


def kill_at_each(theatre: Theatre, act: Act, directory: Path, template: Path) -> Iterator[tuple[Path, list[Said]]]:
    """Yield the queue directory and what was said, after each kill."""

    def fresh(name: str) -> Path:
        return Path(shutil.copytree(template, directory / name))

    where = places(theatre, act, fresh("rehearsal"))
    place = next(where, None)
    n = 0
    while place is not None:
        n += 1
        queue = fresh(str(n))
        said = theatre.kill(act, queue, place)
        if said is not None:
            yield queue, said
        shutil.rmtree(queue)
        try:
            place = where.send(said is None)
        except StopIteration:
            return


def deliver_all(queue: Path) -> Counter[int]:
    """Start a queue manager after the crash and deliver everything; return the copies by number."""
    copies: Counter[int] = Counter()

    def say(word: str, number: int) -> None:
        copies[number] += word == "delivered"

    manager = Manager(queue, say)
    manager.core.apply("release", None, ["hold"], 1000.0, 0.0)
    for _ in range(LAST_TURNS):
        manager.turn(LAST_TURN_S)
        if not manager.messages:
            break
    assert manager.messages == 0
    assert not manager.wrong
    manager.core.close()
    assert not os.listdir(queue / "corrupt")
    return copies


@pytest.mark.parametrize("act", [begin, accept])
def test_sigkill_at_each_call_of_accepting(
    act: Act, theatre: Theatre, tmp_path: Path, summarize: Callable[[str], None]
) -> None:
    tally = Tally()
    (template := tmp_path / "template").mkdir()
    for queue, said in kill_at_each(theatre, act, tmp_path, template):
        copies = deliver_all(queue)
        acked = {number for word, number in said if word == "acked"}
        tally.faults += 1
        tally.acked += len(acked)
        tally.lost += [f"{number} after {said}" for number in acked - copies.keys()]
        tally.duplicates += copies.total() - len(copies)
    summarize(f"SIGKILL at each call of {act.__name__}: {tally}")
    assert not tally.lost
    assert tally.faults
    # Nothing is delivered while a message is accepted: nothing comes twice.
    assert tally.duplicates == 0


def test_sigkill_at_each_call_of_delivering_deferring_holding_moving_and_removing(
    theatre: Theatre, tmp_path: Path, summarize: Callable[[str], None]
) -> None:
    tally = Tally()
    (template := tmp_path / "template").mkdir()
    write_queue(template)
    for queue, said in kill_at_each(theatre, manage, tmp_path, template):
        words = {word: [number for said_word, number in said if said_word == word] for word, _ in said}
        kept = states(queue)
        if "held" in words and "released" not in words:
            assert kept[HELD] == "hold", said
        if "deleted" in words:
            assert DELETED not in kept, said
        copies = Counter(words.get("delivered", []))
        settled = set(words.get("settled", []))
        in_flight = set(copies) - settled
        after = deliver_all(queue)
        assert not settled & after.keys(), said
        assert DELETED not in after or "deleted" not in words, said
        copies += after
        tally.faults += 1
        tally.acked += len(SENT) + 3
        tally.lost += [f"{number} after {said}" for number in {*SENT, LARGE, LATER, HELD} - copies.keys()]
        tally.duplicates += copies.total() - len(copies)
        tally.in_flight += len(in_flight)
    summarize(f"SIGKILL at each call of {manage.__name__}: {tally}")
    assert not tally.lost
    assert tally.faults
    assert tally.duplicates <= tally.in_flight
