"""qshape: the same table as Postfix's from the same messages."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from postillion.commands import qshape
from support import peers
from support.queue_commands import queue_of_three, run

MAIN_CF = "compatibility_level = 3.6\nmyhostname = mx.example.org\nqueue_directory = {directory}\n"
MINUTE_S = 60
MESSAGES = [
    # Queue, minutes ago, sender, recipients.
    ("active", 2, "a@send.example", ["x@next.example", "y@NEXT.example", "z@next.example."]),
    ("active", 7, "b@send.example", ["x@one.sub.domain.example", "y@four.sub.domain.example"] * 2),
    ("incoming", 33, "", ["x@three.sub.domain.example", "nodomain"]),
    ("incoming", 700, "b@others.example", [f"x{n}@{'very.' * 12}long.example" for n in range(6)]),
    ("active", 5000, "b@send.example", ["x@next.example"] * 120),
    ("deferred", 90, "b@late.example", ["x@late.example", "y@late.example"]),
]


def record(kind: str, text: str) -> bytes:
    """Return a record of a queue file: a type, a length in groups of seven bits, and text."""
    octets, length = text.encode(), len(text.encode())
    assert length < 1 << 14
    size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    return kind.encode() + size + octets


def queue_file(arrival: float, sender: str, recipients: list[str]) -> bytes:
    """Return a queue file of Postfix, without content."""
    envelope = [record("T", f"{int(arrival)} 0"), record("S", sender), *(record("R", to) for to in recipients)]
    size = record("C", f"{0:15} {100:15} {len(recipients):15} {0:15} {0:15}")
    return size + b"".join(envelope) + record("M", "") + record("X", "") + record("E", "")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["-s"],
        ["-p"],
        ["-p", "-m", "3"],
        ["-p", "-m", "1"],
        ["-l"],
        ["-l", "-t", "20", "-b", "4"],
        ["-b", "14", "-w", "120"],
        ["-b", "20", "-w", "60"],
        ["-b", "1"],
        ["-t", "60"],
        ["-b", "0", "-t", "-1", "-m", "0"],
        ["-N", "1", "-n", "2"],
        ["deferred"],
        ["-p", "active", "deferred"],
        ["nosuch"],
    ],
    ids=" ".join,
)
def test_table_is_that_of_postfix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    perl = peers.peer("qshape")
    (tmp_path / "main.cf").write_text(MAIN_CF.format(directory=tmp_path))
    now, rows = time.time(), []
    for number, (queue, age_min, sender, recipients) in enumerate(MESSAGES):
        # Half a minute from the edge of each column, so that the time between the two runs does not matter.
        arrival = now - (age_min + 0.5) * MINUTE_S
        path = tmp_path / queue / f"ABCDEF{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(queue_file(arrival, sender, recipients))
        path.chmod(0o700)
        addresses = [qshape.Address(to) for to in recipients]
        rows.append(qshape.Row(queue, int(arrival), sender or "MAILER-DAEMON", addresses))
    monkeypatch.setattr(qshape, "rows", lambda tool: rows)
    theirs = subprocess.run(
        [perl, "-c", str(tmp_path), *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert qshape.main(["-c", str(tmp_path), *words]) == theirs.returncode
    assert capsys.readouterr().out == theirs.stdout


def test_bad_command_line_has_the_status_of_postfix(capsys: pytest.CaptureFixture[str]) -> None:
    theirs = subprocess.run([peers.peer("qshape"), "-x"], capture_output=True, check=False)
    assert qshape.main(["-x"]) == theirs.returncode
    assert "usage: qshape [-s] [-p]" in capsys.readouterr().err


def test_queue_is_read_as_by_postqueue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    queue_of_three(tmp_path)
    lines = run(qshape, "incoming").stdout.splitlines()
    # The age of these messages depends on the day.
    assert [line.split()[:2] for line in lines[1:]] == [["TOTAL", "6"], ["example.edu", "3"], ["example.net", "3"]]
    assert run(qshape, "hold").stdout.splitlines()[1].split()[:2] == ["TOTAL", "0"]
