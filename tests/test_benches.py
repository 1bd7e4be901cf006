"""Every bench runs and reports a correct result. The times of these short runs mean nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.peers import peer, root

BENCHES = Path(__file__).resolve().parent.parent / "benches"
PATIENCE_S = 300.0
"""Includes the build of an example."""


@pytest.mark.parametrize(
    ("bench", "flags", "peers"),
    [
        ("relay", ["--only", "postillion"], ["smtp-source", "smtp-sink"]),
        ("relay_tables", ["--only", "postillion"], ["smtp-source", "smtp-sink"]),
        ("relay_tls", ["--only", "postillion"], []),
        ("idle_tls", [], []),
        ("domains", ["--only", "postillion"], ["named", "unshare"]),
        ("latency", ["--only", "postillion", "--rate", "100"], []),
        ("injection", ["--only", "postillion"], ["smtp-source"]),
        ("drain", ["--only", "postillion"], ["smtp-source", "smtp-sink"]),
        ("disk", ["--only", "postillion"], ["smtp-source"]),
        ("resolver", [], ["named"]),
        ("decisions", [], []),
        ("parser", [], []),
        ("tables", [], ["postmap"]),
        ("journal", [], ["strace"]),
        ("restart", [], ["smtp-source"]),
        ("listing", [], ["smtp-source"]),
        ("cpu", [], ["smtp-source", "smtp-sink"]),
        ("controller", [], []),
        ("generator", [], ["smtp-source", "smtp-sink"]),
    ],
)
def test_bench_is_correct(tmp_path: Path, bench: str, flags: list[str], peers: list[str]) -> None:
    for program in peers:
        peer(program)
    if "unshare" in peers:
        root()
    written = tmp_path / "result.json"
    program_flags = ["--quick", "--json", str(written), "--directory", str(tmp_path), *flags]
    command = [sys.executable, str(BENCHES / f"{bench}.py"), *program_flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    if done.stdout.startswith("skipped"):
        # A profiler is not a peer: some machines do not allow profiling.
        pytest.skip(done.stdout.strip())
    result = json.loads(written.read_text())
    assert result["correct"] is True
    assert result["rows"]
