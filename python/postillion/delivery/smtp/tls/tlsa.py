"""Which TLSA records of a host can be used (RFC 7672 §3.1, RFC 7671 §9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from postillion.dns import Tlsa

TRUST_ANCHOR: Final = 2
"""The usage DANE-TA: a certificate above that of the server (RFC 7671 §5.2)."""
USAGES: Final = (TRUST_ANCHOR, 3)
"""DANE-TA and DANE-EE; the others ask for public authorities, of which SMTP has no agreed list (RFC 7672 §3.1.3)."""
SELECTORS: Final = (0, 1)
"""A certificate, or its public key."""
FULL: Final = 0
"""The matching type of whole data in place of a digest."""
DIGEST_OCTETS: Final = {1: 32, 2: 64}
RECORDS_MAX: Final = 100
"""Maximum number of records of a host that are used, as in Postfix."""
SEQUENCE: Final = 0x30
SHOWN_OCTETS: Final = 64
"""Maximum number of octets of a record's data in a log line."""


def usable(records: Sequence[Tlsa], digests: Sequence[int]) -> tuple[Tlsa, ...]:
    """Return the records that a certificate can match, in a fixed order.

    `digests`: the matching types that the site allows, strongest first. Of the records with the same usage and
    selector, those with the strongest digest are left, and those without a digest (RFC 7671 §9).
    """
    kept = [record for record in records if is_usable(record, digests)]
    strongest: dict[tuple[int, int], int] = {}
    for record in kept:
        if record.matching != FULL:
            kind = (record.usage, record.selector)
            rank = digests.index(record.matching)
            strongest[kind] = min(rank, strongest.get(kind, rank))
    chosen = {
        record
        for record in kept
        if record.matching == FULL or digests.index(record.matching) == strongest[record.usage, record.selector]
    }
    return tuple(sorted(chosen)[:RECORDS_MAX])


def is_usable(record: Tlsa, digests: Sequence[int]) -> bool:
    """Return whether a certificate can match a record: its fields are known, and its data has their form."""
    if record.usage not in USAGES or record.selector not in SELECTORS:
        return False
    if record.matching == FULL:
        return _is_der(record.data)
    return record.matching in digests and len(record.data) == DIGEST_OCTETS.get(record.matching)


def shown(record: Tlsa) -> str:
    """Return a record as the log has it: its three numbers, and the begin of its data in hexadecimal digits."""
    return f"{record.usage} {record.selector} {record.matching} {record.data[:SHOWN_OCTETS].hex().upper()}"


def _is_der(data: bytes) -> bool:
    """Return whether the octets are one DER sequence, as a certificate and a public key are."""
    if len(data) < 2 or data[0] != SEQUENCE:
        return False
    if data[1] < 0x80:
        return len(data) == 2 + data[1]
    size = data[1] & 0x7F
    return 0 < size <= 3 and len(data) == 2 + size + int.from_bytes(data[2 : 2 + size], "big")
