"""The table of restrictions (postconf(5), SMTPD_ACCESS_README): one row each, also for those that are refused.

A row has the argument behind the name, the function that answers, and the facts that the answer depends on. If the rows
of a list read nothing outside `REMEMBERED`, the next client of the same group gets the same answer, so an accepted
recipient is accepted again for some seconds without asking. docs/restrictions.md is printed from this table.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final, NamedTuple

from postillion.restrictions import certificates, client, generic, helo, recipient, sender
from postillion.restrictions.question import Outcome, Question


class Argument(enum.Enum):
    """The word behind the name."""

    NONE = ""
    TABLE = "type:table"
    DOMAIN = "domain"
    SERVICE = "server"
    NUMBER = "number"
    RESTRICTION = "restriction"


class Reads(enum.Flag):
    """The facts that an answer depends on."""

    NOTHING = 0
    STANDING = enum.auto()
    """Whether the client is in mynetworks, has one of this machine's addresses, and has a name."""
    CLIENT = enum.auto()
    """The client's address and names."""
    HELO = enum.auto()
    SENDER = enum.auto()
    RECIPIENT = enum.auto()
    USER = enum.auto()
    """The authenticated user."""
    TLS = enum.auto()
    DIALOGUE = enum.auto()
    """The course of the dialogue: how many recipients there are, and whether the client waits for replies."""
    TABLE = enum.auto()
    DNS = enum.auto()
    SERVICE = enum.auto()
    """Another program or server."""


S, C, H, F, R, U = Reads.STANDING, Reads.CLIENT, Reads.HELO, Reads.SENDER, Reads.RECIPIENT, Reads.USER
TABLE, DNS = Reads.TABLE, Reads.DNS
EVERYTHING: Final = ~Reads.NOTHING
REMEMBERED: Final = Reads.STANDING | Reads.RECIPIENT | Reads.USER | Reads.TABLE
"""The facts that a remembered acceptance may depend on. A user's recipients are never remembered: each is asked."""


class Row(NamedTuple):
    """One restriction. `function` None: refused at the start. `instead`: Postfix removed it and says to use this."""

    name: str
    argument: Argument
    reads: Reads
    function: Callable[[Question], Outcome] | None = None
    instead: str = ""


def _plain(name: str, reads: Reads, function: Callable[[Question], Outcome] | None = None) -> Row:
    return Row(name, Argument.NONE, reads, function)


def _table(name: str, reads: Reads) -> Row:
    return Row(name, Argument.TABLE, reads | TABLE)


def _domain(name: str, reads: Reads) -> Row:
    return Row(name, Argument.DOMAIN, reads | DNS)


def _removed(name: str, instead: str) -> Row:
    return Row(name, Argument.NONE, Reads.NOTHING, None, instead)


