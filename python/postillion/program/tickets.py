"""The secret of TLS session tickets, the same in all programs of a mail system.

A client resumes its session with a ticket, also at another process of smtpd. So master draws a secret once, and gives
it to each process that needs it, on its standard input. It is never in a file, an argument or the environment, and
survives each reload. Keys of tickets follow from it and from the time (`rust/tls/src/tickets.rs`).
"""

from __future__ import annotations

import os
import stat
import time

SECRET_OCTETS = 32
TIME_OCTETS = 8
STANDARD_INPUT = 0

Secret = tuple[bytes, float]
"""The secret, and its age in seconds."""


def draw() -> bytes:
    """Return a new secret, with the time on the monotonic clock, which all processes of the machine share."""
    return os.urandom(SECRET_OCTETS) + round(time.monotonic() * 1000).to_bytes(TIME_OCTETS, "big")


def take() -> Secret | None:
    """Return the secret that master has given to this process, once; None without one."""
    if not stat.S_ISFIFO(os.fstat(STANDARD_INPUT).st_mode):
        return None
    # Master has written it before the start: there is nothing to wait for.
    os.set_blocking(STANDARD_INPUT, False)
    try:
        octets = os.read(STANDARD_INPUT, SECRET_OCTETS + TIME_OCTETS)
    except BlockingIOError:
        return None
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, STANDARD_INPUT)
    os.close(null)
    if len(octets) != SECRET_OCTETS + TIME_OCTETS:
        return None
    drawn_s = int.from_bytes(octets[SECRET_OCTETS:], "big") / 1000
    return octets[:SECRET_OCTETS], max(0.0, time.monotonic() - drawn_s)
