"""SIGKILL at each file system call of accepting, deferring, holding, moving and removing a message.

Every promise before the kill holds: an acknowledged message is delivered once, a finished delivery is not repeated, a
held message stays on hold, and a deleted message is gone.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.calls import KillPoint, Operation, Runner
from support.queue_operations import (
    DELETED,
    HELD,
    LARGE,
    LATER,
    SENT,
    Manager,
    Promise,
    accept,
    begin,
    manage,
    states,
    write_queue,
)

K_MAX = 300
LAST_POLLS, LAST_POLL_S = 40, 400.0


@dataclass
class Tally:
    """The sums over all runs of an operation."""

    faults: int = 0
    acked: int = 0
    lost: list[str] = field(default_factory=list)
    duplicates: int = 0
    in_flight: int = 0

    def __str__(self) -> str:
        numbers = f"{self.faults} faults, {self.acked} acked, {len(self.lost)} lost"
        return f"{numbers}, {self.duplicates} duplicates (of {self.in_flight} in flight)"


@pytest.fixture(scope="module")
def runner() -> Runner:
    """The runner of the operations."""
    return Runner()


def kill_points(runner: Runner, operation: Operation, directory: Path) -> Generator[KillPoint, bool, None]:
    """Yield the points at which to kill an operation. Send `True` when it ended before the point."""
    calls = runner.count_calls(operation, directory)
    assert calls
    for thread, call in sorted(calls):
        # The number of calls may differ from run to run: stop only when a run has ended before the point.
        for k in range(1, K_MAX):
            if (yield KillPoint(thread, call, k)):
                break


def kill_at_each(
    runner: Runner, operation: Operation, directory: Path, template: Path
) -> Iterator[tuple[Path, list[Promise]]]:
    """Yield the queue directory and the promises after each kill."""

    def fresh(name: str) -> Path:
        return Path(shutil.copytree(template, directory / name))

    points = kill_points(runner, operation, fresh("count"))
    point = next(points, None)
    n = 0
    while point is not None:
        n += 1
        queue = fresh(str(n))
        promises = runner.kill(operation, queue, point)
        if promises is not None:
            yield queue, promises
        shutil.rmtree(queue)
        try:
            point = points.send(promises is None)
        except StopIteration:
            return


def deliver_all(queue: Path) -> Counter[int]:
    """Start a queue manager after the crash, and deliver everything; return the number of copies by message."""
    copies: Counter[int] = Counter()

    def count(kind: str, number: int) -> None:
        copies[number] += kind == "delivered"

    manager = Manager(queue, count)
    manager.core.apply("release", None, ["hold"], 1000.0, 0.0)
    for _ in range(LAST_POLLS):
        manager.poll(LAST_POLL_S)
        if not manager.messages:
            break
    assert manager.messages == 0
    assert not manager.wrong
    manager.core.close()
    assert not os.listdir(queue / "corrupt")
    return copies


@pytest.mark.parametrize("operation", [begin, accept])
def test_sigkill_at_each_call_of_acceptance_loses_no_message(
    operation: Operation, runner: Runner, tmp_path: Path, summarize: Callable[[str], None]
) -> None:
    tally = Tally()
    (template := tmp_path / "template").mkdir()
    for queue, promises in kill_at_each(runner, operation, tmp_path, template):
        copies = deliver_all(queue)
        acked = {number for kind, number in promises if kind == "acked"}
        tally.faults += 1
        tally.acked += len(acked)
        tally.lost += [f"{number} after {promises}" for number in acked - copies.keys()]
        tally.duplicates += copies.total() - len(copies)
    summarize(f"SIGKILL at each call of {operation.__name__}: {tally}")
    assert not tally.lost
    assert tally.faults
    # No message is in delivery during acceptance: there are no duplicates.
    assert tally.duplicates == 0


def test_sigkill_at_each_call_of_queue_management_loses_no_message(
    runner: Runner, tmp_path: Path, summarize: Callable[[str], None]
) -> None:
    tally = Tally()
    (template := tmp_path / "template").mkdir()
    write_queue(template)
    for queue, promises in kill_at_each(runner, manage, tmp_path, template):
        made = {kind: [number for other, number in promises if other == kind] for kind, _ in promises}
        kept = states(queue)
        if "held" in made and "released" not in made:
            assert kept[HELD] == "hold", promises
        if "deleted" in made:
            assert DELETED not in kept, promises
        copies = Counter(made.get("delivered", []))
        finished = set(made.get("finished", []))
        in_flight = set(copies) - finished
        after = deliver_all(queue)
        assert not finished & after.keys(), promises
        assert DELETED not in after or "deleted" not in made, promises
        copies += after
        tally.faults += 1
        tally.acked += len(SENT) + 3
        tally.lost += [f"{number} after {promises}" for number in {*SENT, LARGE, LATER, HELD} - copies.keys()]
        tally.duplicates += copies.total() - len(copies)
        tally.in_flight += len(in_flight)
    summarize(f"SIGKILL at each call of {manage.__name__}: {tally}")
    assert not tally.lost
    assert tally.faults
    assert tally.duplicates <= tally.in_flight
