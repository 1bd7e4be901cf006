"""Restrictions about the address in RCPT TO: relay control, and recipients that do not exist."""

from __future__ import annotations

from postillion.address.classes import FINAL, Class
from postillion.checks.reply import Reply
from postillion.restrictions.names import has_full_domain
from postillion.restrictions.question import OK, Outcome, Question


def permit_auth_destination(question: Question) -> Outcome:
    """Accept a recipient that this site delivers or relays for."""
    return OK if _is_ours(question) else None


def reject_unauth_destination(question: Question) -> Outcome:
    """Refuse any other recipient (relay_domains_reject_code)."""
    return None if _is_ours(question) else _relay_denied(question, question.site.codes["relay_domains_reject_code"])


def defer_unauth_destination(question: Question) -> Outcome:
    """Refuse any other recipient for now."""
    return None if _is_ours(question) else _relay_denied(question, 454)


def reject_unlisted_recipient(question: Question) -> Outcome:
    """Refuse a recipient that its class does not list, or whose mail would bounce."""
    route = question.site.resolver.route(question.destination, question.sender)
    known_users, asked = question.site.known_users, question.dialogue.unlisted
    unlisted = known_users.unlisted(question.destination, route, asked=asked)
    if unlisted is None:
        return None
    question.about("recipient")
    return question.rejected(*unlisted)


def reject_non_fqdn_recipient(question: Question) -> Outcome:
    """Refuse a recipient without a full domain (non_fqdn_reject_code)."""
    if has_full_domain(question.recipient):
        return None
    question.about("recipient")
    return question.rejected(question.site.codes["non_fqdn_reject_code"], "5.5.2", "need fully-qualified address")


def _is_ours(question: Question) -> bool:
    """Return whether this site delivers or relays for the destination, for any client."""
    destination = question.destination
    if destination.routed and not question.site.untrusted_routing:
        return False
    return destination.kind in FINAL or destination.kind is Class.RELAY


def _relay_denied(question: Question, code: int) -> Reply:
    return Reply(code, f"{code // 100}.7.1", f"<{question.recipient}>: Relay access denied")
