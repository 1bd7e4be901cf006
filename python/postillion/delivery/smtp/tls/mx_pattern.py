"""The hosts that an MTA-STS policy allows (RFC 8461 §4.1)."""

from __future__ import annotations


def allows(pattern: str, host: str) -> bool:
    """Return whether a pattern names the host: the same name, or `*.` for its first label."""
    pattern, host = pattern.lower().rstrip("."), host.lower().rstrip(".")
    if pattern.startswith("*."):
        label, dot, rest = host.partition(".")
        return bool(label and dot) and rest == pattern[2:]
    return bool(host) and host == pattern
