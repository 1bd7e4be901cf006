"""The result of a delivery: the outcome, the enhanced status code and the text of the log line."""

import errno
from typing import Literal, NamedTuple

OutcomeWord = Literal["sent", "deferred", "bounced"]
SENT: OutcomeWord = "sent"
DEFERRED: OutcomeWord = "deferred"
BOUNCED: OutcomeWord = "bounced"

SYSTEM_FULL = frozenset({errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Verdict(NamedTuple):
    """An outcome with its reason. `dsn`: enhanced status code (RFC 3463) of the outcome's class."""

    outcome: OutcomeWord
    dsn: str
    text: str


def sent(text: str) -> Verdict:
    """Return the verdict of a successful delivery."""
    return Verdict(SENT, "2.0.0", text)


def deferred(dsn: str, text: str) -> Verdict:
    """Return the verdict of a temporary failure. `dsn`: its class becomes 4."""
    return Verdict(DEFERRED, "4" + dsn[1:], text)


def bounced(dsn: str, text: str) -> Verdict:
    """Return the verdict of a permanent failure. `dsn`: its class becomes 5."""
    return Verdict(BOUNCED, "5" + dsn[1:], text)


def failed(dsn: str, text: str) -> Verdict:
    """Return the verdict of a failure, deferred or bounced by the class of the status code."""
    return deferred(dsn, text) if dsn.startswith("4") else bounced(dsn, text)


def from_errno(error: OSError, text: str) -> Verdict:
    """Return the verdict for a failed system call, always a temporary failure.

    Postfix bounces mail for a full mailbox (5.2.2) and a directory without permission (5.2.0) at once. Such errors are
    usually fixed within the queue lifetime, and a deferred message is not lost.
    """
    if error.errno in SYSTEM_FULL:
        return deferred("4.3.0", text)
    if error.errno in (errno.EDQUOT, errno.EFBIG):
        return deferred("4.2.2", text)
    return deferred("4.2.0", text)


def combined(verdicts: list[Verdict]) -> Verdict:
    """Return the verdict on a recipient with several deliveries: the first deferred, or bounced, or else a sent one."""
    for outcome in (DEFERRED, BOUNCED):
        for verdict in verdicts:
            if verdict.outcome == outcome:
                return verdict
    return verdicts[-1]
