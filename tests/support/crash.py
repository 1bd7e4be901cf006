"""Shared code of the crash tests: a site that uses every program, its processes, counted kills, and the verdict.

`POSTILLION_FAULTS=500` (or `all`, which is 500) selects the full form of every crash test. The default is a short form.
The short forms use a fixed seed. The full forms draw one and print it; `POSTILLION_SEED` repeats such a run.
"""

from __future__ import annotations

import os
import random
import re
import signal
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from postillion.program import ipc
from support.ledger import Arrivals, Ledger, Route
from support.mta import POSTILLION_COMMANDS, Site, local_user, site_programs, start, wait_for
from support.sink import Sink

FULL = "POSTILLION_FAULTS" in os.environ
FAULTS = 500
SHORT_SEED = 1
EVERYTHING = "everything"
"""A victim name: all processes of the site at once."""
SERVICES = ("master", "smtp-in", "qmgr", "pickup", "smtp", "local", "bounce", "anvil", "error", "retry", "discard")
"""Victims by their service name in master.cf; smtp-in is smtpd."""
DUPLICATING = frozenset({EVERYTHING, "master", "qmgr", "pickup", "smtp", "local", "bounce"})
"""Victims whose death may cause a duplicate: they deliver mail or record deliveries."""
CAPACITY = 20 + 20 + 2
"""Maximum number of deliveries in flight: default_destination_concurrency_limit to the next hop, the same number of
reports, and local_destination_concurrency_limit to the one mailbox."""
STATUS_MAX_S = 0.5
THROTTLED_MAX_S = 90.0
"""Master waits up to 60 s before it restarts a program that keeps dying early."""
DRAIN_MAX_S = 240.0
SHOWN_MAX = 10
QUICK = {
    "minimal_backoff_time": "1s",
    "maximal_backoff_time": "2s",
    # Client counting starts an anvil, so that the test can kill it.
    "smtpd_client_event_limit_exceptions": "",
    "smtpd_client_connection_count_limit": "1000",
    # The error transport bounces accepted mail.
    "smtpd_reject_unlisted_recipient": "no",
    # Reports return the whole message.
    "bounce_size_limit": "10000000",
}
TRANSPORTS = """\
next.example smtp:[127.0.0.1]:{next_port}
discard.example discard:
error.example error:5.1.1 nobody lives here
later.example {later}
"""
RETRY = "retry:4.0.0 try again"
PROCESS_LINE = re.compile(r" postfix/(master\[|[a-z]+\[\d+\]: (warning|error|fatal|panic|daemon))")
PROCESS_LINES_MAX = 200


def seed() -> int:
    """Return the seed of this run, and print it: pytest shows what a failed test has printed."""
    drawn = random.SystemRandom().randrange(2**32) if FULL else SHORT_SEED
    chosen = int(os.environ.get("POSTILLION_SEED", drawn))
    print(f"POSTILLION_SEED={chosen}")
    return chosen


