"""SIGKILL of any process at any time: every acknowledged message arrives.

Mail comes in by SMTP and by sendmail. It goes to a next hop, to a Maildir or to discard, waits, or bounces, while the
test kills processes: any one program, or all of them at once. Every acknowledged message must arrive whole. Only
messages in flight at a kill may be duplicates.
"""

import random
from collections.abc import Callable
from pathlib import Path

from support.crash import (
    EVERYTHING,
    SERVICES,
    Faults,
    check,
    crash_site,
    drain,
    faults_wanted,
    new_arrivals,
    new_ledger,
    routes,
    seed,
    verdict,
)
from support.ledger import Route
from support.mta import local_user, running
from support.sink import Sink

KILLS = faults_wanted(36)
FLOWING_MAX_S = 120.0
BETWEEN_MAX = 25
"""Maximum number of messages acknowledged between two kills."""


def test_every_acknowledged_message_survives_sigkill_of_every_process(
    tmp_path: Path, summarize: Callable[[str], None]
) -> None:
    chosen = seed()
    rng = random.Random(chosen)
    victims = [(*SERVICES, EVERYTHING)[n % (len(SERVICES) + 1)] for n in range(KILLS)]
    rng.shuffle(victims)
    site = crash_site(tmp_path)
    ledger = new_ledger(site)
    faults = Faults(site, ledger)
    with Sink(site.next_port, refuse={"bad@next.example": "550 5.1.1 no such user"}) as sink, running(site):
        arrivals = new_arrivals(site, sink)
        local = [Route("", ["x@next.example"], pace_s=0.1)]
        with ledger.load(routes(f"{local_user()}@example.org"), local=local):
            while victims:
                ledger.wait_for_more(rng.randint(1, BETWEEN_MAX), FLOWING_MAX_S)
                faults.strike(faults.next_victim(victims), rng)
        drain(site, ledger, arrivals)
    summarize(f"SIGKILL, seed {chosen}: {verdict(faults, ledger, arrivals, faults.in_flight)}")
    check(faults, ledger, arrivals, faults.in_flight)
