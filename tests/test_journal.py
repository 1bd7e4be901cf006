"""The Python interface of the journal: descriptors, frames, errors."""

import json
import os
import select
import struct
from pathlib import Path

import pytest

from postillion._core.cleanup import Intake, Options
from postillion._core.log import Log
from postillion._core.queue import Journal, QueueError
from support.memory_config import cleanup_settings
from support.queue_files import crc32c, read_queue

PRODUCER = struct.Struct("<IBBIQQ")


def test_new_journal_has_only_a_hello_frame(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    length, version, kind, pid, segment, end = PRODUCER.unpack(journal.hello(1234))
    assert (length, version, kind, pid, segment, end) == (PRODUCER.size - 4, 1, 1, 1234, 0, 0)
    assert journal.announcements() == b""
    assert journal.completed() == []
    assert journal.wait(0.01) == []
    assert select.select([journal.fileno()], [], [], 0)[0] == []


def submit(journal: Journal, ticket: int) -> str:
    """Commit a small message under `ticket`; return its queue ID."""
    log = Log("mx", "postfix", "pickup", 1, 0, "memory:")
    settings = cleanup_settings(enable_long_queue_ids="yes")
    recipients = [("r@example.net", None, None, 0)]
    message = Intake(settings, journal, log, Options.INTERNAL, "s@example.org", recipients, wall_now=1_795_000_000.0)
    message.write(b"Subject: hello\n\nhello\n")
    return message.commit(ticket)


def test_durable_message_wakes_loop_and_is_announced_and_listed(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    queue_id = submit(journal, 42)
    assert select.select([journal.fileno()], [], [], 10)[0] == [journal.fileno()]
    assert journal.completed() == [(42, None)]
    assert select.select([journal.fileno()], [], [], 0)[0] == []
    frames = journal.announcements()
    assert frames[4:6] == b"\x01\x02"
    assert b"r@example.net" in frames
    assert journal.announcements() == b""
    (line,) = read_queue(str(tmp_path), long_queue_ids=True)
    listed = json.loads(line)
    assert (listed["queue_id"], listed["queue_name"], listed["sender"]) == (queue_id, "incoming", "s@example.org")
    assert listed["recipients"] == [{"address": "r@example.net"}]


def test_failed_commit_reports_its_smtp_reply(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    journal.close()
    submit(journal, 7)
    assert journal.wait(10) == [(7, "451 4.3.0 Error: queue file write error")]


def test_new_directories_are_private_to_their_owner(tmp_path: Path) -> None:
    Journal(str(tmp_path))
    assert (tmp_path / "incoming").stat().st_mode & 0o777 == 0o700


def test_every_journal_has_its_own_slot(tmp_path: Path) -> None:
    journals = [Journal(str(tmp_path)) for _ in range(3)]
    assert len(journals) == len(list((tmp_path / "incoming").glob("slot.*")))


def test_closed_journal_can_be_closed_again(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    journal.close()
    journal.close()
    assert journal.announcements() == b""


@pytest.mark.parametrize("what", ["missing", "file"])
def test_bad_queue_directory_is_named_in_the_error(tmp_path: Path, what: str) -> None:
    path = tmp_path / what
    if what == "file":
        path.write_text("")
    with pytest.raises(QueueError, match=str(path)):
        Journal(str(path))
    assert issubclass(QueueError, OSError)


def test_negative_duration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="-1"):
        Journal(str(tmp_path), segment_max_age_s=-1.0)


def test_empty_queue_lists_nothing_and_is_not_changed(tmp_path: Path) -> None:
    assert read_queue(str(tmp_path)) == []
    assert os.listdir(tmp_path) == []


def test_queue_file_of_later_release_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "incoming").mkdir()
    path = tmp_path / "incoming" / "0000000000000001"
    header = b"\x93PSG" + struct.pack("<HHQQI", 9, 0, 1, 2, 0)
    path.write_bytes(header + struct.pack("<I", crc32c(header)) + bytes(100))
    with pytest.raises(QueueError, match=f"{path}: queue file version 9.*start the newer release"):
        read_queue(str(tmp_path))
