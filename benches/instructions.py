"""How many instructions does a message take in each core, and did the number increase?

    rust/core/examples/instructions, under valgrind's callgrind: the numbers do not depend on the machine's load

    python benches/instructions.py [--record]

The bench runs each core with few and with many messages; the difference gives the instructions a message.
benches/instructions.json has the recorded numbers (`make instructions RECORD=1`). A core that takes `MARGIN` more fails
the gate. Record a core that takes `MARGIN` less, to keep the gain. Hash seeds differ from run to run: this changes the
queue manager's number by less than 1 %.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BASELINE = ROOT / "benches" / "instructions.json"
CORES = ("server-new", "server-reused", "client-new", "client-reused", "cleanup", "qmgr")
MARGIN = 0.05
FEW, MANY = 200, 1200
"""Numbers of messages. The few already warm up every table."""
RUN_MAX_S = 300.0
HOW = "make instructions RECORD=1"


def build() -> Path:
    """Build the example in release mode, and ignore profiles of the environment; return its path."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CARGO_PROFILE_")}
    command = ["cargo", "build", "--quiet", "--locked", "--release", "-p", "postillion-core"]
    subprocess.run([*command, "--example", "instructions"], cwd=ROOT, env=environment, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release" / "examples" / "instructions"


def executed(program: Path, core: str, messages: int) -> int:
    """Return the number of instructions of a whole run."""
    with tempfile.TemporaryDirectory() as directory:
        valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={directory}/out"]
        command = [*valgrind, str(program), core, str(messages)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_MAX_S, check=False)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or not found:
        sys.exit(f"{core}: {done.stderr}")
    return int(found[1])


def measured() -> dict[str, int]:
    """Return the number of instructions a message of each core."""
    program = build()
    few = {core: executed(program, core, FEW) for core in CORES}
    return {core: (executed(program, core, MANY) - few[core]) // (MANY - FEW) for core in CORES}


def facts() -> dict[str, str]:
    """Return the conditions that influence the numbers."""
    rust = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    vectors = next((name for name in ("avx2", "sse4_2", "asimd") if name in flags), "none")
    return {"rustc": rust, "machine": platform.machine(), "vectors": vectors}


def verdict(before: int, now: int) -> str:
    """Return "worse", "better", or "same" within the margin."""
    if now > before * (1 + MARGIN):
        return "worse"
    return "better" if now < before * (1 - MARGIN) else "same"


def main() -> None:
    """Measure, compare or record; end with an error if a core is worse."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help=f"write {BASELINE.name} anew")
    options = parser.parse_args()
    kept: dict[str, Any] = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    recorded: dict[str, int] = kept.get("instructions", {})
    now, conditions = measured(), facts()
    print(f"{'core':14} {'recorded':>10} {'now':>10}   change")
    worse, better = [], []
    for core, count in now.items():
        before = recorded.get(core, 0)
        change = f"{count / before - 1:+.1%}" if before else "new"
        print(f"{core:14} {before:>10,} {count:>10,}   {change}")
        found = verdict(before, count) if before else "worse"
        worse += [core] if found == "worse" else []
        better += [core] if found == "better" else []
    if options.record:
        BASELINE.write_text(json.dumps({**conditions, "margin": MARGIN, "instructions": now}, indent=1) + "\n")
        print(f"recorded in {BASELINE.relative_to(ROOT)}")
        return
    for name, value in conditions.items():
        if kept.get(name) != value:
            print(f"recorded with {name} {kept.get(name)}, now {value}: the numbers may differ for this reason")
    if better:
        print(f"more than {MARGIN:.0%} fewer: {', '.join(better)}. Keep the gain: {HOW}")
    if worse:
        sys.exit(f"more than {MARGIN:.0%} more: {', '.join(worse)}. If the change is worth it, record it: {HOW}")


if __name__ == "__main__":
    main()
