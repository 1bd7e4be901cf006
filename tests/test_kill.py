"""Whatever is killed, whenever: what was acknowledged arrives.

Mail comes in by SMTP and by sendmail, and goes to a next hop, to a Maildir, and back to its sender as a report, while
the processes are killed one after the other: each program ten times, master among them. Every message that was
acknowledged must be somewhere in the end; some may be there twice.
"""

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger import Ledger
from mta import POSTILLION_COMMANDS, Site, local_user, processes, running, start, wait_for
from sink import Sink

PROGRAMS = ("master", "smtpd", "qmgr", "pickup", "delivery.smtp", "delivery.local", "delivery.bounce")
KILLS_EACH = int(os.environ.get("POSTILLION_KILLS", "10"))
CLIENTS = 2
"""For each way that a message can go."""
CAPACITY = 100
"""Deliveries that a process may have under way (default_process_limit)."""
QUICK = {"minimal_backoff_time": "1s", "maximal_backoff_time": "2s", "queue_run_delay": "1s"}


def test_every_acknowledged_message_survives_sigkill_of_every_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(tmp_path, main_cf=QUICK)
    user = f"{local_user()}@example.org"
    dice = random.Random(2)
    victims = [program for program in PROGRAMS for _ in range(KILLS_EACH)]
    dice.shuffle(victims)
    ledger = Ledger(site.port, [str(POSTILLION_COMMANDS / "sendmail"), "-C", str(site.etc)])
    routes = [("", "x@next.example"), ("", user), (user, "bad@next.example")] * CLIENTS
    with Sink(site.next_port, refuse={"bad@next.example": "550 5.1.1 no such user"}) as sink, running(site):

        def arrived() -> Iterator[bytes]:
            yield from (message.content for message in list(sink.messages))
            yield from (path.read_bytes() for path in site.maildir(local_user()))

        with ledger.load(routes, local=("", "x@next.example")):
            for victim in victims:
                flowing = len(ledger.acknowledged) + dice.randrange(1, 40)
                wait_for("mail to flow", lambda flowing=flowing: len(ledger.acknowledged) >= flowing)
                wait_for(f"a process of {victim}", lambda victim=victim: processes(site, victim))
                os.kill(dice.choice(processes(site, victim)), signal.SIGKILL)
                if victim == "master":
                    wait_for("the others to follow their master", lambda: not processes(site, "smtpd"))
                    start(site, "postillion")
        wait_for("every acknowledged message", lambda: not ledger.missing(arrived)[0], 180)
        lost, duplicates = ledger.missing(arrived)
    with capsys.disabled():
        print(f"\n{len(victims)} faults, {len(ledger.acknowledged)} acked, {len(lost)} lost, {duplicates} duplicates")
    assert not lost
    assert len(ledger.acknowledged) > len(victims)
    # At most what was under way when a process died.
    assert duplicates <= len(victims) * CAPACITY
