"""A queue directory that is damaged, foreign, of a later release or from another machine.

The queue manager survives, logs a clear line for each problem, and delivers every whole message.
"""

import os
import random
import shutil
import smtplib
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.mta import Site, processes, running, wait_for
from support.queue_files import crc32c
from support.sink import Sink

MESSAGES = 5
SEGMENT_HEADER_OCTETS = 32


def waiting(directory: Path) -> Site:
    """Return a stopped site with deferred messages in its queue."""
    site = Site(directory)
    with running(site):
        with smtplib.SMTP("127.0.0.1", site.port) as client:
            for number in range(MESSAGES):
                client.sendmail("s@example.org", ["r@next.example"], f"Subject: {number}\r\n\r\nbody {number}\r\n")
        wait_for("the deferrals", lambda: site.log_text().count("status=deferred") >= MESSAGES)
    return site


def delivers_all(site: Site, named: str = "") -> None:
    """Start the site and its next hop; wait until each message has arrived once, and qmgr has logged `named`."""
    before = len(site.log_text())
    with Sink(site.next_port) as sink, running(site):
        flush = site.run("postqueue", "-f")
        assert flush.returncode == 0, flush.stderr
        subjects = sorted(message.content.split(b"Subject: ")[1][:1] for message in sink.wait(MESSAGES))
        assert subjects == [b"%d" % number for number in range(MESSAGES)]
        wait_for("an empty queue", lambda: site.log_text()[before:].count(": removed") >= MESSAGES)
        assert len(sink.messages) == MESSAGES

        def is_named() -> bool:
            return any(named in line and "/qmgr[" in line for line in site.log_text()[before:].splitlines())

        wait_for(f"a line about {named}", is_named)
        assert len(processes(site, "qmgr")) == 1


def copy_owner(path: Path, like: Path) -> None:
    """Give a file the owner and group of `like`."""
    status = like.stat()
    os.chown(path, status.st_uid, status.st_gid)


def corrupt_state_log(queue: Path) -> str:
    for path in (queue / "active").glob("state.*"):
        octets = bytearray(path.read_bytes())
        octets[len(octets) // 2 :] = random.Random(1).randbytes(len(octets) - len(octets) // 2)
        path.write_bytes(octets)
    return "active/state."


def state_log_of_zeros(queue: Path) -> str:
    for path in (queue / "active").glob("state.*"):
        path.write_bytes(b"\0" * 4096)
    return "active/state."


def newer_segment(queue: Path) -> str:
    head = b"\x93PSG" + struct.pack("<HHQQI", 77, 0, 0x1234567890ABCDEF, 7, 0)
    path = queue / "incoming" / "1234567890ABCDEF"
    path.write_bytes(head + struct.pack("<I", crc32c(head)) + b"of a later release")
    copy_owner(path, queue / "incoming")
    return "1234567890ABCDEF"


def foreign_file(queue: Path) -> str:
    path = queue / "incoming" / "2234567890ABCDEF"
    path.write_bytes(b"\x7fELF" + random.Random(1).randbytes(5000))
    copy_owner(path, queue / "incoming")
    return "2234567890ABCDEF"


@pytest.mark.parametrize("damage", [corrupt_state_log, state_log_of_zeros, newer_segment, foreign_file])
def test_damaged_file_is_logged_and_whole_messages_are_delivered(tmp_path: Path, damage: Callable[[Path], str]) -> None:
    site = waiting(tmp_path)
    name = damage(site.queue)
    delivers_all(site, name)


def test_segment_of_a_later_release_is_not_changed(tmp_path: Path) -> None:
    site = waiting(tmp_path)
    newer_segment(site.queue)
    path = site.queue / "incoming" / "1234567890ABCDEF"
    before = path.read_bytes()
    delivers_all(site)
    assert path.read_bytes() == before


def test_queue_from_another_machine_is_repaired_and_delivered(tmp_path: Path) -> None:
    old = waiting(tmp_path / "old")
    site = Site(tmp_path / "new")
    with running(site):
        pass
    for name in ("incoming", "active", "deferred"):
        shutil.rmtree(site.queue / name, ignore_errors=True)
        # As from a backup: every file belongs to root, or to the user.
        shutil.copytree(old.queue / name, site.queue / name)
    repair = site.run("postsuper", "-s")
    assert repair.returncode == 0, repair.stderr
    delivers_all(site)


def test_second_queue_manager_is_refused_and_first_continues(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with Sink(site.next_port) as sink, running(site):
        wait_for("the queue manager", (site.queue / "private" / "qmgr").is_socket)
        [first] = processes(site, "qmgr")
        lifeline, ours = os.pipe()
        command = [sys.executable, "-m", "postillion.qmgr", "-n", "qmgr", "-t", "unix", "-s", "0", "-c", str(site.etc)]
        launcher = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.execv(sys.argv[2], sys.argv[2:])"
        second = subprocess.run(
            [sys.executable, "-c", launcher, str(lifeline), *command],
            pass_fds=[lifeline],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        os.close(lifeline)
        os.close(ours)
        assert second.returncode != 0
        assert "fatal" in site.log_text(), second.stderr
        assert any("another queue manager" in line for line in site.log_text().splitlines()), site.log_text()
        with smtplib.SMTP("127.0.0.1", site.port) as client:
            client.sendmail("s@example.org", ["r@next.example"], "Subject: 0\r\n\r\nbody\r\n")
        sink.wait(1)
        assert processes(site, "qmgr") == [first]
