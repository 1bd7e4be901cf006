"""Is this build as fast as another build?

    benches/pairs.py --base DIRECTORY     a checkout of the other build, where `make build` has run

A pair is one short run of `relay.py` in each checkout. The order changes from pair to pair. The ratio of a pair is this
build's rate divided by the other's. A row has the median of the ratios and its 95 % interval. The interval consists of
two of the sorted ratios, so it assumes no distribution. The aim is met when the interval reaches it.

Needs root and Debian's postfix package, for smtp-source and smtp-sink.
"""

import json
import math
import statistics
import subprocess
import tempfile
from pathlib import Path

import harness
from harness import ROOT, Result
from relay import LOADS

AIM = 0.98
CONFIDENCE = 0.95
FEWEST_PAIRS = 6
"""With fewer pairs, the lowest and highest ratio enclose the median with less than 95 % confidence."""


def interval(ratios: list[float]) -> tuple[float, float]:
    """Return the 95 % confidence interval of the median: the sorted ratios at two ranks of the sign test."""
    ordered, count = sorted(ratios), len(ratios)
    rank, outside = 0, 0.0
    while True:
        outside += math.comb(count, rank) / 2**count
        if 2 * outside > 1 - CONFIDENCE:
            break
        rank += 1
    return ordered[rank - 1], ordered[-rank]


def relayed_per_s(checkout: Path, load: str, messages: int) -> float:
    """Return the recipients relayed a second in one run of a checkout's relay.py."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "relay.json"
        words = ["--only", "postillion", "--runs", "1", "--messages", str(messages), "--loads", load]
        command: list[str | Path] = [
            checkout / ".venv/bin/python",
            checkout / "benches/relay.py",
            *words,
            "--json",
            report,
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=harness.DRAIN_MAX_S)
        found = json.loads(report.read_text())
    row = found["rows"][0]
    return float(row[[column.strip() for column in found["columns"]].index("relayed/s")].replace(",", ""))


def main() -> None:
    """Run all pairs and report."""
    parser = harness.parser(__doc__)
    parser.add_argument("--base", type=Path, required=True, help="a checkout of the build to compare with")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--messages", type=int, default=4000)
    parser.add_argument("--loads", default=",".join(LOADS), help="loads, separated by commas: %(default)s")
    options = parser.parse_args()
    if options.quick:
        options.messages, options.pairs = 200, FEWEST_PAIRS
    if options.pairs < FEWEST_PAIRS:
        parser.error(f"--pairs: at least {FEWEST_PAIRS}")
    columns = ["load         ", "base/s", "this/s", "ratio", "95 % interval", "pairs"]
    flags = f"base {harness.commit(options.base)}; {options.messages} messages; {options.pairs} pairs"
    result = Result("Recipients relayed a second, this build and another in turn", flags, columns)
    result.begin()
    for load in options.loads.split(","):
        rates: dict[Path, list[float]] = {options.base: [], ROOT: []}
        for pair in range(options.pairs):
            for checkout in sorted(rates, key=[options.base, ROOT].index, reverse=pair % 2 == 1):
                rates[checkout].append(relayed_per_s(checkout, load, options.messages))
        ratios = [this / base for base, this in zip(rates[options.base], rates[ROOT], strict=True)]
        low, high = interval(ratios)
        middle = statistics.median(ratios)
        medians = [statistics.median(rates[checkout]) for checkout in (options.base, ROOT)]
        result.row(load, *medians, f"{middle:.3f}", f"{low:.3f} to {high:.3f}", options.pairs)
        result.aim(f"{load}: ratio to the other build", f"interval reaches {AIM}", f"up to {high:.3f}", high >= AIM)
    result.report(options)


if __name__ == "__main__":
    main()
