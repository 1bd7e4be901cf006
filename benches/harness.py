"""Shared code of the benches: options, load and sink, counting, and reports.

A bench answers one question. It makes a `Result`. `Result.report` prints machine, versions, flags, a table, the aims
and `correct`, writes the same as JSON with --json, and exits with an error when the result is not correct.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from postillion._core.bench import BenchSink, BenchSource  # noqa: E402
from postillion.bench import tls  # noqa: E402
from support import mta  # noqa: E402

PROGRAMS = ("postfix", "postillion")
DRAIN_MAX_S = 600.0
SLICE_S = 0.05
"""Longest time of one `run` call of our source or sink."""
QUEUE_DIRECTORIES = ("incoming", "active", "deferred", "corrupt")
DOWN = {"minimal_backoff_time": "3600s", "maximal_backoff_time": "4000s"}
"""Parameters for a next hop that is down: deferred mail stays deferred during a bench."""


@dataclass
class Aim:
    """A target of the project, and the measured value."""

    what: str
    aim: str
    measured: str
    met: bool


@dataclass
class Result:
    """The answer to a bench's question. `rows` have a cell for each of `columns`."""

    question: str
    flags: str
    columns: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    aims: list[Aim] = field(default_factory=list)
    correct: bool = True

    def row(self, *cells: object) -> None:
        """Add a row, and print it at once: a long run shows its progress."""
        texts = [f"{cell:.3g}" if isinstance(cell, float) and cell < 100 else number(cell) for cell in cells]
        self.rows.append(texts)
        print("  ".join(f"{text:>{len(name)}}" for text, name in zip(texts, self.columns, strict=True)), flush=True)

    def aim_ratio(self, what: str, aim: float, figures: Mapping[str, float]) -> None:
        """Record an aim for the ratio of Postillion to Postfix, if both were measured."""
        if all(figures.get(program) for program in PROGRAMS):
            ratio = figures["postillion"] / figures["postfix"]
            self.aim(what, f"{aim:g}", f"{ratio:.1f}", ratio >= aim)

    def aim(self, what: str, aim: str, measured: str, met: bool) -> None:
        """Record an aim of the project and whether it was met. A missed aim does not make a result incorrect."""
        self.aims.append(Aim(what, aim, measured, met))

    def begin(self) -> None:
        """Print the question, the machine, the versions and the columns."""
        print(f"{self.question}\n{machine()}\n{versions()}\n{self.flags}\n")
        print("  ".join(self.columns), flush=True)

    def report(self, options: argparse.Namespace) -> None:
        """Print the aims; write everything as JSON with --json; exit with an error if the result is not correct."""
        for aim in self.aims:
            print(f"{aim.what}: {aim.measured}, aim {aim.aim}: {'met' if aim.met else 'MISSED'}")
        print(f"correct={self.correct}", flush=True)
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            facts = {"machine": machine(), "versions": versions(), "load": f"{os.getloadavg()[1]:.1f}"}
            options.json.write_text(json.dumps(asdict(self) | facts, indent=1) + "\n")
        if not self.correct:
            sys.exit("the result is not correct")


def number(value: object) -> str:
    """Return a number with thousands separators; any other value as text."""
    return f"{value:,.0f}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def parser(doc: str | None, *, compares: bool = False) -> argparse.ArgumentParser:
    """Return a parser with the options of every bench. `compares`: the bench compares with Postfix."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="a short run that checks the bench and measures nothing")
    if compares:
        made.add_argument("--only", choices=PROGRAMS, help="measure this program only; prints no ratio")
    made.add_argument("--json", type=Path, help="write the result to this file as well")
    made.add_argument(
        "--directory",
        type=Path,
        default=Path("/var/tmp"),  # noqa: S108 - a real disk
        help="directory of the queues, on a real disk",
    )
    return made


def load_parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of a bench that loads both programs in turn. `parse_load` parses them."""
    made = parser(doc, compares=True)
    made.add_argument("--messages", type=int, default=5000)
    made.add_argument("--octets", type=int, default=4096)
    made.add_argument("--sessions", type=int, default=20)
    made.add_argument("--runs", type=int, default=3)
    made.add_argument("--warm-up", type=int, default=200)
    return made


