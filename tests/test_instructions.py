"""The number of instructions a message does not exceed the recorded number of each core by more than a margin."""

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
"""Includes the release build of the example."""


def test_no_core_exceeds_its_recorded_instructions() -> None:
    peer("valgrind")
    command = [sys.executable, str(BENCHES / "instructions.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_core_is_recorded() -> None:
    recorded = json.loads(instructions.BASELINE.read_text())
    assert tuple(recorded["instructions"]) == instructions.CORES
    assert recorded["margin"] == instructions.MARGIN
    assert min(recorded["instructions"].values()) > 1000
    assert {"rustc", "machine", "vectors"} <= recorded.keys()


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [(1000, 1000, "same"), (1000, 1050, "same"), (1000, 1051, "worse"), (1000, 950, "same"), (1000, 949, "better")],
)
def test_margin_is_five_percent_either_way(before: int, now: int, expected: str) -> None:
    assert instructions.verdict(before, now) == expected
