"""The cores in Rust, as Python sees them: one submodule for each module of `postillion_core` that Python uses.

One class or function a line of business; each says what it gives back, in which units, and how it fails. Times called
`now` are seconds of the monotonic clock, `wall_now` seconds since 1970.
"""

from postillion._core import address, bench, cleanup, delivery, log, pickup, qmgr, queue, smtp, smtpd

__all__ = ["address", "bench", "cleanup", "delivery", "log", "pickup", "qmgr", "queue", "smtp", "smtpd"]
