"""Restrictions for every list: permit, reject, defer, and those about the dialogue itself."""

from __future__ import annotations

from postillion.restrictions.question import OK, Outcome, Question


def permit(_question: Question) -> Outcome:
    """Accept."""
    return OK


def reject(question: Question) -> Outcome:
    """Refuse (reject_code)."""
    return question.rejected(question.site.codes["reject_code"], "5.7.1", "Access denied")


def defer(question: Question) -> Outcome:
    """Refuse for now (defer_code)."""
    return question.rejected(question.site.codes["defer_code"], "4.3.2", "Try again later")


def reject_unauth_pipelining(question: Question) -> Outcome:
    """Refuse a client that sent commands without waiting for a reply that it must wait for (RFC 2920)."""
    if not question.dialogue.talked_early:
        return None
    return question.rejected(503, "5.5.0", "Improper use of SMTP command pipelining")


def reject_multi_recipient_bounce(question: Question) -> Outcome:
    """Refuse the null sender with several recipients (multi_recipient_bounce_reject_code).

    At RCPT, the second and further ones are refused.
    """
    count = question.dialogue.recipient_count + (question.dialogue.recipient is not None)
    if question.dialogue.sender == "" and count > 1:
        code = question.site.codes["multi_recipient_bounce_reject_code"]
        return question.rejected(code, "5.5.3", "Multi-recipient bounce")
    return None
