"""A broken site is refused and leaves nothing running. A full disk loses no acknowledged message.

test_master.py tests each mistake in main.cf and master.cf. These tests use a complete site: after the refusal no
process runs and no socket is bound. The full disks are small file systems in memory, so those tests need root.
"""

import contextlib
import re
import smtplib
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.hostile import Watch
from support.mta import MASTER_CF, Site, listening, local_user, processes, running, wait_for
from support.peers import root

PROGRAMS = ("master", "smtpd", "qmgr", "pickup", "anvil", "local", "smtp")
DISK_OCTETS = 16 * 1024 * 1024


@contextlib.contextmanager
def mounted(path: Path, options: str) -> Iterator[Path]:
    """Mount a file system in memory at `path` during the block."""
    root()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True, text=True)
    if mount.returncode != 0:
        pytest.skip(f"cannot mount a file system here: {mount.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(directory: Path) -> Path:
    """Fill a file system; return the file that takes its space."""
    filler = directory / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        for octets in (65536, 4096, 512, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * octets):
                    pass
    return filler


def no_main_cf(site: Site, _: contextlib.ExitStack) -> None:
    (site.etc / "main.cf").unlink()


def unreadable_main_cf(site: Site, held: contextlib.ExitStack) -> None:
    no_main_cf(site, held)
    # File modes do not stop root, but a directory does.
    (site.etc / "main.cf").mkdir()


def unreadable_master_cf(site: Site, _: contextlib.ExitStack) -> None:
    (site.etc / "master.cf").unlink()
    (site.etc / "master.cf").mkdir()


def binary_main_cf(site: Site, _: contextlib.ExitStack) -> None:
    (site.etc / "main.cf").write_bytes(bytes(range(256)) * 16)


def bad_syntax(site: Site, _: contextlib.ExitStack) -> None:
    with (site.etc / "master.cf").open("a") as file:
        file.write("submission inet n - n\n")


def unknown_program(site: Site, _: contextlib.ExitStack) -> None:
    with (site.etc / "master.cf").open("a") as file:
        file.write("extra unix - - n - - qmgrr\n")


def second_port_in_use(site: Site, held: contextlib.ExitStack) -> None:
    other = held.enter_context(socket.create_server(("127.0.0.1", 0)))
    with (site.etc / "master.cf").open("a") as file:
        file.write(f"127.0.0.1:{other.getsockname()[1]} inet n - n - - smtpd\n")


def full_disk(site: Site, held: contextlib.ExitStack) -> None:
    fill(held.enter_context(mounted(site.queue, "size=64k")))


def read_only_disk(site: Site, held: contextlib.ExitStack) -> None:
    held.enter_context(mounted(site.queue, "ro"))


ADDED_LINE = len(MASTER_CF.splitlines()) + 1
"""The line number of a line appended to a site's master.cf."""


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_main_cf, r"main\.cf: the file is missing: create it"),
        (unreadable_main_cf, r"main\.cf: this is a directory: \w+"),
        (unreadable_master_cf, r"master\.cf: this is a directory: \w+"),
        (binary_main_cf, r"main\.cf, line \d+: .*: \w+"),
        (bad_syntax, rf"master\.cf, line {ADDED_LINE}: missing .* field: give eight fields"),
        (unknown_program, rf'master\.cf, line {ADDED_LINE}: unknown program "qmgrr" .*: did you mean qmgr\?'),
        (second_port_in_use, rf"master\.cf, line {ADDED_LINE}: bind .*: Address already in use: stop the program"),
        (full_disk, r"main\.cf, line \d+: queue_directory .*: free some space there"),
        (read_only_disk, r"main\.cf, line \d+: queue_directory .*: start as its owner, or name another"),
    ],
)
def test_broken_site_is_refused_and_leaves_nothing_running(
    tmp_path: Path, damage: Callable[[Site, contextlib.ExitStack], None], message: str
) -> None:
    site = Site(tmp_path)
    with contextlib.ExitStack() as held:
        damage(site, held)
        result = site.run("postillion", "start")
        assert result.returncode == 1
        assert result.stdout == ""
        assert re.fullmatch(rf"postillion: fatal: {re.escape(str(site.etc))}/{message}.*\n", result.stderr), (
            result.stderr
        )
        assert not listening(site.port)
        assert [program for program in PROGRAMS if processes(site, program)] == []
        assert [path for path in tmp_path.rglob("*") if path.is_socket()] == []


