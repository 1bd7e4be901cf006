"""The form of host names and address literals."""

from __future__ import annotations

import re
from typing import Final

HOSTNAME_MAX_OCTETS: Final = 255  # RFC 1035 §2.3.4
LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


def is_hostname(text: str) -> bool:
    """Return whether a text has the form of a host name; one dot may end it."""
    labels = text.removesuffix(".").split(".")
    if len(text) > HOSTNAME_MAX_OCTETS or labels[-1].isdigit():
        return False
    return all(LABEL.fullmatch(label) for label in labels)


def is_literal(text: str) -> bool:
    """Return whether a text is in brackets, as an address literal is (RFC 5321 §4.1.3)."""
    return text.startswith("[") and text.endswith("]")


def is_full_name(text: str) -> bool:
    """Return whether a text has the form of a host name in a domain."""
    return is_hostname(text) and "." in text.rstrip(".")


def has_full_domain(address: str) -> bool:
    """Return whether the domain of an address is a full name or an address literal."""
    domain = address.rpartition("@")[2] if "@" in address else ""
    return is_literal(domain) or is_full_name(domain)
