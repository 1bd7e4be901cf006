"""Garbage on every socket under public/ and private/: a clear log line, no program dies, and mail still flows.

The sockets are internal: only the mail system's users and groups can reach them. Even so, no input on a socket may harm
more than its own connection.
"""

import random
import re
import resource
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.hostile import REPLY_MAX_S, Watch, high_water_kib, watched
from support.mta import Site, processes, wait_for

PROGRAMS = ("master", "smtpd", "qmgr", "pickup", "anvil", "local", "smtp", "bounce")
GROWTH_MAX_KIB = 96 * 1024
"""More than the largest accepted frame, less than the octets sent."""
RNG = random.Random(3)
GARBAGE = {
    "nothing": b"",
    "one byte": b"\0",
    "random": RNG.randbytes(100_000),
    "http": b"GET / HTTP/1.1\r\nHost: mx.example.org\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + RNG.randbytes(508),
    "huge length": struct.pack("<IBB", 0xFFFF_FFFF, 1, 2) + b"x" * 1000,
    "longest length": struct.pack("<IBB", 64 * 1024 * 1024, 1, 7) + b"x" * 1_000_000,
    "no length": struct.pack("<I", 0) * 100,
    "half a frame": struct.pack("<IBBI", 100, 1, 7, 94) + b'{"verb"',
    "another version": struct.pack("<IBB", 2, 9, 1),
    "unknown kind": struct.pack("<IBB", 2, 1, 200),
    "arrivals without number": struct.pack("<IBBI", 6, 1, 2, 0xFFFF_FFFF),
    "an agent of no transport": struct.pack("<IBBI", 14, 1, 4, 0) + struct.pack("<II", 1, 0xFFFF_FFFF),
    "a producer of nothing": struct.pack("<IBBIQQ", 22, 1, 1, 1, 0xFFFF_FFFF_FFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF),
    "a seal of nothing": struct.pack("<IBBIQQ", 22, 1, 1, 1, 0, 0) + struct.pack("<IBBQQ", 18, 1, 3, 77, 1 << 63),
    "control that is no JSON": struct.pack("<IBBI", 9, 1, 7, 3) + b"\xff\xfe{",
    "control too deep": struct.pack("<IBBI", 100_006, 1, 7, 100_000) + b"[" * 100_000,
    "a result of nobody": struct.pack("<IBBQQBI", 23, 1, 5, 1, 2, 0, 0),
}
CONNECTIONS = 10_000
AT_ONCE = 500


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    """Run a site; yield its `Watch`."""
    # The next hop has no listener: mail to it is deferred at once.
    with watched(Site(tmp_path_factory.mktemp("hostile"))) as watch:
        yield watch


@pytest.fixture(autouse=True)
def unharmed(server: Watch) -> Iterator[None]:
    """Check after each test that the programs are the same, have hardly grown, and deliver mail."""
    before = {program: sorted(processes(server.site, program)) for program in PROGRAMS}
    sizes = {pid: high_water_kib(pid) for pids in before.values() for pid in pids}
    yield
    delivered = len(server.found())
    server.check()
    wait_for("honest mail", lambda: len(server.found()) > delivered)
    for program, pids in before.items():
        assert set(pids) <= set(processes(server.site, program)), program
    growth = {pid: high_water_kib(pid) - size for pid, size in sizes.items()}
    assert max(growth.values()) <= GROWTH_MAX_KIB, growth


def sockets(site: Site) -> list[Path]:
    """Return every listening socket of the queue directory."""
    found = [path for name in ("public", "private") for path in (site.queue / name).iterdir() if path.is_socket()]
    assert {path.name for path in found} >= {"pickup", "qmgr", "local", "smtp", "bounce", "anvil"}
    return sorted(found)


def connect(path: Path) -> socket.socket:
    """Connect to a socket; return the connection."""
    client = socket.socket(socket.AF_UNIX)
    # Blocking with a timeout, to wait for a full backlog, but not forever.
    for direction in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
        client.setsockopt(socket.SOL_SOCKET, direction, struct.pack("ll", int(REPLY_MAX_S), 0))
    client.connect(str(path))
    return client


def send(client: socket.socket, data: bytes) -> None:
    """Send data; ignore a closed connection."""
    try:
        client.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        pass


def test_garbage_on_any_socket_affects_only_its_connection(server: Watch) -> None:
    for path in sockets(server.site):
        for garbage in GARBAGE.values():
            with connect(path) as client:
                send(client, garbage)
            with connect(path) as client:
                for byte in garbage[:20]:
                    send(client, bytes([byte]))


def test_queue_manager_logs_why_it_disconnects_a_peer(server: Watch) -> None:
    for directory, data, why in (
        ("private", GARBAGE["huge length"], "a frame of 4294967295 octets"),
        ("private", GARBAGE["another version"], "frame version 9, this program speaks 1"),
        ("public", GARBAGE["unknown kind"], "unknown frame kind 200"),
        ("public", GARBAGE["a producer of nothing"], "only control requests are allowed on this socket"),
    ):
        with connect(server.site.queue / directory / "qmgr") as client:
            send(client, data)
            # The queue manager closes the connection: the client reads its end.
            try:
                assert client.recv(1) == b""
            except ConnectionResetError:
                pass
        server.logged(f"a client on {directory}/qmgr is disconnected: {why}")


def test_ten_thousand_connections_do_no_harm(server: Watch) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    paths = [
        server.site.queue / directory for directory in ("public/qmgr", "private/qmgr", "public/pickup", "private/anvil")
    ]
    for number in range(CONNECTIONS // AT_ONCE):
        path = paths[number % len(paths)]
        held = []
        for _ in range(AT_ONCE):
            client = connect(path)
            held.append(client)
            send(client, b"\x10")
        for client in held:
            client.close()


def test_idle_connections_with_partial_frames_do_not_block_others(server: Watch) -> None:
    held = [connect(path) for path in sockets(server.site) for _ in range(20)]
    for client in held:
        send(client, GARBAGE["half a frame"])
    server.serve()
    server.check_arrivals()
    for client in held:
        client.close()


def test_log_has_no_internal_errors(server: Watch) -> None:
    text = server.site.log_text()
    for word in ("Traceback", "panic", "fatal", "Exception"):
        assert not re.search(word, text), [line for line in text.splitlines() if word in line][:5]