def parse_load(made: argparse.ArgumentParser) -> tuple[argparse.Namespace, str]:
    """Return the options of a `load_parser`, and a line that describes them. --quick makes them small."""
    options = made.parse_args()
    if options.quick:
        options.messages, options.warm_up, options.runs = 200, 20, 1
    flags = f"{options.messages} messages of {options.octets} octets, {options.sessions} sessions, {options.runs} runs"
    return options, flags


def machine() -> str:
    """Return a line about the machine."""
    model = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{platform.machine()}, {os.cpu_count()} CPUs {model}, Linux {platform.release()}"


def versions() -> str:
    """Return the versions of the measured programs."""
    rust = _line("rustc", "--version").partition("(")[0].strip()
    postfix = _line("postconf", "-h", "mail_version") or "none"
    return f"Postillion {commit(ROOT)}, Python {platform.python_version()}, {rust}, Postfix {postfix}"


def commit(checkout: Path) -> str:
    """Return the short hash of a checkout's commit."""
    return _line("git", "-C", str(checkout), "rev-parse", "--short", "HEAD")


def _line(*command: str) -> str:
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return ""


def source(port: int, messages: int, octets: int = 4096, sessions: int = 20, load: Sequence[str] = ()) -> list[str]:
    """Return the command line of the load generator."""
    sizes = ["-l", str(octets), "-s", str(sessions), "-m", str(messages)]
    return ["smtp-source", *load, *sizes, "-f", "load@example.org", "-t", "sink@next.example", f"127.0.0.1:{port}"]


def inject(port: int, messages: int, octets: int = 4096, sessions: int = 20, load: Sequence[str] = ()) -> float:
    """Send messages; return the number accepted a second."""
    begin = time.monotonic()
    subprocess.run(source(port, messages, octets, sessions, load), check=True, timeout=DRAIN_MAX_S)
    return messages / (time.monotonic() - begin)


@contextlib.contextmanager
def sink(port: int) -> Iterator[None]:
    """Run smtp-sink on `port` during the block."""
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen(["smtp-sink", *user, f"127.0.0.1:{port}", "1000"])
    try:
        mta.wait_for("smtp-sink", lambda: mta.listening(port))
        yield
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def bench_sink(port: int, *, address: str = "127.0.0.1", secure: bool = False) -> Iterator[BenchSink]:
    """Run the sink of `postillion bench` during the block, in a thread of this process. `secure`: it offers TLS."""
    bench = BenchSink(address, port, tls=tls.server() if secure else None)
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            bench.run(SLICE_S)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield bench
    finally:
        ended.set()
        worker.join()


def bench_inject(
    port: int,
    messages: int,
    octets: int = 4096,
    sessions: int = 20,
    *,
    recipients: int = 1,
    domains: Sequence[str] = ("next.example",),
    reuse: bool = False,
    handshakes: tls.Handshakes | None = None,
) -> float:
    """Send messages with the source of `postillion bench`, in this thread; return the number accepted a second.

    With more than one recipient it pipelines, as mail servers do. `handshakes`: with TLS, and these handshakes.
    """
    source = BenchSource(
        "127.0.0.1",
        port,
        messages=messages,
        octets=[octets],
        sessions=sessions,
        recipients=recipients,
        domains=domains,
        reuse=0 if reuse else 1,
        pipelining=recipients > 1,
        tls=None if handshakes is None else tls.client(handshakes),
    )
    begin = time.monotonic()
    while not source.run(SLICE_S):
        if time.monotonic() > begin + DRAIN_MAX_S:
            raise TimeoutError(f"{messages} messages were not accepted within {DRAIN_MAX_S} s")
    rate = messages / (time.monotonic() - begin)
    counts = source.counts()
    if counts["messages"] != messages:
        raise RuntimeError(f"{counts['messages']} of {messages} messages were accepted: {counts['complaints']}")
    if counts["mismatched"]:
        raise RuntimeError(f"{counts['mismatched']} handshakes were not {handshakes}")
    return rate


M = TypeVar("M")
"""The measures of one run."""


def alternate(options: argparse.Namespace, measure: Callable[[str], M]) -> dict[str, list[M]]:
    """Measure the programs alternately, `options.runs` times each; return the measures of each."""
    runs: dict[str, list[M]] = {program: [] for program in programs(options)}
    for _ in range(options.runs):
        for program, measures in runs.items():
            measures.append(measure(program))
    return runs


