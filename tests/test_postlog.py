"""postlog: the same lines as Postfix's, but for date and PID."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from postillion.commands import postlog
from support import peers

MAIN_CF = """\
compatibility_level = 3.6
myhostname = mx.example.org
queue_directory = {directory}
maillog_file = {directory}/maillog
maillog_file_prefixes = {directory}
syslog_name = postfix/out
"""


@pytest.mark.parametrize(
    ("words", "stdin"),
    [
        (["hello", "world"], ""),
        (["-t", "postfix/script", "-p", "warn", "a"], ""),
        (["-i", "-p", "error", "two\nlines"], ""),
        (["-p", "panic"], "one\ntwo\n"),
        (["-p", "fatal", "x"], ""),
        (["-p", "nosuch", "x"], ""),
        (["-x"], ""),
        ([], ""),
    ],
    ids=str,
)
def test_lines_and_status_are_those_of_postfix(tmp_path: Path, words: list[str], stdin: str) -> None:
    peers.root()
    (tmp_path / "main.cf").write_text(MAIN_CF.format(directory=tmp_path))
    log = tmp_path / "maillog"
    found = []
    for program in ([peers.peer("postlog")], [sys.executable, "-m", postlog.__name__]):
        log.write_text("")
        done = subprocess.run(
            [*program, "-c", str(tmp_path), *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        # Postfix's own complaints about a command line go to the log, ours to standard error.
        lines = re.sub(r"^.{15} (\S+) (\S+)\[\d+\]", r"\1 \2", log.read_text(), flags=re.MULTILINE)
        found.append((done.returncode, "" if done.returncode else lines))
    assert found[0] == found[1]
