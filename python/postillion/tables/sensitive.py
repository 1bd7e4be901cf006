"""Parameters whose tables name programs, files and routes: what a stranger sends must not get into their results.

Postfix opens these tables with DICT_FLAG_NO_REGSUB or DICT_FLAG_PARANOID (dict.h). A rule of a pattern table with `$1`
in its result is skipped, with a warning. A table whose server anybody on the network can be is not allowed.

The programs of Postfix that open virtual_mailbox_maps, virtual_uid_maps and virtual_gid_maps so do not exist here.
smtpd only looks up whether virtual_mailbox_maps has a recipient.
"""

from postillion.tables.names import DEPTH_MAX, flat, members

WITHOUT_SUBSTITUTION = frozenset(
    {
        "alias_maps",
        "fallback_transport_maps",
        "mailbox_command_maps",
        "mailbox_transport_maps",
        "address_verify_sender_dependent_default_transport_maps",
        "address_verify_sender_dependent_relayhost_maps",
        "address_verify_transport_maps",
        "sender_dependent_default_transport_maps",
        "sender_dependent_relayhost_maps",
        "transport_maps",
    }
)
"""Parameters whose results never contain text of the key."""
AUTHENTICATED = frozenset({"alias_maps", "mailbox_command_maps"})
"""Parameters without tables of `UNAUTHENTICATED_TYPES`: their results are commands and files."""
SECRET = frozenset({"lmtp_sasl_password_maps", "smtp_sasl_password_maps"})
"""Parameters whose values have passwords: no trace and no log shows them."""
UNAUTHENTICATED_TYPES = ("memcache", "socketmap", "tcp")
"""Types of tables that authenticate neither the server nor the connection."""


def refused_type(parameter: str, name: str, depth: int = 0) -> str | None:
    """Return the type of the table, or of a table in it, that the parameter does not allow. None: all are allowed.

    `open_table` refuses names with more tables in each other than are searched here.
    """
    if parameter not in AUTHENTICATED or depth > DEPTH_MAX:
        return None
    kind, _, rest = flat(name).partition(":")
    if kind in UNAUTHENTICATED_TYPES:
        return kind
    found = (refused_type(parameter, word, depth + 1) for word in members(kind, rest))
    return next((kind for kind in found if kind is not None), None)
