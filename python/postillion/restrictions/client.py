"""Restrictions about the client: its network, its names, its user."""

from __future__ import annotations

from postillion.checks.reply import Reply
from postillion.restrictions.question import OK, Outcome, Question


def permit_mynetworks(question: Question) -> Outcome:
    """Accept a client in mynetworks."""
    return OK if question.client.trusted else None


def permit_inet_interfaces(question: Question) -> Outcome:
    """Accept a client with one of this machine's own addresses."""
    return OK if question.client.inside else None


def permit_sasl_authenticated(question: Question) -> Outcome:
    """Accept an authenticated client."""
    return OK if question.dialogue.authenticated else None


def reject_unknown_client_hostname(question: Question) -> Outcome:
    """Refuse a client without a verified name (unknown_client_reject_code)."""
    return _unnamed(question, "hostname") if question.client.name == "unknown" else None


def reject_unknown_reverse_client_hostname(question: Question) -> Outcome:
    """Refuse a client whose address has no name (unknown_client_reject_code)."""
    return _unnamed(question, "reverse hostname") if question.client.reverse_name == "unknown" else None


def _unnamed(question: Question, what: str) -> Reply:
    text = f"Client host rejected: cannot find your {what}, [{question.client.address}]"
    return Reply(question.site.codes["unknown_client_reject_code"], "4.7.25", text)
