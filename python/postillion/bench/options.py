"""The command line of `postillion bench`."""

from __future__ import annotations

import argparse
import socket
from dataclasses import dataclass
from typing import Final

from postillion.bench.tls import HANDSHAKES, Handshakes

SESSIONS_MAX: Final = 10_000
OCTETS_MAX: Final = 1 << 30
RECIPIENTS_MAX: Final = 100_000
DOMAINS_MAX: Final = 1_000_000
SIZES_MAX: Final = 1000
RATE_MAX: Final = 1e6
SINK_TLS: Final = ("starttls", "wrapper")


class BadOption(Exception):
    """An invalid command line; the text gives the reason."""


@dataclass(frozen=True)
class Options:
    """The options of a run: counts, octets, seconds."""

    address: str
    port: int
    sink: tuple[str, int] | None
    sessions: int
    messages: int | None
    duration: float | None
    warm_up: float
    ramp: float
    rate: float | None
    octets: list[int]
    recipients: int
    domains: list[str]
    sender: str
    reuse: int
    think: float
    pipelining: bool
    tls: Handshakes | None
    tls_wrapper: bool
    sink_tls: str | None
    faults: list[str]
    drain: float
    server_pid: int | None
    syncs: bool
    json: str | None
    plot: str | None
    quiet: bool


def parse(argv: list[str]) -> Options:
    """Return the options in `argv`; raises `BadOption`, and argparse raises `SystemExit` for errors and --help."""
    known = _parser().parse_args(argv)
    address, port = _endpoint(known.server, resolve=True)
    sink = None if known.sink is None else _endpoint(known.sink, resolve=False)
    domains = _domains(known.domain or ["sink.example"])
    for name, value, most in (
        ("sessions", known.sessions, SESSIONS_MAX),
        ("recipients", known.recipients, RECIPIENTS_MAX),
    ):
        if not 1 <= value <= most:
            raise BadOption(f"--{name} {value}: give 1 to {most}")
    for name in ("duration", "warm_up", "ramp", "think", "drain"):
        value = getattr(known, name)
        if value is not None and not 0 <= value <= 1e6:
            raise BadOption(f"--{name.replace('_', '-')} {value:g}: give a time in seconds")
    if known.rate is not None and not 0 < known.rate <= RATE_MAX:
        raise BadOption(f"--rate {known.rate:g}: give messages a second, at most {RATE_MAX:g}")
    if known.rate is not None and known.think:
        raise BadOption("--rate and --think: with a rate, the clock starts messages, and clients do not pause")
    if known.reuse < 0:
        raise BadOption(f"--reuse {known.reuse}: give a number of messages, 0 for no limit")
    if known.messages is not None and known.messages < 1:
        raise BadOption(f"--messages {known.messages}: give at least 1")
    if known.fault and sink is None:
        raise BadOption("--fault needs --sink: the sink produces the faults")
    if known.tls_wrapper and known.tls is None:
        raise BadOption("--tls-wrapper needs --tls: give full or resumed handshakes")
    if known.sink_tls and sink is None:
        raise BadOption("--sink-tls needs --sink")
    duration = known.duration
    if duration is None and known.messages is None:
        duration = 10.0
    return Options(
        address=address,
        port=port,
        sink=sink,
        sessions=known.sessions,
        messages=known.messages,
        duration=duration,
        warm_up=known.warm_up,
        ramp=known.ramp,
        rate=known.rate,
        octets=_sizes(known.octets),
        recipients=known.recipients,
        domains=domains,
        sender=known.sender,
        reuse=known.reuse,
        think=known.think,
        pipelining=known.pipelining,
        tls=known.tls,
        tls_wrapper=known.tls_wrapper,
        sink_tls=known.sink_tls,
        faults=known.fault or [],
        drain=known.drain,
        server_pid=known.server_pid,
        syncs=known.syncs,
        json=known.json,
        plot=known.plot,
        quiet=known.quiet,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="postillion bench",
        description="Load an SMTP server and report its throughput and its reply times.",
        epilog="Load only your own servers: the mail is real.",
    )
    add = parser.add_argument
    add("server", metavar="HOST:PORT", help="the server to load")
    add("--sink", metavar="ADDRESS:PORT", help="receive the server's mail here; the server must relay to it")
    add("--sessions", type=int, default=20, metavar="N", help="number of concurrent clients (20)")
    add("--messages", type=int, metavar="N", help="stop after N messages")
    add("--duration", type=float, metavar="S", help="stop after S seconds (10, without --messages)")
    add(
        "--warm-up",
        type=float,
        default=0.0,
        metavar="S",
        help="ignore the first S seconds (0)",
    )
    add("--ramp", type=float, default=0.0, metavar="S", help="start the clients one by one within S seconds (0)")
    add(
        "--rate",
        type=float,
        metavar="N",
        help="start N messages per second by the clock, at most --sessions at a time; the rate grows over --ramp",
    )
    add("--octets", default="4096", metavar="N[,N...]", help="sizes of messages in octets, used in rotation (4096)")
    add("--recipients", type=int, default=1, metavar="N", help="number of recipients of each message (1)")
    add(
        "--domain",
        action="append",
        metavar="NAME[:N]",
        help="recipient domains, used in rotation; NAME:4 is 1.NAME to 4.NAME",
    )
    add("--sender", default="bench@source.example", metavar="ADDRESS")
    add(
        "--reuse",
        type=int,
        default=1,
        metavar="N",
        help="messages per connection, 0 for no limit (1)",
    )
    add("--think", type=float, default=0.0, metavar="S", help="pause of a client between messages (0)")
    add("--pipelining", action="store_true", help="send MAIL, RCPT and DATA in one write, if the server offers it")
    add(
        "--tls",
        choices=HANDSHAKES,
        help="begin TLS 1.3 on each connection (STARTTLS) by a full handshake, or resume an earlier TLS session",
    )
    add("--tls-wrapper", action="store_true", help="begin TLS with the connection, without STARTTLS")
    add(
        "--sink-tls",
        nargs="?",
        const="starttls",
        choices=SINK_TLS,
        help="offer TLS 1.3 at the sink by STARTTLS, or begin with it, with a certificate made for the run",
    )
    add(
        "--fault",
        action="append",
        metavar="DOMAIN=ACTION[@rcpt|@dot][*SHARE]",
        help="make the sink refuse (450, 550), wait (2s) or close the connection (disconnect)",
    )
    add("--drain", type=float, default=60.0, metavar="S", help="longest wait for the last deliveries (60)")
    add(
        "--server-pid",
        type=int,
        metavar="PID",
        help="the server's master process, for its CPU time (the process that listens on the port)",
    )
    add("--syncs", action="store_true", help="count the server's syncs with strace during a second load (needs root)")
    add("--json", metavar="FILE", help="write all results")
    add("--plot", metavar="FILE", help="draw rates and reply times (.svg, .png; needs matplotlib)")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


