"""The security levels of TLS in the SMTP client, weakest first (postconf(5), smtp_tls_security_level)."""

from __future__ import annotations

from typing import Final, Literal

Level = Literal["none", "may", "encrypt", "fingerprint", "half-dane", "dane", "dane-only", "verify", "secure"]
LEVELS: Final[tuple[Level, ...]] = (
    *("none", "may", "encrypt", "fingerprint", "half-dane", "dane", "dane-only", "verify", "secure"),
)
Request = Literal["usual", "waived", "required"]
"""A sender's request about TLS: none, `TLS-Required: no`, or REQUIRETLS (RFC 8689)."""
HALF_DANE: Final = "half-dane"
"""The level of a server that matches its TLSA records, found by MX records that are not secure. No site sets it."""
BY_DANE: Final[tuple[Level, ...]] = ("dane", "dane-only")
BY_AUTHORITY: Final[tuple[Level, ...]] = ("verify", "secure")
"""The levels at which a certification authority vouches for the server."""


def parse(word: str) -> Level | None:
    """Return the level that a site writes, in any case; None for another word."""
    lower = word.lower()
    return next((level for level in LEVELS if level == lower and level != HALF_DANE), None)


def at_least(level: Level, other: Level) -> bool:
    """Return whether a level is as strong as another one, or stronger."""
    return LEVELS.index(level) >= LEVELS.index(other)