def test_site_starts_once_it_is_fixed(tmp_path: Path) -> None:
    site = Site(tmp_path)
    master_cf = (site.etc / "master.cf").read_text()
    bad_syntax(site, contextlib.ExitStack())
    command = [*site.command("postillion"), "start"]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 1
    (site.etc / "master.cf").write_text(master_cf)
    with running(site):
        watch = Watch(site, local_user())
        watch.serve()
        watch.check_arrivals()


def send(site: Site, watch: Watch, size: int) -> tuple[int, str]:
    """Send a message of `size` octets; return the final reply, and record an acknowledged message."""
    marker = watch.marker()
    text = f"X-Marker: {marker}\r\n\r\n".encode() + b"x" * 70 + b"\r\n" + (b"line of text" * 6 + b"\r\n") * (size // 74)
    with smtplib.SMTP("127.0.0.1", site.port, "client.example", 20) as client:
        try:
            client.sendmail("", [watch.recipient], text)
        except smtplib.SMTPResponseException as refused:
            return refused.smtp_code, bytes(refused.smtp_error).decode()  # type: ignore[arg-type]
    watch.acknowledged.append(marker)
    return 250, ""


FULL = (452, "4.3.1 Insufficient system storage")


@pytest.mark.parametrize("size", [1_000, 200_000, 1_500_000], ids=["small", "middling", "large"])
def test_full_disk_is_452_and_loses_no_acknowledged_message(tmp_path: Path, size: int) -> None:
    site = Site(tmp_path, main_cf={"message_size_limit": "0"})
    with mounted(site.queue, f"size={DISK_OCTETS}") as queue, running(site):
        watch = Watch(site, local_user())
        watch.begin()
        filler = fill(queue)
        replies = [send(site, watch, size) for _ in range(20)]
        # The last page of each process's segment may have room for small messages.
        assert set(replies) <= {FULL, (250, "")}
        assert replies.count(FULL) >= 10
        assert sorted(processes(site, "smtpd")) == watch.pids
        filler.unlink()
        for _ in range(5):
            assert send(site, watch, size) == (250, "")
        watch.check_arrivals()
        assert sorted(processes(site, "smtpd")) == watch.pids
        assert "Traceback" not in site.log_text()


def test_new_mail_is_refused_below_minimum_free_space(tmp_path: Path) -> None:
    site = Site(tmp_path, main_cf={"message_size_limit": str(DISK_OCTETS)})
    with mounted(site.queue, f"size={DISK_OCTETS}"), running(site):
        assert send(site, Watch(site, local_user()), 1_000) == FULL


def test_deferred_mail_survives_a_full_disk(tmp_path: Path) -> None:
    settings = {"message_size_limit": "0", "transport_maps": "inline:{{ example.org = local }}"}
    site = Site(tmp_path, main_cf=settings)
    mail = site.directory / "mail"
    with mounted(site.queue, f"size={DISK_OCTETS}") as queue, running(site):
        watch = Watch(site, local_user())
        watch.begin()
        watch.check_arrivals()
        # Deliveries fail from now on: mail is deferred until the disk is full.
        mail.rename(site.directory / "elsewhere")
        while (reply := send(site, watch, 100_000)) == (250, ""):
            pass
        assert reply == FULL
        watch.logged("status=deferred")
        fill(queue)
        (site.directory / "elsewhere").rename(mail)
        flush = site.run("postqueue", "-f")
        assert flush.returncode == 0, flush.stderr
        (queue / "filler").unlink()
        watch.check_arrivals()
        # The space of a segment is free once all its mail is gone.
        wait_for("room for new mail", lambda: send(site, watch, 1_000) == (250, ""))
        watch.check_arrivals()
