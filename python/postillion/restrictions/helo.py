"""Restrictions about the name in HELO and EHLO."""

from __future__ import annotations

from postillion.restrictions.names import is_full_name, is_hostname, is_literal
from postillion.restrictions.question import Outcome, Question


def reject_invalid_helo_hostname(question: Question) -> Outcome:
    """Refuse a name that is neither a host name nor an address literal (invalid_hostname_reject_code)."""
    helo = question.dialogue.helo
    if helo is None or is_hostname(helo) or is_literal(helo):
        return None
    question.about("helo")
    return question.rejected(question.site.codes["invalid_hostname_reject_code"], "5.5.2", "Invalid name")


def reject_non_fqdn_helo_hostname(question: Question) -> Outcome:
    """Refuse a name without a domain (non_fqdn_reject_code)."""
    helo = question.dialogue.helo
    if helo is None or is_literal(helo) or is_full_name(helo):
        return None
    question.about("helo")
    return question.rejected(question.site.codes["non_fqdn_reject_code"], "5.5.2", "need fully-qualified hostname")
