#!/usr/bin/env python3
"""Build the fuzz targets and run each for its share of a given time, from freshly made seeds.

    rust/fuzz/run.py [--seconds 120] [TARGET ...]

Needs cargo and a C++ compiler, no nightly toolchain and no cargo-fuzz: the flags below are what `cargo fuzz -s none`
gives rustc, and all of them are stable. New inputs of a run stay in var/fuzz/corpus/ for the next one. An
input that fails is left in var/fuzz/failures/ and its path is printed; `run.py --replay FILE TARGET` runs it alone.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

import seeds

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
KEPT = ROOT / "var" / "fuzz"
FLAGS = (
    "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-pc-table"
    " -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-trace-compares"
    " --cfg fuzzing"
)
MEMORY = "/dev/shm"  # noqa: S108 - directories in it have random names
INPUT_MAX_OCTETS = 4096
INPUT_MAX_S = 10
"""One input that takes longer is a failure, as is more memory than this:"""
MEMORY_MAX_MIB = 1024
SHARE_LEAST_S = 1
TOLD_MAX_LINES = 80


@dataclass
class Run:
    """The result of a target's run."""

    target: str
    inputs: int
    covered: int
    failed: bool
    output: str


def targets() -> list[str]:
    """Return the names of the targets."""
    manifest = tomllib.loads((HERE / "Cargo.toml").read_text())
    return [binary["name"] for binary in manifest["bin"]]


def build() -> Path:
    """Build all targets; return the directory that holds them."""
    version = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"^host: (\S+)$", version, re.MULTILINE)
    assert found, version
    # With a target named, the flags are for the targets alone and not for what runs at build time.
    directory = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "fuzz"
    command = ["cargo", "build", "--quiet", "--locked", "--release", "--target", found[1], "--target-dir", directory]
    profile = {name: value for name, value in os.environ.items() if not name.startswith("CARGO_PROFILE_")}
    subprocess.run(command, cwd=HERE, env=profile | {"RUSTFLAGS": FLAGS}, check=True)
    return directory / found[1] / "release"


def fuzz(programs: Path, target: str, share_s: int) -> Run:
    """Run one target for `share_s` seconds."""
    corpus, failures = KEPT / "corpus" / target, KEPT / "failures" / target
    made = KEPT / "seeds" / target
    for directory in (corpus, failures, made):
        directory.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds.of(target)):
        (made / f"{number:04}").write_bytes(seed)
    command = [
        str(programs / target),
        f"-max_total_time={share_s}",
        f"-max_len={INPUT_MAX_OCTETS}",
        f"-timeout={INPUT_MAX_S}",
        f"-rss_limit_mb={MEMORY_MAX_MIB}",
        f"-artifact_prefix={failures}/",
        "-print_final_stats=1",
        str(corpus),
        str(made),
        *([str(HERE / "seeds" / target)] if (HERE / "seeds" / target).is_dir() else []),
    ]
    # Queues are on a disk in memory: the targets test the contents of the files.
    memory = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory) as directory:
        environment = {"TMPDIR": directory, "RUST_BACKTRACE": "0"}
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, check=False)
    output = done.stderr.decode(errors="replace")
    executed = re.search(r"stat::number_of_executed_units:\s+(\d+)", output)
    covered = re.findall(r"\bcov: (\d+)", output)
    inputs = int(executed[1]) if executed else 0
    return Run(target, inputs, int(covered[-1]) if covered else 0, done.returncode != 0, output)


def tell(run: Run) -> None:
    """Print a run in a line, or everything about one that failed."""
    print(f"{run.target:12}  {run.inputs:>10,} inputs  {run.covered:>6,} edges", flush=True)
    if run.failed:
        # Without the fuzzer's own progress.
        told = [line for line in run.output.splitlines() if not line.startswith(("#", "\t", "INFO:", "WARNING:", "0x"))]
        print("\n".join(told[-TOLD_MAX_LINES:]))
        for path in re.findall(r"Test unit written to (\S+)", run.output):
            print(f"{run.target} FAILS on {path}", flush=True)


def main() -> None:
    """Run the targets and print the results; exit with an error if an input failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=120, help="of the clock, for all targets together")
    parser.add_argument("--replay", type=Path, help="run this input alone")
    options = parser.parse_args()
    chosen = options.targets or targets()
    programs = build()
    if options.replay:
        sys.exit(subprocess.run([programs / chosen[0], options.replay], check=False).returncode)
    at_once = min(os.cpu_count() or 1, len(chosen))
    share_s = max(SHARE_LEAST_S, options.seconds * at_once // len(chosen))
    print(f"{len(chosen)} targets, {at_once} at a time, {share_s} s each", flush=True)
    begin = time.monotonic()
    failed = []
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        for run in pool.map(lambda target: fuzz(programs, target, share_s), chosen):
            tell(run)
            if run.failed or run.inputs == 0:
                failed.append(run.target)
    print(f"{time.monotonic() - begin:.0f} s")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
