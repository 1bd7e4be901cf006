"""Restrictions about the address in MAIL FROM."""

from __future__ import annotations

from postillion.restrictions.names import has_full_domain
from postillion.restrictions.question import Outcome, Question


def reject_non_fqdn_sender(question: Question) -> Outcome:
    """Refuse a sender without a full domain (non_fqdn_reject_code). The null sender is no address."""
    if not question.sender or has_full_domain(question.sender):
        return None
    question.about("sender")
    return question.rejected(question.site.codes["non_fqdn_reject_code"], "5.5.2", "need fully-qualified address")
