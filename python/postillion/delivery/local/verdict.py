"""How a delivery went: the outcome, the enhanced status code and the text of the log line."""

import errno
from typing import Literal, NamedTuple

OutcomeWord = Literal["sent", "deferred", "bounced"]
SENT: OutcomeWord = "sent"
DEFERRED: OutcomeWord = "deferred"
BOUNCED: OutcomeWord = "bounced"

SYSTEM_FULL = frozenset({errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Verdict(NamedTuple):
    """An outcome with its reason. `dsn`: enhanced status code (RFC 3463), whose class agrees with the outcome."""

    outcome: OutcomeWord
    dsn: str
    text: str


def sent(text: str) -> Verdict:
    """Delivered."""
    return Verdict(SENT, "2.0.0", text)


def deferred(dsn: str, text: str) -> Verdict:
    """To be tried again. `dsn`: its class becomes 4."""
    return Verdict(DEFERRED, "4" + dsn[1:], text)


def bounced(dsn: str, text: str) -> Verdict:
    """Failed for good. `dsn`: its class becomes 5."""
    return Verdict(BOUNCED, "5" + dsn[1:], text)


def failed(dsn: str, text: str) -> Verdict:
    """Deferred or bounced, as the class of the status code says."""
    return deferred(dsn, text) if dsn.startswith("4") else bounced(dsn, text)


def from_errno(error: OSError, text: str) -> Verdict:
    """Return what a failed system call means for the mail: it waits, whatever failed, until somebody mends it.

    Postfix bounces a full mailbox (5.2.2) and a directory without permission (5.2.0) at once. The disk is emptied and
    the permission set more often than the mail is unwanted, and a sender who waits loses nothing.
    """
    if error.errno in SYSTEM_FULL:
        return deferred("4.3.0", text)
    if error.errno in (errno.EDQUOT, errno.EFBIG):
        return deferred("4.2.2", text)
    return deferred("4.2.0", text)


def combined(verdicts: list[Verdict]) -> Verdict:
    """Return the verdict on a recipient that became several: deferred if any is, else bounced if any is, else sent."""
    for outcome in (DEFERRED, BOUNCED):
        for verdict in verdicts:
            if verdict.outcome == outcome:
                return verdict
    return verdicts[-1]
