"""The file system under the queue and the mailboxes is cut off under load, as by a power cut.

ext4 in a file is shut down without its journal being flushed: what was not made stable is gone when it is mounted
again. Every process is stopped in the instant before, for to a process that lives on, ext4's fdatasync may report
success about what its shutdown has just dropped; a power cut tells nobody anything. The ledger and the log stand
outside of that file system.
"""

from __future__ import annotations

import bisect
import fcntl
import os
import random
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.crash import (
    CAPACITY,
    Faults,
    check,
    crash_site,
    drain,
    faults_wanted,
    kill,
    new_arrivals,
    new_ledger,
    routes,
    seed,
    site_processes,
    verdict,
)
from support.ledger import Route
from support.mta import Site, local_user, start, stop, wait_for
from support.peers import peer, root
from support.sink import Sink

CUTS = faults_wanted(4, one_in=10)
FLOWING_MAX_S = 120.0
BETWEEN_MAX = 60
"""Messages that are acknowledged between two cuts, at most."""
IMAGE_OCTETS = 1 << 30
SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN (include/uapi/linux/ext4.h)."""
NO_LOG_FLUSH = 2
UNSTABLE_S = 0.5
"""What the queue manager heard so long before a cut is noted for good: the state log's 50 ms and a sync."""


@dataclass
class Disk:
    """An ext4 file system in a file. `cuts`: when each came (seconds since 1970)."""

    image: Path
    path: Path
    cuts: list[float] = field(default_factory=list)

    def mount(self) -> None:
        """Make the files visible; skips the test where that is not possible."""
        mounted = subprocess.run(
            ["mount", "-o", "loop", str(self.image), str(self.path)], capture_output=True, text=True
        )
        if mounted.returncode != 0:
            pytest.skip(f"no file can be mounted here: {mounted.stderr.strip()}")

    def unmount(self) -> None:
        """Let go of it, once nobody holds a file there any more."""
        wait_for("the file system to be free", lambda: subprocess.run(["umount", str(self.path)]).returncode == 0)

    def cut(self) -> None:
        """From now on nothing reaches the disk, and every access fails."""
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.cuts.append(time.time())
            fcntl.ioctl(directory, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(directory)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A mounted file system."""
    root()
    disk = Disk(tmp_path / "image", tmp_path / "disk")
    disk.path.mkdir()
    with disk.image.open("wb") as image:
        image.truncate(IMAGE_OCTETS)
    subprocess.run([peer("mkfs.ext4"), "-q", "-F", str(disk.image)], check=True)
    disk.mount()
    yield disk
    disk.unmount()


def site_on(disk: Disk, directory: Path) -> Site:
    """Return a site whose queue and mailboxes are on the disk."""
    queue, mail = disk.path / "queue", disk.path / "mail"
    queue.mkdir()
    mail.mkdir()
    mail.chmod(0o1777)
    site = crash_site(directory, {"queue_directory": str(queue), "mail_spool_directory": f"{mail}/"})
    site.queue, site.mail = queue, mail
    return site


def freeze(site: Site) -> list[int]:
    """Stop every process of a site; return them once no thread of them runs any more."""
    pids: list[int] = []
    # Twice: master may have started one more meanwhile.
    for _ in range(2):
        pids = [pid for found in site_processes(site).values() for pid in found]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)

    def still() -> bool:
        stats = [path.read_text() for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/stat")]
        # A thread that waits for the disk will not see what comes of it.
        return all(stat.rpartition(")")[2].split()[0] in "TDZ" for stat in stats)

    wait_for("every thread to stand still", still)
    return pids


def cut_off(site: Site, disk: Disk, faults: Faults) -> None:
    """Cut the disk off with everything that runs, mount it again and start the site."""
    faults.in_flight += min(CAPACITY, faults.under_way())
    frozen = freeze(site)
    masters = site_processes(site)["master"]
    disk.cut()
    # Master last: those whose master is gone are woken (setpgid(2), orphaned process groups).
    for pid in set(frozen) - set(masters):
        kill(pid)
    wait_for("all but master to be dead", lambda: site_processes(site).keys() <= {"master"})
    for pid in masters:
        kill(pid)
    wait_for("everything to be dead", lambda: not site_processes(site))
    faults.count += 1
    disk.unmount()
    disk.mount()
    start(site, "postillion")


def unstable(times: Sequence[float], cuts: Sequence[float]) -> int:
    """Return how many of these moments were so short before a cut that what was noted of them may be gone."""
    ordered = sorted(times)
    return sum(bisect.bisect_right(ordered, cut) - bisect.bisect_left(ordered, cut - UNSTABLE_S) for cut in cuts)


def test_every_acknowledged_message_survives_a_power_cut(
    tmp_path: Path, disk: Disk, summarize: Callable[[str], None]
) -> None:
    chosen = seed()
    dice = random.Random(chosen)
    site = site_on(disk, tmp_path)
    ledger = new_ledger(site)
    faults = Faults(site, ledger)
    with Sink(site.next_port, refuse={"bad@next.example": "550 5.1.1 no such user"}) as sink:
        start(site, "postillion")
        try:
            # Nothing is looked at before the last cut: what a mailbox shows now may be gone then.
            arrivals = new_arrivals(site, sink)
            local = [Route("", ["x@next.example"], pace_s=0.1)]
            with ledger.load(routes(f"{local_user()}@example.org"), local=local):
                for _ in range(CUTS):
                    ledger.wait_for_more(dice.randint(1, BETWEEN_MAX), FLOWING_MAX_S)
                    cut_off(site, disk, faults)
            drain(site, ledger, arrivals)
        finally:
            stop(site, "postillion")
    # Twice may come what was under way, and what was delivered or accepted so late that its end was not stable.
    bound = faults.in_flight + unstable(arrivals.times, disk.cuts) + unstable(ledger.times, disk.cuts)
    summarize(f"power cut, seed {chosen}: {verdict(faults, ledger, arrivals, bound)}")
    check(faults, ledger, arrivals, bound)
