"""Restrictions about the TLS certificate that a client shows, and the clients that relay_clientcerts lists."""

from __future__ import annotations

from postillion.restrictions.question import OK, Outcome, Question


def permit_tls_clientcerts(question: Question) -> Outcome:
    """Accept a client whose certificate or public key is in relay_clientcerts, whoever has issued it."""
    return OK if question.site.certificates.lists(question.dialogue) else None


def permit_tls_all_clientcerts(question: Question) -> Outcome:
    """Accept a client with a certificate of a trusted authority, or with one in relay_clientcerts."""
    return OK if question.site.certificates.trusts(question.dialogue) else None
