"""How many messages a second are relayed with TLS in both directions, and at what CPU cost, compared with Postfix?

    postillion bench -> MTA -> its sink    127.0.0.1, STARTTLS and TLS 1.3 on both sides, certificates of RSA-2048

`full`: a connection and a full handshake for each message, on both sides. `resumed`: a connection for each message,
which resumes a TLS session: tickets at smtpd, smtp_tls_session_cache_database at smtp. `reused`: the connections stay
open (smtp_tls_connection_reuse = yes).

Postfix and Postillion alternate, with the same main.cf and master.cf. The rate is messages a second, from the start
of the load to the last delivery in the log. CPU is the time of master and all its descendants, without load and sink.
`direct` is the rate from source to sink without an MTA: an upper bound, since load and sink share the CPUs with the
MTA. `handshakes` are those of smtp with the sink a message, `resumed` the part of them that resumed a session.
`correct`: the log has exactly one delivery for each message, each message came to the sink once and by TLS, and the
handshakes were of the wanted kind.

Needs root and Debian's postfix package.
"""

import argparse
import statistics
import time
from dataclasses import dataclass
from functools import partial

import harness
from harness import DRAIN_MAX_S, PROGRAMS, Deliveries, Result, bench_inject, bench_sink
from postillion._core.bench import BenchSink
from postillion.bench import tls
from postillion.bench.server import cpu_seconds
from support import mta
from support.ports import free_port

MASTER_CF = """\
tlsmgr    unix  -       -       n       1000?   1       tlsmgr
tlsproxy  unix  -       -       n       -       0       tlsproxy
"""
MAIN_CF = {
    "smtpd_tls_security_level": "may",
    "smtpd_tls_protocols": tls.PROTOCOLS,
    "smtp_tls_security_level": "encrypt",
    "smtp_tls_mandatory_protocols": tls.PROTOCOLS,
}
CACHE = {"smtp_tls_session_cache_database": "btree:$data_directory/smtp_scache"}
RESUMED_MIN = 0.9
"""The least part of smtp's handshakes that resume a session in the load `resumed`: a cache forgets some."""
HANDSHAKES_MAX = 0.5
"""The most handshakes of smtp a message in the load `reused`."""


@dataclass(frozen=True)
class Load:
    """A load: the handshakes of the source, its connections, parameters, and aims of the ratio to Postfix."""

    handshakes: tls.Handshakes
    reuse: bool
    main_cf: dict[str, str]
    rate_aim: float
    cpu_aim: float

    def are_wanted(self, handshakes: float, resumed: float) -> bool:
        """Return whether smtp has had the wanted handshakes. `handshakes`: a message; `resumed`: part of them."""
        if self.reuse:
            return handshakes <= HANDSHAKES_MAX
        return handshakes >= 1 and (resumed >= RESUMED_MIN if self.handshakes == "resumed" else resumed == 0)


LOADS = {
    "full": Load("full", False, {}, 2, 0.3),
    "resumed": Load("resumed", False, CACHE, 3.5, 0.15),
    "reused": Load("resumed", True, CACHE | {"smtp_tls_connection_reuse": "yes"}, 8, 1 / 12),
}


@dataclass
class Measure:
    """One run: rates in messages a second, CPU in milliseconds a message, handshakes of smtp."""

    accepted_per_s: float
    relayed_per_s: float
    cpu_ms: float
    handshakes: float
    resumed: float
    correct: bool


def send(load: Load, port: int, options: argparse.Namespace, messages: int) -> float:
    """Send messages by TLS; return the number accepted a second."""
    sizes = (messages, options.octets, options.sessions)
    return bench_inject(port, *sizes, reuse=load.reuse, handshakes=load.handshakes)


def direct(load: Load, options: argparse.Namespace) -> float:
    """Return the rate of source and sink without an MTA."""
    port = free_port()
    with bench_sink(port, secure=True):
        return send(load, port, options, options.messages)


def prepare(site: mta.Site, load: Load) -> None:
    """Give a site its certificate, and TLS in both directions."""
    chain = site.etc / "mx.pem"
    tls.write_chain(chain, "mx.example.org")
    settings = MAIN_CF | load.main_cf | {"smtpd_tls_chain_files": str(chain)}
    with (site.etc / "main.cf").open("a") as main_cf:
        main_cf.writelines(f"{name} = {value}\n" for name, value in settings.items())
    with (site.etc / "master.cf").open("a") as master_cf:
        master_cf.write(MASTER_CF)