class Deliveries:
    """Counts deliveries in a log. Each call reads only the new lines."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.sent = 0
        self.deferred = 0
        self.failed = 0
        self.removed = 0
        self._at = 0

    def count(self) -> int:
        """Return the number of successful deliveries so far."""
        with self.log.open("rb") as file:
            file.seek(self._at)
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]
        self._at += len(text)
        self.sent += text.count(b"status=sent")
        self.deferred += text.count(b"status=deferred")
        self.failed = self.failed + text.count(b"status=bounced")
        self.removed += text.count(b": removed")
        return self.sent

    def count_deferred(self) -> int:
        """Return the number of deferred deliveries so far."""
        self.count()
        return self.deferred


@contextlib.contextmanager
def site(options: argparse.Namespace, main_cf: Mapping[str, str] | None = None) -> Iterator[mta.Site]:
    """Make a site in its own directory; remove it at the end."""
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=options.directory))
    try:
        yield mta.Site(directory, main_cf=main_cf)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def set_parameter(of: mta.Site, name: str, value: str) -> None:
    """Change the value of a parameter in a site's main.cf."""
    main_cf = of.etc / "main.cf"
    lines = main_cf.read_text().splitlines()
    main_cf.write_text(
        "".join(f"{name} = {value}\n" if line.startswith(f"{name} =") else f"{line}\n" for line in lines)
    )


def command(of: mta.Site, program: str, *words: str) -> list[str]:
    """Return the command line of a queue command of `program`."""
    name, *rest = words
    return [*of.command(name, program), *rest]


def queued(of: mta.Site, program: str) -> int:
    """Return the number of messages in the queue, as postqueue lists them."""
    listed = subprocess.run(command(of, program, "postqueue", "-j"), capture_output=True, check=True).stdout
    return listed.count(b"\n")


def built(example: str, quick: bool) -> Path:
    """Build an example of rust/core or rust/maps (without optimisation for a quick run); return the program's path."""
    profile = [] if quick else ["--release"]
    packages = ["--package", "postillion-core", "--package", "postillion-maps"]
    build = ["cargo", "build", "--quiet", "--locked", *profile, *packages, "--example", example]
    subprocess.run(build, cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / ("debug" if quick else "release") / "examples" / example


def read_figures(printed: str) -> dict[str, Any]:
    """Return the JSON object in a program's output."""
    read: dict[str, Any] = json.loads(printed)
    return read


def figures(line: Sequence[str | Path], **process: Any) -> dict[str, Any]:
    """Run a program that prints one JSON object; return the object."""
    return read_figures(subprocess.run(line, capture_output=True, text=True, check=True, **process).stdout)


def fill(of: mta.Site, messages: int, octets: int, quick: bool, defer_s: int = 86_400) -> None:
    """Fill the queue of a stopped site with deferred messages, with the owner and modes of a running server."""
    owner: dict[str, Any] = {}
    if os.geteuid() == 0:
        user = pwd.getpwnam("postfix" if mta.exists("postfix") else "nobody")
        owner = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    for name in QUEUE_DIRECTORIES:
        directory = of.queue / name
        directory.mkdir(mode=0o700, exist_ok=True)
        if owner:
            os.chown(directory, owner["user"], owner["group"])
    # The queue's owner must be able to run the example.
    program = of.directory / "fill"
    shutil.copy(built("fill", quick), program)
    program.chmod(0o755)
    sizes = [str(messages), str(octets), "256", str(defer_s)]
    if not figures([program, of.queue, *sizes], **owner)["correct"]:
        raise RuntimeError("the queue could not be filled")


def greeting_s(port: int, patience_s: float = 60.0) -> float:
    """Return the time until a client gets the greeting, in seconds."""
    begin = time.monotonic()
    while time.monotonic() < begin + patience_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as peer:
            peer.settimeout(patience_s)
            if peer.recv(4) == b"220 ":
                return time.monotonic() - begin
        time.sleep(0.002)
    raise TimeoutError(f"no greeting in {patience_s} s")


def programs(options: argparse.Namespace) -> Sequence[str]:
    """Return the programs to measure, in order."""
    return PROGRAMS if options.only is None else (options.only,)


def put(page: Path, sections: Mapping[str, str]) -> None:
    """Write each text between its `<!-- NAME -->` and the next `<!-- end -->` of a page."""
    written = page.read_text()
    for name, text in sections.items():
        before, mark, rest = written.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not end:
            sys.exit(f"{page} has no section {name}")
        written = f"{before}{mark}{text}\n{end}{after}"
    page.write_text(written)
