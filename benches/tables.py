"""How fast do lookup tables answer, beside Postfix's?

    postmap -q - TYPE:FILE      ours and Debian's in turn on the same file, with the same keys; half of them are found
    rust/maps/examples/tables   the lookup inside the core

Each postmap starts, opens its table and answers all keys, so a row has the cost of loading too. `one key` is nearly
that cost alone. Both ask the same file, which our postmap has written; hash and btree have one for each program. Keys
come from a file, and answers go to a file. Postfix tries all lines of a `cidr:` table for each key, so both get fewer
keys there. Our modules are compiled to bytecode first, as by pip. `correct`: both wrote the same octets.

Needs Debian's postfix, postfix-cdb, postfix-lmdb and postfix-pcre packages.
"""

import compileall
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import harness
from harness import Result

REAL = "/usr/sbin/postmap"
OURS = str(Path(sys.executable).parent / "postmap")
TYPES = ("hash", "btree", "cdb", "lmdb", "texthash", "cidr", "regexp", "pcre")
INDEXED = ("hash", "btree", "cdb", "lmdb")
AIMS = {"hash": 2.0, "cdb": 2.0, "lmdb": 2.0, "cidr": 100.0}
"""The least ratio to Postfix; 1 for another type."""
CIDR_LOAD_AIM = 0.1
CIDR_OCTETS = {"cidr": ("IPv4", 16), "cidr6": ("IPv6", 40)}
"""The most octets of memory for a line with one of few results."""
CORE_MAX_NS = 1000
CIDR_LINES_TRIED = 5_000_000_000
"""Lines that Postfix tries for all keys together."""
RULES = 200
RUNS = 3


def prepared(folder: Path, kind: str, entries: int, keys: int) -> tuple[Path, bytes]:
    """Write the text of a table; return its path and the keys to look up."""
    path = folder / kind
    numbers = [number * 7919 % (entries * 2) for number in range(keys)]
    if kind == "cidr":
        path.write_text("".join(f"{address(number)} REJECT\n" for number in range(entries)))
        return path, "".join(f"{address(number)}\n" for number in numbers[: CIDR_LINES_TRIED // entries]).encode()
    if kind in ("regexp", "pcre"):
        path.write_text("".join(f"/^user{number}@(.*)\\.example$/ found $1\n" for number in range(RULES)))
        return path, "".join(f"user{number % (RULES * 2)}@a.example\n" for number in numbers).encode()
    path.write_text("".join(f"user{number}@example.com one@example.net\n" for number in range(entries)))
    return path, "".join(f"user{number}@example.com\n" for number in numbers).encode()


def indexed(folder: Path, kind: str, path: Path) -> dict[str, Path]:
    """Write the index of a text; return the file that each program asks: the same one, unless the formats differ."""
    files = dict.fromkeys((REAL, OURS), path)
    if kind in ("hash", "btree"):
        files[OURS] = path.with_name(f"{kind}-ours")
        files[OURS].hardlink_to(path)
    if kind in INDEXED:
        for file, program in {file: program for program, file in files.items()}.items():
            subprocess.run([program, "-c", str(folder), f"{kind}:{file}"], check=True, timeout=600)
    return files


def address(number: int) -> str:
    """Return an address of its own for each number."""
    bits = number * 2654435761 % 2**32
    return ".".join(str(bits >> shift & 255) for shift in (24, 16, 8, 0))


def asked(program: str, etc: Path, table: str, keys: bytes) -> tuple[float, bytes]:
    """Return the seconds of one `postmap -q -`, and its output."""
    (etc / "keys").write_bytes(keys)
    command = [program, "-c", str(etc), "-q", "-", table]
    with (etc / "keys").open("rb") as given, (etc / "answers").open("wb") as answers:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdin=given, stdout=answers)
        # A wait with a timeout of its own looks only each 50 ms whether the program has ended.
        watchdog = threading.Timer(harness.DRAIN_MAX_S, process.kill)
        watchdog.start()
        status = process.wait()
        took = time.perf_counter() - started
        watchdog.cancel()
    if status != 0:
        raise subprocess.CalledProcessError(status, command)
    return took, (etc / "answers").read_bytes()


def main() -> None:
    """Measure and report."""
    parser = harness.parser(__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=1_000_000)
    options = parser.parse_args()
    if options.quick:
        options.entries, options.keys = 2000, 2000
    runs = 1 if options.quick else RUNS
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    compileall.compile_dir(harness.ROOT / "python" / "postillion", quiet=1)
    columns = ["type    ", "Postfix s", "ours s", "ratio", "Postfix s, one key", "ours s, one key", "correct"]
    question = "Lookups by postmap, ours and Postfix's in turn"
    result = Result(question, f"{options.entries:,} entries, {options.keys:,} keys, the best of {runs} runs", columns)
    result.begin()
    ratios: dict[str, float] = {}
    loads: dict[str, float] = {}
    theirs_load_s: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "main.cf").write_text("compatibility_level = 3.6\nmyhostname = x.example\n")
        for kind in TYPES:
            path, keys = prepared(folder, kind, options.entries, options.keys)
            files = indexed(folder, kind, path)
            seconds: dict[str, list[float]] = {REAL: [], OURS: []}
            one_key_s: dict[str, list[float]] = {REAL: [], OURS: []}
            correct = True
            for _ in range(runs):
                outputs = []
                for program, file in files.items():
                    took, output = asked(program, folder, f"{kind}:{file}", keys)
                    seconds[program].append(took)
                    outputs.append(output)
                    one_key_s[program].append(asked(program, folder, f"{kind}:{file}", keys.partition(b"\n")[0])[0])
                correct &= outputs[0] == outputs[1]
            result.correct &= correct
            theirs_s, ours_s, theirs_one_s, ours_one_s = (
                min(times[program]) for times in (seconds, one_key_s) for program in (REAL, OURS)
            )
            ratios[kind], loads[kind] = theirs_s / ours_s, ours_one_s / theirs_one_s
            theirs_load_s[kind] = theirs_one_s
            result.row(kind, theirs_s, ours_s, ratios[kind], theirs_one_s, ours_one_s, correct)
    example = harness.built("tables", options.quick)
    core = harness.figures([example, str(options.entries), str(options.keys)])
    result.correct &= bool(core["correct"])
    for kind in ("texthash", *INDEXED, "cidr", "cidr6"):
        cost = core[f"{kind}_ns"]
        result.aim(
            f"{kind}, ns of a lookup inside the core", f"within {CORE_MAX_NS}", f"{cost:.0f}", cost <= CORE_MAX_NS
        )
    for kind, (family, most) in CIDR_OCTETS.items():
        octets = core[f"{kind}_octets_a_line"]
        result.aim(f"cidr, octets of a line of {family}", f"at most {most}", str(octets), octets <= most)
    part = core["cidr_load_s"] / theirs_load_s["cidr"]
    what = "cidr, loading inside the core to Postfix's time with one key"
    result.aim(what, f"at most {CIDR_LOAD_AIM}", f"{part:.2f}", part <= CIDR_LOAD_AIM)
    part = loads["cidr"]
    result.aim("cidr, time with one key to Postfix's", f"at most {CIDR_LOAD_AIM}", f"{part:.2f}", part <= CIDR_LOAD_AIM)
    for kind, ratio in ratios.items():
        aim = AIMS.get(kind, 1.0)
        result.aim(f"{kind}, times Postfix", f"{aim:g}", f"{ratio:.1f}", ratio >= aim)
    result.report(options)


if __name__ == "__main__":
    main()
