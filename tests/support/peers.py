"""The programs from Debian's packages that the tests talk to.

A developer who lacks one has its tests skipped, with the package to install in the reason. `PEERS=required` on make's
command line (as in CI) turns a missing one into a failure.
"""

import os
import shutil
import sys
from pathlib import Path

import pytest

PACKAGES = {
    **dict.fromkeys(("postfix", "postkick", "postlock", "postlog", "postmulti", "qshape"), "postfix"),
    "smtp-source": "postfix",
    "smtp-sink": "postfix",
    "swaks": "swaks",
    "msmtp": "msmtp",
    "pflogsumm": "pflogsumm",
    "named": "bind9",
    "strace": "strace",
    "perf": "linux-perf",
    "mkfs.ext4": "e2fsprogs",
    "valgrind": "valgrind",
}


def peer(program: str) -> str:
    """Return the path of a peer program; skip or fail the test when it is not installed."""
    ours = str(Path(sys.executable).parent)
    places = [place for place in os.environ.get("PATH", "").split(":") if place != ours]
    path = shutil.which(program, path=":".join([*places, "/usr/sbin", "/usr/local/sbin", "/sbin"]))
    if path is None:
        absent(f"{program} is not installed (Debian package {PACKAGES.get(program, program)})")
    assert path is not None
    return path


def root() -> None:
    """Skip or fail a test that needs root."""
    if os.geteuid() != 0:
        absent("needs root")


def postfix_home() -> Path:
    """Return the directory of the real Postfix daemons; skip or fail when there is none."""
    peer("postfix")
    return Path("/usr/lib/postfix/sbin")


def absent(reason: str) -> None:
    """Skip, or fail where peers are required."""
    if os.environ.get("POSTILLION_PEERS") == "required":
        pytest.fail(reason)
    pytest.skip(reason)
