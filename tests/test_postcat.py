"""postcat: messages of the queue, and files in Postfix's format compared with Postfix's own postcat."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postillion._core.pickup import MaildropWriter, maildrop_envelope
from postillion.commands import postcat, records
from postillion.commands.records import BadRecord
from support import peers
from support.queue_commands import digest, queue_of_three, run
from support.queue_files import Message, write_segment

LONG_LINE = b"y" * 5000


@pytest.fixture(params=[1, 2])
def stopped(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """Make a queue of three messages without a queue manager, with its configuration, in the current directory.

    Once for each version of the record.
    """
    monkeypatch.chdir(tmp_path)
    return queue_of_three(tmp_path, request.param)


def submission(content: bytes = b"Subject: x\n\tmore\nX: y\n\nbody\n" + LONG_LINE + b"\n.dot\nend") -> bytes:
    """Return a file as sendmail writes it to maildrop/."""
    writer = MaildropWriter(dot_ends=False)
    to = [("a@example.net", None, "rfc822;A@example.net", 8), ("b@example.net", "c@example.net", None, 0)]
    head = maildrop_envelope("s@example.org", to, wall_now=1_795_000_000.25, full_name="S", envid="env", ret="HDRS")
    return head + writer.feed(content)[0] + writer.finish([("x@example.net", None, None, 0)])


def test_options_select_parts_of_message(stopped: list[Message]) -> None:
    name = stopped[0].id
    whole = run(postcat, "-q", name).stdout
    path = f"incoming/{1:016X}/{name}"
    assert whole.startswith(f"*** ENVELOPE RECORDS {path} ***\nmessage_size:              35              80 ")
    assert "\nsender: sender@example.org\nnamed_attribute: client_name=h\nrecipient: r0@example.net\n" in whole
    assert f"\nnamed_attribute: log_ident={name}\n" in whole
    assert whole.endswith(
        f"*** MESSAGE CONTENTS {path} ***\nSubject: x\nX-A: b\n\n.dot\nbody\n"
        f"*** HEADER EXTRACTED {path} ***\n*** MESSAGE FILE END {path} ***\n"
    )
    assert run(postcat, "-qb", name).stdout == "\n.dot\nbody\n"
    assert run(postcat, "-qh", name).stdout == "Subject: x\nX-A: b\n"
    assert run(postcat, "-qbh", name).stdout == "Subject: x\nX-A: b\n\n.dot\nbody\n"
    assert "Subject" not in run(postcat, "-qe", name).stdout


def test_content_filter_is_shown_where_postfix_shows_it(stopped: list[Message], tmp_path: Path) -> None:
    filtered = Message(stopped[0].usec + 9, ["r@example.net"], attributes={"content_filter": "scan:[::1]:10", "a": "b"})
    write_segment(tmp_path, 2, [filtered])
    whole = run(postcat, "-q", filtered.id).stdout
    assert "\nnamed_attribute: a=b\nrecipient: r@example.net\n*** MESSAGE CONTENTS " in whole
    assert re.search(r"\n\*\*\* HEADER EXTRACTED .*\ncontent_filter: scan:\[::1\]:10\n\*\*\* MESSAGE FILE END", whole)


def test_offsets_point_into_the_segment(stopped: list[Message], tmp_path: Path) -> None:
    segment = (tmp_path / "incoming" / f"{1:016X}").read_bytes()
    for letters in ("-qdo", "-qdor"):
        lines = run(postcat, letters, stopped[1].id).stdout.splitlines()
        found = {}
        for line in lines[1:]:
            at, kind, text = re.fullmatch(r" *(\d+) +(\d+) (.*)", line).groups()  # type: ignore[union-attr]
            found[text] = (int(at), chr(int(kind)))
        assert segment[found[".dot"][0] :].startswith(b"..dot\r\nbody\r\n")
        assert segment[found["X-A: b"][0] :].startswith(b"X-A: b\r\n\r\n")
        assert segment[found["sender: sender@example.org"][0] :][4:].startswith(b"sender@example.org")
        assert segment[found["recipient: r1@example.net"][0] :][4:].startswith(b"r1@example.net")
        assert (found["X-A: b"][1], found["recipient: r1@example.net"][1]) == ("N", "R")
        offsets = [at for at, _ in found.values()]
        assert (offsets == sorted(offsets)) == ("r" in letters), "-r prints records in the order of the file"


def test_postcat_changes_nothing(stopped: list[Message], tmp_path: Path) -> None:
    before = digest(tmp_path)
    run(postcat, "-q", *(message.id for message in stopped))
    assert digest(tmp_path) == before


@pytest.mark.parametrize(
    ("argv", "status", "text"),
    [
        (["-q"], 1, "postcat: fatal: usage: postcat "),
        (["-x"], 1, "postcat: fatal: usage: postcat "),
        (["-q", "../../etc/passwd"], 1, "postcat: fatal: bad mail queue ID: ../../etc/passwd\n"),
        (["-q", "ABCDEF012"], 1, "postcat: fatal: open queue file ABCDEF012: No such file or directory\n"),
        (["/nonexistent"], 1, "postcat: fatal: open /nonexistent: No such file or directory\n"),
        (["/etc/passwd"], 0, "postcat: warning: /etc/passwd: input is not a valid queue file\n"),
    ],
)
def test_bad_names_and_files_are_one_line(stopped: list[Message], argv: list[str], status: int, text: str) -> None:
    done = run(postcat, *argv)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(text)
    assert done.stderr.count("\n") == 1


def test_damaged_message_is_one_clear_line(stopped: list[Message], tmp_path: Path) -> None:
    segment = tmp_path / "incoming" / f"{1:016X}"
    segment.write_bytes(segment.read_bytes().replace(b"..dot", b"..dog", 1))
    done = run(postcat, "-q", stopped[0].id)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "Traceback" not in done.stderr


def test_message_in_maildrop_is_found_by_name(stopped: list[Message], tmp_path: Path) -> None:
    (tmp_path / "maildrop").mkdir()
    (tmp_path / "maildrop" / "ABCDE12345").write_bytes(submission())
    shown = run(postcat, "-q", "ABCDE12345").stdout
    assert shown.startswith("*** ENVELOPE RECORDS maildrop/ABCDE12345 ***\nmessage_arrival_time: ")


@pytest.mark.parametrize("letters", ["", "-d", "-o", "-do", "-e", "-b", "-h", "-bh", "-eh", "-r", "-dr"])
def test_file_is_shown_as_by_postfix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, letters: str) -> None:
    peers.postfix_home()
    monkeypatch.chdir(tmp_path)
    queue_of_three(tmp_path)
    whole = submission()
    for name, data in {
        "whole": whole,
        "cut": whole[:70],
        "in a line": whole[:2000],
        "empty": b"",
        "text": b"hello\n",
        "no header": submission(b"\nbody\n"),
    }.items():
        (tmp_path / name).write_bytes(data)
        argv = [*([letters] if letters else []), name]
        theirs = subprocess.run(["/usr/sbin/postcat", *argv], capture_output=True, timeout=30, check=False)
        ours = subprocess.run(
            [sys.executable, "-m", "postillion.commands.postcat", "-c", ".", *argv],
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), name
        assert ours.stderr.replace(b"postcat:", b"/usr/sbin/postcat:") == theirs.stderr, name


@given(st.binary(max_size=200), st.integers(0, 400))
def test_any_file_is_read_or_refused(noise: bytes, at: int) -> None:
    whole = submission(b"Subject: x\n\nbody\n")
    at = min(at, len(whole))
    for data in (noise, whole[:at] + noise, whole[:at] + noise + whole[at:]):
        out = io.BytesIO()
        printer = records.Printer(out, "name", records.Shown(types=True, offsets=True))
        shown = 0
        with contextlib.suppress(BadRecord):
            for record in records.read(io.BytesIO(data)):
                printer.show(record)
                shown += 1
        assert shown <= len(data)


def test_circular_pointers_are_refused() -> None:
    data = b"T\x011" + b"p\x0f" + b"0".rjust(15) + b"p\x0f" + b"3".rjust(15) + b"E\x00"
    with pytest.raises(BadRecord, match="circle"):
        list(records.read(io.BytesIO(data)))
    assert [record.kind for record in records.read(io.BytesIO(data), follow=False)] == ["T", "p", "p", "E"]
