"""No core takes more instructions a message than when they were last recorded, but for a margin."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.peers import peer

BENCHES = Path(__file__).resolve().parent.parent / "benches"
sys.path.insert(0, str(BENCHES))

import instructions  # noqa: E402

PATIENCE_S = 900.0
"""The example is built first, as it is released."""


def test_no_core_takes_more_instructions_than_recorded() -> None:
    """The bench says which do, and how to record them."""
    peer("valgrind")
    command = [sys.executable, str(BENCHES / "instructions.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_core_is_recorded() -> None:
    """With what it was measured on."""
    recorded = json.loads(instructions.BASELINE.read_text())
    assert tuple(recorded["instructions"]) == instructions.CORES
    assert recorded["margin"] == instructions.MARGIN
    assert min(recorded["instructions"].values()) > 1000
    assert {"rustc", "machine", "vectors"} <= recorded.keys()


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [(1000, 1000, "same"), (1000, 1050, "same"), (1000, 1051, "worse"), (1000, 950, "same"), (1000, 949, "better")],
)
def test_the_margin_is_a_twentieth_either_way(before: int, now: int, expected: str) -> None:
    """Five in a hundred."""
    assert instructions.verdict(before, now) == expected