SECTIONS: Final[dict[str, tuple[Row, ...]]] = {
    "Any": (
        _plain("permit", Reads.NOTHING, generic.permit),
        _plain("reject", Reads.NOTHING, generic.reject),
        _plain("defer", Reads.NOTHING, generic.defer),
        _plain("defer_if_permit", Reads.NOTHING),
        _plain("defer_if_reject", Reads.NOTHING),
        Row("warn_if_reject", Argument.RESTRICTION, Reads.NOTHING),
        Row("sleep", Argument.NUMBER, Reads.NOTHING),
        Row("check_policy_service", Argument.SERVICE, EVERYTHING),
        _plain("reject_plaintext_session", Reads.TLS),
        _plain("reject_unauth_pipelining", Reads.DIALOGUE, generic.reject_unauth_pipelining),
        _plain("reject_multi_recipient_bounce", F | Reads.DIALOGUE, generic.reject_multi_recipient_bounce),
    ),
    "Client": (
        _plain("permit_mynetworks", S, client.permit_mynetworks),
        _plain("permit_inet_interfaces", S, client.permit_inet_interfaces),
        _plain("permit_sasl_authenticated", U, client.permit_sasl_authenticated),
        _plain("permit_tls_all_clientcerts", Reads.TLS | TABLE, certificates.permit_tls_all_clientcerts),
        _plain("permit_tls_clientcerts", Reads.TLS | TABLE, certificates.permit_tls_clientcerts),
        _plain("reject_unknown_client_hostname", S, client.reject_unknown_client_hostname),
        _plain("reject_unknown_client", S, client.reject_unknown_client_hostname),
        _plain("reject_unknown_reverse_client_hostname", S, client.reject_unknown_reverse_client_hostname),
        _table("check_client_access", C),
        _table("check_client_a_access", C | DNS),
        _table("check_client_mx_access", C | DNS),
        _table("check_client_ns_access", C | DNS),
        _table("check_reverse_client_hostname_access", C),
        _table("check_reverse_client_hostname_a_access", C | DNS),
        _table("check_reverse_client_hostname_mx_access", C | DNS),
        _table("check_reverse_client_hostname_ns_access", C | DNS),
        _table("check_ccert_access", Reads.TLS),
        _table("check_sasl_access", U),
        _domain("reject_rbl_client", C),
        _domain("reject_rbl", C),
        _domain("reject_rhsbl_client", C),
        _domain("reject_rhsbl_reverse_client", C),
        _domain("permit_dnswl_client", C),
        _domain("permit_rhswl_client", C),
        _removed("permit_naked_ip_address", "permit_mynetworks or permit_sasl_authenticated"),
        _removed("reject_maps_rbl", "reject_rbl_client and a domain"),
    ),
    "HELO": (
        _plain("reject_invalid_helo_hostname", H, helo.reject_invalid_helo_hostname),
        _plain("reject_invalid_hostname", H, helo.reject_invalid_helo_hostname),
        _plain("reject_non_fqdn_helo_hostname", H, helo.reject_non_fqdn_helo_hostname),
        _plain("reject_non_fqdn_hostname", H, helo.reject_non_fqdn_helo_hostname),
        _plain("reject_unknown_helo_hostname", H | DNS),
        _plain("reject_unknown_hostname", H | DNS),
        _table("check_helo_access", H),
        _table("check_helo_a_access", H | DNS),
        _table("check_helo_mx_access", H | DNS),
        _table("check_helo_ns_access", H | DNS),
        _domain("reject_rhsbl_helo", H),
    ),
    "Sender": (
        _plain("reject_non_fqdn_sender", F, sender.reject_non_fqdn_sender),
        _plain("reject_unknown_sender_domain", F | DNS),
        _plain("reject_unlisted_sender", F | TABLE),
        _plain("reject_unverified_sender", F | Reads.SERVICE),
        _plain("reject_sender_login_mismatch", F | U | TABLE),
        _plain("reject_authenticated_sender_login_mismatch", F | U | TABLE),
        _plain("reject_known_sender_login_mismatch", F | U | TABLE),
        _plain("reject_unauthenticated_sender_login_mismatch", F | U | TABLE),
        _table("check_sender_access", F),
        _table("check_sender_a_access", F | DNS),
        _table("check_sender_mx_access", F | DNS),
        _table("check_sender_ns_access", F | DNS),
        _domain("reject_rhsbl_sender", F),
    ),
    "Recipient": (
        _plain("permit_auth_destination", R | TABLE, recipient.permit_auth_destination),
        _plain("reject_unauth_destination", R | TABLE, recipient.reject_unauth_destination),
        _plain("defer_unauth_destination", R | TABLE, recipient.defer_unauth_destination),
        _plain("permit_mx_backup", R | TABLE | DNS),
        _plain("reject_non_fqdn_recipient", R, recipient.reject_non_fqdn_recipient),
        _plain("reject_unlisted_recipient", R | TABLE, recipient.reject_unlisted_recipient),
        _plain("check_recipient_maps", R | TABLE, recipient.reject_unlisted_recipient),
        _plain("reject_unknown_recipient_domain", R | DNS),
        _plain("reject_unverified_recipient", R | Reads.SERVICE),
        _table("check_recipient_access", R),
        _table("check_recipient_a_access", R | DNS),
        _table("check_recipient_mx_access", R | DNS),
        _table("check_recipient_ns_access", R | DNS),
        _domain("reject_rhsbl_recipient", R),
        _removed("check_relay_domains", "permit_mynetworks, reject_unauth_destination"),
    ),
    "Other": (
        _table("check_etrn_access", Reads.DIALOGUE),
        _plain("reject_unknown_address", F | R | DNS),
    ),
}
"""The rows by the noun that they are about."""

ROWS: Final = {row.name: row for section in SECTIONS.values() for row in section}
UNCONDITIONAL: Final = frozenset({"permit", "reject", "defer"})
"""The restrictions that always end a list: no restriction behind them is asked."""
RELAY_CONTROL: Final = ("reject_unauth_destination", "defer_unauth_destination", "reject", "defer")
"""The relay or recipient list must have one of these: without one, the server relays for everybody."""