def _endpoint(text: str, *, resolve: bool) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isdecimal() or not 0 <= int(port) <= 65535 or (resolve and int(port) == 0):
        raise BadOption(f"{text!r}: write HOST:PORT")
    if not host:
        host = "127.0.0.1"
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except OSError as problem:
        raise BadOption(f"{host}: {problem.strerror or problem}") from None
    return str(found[0][4][0]), int(port)


def _sizes(text: str) -> list[int]:
    words = text.split(",")
    sizes = [int(word) for word in words if word.isascii() and word.isdecimal() and 1 <= int(word) <= OCTETS_MAX]
    if len(sizes) != len(words) or len(sizes) > SIZES_MAX:
        raise BadOption(f"--octets {text[:100]}: give 1 to {OCTETS_MAX}, or up to {SIZES_MAX} sizes with commas")
    return sizes


def _domains(words: list[str]) -> list[str]:
    domains: list[str] = []
    for word in words:
        name, colon, count = word.partition(":")
        if not name or (colon and (not count.isdecimal() or int(count) < 1)):
            raise BadOption(f"--domain {word}: write NAME or NAME:N")
        domains.extend([name] if not colon else (f"{n}.{name}" for n in range(1, min(int(count), DOMAINS_MAX) + 1)))
    if len(domains) > DOMAINS_MAX:
        raise BadOption(f"more than {DOMAINS_MAX} domains")
    return domains
