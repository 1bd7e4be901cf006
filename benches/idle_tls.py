"""How much memory does an idle TLS session of smtpd take?

    5,000 clients: EHLO, STARTTLS, TLS 1.3, EHLO, then idle ──> smtpd

The memory is the resident set of all smtpd processes, with the sessions minus without them, divided by their number.
A few sessions come and go before, so that what the first ones load for all others does not count. `clear`: the same
number of sessions without TLS, in a server of its own. `correct`: every client got the reply to its last EHLO, and no
session ended.

Needs no privilege, and 10,000 descriptors.
"""

import argparse
import contextlib
import resource
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import harness
from postillion.bench import tls
from support import mta

AIM_KB = 20
EHLO = b"EHLO idle.example\r\n"
WARM_UP = 50
PATIENCE_S = 60.0
REPLY_OCTETS = 4096


def say(peer: socket.socket, command: bytes) -> None:
    """Send a command, and read a whole reply of 2xx; an empty command reads the greeting. Raises `OSError`."""
    if command:
        peer.sendall(command)
    reply = b""
    while not (reply.endswith(b"\r\n") and reply.splitlines()[-1][3:4] == b" "):
        octets = peer.recv(REPLY_OCTETS)
        if not octets:
            raise ConnectionError(f"the server has closed the connection behind {command!r}")
        reply += octets
    if reply[:1] != b"2":
        raise ConnectionError(f"{command!r}: {reply!r}")


def connect(port: int, context: ssl.SSLContext | None) -> socket.socket:
    """Return a client's connection behind its last EHLO."""
    peer = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    say(peer, b"")
    say(peer, EHLO)
    if context is not None:
        say(peer, b"STARTTLS\r\n")
        peer = context.wrap_socket(peer)
        say(peer, EHLO)
    return peer


@contextlib.contextmanager
def sessions(port: int, number: int, context: ssl.SSLContext | None) -> Iterator[list[socket.socket]]:
    """Have this number of idle sessions during the block."""
    with contextlib.ExitStack() as open_ones:
        yield [open_ones.enter_context(connect(port, context)) for _ in range(number)]


def is_open(peer: socket.socket) -> bool:
    """Return whether the server has neither spoken nor closed the connection."""
    peer.setblocking(False)
    try:
        peer.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        pass
    return False


def memory_kb(site: mta.Site) -> float:
    """Return the resident memory of all smtpd processes, in kB of 1000 octets."""
    pages = (int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in mta.processes(site, "smtpd"))
    return sum(pages) * resource.getpagesize() / 1000


def measure(options: argparse.Namespace, *, secure: bool) -> tuple[float, float, bool]:
    """Return smtpd's memory without sessions, its memory a session in kB, and whether all sessions were there."""
    context = None
    if secure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    limits = {"smtpd_client_connection_count_limit": "0", "default_process_limit": str(2 * options.sessions)}
    with harness.site(options, limits) as site:
        chain = site.etc / "mx.pem"
        tls.write_chain(chain, "mx.example.org")
        with (site.etc / "main.cf").open("a") as main_cf:
            main_cf.write(f"smtpd_tls_security_level = may\nsmtpd_tls_chain_files = {chain}\n")
        with mta.running(site):
            with sessions(site.port, WARM_UP, context):
                pass
            before = memory_kb(site)
            with sessions(site.port, options.sessions, context) as peers:
                taken = memory_kb(site) - before
                correct = all(is_open(peer) for peer in peers)
    return before, taken / options.sessions, correct


def main() -> None:
    """Measure and report."""
    parser = harness.parser(__doc__)
    parser.add_argument("--sessions", type=int, default=5000)
    options = parser.parse_args()
    if options.quick:
        options.sessions = 200
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    columns = ["session", "smtpd kB", "kB a session", "correct"]
    result = harness.Result("Memory of an idle session of smtpd", f"{options.sessions} sessions", columns)
    result.begin()
    for name, secure in (("clear", False), ("TLS", True)):
        whole, each, correct = measure(options, secure=secure)
        result.correct &= correct
        result.row(name, whole, each, correct)
        if secure:
            result.aim("memory of an idle TLS session", f"at most {AIM_KB} kB", f"{each:.1f} kB", each <= AIM_KB)
    result.report(options)


if __name__ == "__main__":
    main()
