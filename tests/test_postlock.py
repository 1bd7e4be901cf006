"""postlock: the same statuses as Postfix's, and each waits for the other's locks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from postillion.commands import postlock
from support import peers

MAIN_CF = """\
compatibility_level = 3.6
myhostname = mx.example.org
queue_directory = {directory}
deliver_lock_attempts = 1
stale_lock_time = 500s
"""
OURS = [sys.executable, "-m", postlock.__name__]


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """A directory with main.cf and a mailbox."""
    (tmp_path / "main.cf").write_text(MAIN_CF.format(directory=tmp_path))
    (tmp_path / "mbox").write_text("")
    return tmp_path


def run(command: list[str], etc: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a postlock in the directory."""
    return subprocess.run(
        [*command, "-c", str(etc), *words], cwd=etc, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    "words",
    [
        ["mbox", "echo", "hi"],
        ["mbox", "sh", "-c", "exit 7"],
        ["mbox", "sh", "-c", "kill -9 $$"],
        ["mbox", "/nonexistent"],
        ["mbox"],
        [],
        ["-x", "mbox", "true"],
        ["-l", "bogus", "mbox", "true"],
        ["nosuch/mbox", "true"],
        [".", "true"],
        ["new", "stat", "-c", "%a %U %s", "new"],
        ["-l", "dotlock", "mbox", "sh", "-c", "ls -1 mbox.lock"],
        ["-l", "fcntl,flock", "mbox", "sh", "-c", "ls -1 mbox.lock"],
    ],
    ids=" ".join,
)
def test_status_and_output_are_those_of_postfix(etc: Path, words: list[str]) -> None:
    theirs = run([peers.peer("postlock")], etc, *words)
    (etc / "new").unlink(missing_ok=True)
    mine = run(OURS, etc, *words)
    assert (mine.returncode, mine.stdout) == (theirs.returncode, theirs.stdout)
    assert not (etc / "mbox.lock").exists()
    if theirs.stderr.count("\n") == 1 and "-x" not in words:
        assert mine.stderr == theirs.stderr.replace("/usr/sbin/", "")


@pytest.mark.parametrize("style", ["flock", "fcntl", "dotlock"])
@pytest.mark.parametrize("holder", ["ours", "theirs"])
def test_each_postlock_waits_for_the_lock_of_the_other(etc: Path, style: str, holder: str) -> None:
    commands = {"ours": OURS, "theirs": [peers.peer("postlock")]}
    reader, writer = os.pipe()
    held = subprocess.Popen(
        [*commands[holder], "-c", str(etc), "-l", style, "mbox", "sh", "-c", "echo held; exec cat"],
        cwd=etc,
        stdin=reader,
        stdout=subprocess.PIPE,
    )
    os.close(reader)
    assert held.stdout is not None
    assert held.stdout.readline() == b"held\n"
    other = commands["theirs" if holder == "ours" else "ours"]
    refused = run(other, etc, "-l", style, "mbox", "true")
    assert refused.returncode == os.EX_TEMPFAIL
    os.close(writer)
    held.stdout.close()
    assert held.wait(30) == 0
    assert run(other, etc, "-l", style, "mbox", "true").returncode == 0


def test_stale_lock_is_removed_for_the_next_attempt(etc: Path) -> None:
    lock = etc / "mbox.lock"
    lock.write_text("")
    os.utime(lock, (0, 0))
    assert run(OURS, etc, "-l", "dotlock", "mbox", "true").returncode == os.EX_TEMPFAIL
    assert run(OURS, etc, "-l", "dotlock", "mbox", "true").returncode == 0
