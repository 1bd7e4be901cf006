"""pickup: moves messages from maildrop/ to the queue, among files of any other kind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from postillion._core.log import Log
from postillion._core.pickup import Maildrop, MaildropWriter, maildrop_envelope
from postillion._core.queue import Journal, read_message
from postillion.config import Config
from postillion.errors import MessageRefused
from postillion.pickup.maildrop import Maildrop as Directory
from postillion.pickup.maildrop import NotAMessage, Submitted
from postillion.pickup.report import Reports
from postillion.pickup.service import Pickup, Site, read_envelope
from support.memory_config import cleanup_settings
from support.mta import wait_for
from support.queue_files import read_queue

WAIT_S = 20.0
QUEUE = ("active", "corrupt", "deferred", "incoming", "maildrop", "private", "public")


def record_file(content: bytes = b"Subject: x\n\nbody\n", **envelope: object) -> bytes:
    """Return a complete file for maildrop/."""
    sender, recipients = envelope.pop("sender", "me"), envelope.pop("recipients", ["root"])
    everyone = [(address, None, None, 0) for address in recipients]  # type: ignore[attr-defined]
    writer = MaildropWriter(dot_ends=False)
    head = maildrop_envelope(sender, everyone, wall_now=time.time(), **envelope)  # type: ignore[arg-type]
    return head + writer.feed(content)[0] + writer.finish()


class Harness:
    """A pickup service without its process."""

    def __init__(self, queue: Path, **parameters: str) -> None:
        self.queue = queue
        self.log = Log("mx", "postfix", "pickup", 7, 0, "memory:")
        self.journal = Journal(str(queue))
        self.refusals: list[str] = []
        self.directory = Directory(1_000_000, str(queue / "maildrop"), str(queue / "corrupt"))
        cleanup = cleanup_settings(**parameters)
        self.pickup = Pickup(Site("mx.example.org", True), self.directory, cleanup, self.journal, self.log, self.report)

    def report(self, file: Submitted, envelope: Maildrop, queue_id: str, refusal: MessageRefused) -> bytes | None:
        self.refusals.append(f"{file.name} {envelope.sender} {refusal}")
        return b"Subject: sorry\n\n" if envelope.sender else None

    def drop(self, name: str, data: bytes, mode: int = 0o744) -> Path:
        path = self.queue / "maildrop" / name
        path.write_bytes(data)
        path.chmod(mode)
        return path

    def scan(self) -> None:
        asyncio.run(self.pickup.scan())
        deadline = time.monotonic() + WAIT_S
        while self.pickup.in_flight:
            assert time.monotonic() < deadline
            for ticket, error in self.journal.wait(1.0):
                self.pickup.committed(ticket, error)

    def queued(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in read_queue(str(self.queue))]

    def left(self) -> list[str]:
        return sorted(os.listdir(self.queue / "maildrop"))


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    for name in QUEUE:
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def harness(queue: Path) -> Iterator[Harness]:
    harness = Harness(queue)
    yield harness
    harness.journal.close()
    harness.directory.close()


def test_message_is_queued_and_its_file_removed(harness: Harness) -> None:
    harness.drop("A1", record_file(sender="me@example.net", recipients=["root", "a@example.com"]))
    harness.scan()
    (message,) = harness.queued()
    assert message["sender"] == "me@example.net"
    assert [r["address"] for r in message["recipients"]] == ["root@example.org", "a@example.com"]  # type: ignore[attr-defined]
    assert harness.left() == []
    lines = harness.log.take_lines()
    assert f"{message['queue_id']}: uid={os.getuid()} from=<me@example.net>" in lines
    assert any(": message-id=<" in line for line in lines)


def test_content_gets_trace_and_missing_headers(harness: Harness) -> None:
    harness.drop("A1", record_file(b"Subject: x\nBcc: secret@example.com\n\n.\n8-bit \xff\n", full_name="A Name"))
    harness.scan()
    stored = b"".join(path.read_bytes() for path in (harness.queue / "incoming").glob("[0-9A-F]*"))
    assert b"Received: by mx.example.org (Postfix, from userid %d)\r\n\tid " % os.getuid() in stored
    assert b"\r\nFrom: A Name <me@example.org>\r\n" in stored
    # The body stands before the head.
    assert b"..\r\n8-bit \xff\r\n" in stored
    assert b"secret" not in stored


def test_probe_of_any_writer_is_one_in_the_queue(harness: Harness) -> None:
    # As Postfix's sendmail writes it, and as ours does.
    harness.drop("A1", record_file().replace(b"S\x02me", b"S\x02meA\x0ftrace_flags=512"))
    harness.drop("A2", record_file(trace="probe"))
    harness.drop("A3", record_file(trace="record"))
    harness.drop("A4", record_file())
    harness.drop("A5", record_file().replace(b"S\x02me", b"S\x02meA\x0ftrace_flags=256"))
    harness.scan()
    stored = [read_message(str(harness.queue), str(message["queue_id"])) for message in harness.queued()]
    assert [message.trace for message in stored if message] == ["probe", "probe", "record", ""]
    assert harness.left() == []
    assert any("A5: uid=" in line and "bad value of trace_flags" in line for line in harness.log.take_lines())


def test_records_of_other_writers_and_line_ends_in_lines_do_not_stop_mail(harness: Harness) -> None:
    # Sizes and a finished recipient, as Postfix's postsuper -r leaves them; VERP, as its postdrop does.
    skipped = b"C\x0512 34S\x02meV\x02+=F\x02J\xf6D\x05other"
    data = record_file(b"Subject: x\nX-A: b\n\nbody\n").replace(b"S\x02me", skipped)
    harness.drop("A1", data.replace(b"Subject: x", b"Subject: \n"))
    harness.scan()
    (message,) = harness.queued()
    assert [r["address"] for r in message["recipients"]] == ["root@example.org"]  # type: ignore[attr-defined]
    stored = b"".join(path.read_bytes() for path in (harness.queue / "incoming").glob("[0-9A-F]*"))
    assert b"\r\nX-A: b\r\n" in stored
    assert b"Subject: \r\n" not in stored


def test_unfinished_file_is_not_touched(harness: Harness) -> None:
    harness.drop("123.456", record_file()[:-2], mode=0o600)
    harness.scan()
    assert harness.left() == ["123.456"]
    assert harness.log.take_lines() == []


def test_hostile_files_are_reported_once_and_mail_continues(harness: Harness, tmp_path: Path) -> None:
    maildrop = harness.queue / "maildrop"
    secret = tmp_path / "secret"
    secret.write_bytes(record_file(recipients=["thief@example.com"]))
    secret.chmod(0o700)
    (maildrop / "A_symlink").symlink_to(secret)
    os.link(secret, maildrop / "B_hardlink")
    os.mkfifo(maildrop / "C_fifo", 0o700)
    (maildrop / "D_directory").mkdir(mode=0o700)
    (maildrop / "E_dangling").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(maildrop / "F_socket"))
    with harness.drop("G_sparse", b"").open("r+b") as sparse:
        sparse.truncate(2_000_000)
    harness.drop(os.fsdecode(b"H_\xff\n"), b"nonsense")
    harness.drop("Z_good", record_file())
    harness.scan()
    assert len(harness.queued()) == 1
    lines = harness.log.take_lines()
    for name in ("A_symlink", "B_hardlink", "C_fifo", "D_directory", "E_dangling", "F_socket", "G_sparse"):
        assert any(f"maildrop/{name}: " in line for line in lines), lines
    assert secret.exists()
    harness.scan()
    assert len(harness.queued()) == 1
    assert not [line for line in harness.log.take_lines() if "maildrop/" in line]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("empty", b"", "no end record"),
        ("cut", record_file()[:-2], "no end record"),
        ("text", b"Subject: x\n\nbody\n", "no end record"),
        ("zeros", bytes(5000), "unexpected record type"),
        ("more", record_file() + b"N\x01x", "after the end record"),
        ("injected", record_file().replace(b"R\x04root", b"R\x04ro\nt"), "bad text in recipient"),
        ("twice", record_file().replace(b"S\x02me", b"S\x02meS\x02me"), "too many senders"),
    ],
    # The data holds the time, and pytest-xdist compares the names of tests.
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_malformed_files_move_to_corrupt_with_reason(harness: Harness, name: str, data: bytes, reason: str) -> None:
    harness.drop(name, data)
    harness.drop("good", record_file())
    harness.scan()
    assert len(harness.queued()) == 1
    assert harness.left() == []
    assert (harness.queue / "corrupt" / name).read_bytes() == data
    assert any(reason in line for line in harness.log.take_lines())


def test_files_in_corrupt_are_never_replaced(harness: Harness) -> None:
    for content in (b"first", b"second", b"third"):
        harness.drop("evidence", content)
        harness.scan()
    assert harness.left() == []
    kept = {path.read_bytes() for path in (harness.queue / "corrupt").iterdir()}
    assert kept == {b"first", b"second", b"third"}
    assert (harness.queue / "corrupt" / "evidence").read_bytes() == b"first"


def test_message_that_cleanup_refuses_bounces(queue: Path) -> None:
    harness = Harness(queue, message_size_limit="1000", hopcount_limit="5")
    harness.drop("big", record_file(b"x" * 2000))
    harness.drop("loop", record_file(b"Received: x\n" * 5))
    harness.drop("none", record_file(recipients=[]))
    harness.drop("null", record_file(b"Received: x\n" * 5, sender=""))
    harness.drop("good", record_file())
    harness.scan()
    assert harness.left() == []
    assert sorted(harness.refusals) == [
        "big me 552 5.3.4 Error: message file too big",
        "loop me 554 5.4.0 Error: too many hops",
        "none me 550 5.1.0 Error: no recipients specified",
        "null  554 5.4.0 Error: too many hops",
    ]
    assert sorted(message["sender"] for message in harness.queued()) == ["MAILER-DAEMON"] * 3 + ["me@example.org"]  # type: ignore[type-var]
    assert os.listdir(queue / "corrupt") == ["null"]
    lines = harness.log.take_lines()
    assert any("to=<root>, relay=none" in line and "dsn=5.3.4, status=bounced (message" in line for line in lines)
    assert sum(": sender non-delivery notification: " in line for line in lines) == 3


def test_report_names_recipients_and_reason(queue: Path) -> None:
    etc = queue / "etc"
    etc.mkdir()
    (etc / "main.cf").write_text(f"queue_directory = {queue}\nmyhostname = mx.example.org\n")
    harness = Harness(queue)
    harness.drop("loop", record_file(b"Subject: round\n\nand round\n", sender="me@example.org"))
    file = harness.directory.open("loop")
    assert file is not None
    warnings: list[str] = []
    reports = Reports(Config.load(str(etc)), warnings.append)
    assert not warnings
    refusal = MessageRefused(554, "5.4.0", "Error: too many hops")
    text = reports.report(file, read_envelope(file), "ABC123", refusal)
    assert text is not None
    for part in (b"\nTo: me@example.org\n", b"<root>", b"5.4.0", b"too many hops", b"\nSubject: round\n"):
        assert part in text, text
    assert b"and round" not in text
    harness.drop("null", record_file(sender=""))
    file = harness.directory.open("null")
    assert file is not None
    assert reports.report(file, read_envelope(file), "ABC123", refusal) is None


def test_report_has_the_template_of_the_site(queue: Path) -> None:
    etc = queue / "etc"
    etc.mkdir()
    (etc / "bounce.cf").write_text("failure_template = <<EOF\nSubject: no way\n\nSorry from $myhostname.\nEOF\n")
    (etc / "main.cf").write_text(
        f"queue_directory = {queue}\nmyhostname = mx.example.org\nbounce_template_file = {etc}/bounce.cf\n"
    )
    harness = Harness(queue)
    harness.drop("loop", record_file(sender="me@example.org"))
    file = harness.directory.open("loop")
    assert file is not None
    warnings: list[str] = []

    def report() -> bytes:
        reports = Reports(Config.load(str(etc)), warnings.append)
        text = reports.report(file, read_envelope(file), "ABC123", MessageRefused(554, "5.4.0", "too many hops"))
        assert text is not None
        return text

    assert b"\nSubject: no way\n" in report()
    assert not warnings
    (etc / "bounce.cf").unlink()
    assert b"\nSubject: Undelivered Mail Returned to Sender\n" in report()
    assert len(warnings) == 1
    assert "bounce.cf: the file is missing" in warnings[0]


def test_files_stay_in_maildrop_when_disk_is_full(queue: Path) -> None:
    harness = Harness(queue)
    harness.pickup._journal = Journal(str(queue), minfree_octets=1 << 60)
    for number in range(20):
        harness.drop(f"A{number:02}", record_file())
    harness.scan()
    assert len(harness.left()) == 20
    lines = harness.log.take_lines()
    assert 0 < len(lines) <= 10
    assert all("452 4.3.1" in line for line in lines)


def test_two_thousand_files_are_queued_in_one_scan(harness: Harness) -> None:
    data = record_file()
    for number in range(2000):
        harness.drop(f"F{number:05}", data)

    async def work() -> None:
        scan = asyncio.ensure_future(harness.pickup.scan())
        loop = asyncio.get_running_loop()

        def finish_commits() -> None:
            for ticket, error in harness.journal.completed():
                harness.pickup.committed(ticket, error)

        loop.add_reader(harness.journal.fileno(), finish_commits)
        await asyncio.wait_for(scan, WAIT_S)
        loop.remove_reader(harness.journal.fileno())

    asyncio.run(work())
    harness.scan()
    assert len(harness.queued()) == 2000
    assert harness.left() == []


def test_replaced_file_is_not_opened(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    harness.drop("A1", record_file())
    real_open = os.open

    def swap(path: str, flags: int, *rest: object, **names: object) -> int:
        other = harness.drop("other", record_file(sender="thief"))
        other.rename(harness.queue / "maildrop" / "A1")
        return real_open(path, flags, *rest, **names)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", swap)
    with pytest.raises(NotAMessage, match="replaced"):
        harness.directory.open("A1")


def test_pickup_scans_at_start_and_on_trigger(queue: Path, tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "main.cf").write_text(
        f"queue_directory = {queue}\nmyhostname = mx.example.org\nmaillog_file = {tmp_path}/log\n"
        f"maillog_file_prefixes = {tmp_path}\n"
    )
    (queue / "maildrop" / "A1").write_bytes(record_file())
    (queue / "maildrop" / "A1").chmod(0o744)
    lifeline, held = os.pipe()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(queue / "public" / "pickup"))
        listener.listen()
        # fd 3: lifeline, fd 4: socket.
        starter = "import os,sys; a,b=map(int,sys.argv[1:3]); a=os.dup(a); b=os.dup(b); os.dup2(a,30); os.dup2(b,31);"
        starter += "os.dup2(30,3); os.dup2(31,4); os.execv(sys.executable, [sys.executable, *sys.argv[3:]])"
        program = ["-m", "postillion.pickup", "-n", "pickup", "-t", "unix", "-s", "1", "-c", str(etc)]
        command = [sys.executable, "-c", starter, str(lifeline), str(listener.fileno()), *program]
        with subprocess.Popen(command, pass_fds=[lifeline, listener.fileno()]) as process:
            try:
                wait_for("an empty maildrop", lambda: not os.listdir(queue / "maildrop"), WAIT_S)
                (queue / "maildrop" / "A2").write_bytes(record_file())
                (queue / "maildrop" / "A2").chmod(0o744)
                for _ in range(50):
                    with socket.socket(socket.AF_UNIX) as peer:
                        peer.connect(str(queue / "public" / "pickup"))
                        peer.sendall(b"W")
                wait_for("an empty maildrop", lambda: not os.listdir(queue / "maildrop"), WAIT_S)
                process.send_signal(signal.SIGTERM)
                assert process.wait(WAIT_S) == 0
            finally:
                process.kill()
    os.close(held)
    os.close(lifeline)
    assert len(read_queue(str(queue))) == 2
    assert "fatal" not in (tmp_path / "log").read_text()