def relay(program: str, load: Load, options: argparse.Namespace) -> Measure:
    """Run a load through `program`; return its measures."""
    with harness.site(options) as site, bench_sink(site.next_port, secure=True) as sink:
        prepare(site, load)
        with mta.running(site, program):
            return measure(site, sink, load, options)


def measure(site: mta.Site, sink: BenchSink, load: Load, options: argparse.Namespace) -> Measure:
    """Run a load through a running site after the warm-up; return its measures."""
    # A few messages start every program of the MTA, and fill its caches of TLS sessions.
    send(load, site.port, options, options.warm_up)
    deliveries = Deliveries(site.log)
    mta.wait_for("the warm-up's deliveries", lambda: deliveries.count() >= options.warm_up)
    mta.wait_for("an empty queue", lambda: deliveries.count() and deliveries.removed >= options.warm_up)
    master = int((site.queue / "pid" / "master.pid").read_text())
    before = sink.counts()
    cpu, begin = cpu_seconds(master), time.monotonic()
    accepted_per_s = send(load, site.port, options, options.messages)
    expected = options.warm_up + options.messages
    mta.wait_for("the deliveries", lambda: deliveries.count() >= expected, DRAIN_MAX_S)
    relayed_s = time.monotonic() - begin
    cpu = cpu_seconds(master) - cpu
    mta.wait_for("an empty queue", lambda: deliveries.count() and deliveries.removed >= expected)
    after = sink.counts()
    shaken = after["handshakes"] - before["handshakes"]
    handshakes, resumed = shaken / options.messages, (after["resumed"] - before["resumed"]) / max(shaken, 1)
    correct = deliveries.sent == expected and deliveries.failed + deliveries.deferred == 0
    correct &= after["messages"] == expected and after["duplicates"] == 0
    # A sink that has never begun a dialogue in the clear has taken all mail by TLS.
    correct &= after["handshakes"] == after["connections"] and load.are_wanted(handshakes, resumed)
    cpu_ms = cpu / options.messages * 1000
    return Measure(accepted_per_s, options.messages / relayed_s, cpu_ms, handshakes, resumed, correct)


def main() -> None:
    """Run all loads and report."""
    parser = harness.load_parser(__doc__)
    parser.set_defaults(messages=2000)
    parser.add_argument("--loads", default=",".join(LOADS), help="loads, separated by commas: %(default)s")
    options, flags = harness.parse_load(parser)
    names = options.loads.split(",")
    if unknown := set(names) - LOADS.keys():
        parser.error(f"no such load: {', '.join(unknown)}")
    figures = ("accepted/s", "relayed/s", "CPU ms a message", "handshakes", "resumed")
    columns = ["load   ", "program   ", *figures, "direct/s", "correct"]
    result = Result("Messages relayed a second with TLS 1.3 in both directions", flags, columns)
    result.begin()
    for name in names:
        load = LOADS[name]
        rate = statistics.median(direct(load, options) for _ in range(options.runs))
        runs = harness.alternate(options, partial(relay, load=load, options=options))
        report(name, rate, runs, result)
    result.report(options)


def report(name: str, rate: float, runs: dict[str, list[Measure]], result: Result) -> None:
    """Add the medians of a load, the ratios, and its aims."""
    medians: dict[str, list[float]] = {}
    for program, measures in runs.items():
        each = ((m.accepted_per_s, m.relayed_per_s, m.cpu_ms, m.handshakes, m.resumed) for m in measures)
        medians[program] = [statistics.median(figures) for figures in zip(*each, strict=True)]
        correct = all(m.correct for m in measures)
        result.correct &= correct
        result.row(name, program, *medians[program], rate, correct)
    if len(medians) < len(PROGRAMS):
        return
    old, new = (medians[program] for program in PROGRAMS)
    ratios = [b / a for a, b in zip(old[:3], new[:3], strict=True)]
    result.row(name, "ratio", *ratios, "", "", "", "")
    load = LOADS[name]
    relayed = {program: figures[1] for program, figures in medians.items()}
    result.aim_ratio(f"{name}: relayed a second to Postfix's", load.rate_aim, relayed)
    met = ratios[2] <= load.cpu_aim
    result.aim(f"{name}: CPU a message to Postfix's", f"at most {load.cpu_aim:.3g}", f"{ratios[2]:.3f}", met)


if __name__ == "__main__":
    main()
