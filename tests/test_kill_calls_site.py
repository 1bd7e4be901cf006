"""SIGKILL at each file system call of a running site's smtpd, pickup and local, while each handles one message.

test_kill_calls.py does the same with the queue code alone, thread by thread. This file adds the programs around it:
the client's session, files in maildrop/, deliveries to a Maildir.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from postillion.master.service import LIVED_S
from support.calls import TRACE, TRACED, KillPoint, strace
from support.crash import FULL, crash_site, explain, new_arrivals, new_ledger, site_processes, status
from support.ledger import Arrivals, Ledger, Route
from support.mta import Site, age_s, local_user, running, wait_for
from support.sink import Sink

SHORT_ONE_IN = 2
"""The short form tests one in this number of calls, beginning with the first."""
K_MAX = 300
YOUNG_S = LIVED_S + 0.1
PATIENCE_S = 60.0
NEXT_HOP = Route("", ["x@next.example"])
MAILDIR = Route("", [f"{local_user()}@example.org"])
WORK: dict[str, Callable[[Ledger], int]] = {
    "smtp-in": lambda ledger: ledger.send(NEXT_HOP),
    "pickup": lambda ledger: ledger.submit(NEXT_HOP),
    "local": lambda ledger: ledger.send(MAILDIR),
}


@dataclass
class Running:
    """A running site, the messages sent, and their arrivals."""

    site: Site
    ledger: Ledger
    arrivals: Arrivals

    def process(self, victim: str) -> int:
        """Return the only process of a service, once it is old enough: master replaces it at once when it dies."""
        found: list[int] = []

        def old() -> list[int]:
            found[:] = [pid for pid in site_processes(self.site).get(victim, []) if age_s(pid) > YOUNG_S]
            return found

        wait_for(f"a process of {victim}", old, PATIENCE_S)
        return found[0]

    def idle(self) -> bool:
        """Return whether every acknowledged message has arrived and the queue is empty."""
        counts = status(self.site)
        empty = counts is not None and not counts["messages"] and not os.listdir(self.site.queue / "maildrop")
        return empty and not self.arrivals.missing(self.ledger)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A site with one process for each service."""
    quiet = {"default_process_limit": "1", "smtpd_client_event_limit_exceptions": "$mynetworks"}
    site = crash_site(tmp_path_factory.mktemp("calls"), quiet)
    with Sink(site.next_port) as sink, running(site):
        server = Running(site, new_ledger(site), new_arrivals(site, sink))
        for work in WORK.values():
            work(server.ledger)
        wait_for("the first messages", server.idle, PATIENCE_S)
        yield server


def threads(pid: int) -> dict[str, int]:
    """Return the thread IDs of a process by name: `main`, the core's own names, and `worker` for the event loop's."""
    names = {int(task.name): (task / "comm").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir()}
    first = names.pop(pid)
    return {"worker" if name == first else name: tid for tid, name in names.items()} | {"main": pid}


def young(server: Running, victim: str) -> int:
    """Return a new process that has started its threads."""
    pid = server.process(victim)
    if victim != "local":
        # A thread gets its name a moment after its start.
        wait_for(f"the journal's thread of {victim}", lambda: "journal" in threads(pid), PATIENCE_S)
    elif "worker" not in threads(pid):
        WORK[victim](server.ledger)
        wait_for("the message to be finished", server.idle, PATIENCE_S)
    return pid


def count_calls(server: Running, victim: str, trace: Path) -> Counter[tuple[str, str]]:
    """Return the number of calls by thread and call of a new process for one message."""
    old = server.process(victim)
    os.kill(old, signal.SIGKILL)
    wait_for(f"the end of {victim}", lambda: not age_s(old), PATIENCE_S)
    pid = young(server, victim)
    names = {tid: name for name, tid in threads(pid).items()}
    with strace("-f", "-p", str(pid), "-o", str(trace), "-e", f"trace={TRACE}"):
        WORK[victim](server.ledger)
        wait_for("the message to be finished", server.idle, PATIENCE_S)
    return Counter((names[int(tid)], call) for tid, call in TRACED.findall(trace.read_text()) if int(tid) in names)


def kill_at(server: Running, victim: str, point: KillPoint) -> bool:
    """Give the victim a message, and kill it at `point`; return False when it survives."""
    pid = young(server, victim)
    inject = f"inject={point.call}:signal=KILL:when={point.k}"
    # strace traces this thread only: with all threads, it may wait forever for the end of one.
    with strace("-p", str(threads(pid)[point.thread]), "-e", f"trace={point.call}", "-e", inject):
        WORK[victim](server.ledger)
        wait_for("the message to be finished", lambda: not age_s(pid) or server.idle(), PATIENCE_S)
        died = not age_s(pid)
    try:
        wait_for("the queue to be empty again", server.idle, PATIENCE_S)
    except TimeoutError as problem:
        raise TimeoutError(f"{problem} at {point}\n{explain(server.site, server.ledger, server.arrivals)}") from None
    return died


@pytest.mark.parametrize("victim", WORK)
def test_sigkill_at_each_call_of_a_program_loses_no_message(
    victim: str, server: Running, tmp_path: Path, summarize: Callable[[str], None]
) -> None:
    counts = count_calls(server, victim, tmp_path / "trace")
    assert counts
    acked, copies = len(server.ledger.acknowledged), server.arrivals.duplicates()
    faults = skipped = 0
    for thread, call in sorted(counts):
        for k in range(1, K_MAX if FULL else counts[thread, call] + 1):
            if skipped:
                skipped -= 1
                continue
            # A victim that survives made fewer calls than `count_calls` counted: try the next call.
            if not kill_at(server, victim, KillPoint(thread, call, k)):
                break
            faults += 1
            skipped = 0 if FULL else SHORT_ONE_IN - 1
    acked, copies = len(server.ledger.acknowledged) - acked, server.arrivals.duplicates() - copies
    numbers = f"{faults} faults, {acked} acked, 0 lost, {copies} duplicates (of {faults} in flight)"
    summarize(f"SIGKILL at {'each call' if FULL else 'calls'} of {victim} at work: {numbers}")
    assert faults
    assert not server.arrivals.wrong
    assert not server.ledger.refused & server.arrivals.copies.keys()
    # There is one message in flight at a time.
    assert copies <= faults
