"""Commands start without the modules that they do not need: importing asyncio alone takes longer than a lookup.

Each command runs in an interpreter of its own, without site-packages. `sys.modules` tells what it imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import postillion

PACKAGE_FOLDER = str(Path(postillion.__file__).resolve().parent.parent)
HEAVY = {"asyncio", "concurrent", "dataclasses", "inspect", "logging", "msgspec", "ssl", "traceback", "urllib"}
"""Milliseconds each."""
SMALL = {"base64", "collections", "enum", "functools", "gettext", "getopt", "json", "re", "socket", "typing"}
"""A millisecond or so each; together, as long as the start of Python."""
SOCKETS = {"collections", "enum", "functools", "socket"}
"""Modules of a command that connects to the mail system."""
NAMED_TUPLES = {"collections", "enum", "functools", "re", "typing"}
"""Modules of a command with named tuples."""
CODE = """
import sys
from postillion.commands.{command} import main
try:
    status = main({arguments!r})
except SystemExit as end:
    status = end.code
print(status, *sorted({{name.partition(".")[0] for name in sys.modules}}), file=sys.stderr)
"""
RUNS = [
    ("postmap", ["-q", "key", "hash:{etc}/map"], 0, set()),
    ("postmap", ["-q", "none", "texthash:{etc}/map"], 1, set()),
    ("postmap", ["-s", "cidr:{etc}/none"], 1, set()),
    ("postmap", ["hash:{etc}/map"], 0, set()),
    ("postalias", ["-q", "key", "hash:{etc}/map"], 0, set()),
    ("newaliases", [], 0, set()),
    ("postconf", ["-n"], 0, set()),
    ("postfix", ["status"], 1, SOCKETS),
    ("postmulti", ["-l"], 1, NAMED_TUPLES),
    ("sendmail", ["-bh"], 0, set()),
    ("mailq", [], 0, SOCKETS),
    ("postqueue", ["-p"], 0, SOCKETS),
    ("postqueue", ["-f"], 69, SOCKETS),
    ("postcat", ["-q", "NONE"], 1, SOCKETS),
    ("postsuper", ["-d", "NONE"], 1, SOCKETS),
]


def imported(etc: Path, command: str, arguments: list[str]) -> tuple[int, set[str]]:
    """Return the exit status of a command and the top-level modules that were imported when it ended."""
    words = ["-c", str(etc)] if command not in ("mailq", "sendmail", "newaliases", "postmulti") else []
    words += [argument.format(etc=etc) for argument in arguments]
    environment = {**os.environ, "PYTHONPATH": PACKAGE_FOLDER, "MAIL_CONFIG": str(etc)}
    code = CODE.format(command=command, arguments=words)
    done = subprocess.run([sys.executable, "-S", "-c", code], env=environment, capture_output=True, check=True)
    status, *names = done.stderr.decode().splitlines()[-1].split()
    return int(status), set(names)


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """Return the directory of a configuration with a table and its index, without a mail system."""
    (tmp_path / "main.cf").write_text(
        "compatibility_level = 3.6\nmyhostname = x.example\nmynetworks = 127.0.0.0/8\n"
        f"queue_directory = {tmp_path}/queue\nalias_database = hash:{tmp_path}/map\nalias_maps =\n"
    )
    (tmp_path / "map").write_text("key: value\n")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "arguments", "status", "needed"), RUNS, ids=[" ".join([run[0], *run[1]]) for run in RUNS]
)
def test_command_imports_only_what_it_needs(
    etc: Path, command: str, arguments: list[str], status: int, needed: set[str]
) -> None:
    assert imported(etc, "newaliases", [])[0] == 0
    found = imported(etc, command, arguments)
    assert found[0] == status
    assert found[1] & (HEAVY | SMALL - needed) == set()
    assert "postillion" in found[1]


def test_postmap_imports_asyncio_for_a_remote_table(etc: Path) -> None:
    (etc / "rows.cf").write_text(f"dbpath = {etc}/none.db\nquery = SELECT 1\n")
    status, modules = imported(etc, "postmap", ["-q", "key", f"sqlite:{etc}/rows.cf"])
    assert status == 1
    assert "asyncio" in modules
