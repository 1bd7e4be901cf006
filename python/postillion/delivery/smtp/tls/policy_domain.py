"""The domain that publishes a policy: MTA-STS and reports look it up in DNS."""

from __future__ import annotations

from postillion.config.domain import BadDomain, to_ascii
from postillion.delivery.smtp.nexthop import is_host_name


def policy_domain(text: str) -> str | None:
    """Return a domain as DNS has it, in lower case; None for a name that can publish nothing, such as localhost."""
    try:
        name = to_ascii(text).lower().rstrip(".")
    except BadDomain:
        return None
    return name if is_host_name(name) and "." in name else None
