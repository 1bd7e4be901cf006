"""Whatever is killed, whenever: what was acknowledged arrives.

While clients send through the server to a next hop, its processes are killed one after the other: each program ten
times, master among them. Every message that got its 250 must be at the next hop in the end; some may be there twice.
"""

import os
import random
import signal
from pathlib import Path

import pytest

from ledger import Ledger
from mta import Site, running, start, wait_for
from sink import Sink

PROGRAMS = ("master", "smtpd", "qmgr", "delivery.smtp")
KILLS_EACH = int(os.environ.get("POSTILLION_KILLS", "10"))
CLIENTS = 6


def processes(site: Site, program: str) -> list[int]:
    """Return the processes of a program that run for this site."""
    module = f"postillion.{program}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if module in arguments and str(site.etc).encode() in arguments:
                found.append(int(entry.name))
    return found


def acknowledged_since(ledger: Ledger, before: int) -> bool:
    return len(ledger.acknowledged) > before


def test_every_acknowledged_message_survives_sigkill_of_every_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(tmp_path, main_cf={"minimal_backoff_time": "1s", "maximal_backoff_time": "2s", "queue_run_delay": "1s"})
    dice = random.Random(2)
    victims = [program for program in PROGRAMS for _ in range(KILLS_EACH)]
    dice.shuffle(victims)
    ledger = Ledger(site.port)
    with Sink(site.next_port) as sink, running(site):
        with ledger.load(CLIENTS):
            for victim in victims:
                before = len(ledger.acknowledged)
                wait_for("mail to flow", lambda before=before: acknowledged_since(ledger, before + dice.randrange(40)))
                wait_for(f"a process of {victim}", lambda victim=victim: processes(site, victim))
                pid = dice.choice(processes(site, victim))
                os.kill(pid, signal.SIGKILL)
                if victim == "master":
                    wait_for("the others to follow their master", lambda: not processes(site, "smtpd"))
                    start(site, "postillion")

        def all_there() -> bool:
            return not ledger.verdict(list(sink.messages))[0]

        wait_for("every acknowledged message", all_there, 120)
        lost, duplicates = ledger.verdict(list(sink.messages))
    with capsys.disabled():
        faults, acked = len(victims), len(ledger.acknowledged)
        print(f"\n{faults} faults, {acked} acked, {len(lost)} lost, {duplicates} duplicates")
    assert not lost
    assert len(ledger.acknowledged) > len(victims)
    # At most what was under way when a process died: a message for each running delivery.
    assert duplicates <= len(victims) * 100