def faults_wanted(short: int, *, one_in: int = 1) -> int:
    """Return the number of kills: `short`, or in the full form one in `one_in` of the requested number."""
    if not FULL:
        return short
    requested = os.environ["POSTILLION_FAULTS"]
    return max(1, (int(requested) if requested.isdigit() else FAULTS) // one_in)


def crash_site(directory: Path, settings: dict[str, str] | None = None) -> Site:
    """Return a site that keeps mail to later.example in the queue until `drain`."""
    transports = {"transport_maps": f"texthash:{directory}/etc/transport"}
    site = Site(directory, main_cf={**QUICK, **transports, **(settings or {})})
    set_later_transport(site, RETRY)
    return site


def set_later_transport(site: Site, transport: str) -> None:
    """Set the transport of later.example."""
    table = site.etc / "transport"
    table.write_text(TRANSPORTS.format(next_port=site.next_port, later=transport))
    table.chmod(0o644)


def routes(user: str) -> list[Route]:
    """Return the routes of the clients. They give every program work."""
    return [
        Route("", ["x@next.example"]),
        Route("", [user]),
        Route(user, ["bad@next.example"]),
        Route("", ["x@next.example", "x@discard.example"]),
        Route(user, ["x@error.example"]),
        Route("", ["x@later.example"], pace_s=2.0),
    ]


def new_ledger(site: Site) -> Ledger:
    """Return a ledger with its file outside the queue."""
    return Ledger(site.port, [str(POSTILLION_COMMANDS / "sendmail"), "-C", str(site.etc)], site.directory / "ledger")


def new_arrivals(site: Site, sink: Sink) -> Arrivals:
    """Return the record of messages that left the site."""
    return Arrivals(sink, site.mail / local_user() / "new")


def site_processes(site: Site) -> dict[str, list[int]]:
    """Return the site's processes by service name: `master` for master, `smtp-in` for smtpd."""
    found: dict[str, list[int]] = {}
    for pid, program, words in site_programs(site):
        if program == "master":
            service = "master"
        elif words[:1] == ["-n"]:
            service = "smtp-in" if words[1].endswith(f":{site.port}") else words[1]
        else:
            continue
        found.setdefault(service, []).append(pid)
    return found


def kill(pid: int) -> None:
    """Send SIGKILL to a process that may have ended already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


@dataclass
class Faults:
    """Kills so far. `in_flight` bounds the duplicates they may cause: the sum of deliveries in flight at each kill."""

    site: Site
    ledger: Ledger
    count: int = 0
    in_flight: int = 0
    by_victim: dict[str, int] = field(default_factory=dict)

    def next_victim(self, victims: list[str]) -> str:
        """Remove and return the first victim in the list that has a process.

        Master delays the restart of a program that died early several times in a row.
        """

        def ready() -> list[str]:
            running = site_processes(self.site)
            return [victim for victim in victims if victim == EVERYTHING or victim in running]

        try:
            wait_for(f"a process of {set(victims)}", ready, THROTTLED_MAX_S)
        except TimeoutError as problem:
            raise TimeoutError(f"{problem}\n{self._report()}") from None
        victim = (ready() or victims)[0]
        victims.remove(victim)
        return victim

    def strike(self, victim: str, rng: random.Random) -> None:
        """Kill one process of a service, or everything; restart the site if its master is gone."""
        before, begun = self.in_flight_now(), self.ledger.begun
        at_once = site_processes(self.site)
        if victim == EVERYTHING:
            for pid in [*at_once.get("master", []), *(pid for pids in at_once.values() for pid in pids)]:
                kill(pid)
        elif victim == "master":
            # A new master may still have two processes: its parent has not ended yet.
            for pid in at_once.get("master") or [self._any(victim)]:
                kill(pid)
        else:
            kill(rng.choice(at_once.get(victim) or [self._any(victim)]))
        if victim in DUPLICATING:
            # Messages that clients began meanwhile may be in flight too. pickup duplicates the message it is reading.
            self.in_flight += min(CAPACITY, before + self.ledger.begun - begun)
            if victim in (EVERYTHING, "pickup", "master"):
                self.in_flight += len(os.listdir(self.site.queue / "maildrop"))
        self.count += 1
        self.by_victim[victim] = self.by_victim.get(victim, 0) + 1
        if victim in (EVERYTHING, "master"):
            self.restart()

    def restart(self) -> None:
        """Restart the site, once every process of the old run is gone."""
        wait_for("all processes to end after their master", lambda: not site_processes(self.site))
        start(self.site, "postillion")

    def _any(self, victim: str) -> int:
        wait_for(f"a process of {victim}", lambda: site_processes(self.site).get(victim), THROTTLED_MAX_S)
        return site_processes(self.site)[victim][0]

    def _report(self) -> str:
        """Return the processes, the queue manager's counts, and the last log lines of both."""
        recent = [line for line in self.site.log_text().splitlines() if PROCESS_LINE.search(line)]
        counts = status(self.site)
        return "\n".join([str(site_processes(self.site)), f"qmgr: {counts}", *recent[-PROCESS_LINES_MAX:]])

    def in_flight_now(self) -> int:
        """Return the size of the active queue; `CAPACITY` when the queue manager does not reply in time."""
        counts = status(self.site)
        return CAPACITY if counts is None else counts["active"]


def drain(site: Site, ledger: Ledger, arrivals: Arrivals) -> None:
    """Release all mail; return when every acknowledged message has arrived and the queue is empty."""
    set_later_transport(site, f"smtp:[127.0.0.1]:{site.next_port}")
    try:
        wait_for("every acknowledged message", lambda: not arrivals.missing(ledger), DRAIN_MAX_S)
        wait_for("the queue to be empty", lambda: not queue_lines(site), DRAIN_MAX_S)
    except TimeoutError as problem:
        raise TimeoutError(f"{problem}\n{explain(site, ledger, arrivals)}") from None
    arrivals.poll()


def status(site: Site) -> dict[str, int] | None:
    """Return the queue manager's counts; None when it does not reply in time."""
    if "qmgr" not in site_processes(site):
        return None
    try:
        with mock.patch.object(ipc, "TIMEOUT_S", STATUS_MAX_S):
            return ipc.do(str(site.queue / "public" / "qmgr"), {"verb": "status"})
    except (ipc.NotRunning, ipc.Refused):
        return None


def queue_lines(site: Site) -> list[str]:
    """Return the queue as postqueue -j shows it."""
    shown = site.run("postqueue", "-j")
    return shown.stdout.splitlines()


def explain(site: Site, ledger: Ledger, arrivals: Arrivals) -> str:
    """Return the log lines and queue entries of the first missing messages."""
    lines = site.log_text().splitlines()
    queue = queue_lines(site)
    explanation = [f"{len(queue)} messages in the queue"]
    for number in arrivals.missing(ledger)[:SHOWN_MAX]:
        message_id = f"message-id=<{number}@client.example.net>"
        ids = {ledger.acknowledged[number], *(_queue_id(line) for line in lines if message_id in line)} - {""}
        explanation.append(f"--- {number}, queue IDs {sorted(ids)}")
        explanation += [line for line in (*lines, *queue) if any(queue_id in line for queue_id in ids)]
    if not arrivals.missing(ledger):
        explanation += queue[:SHOWN_MAX]
    explanation += ["--- the end of the log", *lines[-SHOWN_MAX:]]
    return "\n".join(explanation)


def _queue_id(line: str) -> str:
    return line.split(": ", 2)[1] if line.count(": ") > 1 else ""


def verdict(faults: Faults, ledger: Ledger, arrivals: Arrivals, bound: int) -> str:
    """Return the line that every crash test prints."""
    lost = len(arrivals.missing(ledger))
    numbers = (
        f"{faults.count} faults, {len(ledger.acknowledged)} acked, {lost} lost, {arrivals.duplicates()} duplicates"
    )
    return f"{numbers} (of {bound} in flight)"


def check(faults: Faults, ledger: Ledger, arrivals: Arrivals, bound: int) -> None:
    """Check that no acknowledged message is missing or changed, no refused one arrived, and few are duplicates."""
    assert not arrivals.missing(ledger)
    assert not arrivals.wrong, arrivals.wrong[:SHOWN_MAX]
    assert not ledger.refused & arrivals.copies.keys()
    assert arrivals.copies.keys() <= set(range(1, ledger.begun + 1))
    assert len(ledger.acknowledged) > faults.count
    assert arrivals.duplicates() <= bound
