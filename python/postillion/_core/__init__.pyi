"""The Python interface of the Rust cores: a submodule for each module of `postillion_core` that Python uses.

Each docstring gives the result, its units, and the exceptions. Times called `now` are seconds of the monotonic clock,
`wall_now` seconds since 1970.
"""

from postillion._core import (
    accounts,
    address,
    bench,
    cleanup,
    delivery,
    dns,
    log,
    pickup,
    qmgr,
    queue,
    smtp,
    smtpd,
    tables,
    tls,
)

__all__ = [
    "accounts",
    "address",
    "bench",
    "cleanup",
    "delivery",
    "dns",
    "log",
    "pickup",
    "qmgr",
    "queue",
    "smtp",
    "smtpd",
    "tables",
    "tls",
]
