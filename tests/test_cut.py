"""A simulated power cut of the file system under the queue and the mailboxes, under load.

The test shuts down an ext4 image without flushing its journal: unstable data is gone after the next mount. It stops
every process just before the cut: after a shutdown, ext4's fdatasync may report success for data that the shutdown
dropped, and no process lives on after a real power cut. The ledger and the log are on another file system.
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
"""Maximum number of messages acknowledged between two cuts."""
IMAGE_OCTETS = 1 << 30
SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN (include/uapi/linux/ext4.h)."""
NO_LOG_FLUSH = 2
UNSTABLE_S = 0.5
"""Age at which the queue manager's records are stable: the state log's 50 ms and a sync."""


@dataclass
class Disk:
    """An ext4 file system in a file. `cuts`: the time of each cut (seconds since 1970)."""

    image: Path
    path: Path
    cuts: list[float] = field(default_factory=list)

    def mount(self) -> None:
        """Mount the file system. Skips the test when the machine does not allow it."""
        mounted = subprocess.run(
            ["mount", "-o", "loop", str(self.image), str(self.path)], capture_output=True, text=True
        )
        if mounted.returncode != 0:
            pytest.skip(f"cannot mount a file here: {mounted.stderr.strip()}")

    def unmount(self) -> None:
        """Unmount the file system, once no process has an open file on it."""
        wait_for("the file system to be free", lambda: subprocess.run(["umount", str(self.path)]).returncode == 0)

    def cut(self) -> None:
        """Shut the file system down: from now on nothing reaches the disk, and every access fails."""
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
    """Stop every process of a site; return their IDs once no thread runs."""
    pids: list[int] = []
    # Twice: master may start another process meanwhile.
    for _ in range(2):
        pids = [pid for found in site_processes(site).values() for pid in found]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)

    def all_stopped() -> bool:
        stats = [path.read_text() for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/stat")]
        # A thread that waits for the disk (D) does not return to user space before it stops.
        return all(stat.rpartition(")")[2].split()[0] in "TDZ" for stat in stats)

    wait_for("every thread to stop", all_stopped)
    return pids


def cut_off(site: Site, disk: Disk, faults: Faults) -> None:
    """Cut the disk off and kill the site, then mount the disk and start the site again."""
    faults.in_flight += min(CAPACITY, faults.in_flight_now())
    frozen = freeze(site)
    masters = site_processes(site)["master"]
    disk.cut()
    # Kill master last: its death would wake the stopped processes (setpgid(2), orphaned process groups).
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
    """Return the number of `times` less than `UNSTABLE_S` before a cut: their records may be lost."""
    ordered = sorted(times)
    return sum(bisect.bisect_right(ordered, cut) - bisect.bisect_left(ordered, cut - UNSTABLE_S) for cut in cuts)


def test_every_acknowledged_message_survives_a_power_cut(
    tmp_path: Path, disk: Disk, summarize: Callable[[str], None]
) -> None:
    chosen = seed()
    rng = random.Random(chosen)
    site = site_on(disk, tmp_path)
    ledger = new_ledger(site)
    faults = Faults(site, ledger)
    with Sink(site.next_port, refuse={"bad@next.example": "550 5.1.1 no such user"}) as sink:
        start(site, "postillion")
        try:
            # Count no arrivals before the last cut: a cut may remove messages from the mailbox.
            arrivals = new_arrivals(site, sink)
            local = [Route("", ["x@next.example"], pace_s=0.1)]
            with ledger.load(routes(f"{local_user()}@example.org"), local=local):
                for _ in range(CUTS):
                    ledger.wait_for_more(rng.randint(1, BETWEEN_MAX), FLOWING_MAX_S)
                    cut_off(site, disk, faults)
            drain(site, ledger, arrivals)
        finally:
            stop(site, "postillion")
    # Duplicates are allowed for messages in flight, and for those delivered or accepted just before a cut.
    bound = faults.in_flight + unstable(arrivals.times, disk.cuts) + unstable(ledger.times, disk.cuts)
    summarize(f"power cut, seed {chosen}: {verdict(faults, ledger, arrivals, bound)}")
    check(faults, ledger, arrivals, bound)
