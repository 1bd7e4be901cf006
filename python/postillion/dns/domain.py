"""Domain names in UTF-8 as DNS has them: A-labels (RFC 5890), after the mapping of UTS #46.

The mapping is case folding and NFKC, which UTS #46 starts from. Its table of disallowed characters is replaced by their
general categories.
"""

from __future__ import annotations

import unicodedata
from typing import Final

DEVIATIONS: Final = "\u00df\u03c2\u200c\u200d"
"""Characters that IDNA2003 maps to others, and IDNA2008 keeps: sharp s, final sigma, two joiners."""
IGNORED: Final = dict.fromkeys((0xAD, 0x200B, 0x2060, 0x2064, 0xFEFF, *range(0x180B, 0x180F), *range(0xFE00, 0xFE10)))
"""Characters without a meaning in a name."""
ALLOWED_CATEGORIES: Final = frozenset(
    ("Ll", "Lo", "Lm", "Mn", "Mc", "Nd", "Sm", "So", "Sc", "Sk", "Nl", "No", "Po", "Pd")
)
"""General categories of a name's characters outside ASCII, after the mapping."""
LABEL_MAX_OCTETS: Final = 63
NAME_MAX_OCTETS: Final = 253


class BadDomain(ValueError):
    """A name that DNS cannot have; the text gives the reason."""


def to_ascii(name: str, *, idna2003: bool = False) -> str:
    """Return the name with A-labels; a name in ASCII stays as it is. Raises `BadDomain`.

    `idna2003`: map sharp s to ss, and the like (enable_idna2003_compatibility).
    """
    if name.isascii():
        return name
    labels = _mapped(name, idna2003).split(".")
    found = ".".join(_label(label) for label in labels)
    if len(found.rstrip(".")) > NAME_MAX_OCTETS:
        raise BadDomain("the name is too long")
    return found


def _mapped(name: str, idna2003: bool) -> str:
    kept = "" if idna2003 else DEVIATIONS
    folded = "".join(c if c in kept else c.casefold() for c in unicodedata.normalize("NFKC", name))
    if idna2003:
        folded = folded.replace("\u200c", "").replace("\u200d", "")
    return unicodedata.normalize("NFKC", folded.translate(IGNORED)).replace("\u3002", ".")


def _label(label: str) -> str:
    if label.isascii():
        return label
    if label.startswith("-") or label.endswith("-") or label[2:4] == "--":
        raise BadDomain(f"a hyphen at a wrong place in {label}")
    if unicodedata.category(label[0]).startswith("M"):
        raise BadDomain(f"{label} starts with a combining character")
    for c in label:
        fits = (
            c.isalnum() or c in "-_"
            if c.isascii()
            else c in DEVIATIONS or unicodedata.category(c) in ALLOWED_CATEGORIES
        )
        if not fits:
            raise BadDomain(f"{c!a} in {label}")
    encoded = "xn--" + label.encode("punycode").decode("ascii")
    if len(encoded) > LABEL_MAX_OCTETS:
        raise BadDomain(f"{label} is too long")
    return encoded
