"""How many first attempts a second are made for mail to very many domains, compared with Postfix?

    postillion bench -> MTA -> BIND on 127.0.0.1:53       an MX and an address for each domain
                            -> its sink on port 25        at an address for each mail host of the domains

Each message has 50 recipients in as many domains, so each recipient is a delivery of its own, nearly always with a
connection of its own. A domain has ten recipients, in as many messages; the first one needs a lookup of MX records and
one of an address. The domains share their mail hosts, as domains of a provider do. The rate is recipients a second,
from the start of the load to the last delivery in the log. CPU is the time of master and all its descendants, without
load, sink and BIND. `correct`: the log has exactly one delivery for each recipient, and each came to the sink.

Runs in a network of its own, with a resolv.conf of its own. Needs root, and Debian's postfix, bind9 and util-linux.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import harness
from harness import DRAIN_MAX_S, PROGRAMS, Deliveries, Result, bench_inject, bench_sink
from postillion.bench.server import cpu_seconds
from support import mta
from support.named import named

AIM = 10
INSIDE = "POSTILLION_BENCH_NETWORK"
"""Set in the environment of the process in its own network."""
DNS_PORT, SMTP_PORT = 53, 25
ZONE = "bench.test"
AT_A_TIME = 50
"""Recipients of a message."""
DOMAINS_OF_A_HOST = 100
ANY = "0.0.0.0"  # noqa: S104 - in a network of its own
HOST_ADDRESS = "127.9.{}.{}"
"""The address of a mail host. 127.0.0.1 is the MTA's own."""
MAIN_CF = {"inet_protocols": "ipv4", "inet_interfaces": "127.0.0.1", "default_transport": "smtp"}


@dataclass
class Measure:
    """One run: recipients a second, CPU in milliseconds a recipient."""

    accepted_per_s: float
    relayed_per_s: float
    cpu_ms: float
    correct: bool


def enter_network() -> None:
    """Go on in a network of its own; the files and processes are those of the machine."""
    command = ["unshare", "--mount", "--net", sys.executable, *sys.argv]
    os.execvpe(command[0], command, os.environ | {INSIDE: "1"})  # noqa: S606 - the same program, with its arguments


def prepare_network(directory: Path) -> None:
    """Start the loopback interface; have the name server on 127.0.0.1 asked."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    resolv_conf = directory / "resolv.conf"
    resolv_conf.write_text("nameserver 127.0.0.1\n")
    subprocess.run(["mount", "--bind", resolv_conf, "/etc/resolv.conf"], check=True)


def records(domains: int) -> str:
    """Return the zone of the domains `1.bench.test` and so on, of others for the warm-up, and of their mail hosts."""
    hosts = -(-domains // DOMAINS_OF_A_HOST)
    lines = [f"{n} MX 10 mx{n % hosts}" for n in range(1, domains + 1)]
    lines += [f"mx{n} A {HOST_ADDRESS.format(n // 250, n % 250 + 1)}" for n in range(hosts)]
    return "\n".join([*lines, "* MX 10 mx0"]) + "\n"


def relay(program: str, options: argparse.Namespace) -> Measure:
    """Make the first attempts by `program`; return its measures."""
    # The warm-up has domains of its own.
    warm_up = [f"w{n}.{ZONE}" for n in range(options.warm_up)]
    domains = [f"{n}.{ZONE}" for n in range(1, options.domains + 1)]
    messages, expected = options.recipients // AT_A_TIME, options.recipients + options.warm_up
    with harness.site(options, MAIN_CF) as site, bench_sink(SMTP_PORT, address=ANY) as sink:
        with mta.running(site, program):
            bench_inject(site.port, options.warm_up, domains=warm_up)
            deliveries = Deliveries(site.log)
            mta.wait_for("the warm-up's deliveries", lambda: deliveries.count() >= options.warm_up)
            master = int((site.queue / "pid" / "master.pid").read_text())
            cpu, begin = cpu_seconds(master), time.monotonic()
            accepted_per_s = bench_inject(site.port, messages, recipients=AT_A_TIME, domains=domains)
            mta.wait_for("the deliveries", lambda: deliveries.count() >= expected, DRAIN_MAX_S)
            relayed_s, cpu = time.monotonic() - begin, cpu_seconds(master) - cpu
        correct = deliveries.sent == expected and deliveries.failed + deliveries.deferred == 0
        correct &= sink.counts()["recipients"] == expected
    cpu_ms = cpu / options.recipients * 1000
    return Measure(accepted_per_s * AT_A_TIME, options.recipients / relayed_s, cpu_ms, correct)


def main() -> None:
    """Run both programs in turn and report."""
    parser = harness.parser(__doc__, compares=True)
    parser.add_argument("--recipients", type=int, default=50_000)
    parser.add_argument("--domains", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=200)
    options = parser.parse_args()
    if INSIDE not in os.environ:
        enter_network()
    if options.recipients % AT_A_TIME:
        parser.error(f"--recipients must be a multiple of {AT_A_TIME}")
    if options.quick:
        options.recipients, options.domains, options.warm_up, options.runs = 500, 100, 20, 1
    columns = ["program   ", "accepted/s", "relayed/s", "CPU ms a recipient", "correct"]
    flags = f"{options.recipients} recipients in {options.domains} domains, {options.runs} runs"
    result = Result("First attempts a second, to many domains", flags, columns)
    result.begin()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        # BIND gives up root's rights.
        directory.chmod(0o755)
        prepare_network(directory)
        with named(directory, {ZONE: records(options.domains)}, port=DNS_PORT):
            runs = harness.alternate(options, partial(relay, options=options))
    report(runs, result)
    result.report(options)


def report(runs: dict[str, list[Measure]], result: Result) -> None:
    """Add the medians, the ratio and its aim."""
    medians: dict[str, list[float]] = {}
    for program, measures in runs.items():
        each = ((m.accepted_per_s, m.relayed_per_s, m.cpu_ms) for m in measures)
        medians[program] = [statistics.median(figures) for figures in zip(*each, strict=True)]
        correct = all(m.correct for m in measures)
        result.correct &= correct
        result.row(program, *medians[program], correct)
    if len(medians) == len(PROGRAMS):
        old, new = (medians[program] for program in PROGRAMS)
        result.row("ratio", *(b / a for a, b in zip(old, new, strict=True)), "")
        relayed = {program: figures[1] for program, figures in medians.items()}
        result.aim_ratio("first attempts a second to Postfix's", AIM, relayed)


if __name__ == "__main__":
    main()
