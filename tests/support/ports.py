"""Ports of 127.0.0.1 that stay free until the test binds them.

A port from `bind(("127.0.0.1", 0))` is in the range that the kernel also uses for outgoing connections, so any client
on the machine may take it before the test binds it. These ports are below that range. A socket in the abstract
namespace reserves each one against other test processes of this machine, until this process ends.
"""

import itertools
import os
import socket
from pathlib import Path

FIRST = 20_000
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")

_reservations: list[socket.socket] = []
_offsets = itertools.count(os.getpid() * 64)


def free_port() -> int:
    """Return a free TCP and UDP port of 127.0.0.1 that no other test process gets."""
    ephemeral = int(EPHEMERAL_RANGE.read_text().split()[0])
    if ephemeral <= FIRST:
        raise RuntimeError(f"{EPHEMERAL_RANGE} begins at {ephemeral}: no port from {FIRST} up is left for tests")
    for _ in range(FIRST, ephemeral):
        port = FIRST + next(_offsets) % (ephemeral - FIRST)
        if _reserved(port):
            return port
    raise RuntimeError(f"no free port from {FIRST} to {ephemeral}")


def _reserved(port: int) -> bool:
    reservation = socket.socket(socket.AF_UNIX)
    try:
        reservation.bind(f"\0postillion-test-port-{port}")
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(type=kind) as probe:
                probe.bind(("127.0.0.1", port))
    except OSError:
        reservation.close()
        return False
    _reservations.append(reservation)
    return True
