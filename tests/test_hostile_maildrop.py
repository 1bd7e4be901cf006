"""A maildrop of 100,000 files that are not messages: pickup takes every real message among them, once."""

import asyncio
import os
import socket
import subprocess
from pathlib import Path

import pytest

from postillion._core.log import Log
from postillion._core.queue import Journal
from postillion.pickup.maildrop import REPORTED_MAX, Maildrop
from postillion.pickup.service import BATCH_NAMES, Pickup
from postillion.pickup.service import Site as PickupSite
from support.hostile import high_water_kib
from support.memory_config import cleanup_settings
from support.mta import POSTILLION_COMMANDS, Site, local_user, processes, running, until, wait_for
from support.queue_files import read_queue
from test_pickup import record_file

FILES = 100_000
REAL = 50
GROWTH_MAX_KIB = 32 * 1024
"""Less than the memory for 100,000 names with their status."""
WAIT_S = 60.0
NAMES = (
    lambda n: b"\xff\xfe\n" + b"%d" % n,
    lambda n: b"-rf %d" % n,
    lambda n: b"$(reboot)`%d`" % n,
    lambda n: b"x" * 200 + b"%d" % n,
    lambda n: b"..%d" % n,
    lambda n: b"\x1b[2J%d" % n,
    lambda n: b"%%s%%n%d" % n,
)
"""Names that mislead terminals, shells, options or format strings."""


def hostile(maildrop: Path, number: int) -> None:
    """Make one file that is not a message, under a unique name."""
    name = os.path.join(os.fsencode(maildrop), NAMES[number % len(NAMES)](number))
    kind = number % 4 if number % 100 else 4
    if kind == 0:
        os.symlink("/etc/passwd", name)
    elif kind == 1:
        os.symlink(b"nowhere", name)
    elif kind == 2:
        os.mkfifo(name, 0o700)
    elif kind == 3:
        os.link(os.path.join(os.fsencode(maildrop.parent), b"linked"), name)
    else:
        os.mkdir(name, 0o700)


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    """Make a queue whose maildrop/ has 100,000 other files and a few messages."""
    for name in ("maildrop", "corrupt", "incoming"):
        (tmp_path / name).mkdir()
    (tmp_path / "linked").write_bytes(record_file(recipients=["thief@example.com"]))
    (tmp_path / "linked").chmod(0o744)
    for number in range(FILES):
        if number % (FILES // REAL) == 0:
            path = tmp_path / "maildrop" / f"real{number}"
            path.write_bytes(record_file(sender=f"s{number}@example.net"))
            path.chmod(0o744)
        hostile(tmp_path / "maildrop", number)
    return tmp_path


async def test_pickup_takes_each_message_and_keeps_event_loop_responsive(queue: Path) -> None:
    journal = Journal(str(queue))
    directory = Maildrop(None, str(queue / "maildrop"), str(queue / "corrupt"))
    log = Log("mx", "postfix", "pickup", 7, 0, "memory:")
    settings = cleanup_settings()
    pickup = Pickup(PickupSite("mx.example.org", True), directory, settings, journal, log, lambda *_: None)
    loop = asyncio.get_running_loop()

    def finish_commits() -> None:
        for ticket, error in journal.completed():
            pickup.committed(ticket, error)

    loop.add_reader(journal.fileno(), finish_commits)
    before = high_water_kib(os.getpid())
    scan = asyncio.ensure_future(pickup.scan())
    iterations = 0
    while not scan.done():
        await asyncio.sleep(0)
        iterations += 1
    await scan
    # The scan yields to the loop after each batch of names, and within a batch after a time slice.
    assert iterations >= FILES / BATCH_NAMES
    await until(lambda: not pickup.in_flight)
    assert high_water_kib(os.getpid()) - before <= GROWTH_MAX_KIB
    assert len(read_queue(str(queue))) == REAL
    assert not list((queue / "maildrop").glob("real*"))
    assert (queue / "linked").exists()
    lines = [line for line in log.take_lines() if "maildrop" in line]
    assert len(lines) == len(set(lines)) == REPORTED_MAX + 1
    assert lines[-1] == f"warning: maildrop: {REPORTED_MAX} names are not messages; further ones are not logged"
    assert all(line.isprintable() for line in lines)
    # The second scan skips known names, and does not log them again.
    (queue / "maildrop" / "late").write_bytes(record_file())
    (queue / "maildrop" / "late").chmod(0o744)
    await asyncio.wait_for(pickup.scan(), WAIT_S)
    await until(lambda: not pickup.in_flight)
    assert len(read_queue(str(queue))) == REAL + 1
    assert not [line for line in log.take_lines() if "maildrop" in line]
    loop.remove_reader(journal.fileno())
    journal.close()
    directory.close()


def test_sendmail_mail_passes_a_hostile_maildrop(tmp_path: Path) -> None:
    site = Site(tmp_path)
    (tmp_path / "queue" / "linked").write_bytes(record_file(recipients=["thief@example.com"]))
    with running(site):
        wait_for("pickup", lambda: processes(site, "pickup"))
        pickup = processes(site, "pickup")
        maildrop = site.queue / "maildrop"
        for number in range(2000):
            hostile(maildrop, number)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(maildrop / "socket"))
        for number in range(3):
            command = [str(POSTILLION_COMMANDS / "sendmail"), "-C", str(site.etc), f"{local_user()}@example.org"]
            subprocess.run(command, input=f"Subject: {number}\n\nbody\n".encode(), check=True, timeout=30)
        wait_for("three messages", lambda: len(site.maildir(local_user())) == 3)
        assert processes(site, "pickup") == pickup
        wait_for("pickup's line", lambda: "maildrop/socket: not a regular file" in site.log_text())
        assert "Traceback" not in site.log_text()
        assert len(list(maildrop.iterdir())) == 2001
