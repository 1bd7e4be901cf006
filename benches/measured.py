"""Write the results of the benches into docs/measured.md.

    python benches/measured.py [--quick] [BENCH ...]   run these benches (default: all), then write
    python benches/measured.py --write                 write the results of earlier runs

Each bench's JSON is kept in var/bench/. The results go between `<!-- NAME -->` and `<!-- end -->` of docs/measured.md.
The text around them is written by hand.
"""

import argparse
import json
import subprocess
import sys
from typing import Any

from harness import ROOT, put

BENCHES = (
    "relay",
    "relay_tables",
    "relay_tls",
    "domains",
    "idle_tls",
    "tables",
    "latency",
    "resolver",
    "decisions",
    "journal",
    "restart",
    "listing",
    "drain",
    "injection",
    "disk",
    "parser",
    "controller",
)
KEPT = ROOT / "var" / "bench"
PAGE = ROOT / "docs" / "measured.md"


def table(result: dict[str, Any]) -> str:
    """Return a bench's result in Markdown."""
    lines = [f"{result['question']}; {result['flags']}. Load average {result['load']} at the end.", ""]
    lines += [_row(name.strip() for name in result["columns"]), "|" + "---|" * len(result["columns"])]
    lines += [_row(row) for row in result["rows"]]
    lines.append("")
    for aim in result["aims"]:
        met = "met" if aim["met"] else "**missed**"
        lines.append(f"- {aim['what']}: {aim['measured']}, aim {aim['aim']}: {met}")
    return "\n".join(lines).rstrip()


def _row(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def write() -> None:
    """Write every kept result into its section of the page."""
    sections: dict[str, str] = {}
    for name in BENCHES:
        path = KEPT / f"{name}.json"
        if path.exists():
            result = json.loads(path.read_text())
            sections[name] = table(result)
            sections["machine"] = f"{result['machine']}.\n{result['versions']}."
    put(PAGE, sections)


def main() -> None:
    """Run the benches and write their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benches", nargs="*", metavar="BENCH")
    parser.add_argument("--quick", action="store_true", help="run the short forms, and write nothing")
    parser.add_argument("--write", action="store_true", help="run nothing")
    options = parser.parse_args()
    failed = []
    for name in () if options.write else options.benches or BENCHES:
        print(f"\n== {name}", flush=True)
        line = [sys.executable, str(ROOT / "benches" / f"{name}.py"), "--json", str(KEPT / f"{name}.json")]
        if options.quick:
            line = [*line[:2], "--quick"]
        if subprocess.run(line, check=False).returncode != 0:
            failed.append(name)
    if not options.quick:
        write()
    if failed:
        sys.exit(f"not correct: {', '.join(failed)}")


if __name__ == "__main__":
    main()
