"""Write the results of the benches into docs/measured.md.

    python benches/measured.py [--quick] BENCH ...     run these (all, when none is named), then write
    python benches/measured.py --write                 write what an earlier run left

Each bench's JSON is kept in var/bench/. In docs/measured.md a result stands between `<!-- NAME -->` and `<!-- end -->`;
the text around it is a person's.
"""

import argparse
import json
import subprocess
import sys
from typing import Any

from harness import ROOT, put

BENCHES = (
    *("relay", "latency", "decisions", "journal", "restart", "listing", "drain", "injection", "disk", "parser"),
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
    """Put every result that is kept into its place on the page."""
    places: dict[str, str] = {}
    for name in BENCHES:
        path = KEPT / f"{name}.json"
        if path.exists():
            result = json.loads(path.read_text())
            places[name] = table(result)
            places["machine"] = f"{result['machine']}.\n{result['versions']}."
    put(PAGE, places)


def main() -> None:
    """Run and write."""
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
