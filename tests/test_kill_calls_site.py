"""SIGKILL at each system call on files of a running site's smtpd, pickup and local, while each has one message.

test_kill_calls.py shows the same of the queue's code alone, thread by thread; here are the programs around it: the
client's dialogue, files in maildrop/, deliveries to a Maildir.
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
from support.calls import TRACE, TRACED, Place, strace
from support.crash import FULL, crash_site, explain, new_arrivals, new_ledger, site_processes, status
from support.ledger import Arrivals, Ledger, Route
from support.mta import Site, age_s, local_user, running, wait_for
from support.sink import Sink

SHORT_ONE_IN = 2
"""The short form kills at one call in so many, beginning with the first."""
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
    """A running site, and what goes in and comes out."""

    site: Site
    ledger: Ledger
    arrivals: Arrivals

    def process(self, victim: str) -> int:
        """Return the one process of a service, once it is so old that master starts another at once when it dies."""
        found: list[int] = []

        def old() -> list[int]:
            found[:] = [pid for pid in site_processes(self.site).get(victim, []) if age_s(pid) > YOUNG_S]
            return found

        wait_for(f"a process of {victim}", old, PATIENCE_S)
        return found[0]

    def idle(self) -> bool:
        """Everything that was acknowledged has arrived, and nothing is under way."""
        counts = status(self.site)
        empty = counts is not None and not counts["messages"] and not os.listdir(self.site.queue / "maildrop")
        return empty and not self.arrivals.missing(self.ledger)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A site with one process a service."""
    quiet = {"default_process_limit": "1", "smtpd_client_event_limit_exceptions": "$mynetworks"}
    site = crash_site(tmp_path_factory.mktemp("calls"), quiet)
    with Sink(site.next_port) as sink, running(site):
        server = Running(site, new_ledger(site), new_arrivals(site, sink))
        for work in WORK.values():
            work(server.ledger)
        wait_for("the first messages", server.idle, PATIENCE_S)
        yield server


def threads(pid: int) -> dict[str, int]:
    """Return the threads of a process by name: `main`, the core's own names, and `worker` for the event loop's."""
    names = {int(task.name): (task / "comm").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir()}
    first = names.pop(pid)
    return {"worker" if name == first else name: tid for tid, name in names.items()} | {"main": pid}


def young(server: Running, victim: str) -> int:
    """Return a process that has its threads, but has not done much yet."""
    pid = server.process(victim)
    if victim == "local" and "worker" not in threads(pid):
        WORK[victim](server.ledger)
        wait_for("the message to be settled", server.idle, PATIENCE_S)
    return pid


def rehearse(server: Running, victim: str, trace: Path) -> Counter[tuple[str, str]]:
    """Return how often each thread of a young process makes each call for one message."""
    old = server.process(victim)
    os.kill(old, signal.SIGKILL)
    wait_for(f"the end of {victim}", lambda: not age_s(old), PATIENCE_S)
    pid = young(server, victim)
    names = {tid: name for name, tid in threads(pid).items()}
    with strace("-f", "-p", str(pid), "-o", str(trace), "-e", f"trace={TRACE}"):
        WORK[victim](server.ledger)
        wait_for("the message to be settled", server.idle, PATIENCE_S)
    return Counter((names[int(tid)], call) for tid, call in TRACED.findall(trace.read_text()) if int(tid) in names)


def kill_at(server: Running, victim: str, place: Place) -> bool:
    """Let the victim work and die as a thread of it enters its K-th such call; False when it lives on."""
    pid = young(server, victim)
    inject = f"inject={place.call}:signal=KILL:when={place.k}"
    # Only this thread is traced: with all of them, strace may wait for ever for the end of one.
    with strace("-p", str(threads(pid)[place.thread]), "-e", f"trace={place.call}", "-e", inject):
        WORK[victim](server.ledger)
        wait_for("the message to be settled", lambda: not age_s(pid) or server.idle(), PATIENCE_S)
        died = not age_s(pid)
    try:
        wait_for("the queue to be empty again", server.idle, PATIENCE_S)
    except TimeoutError as problem:
        raise TimeoutError(f"{problem} at {place}\n{explain(server.site, server.ledger, server.arrivals)}") from None
    return died


@pytest.mark.parametrize("victim", WORK)
def test_sigkill_at_each_call_of_a_program_at_work(
    victim: str, server: Running, tmp_path: Path, summarize: Callable[[str], None]
) -> None:
    counts = rehearse(server, victim, tmp_path / "trace")
    assert counts
    acked, copies = len(server.ledger.acknowledged), server.arrivals.duplicates()
    faults = passed_over = 0
    for thread, call in sorted(counts):
        for k in range(1, K_MAX if FULL else counts[thread, call] + 1):
            if passed_over:
                passed_over -= 1
                continue
            # A victim that lives on made fewer calls than in the rehearsal: the next call takes its turn.
            if not kill_at(server, victim, Place(thread, call, k)):
                break
            faults += 1
            passed_over = 0 if FULL else SHORT_ONE_IN - 1
    acked, copies = len(server.ledger.acknowledged) - acked, server.arrivals.duplicates() - copies
    numbers = f"{faults} faults, {acked} acked, 0 lost, {copies} duplicates (of {faults} in flight)"
    summarize(f"SIGKILL at {'each call' if FULL else 'calls'} of {victim} at work: {numbers}")
    assert faults
    assert not server.arrivals.wrong
    assert not server.ledger.refused & server.arrivals.copies.keys()
    # One message is under way at a time.
    assert copies <= faults
