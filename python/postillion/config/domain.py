"""Domain names in UTF-8 as DNS has them: A-labels (RFC 5890), after the mapping of UTS #46.

The rules are those of ICU's `uidna_openUTS46` as Postfix calls it, and of a valid host name. The mapping is case
folding and NFKC, which UTS #46 starts from. Its table of excluded characters is replaced by their general categories
and a list of exceptions (Unicode 15). Postfix does not ask for the rules of IDNA2008 about neighbours of a character
(CONTEXTJ) and about directions of writing (BIDI).
"""

import unicodedata

DEVIATIONS = {"\u00df": "ss", "\u03c2": "\u03c3", "\u200c": "", "\u200d": ""}
"""Characters that IDNA2003 maps to others, and IDNA2008 keeps: sharp s, final sigma, two joiners."""
DOTS = "\u3002\uff0e\uff61"
"""Characters that separate labels as the full stop does."""
IGNORED = frozenset(
    map(
        chr,
        (
            *(0xAD, 0x34F, *range(0x180B, 0x180E), 0x180F, 0x200B, 0x2060, 0x2064, *range(0xFE00, 0xFE10), 0xFEFF),
            *(*range(0x1BCA0, 0x1BCA4), *range(0xE0100, 0xE01F0)),
        ),
    )
)
"""Characters without a meaning in a name."""
EXCLUDED = frozenset(
    map(
        chr,
        (
            *(0x4C0, *range(0x10A0, 0x10C6), 0x115F, 0x1160, 0x17B4, 0x17B5, 0x1806, 0x2132, 0x2183),
            *(*range(0x2FF0, 0x2FFC), 0xFFFC, 0xFFFD, 0x2F868, 0x2F874, 0x2F91F, 0x2F95F, 0x2F9BF),
        ),
    )
)
"""Characters that no name has, although others of their categories are allowed."""
ALLOWED_CATEGORIES = frozenset(
    (
        *("Ll", "Lm", "Lo", "Lu", "Mc", "Me", "Mn", "Nd", "Nl", "No"),
        *("Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "Sc", "Sk", "Sm", "So"),
    )
)
"""General categories of a name's characters outside ASCII, after the mapping."""
ACE = "xn--"
"""The first octets of an A-label."""
LABEL_MAX_OCTETS = 63
NAME_MAX_OCTETS = 253


class BadDomain(ValueError):
    """A name that DNS cannot have; the text gives the reason."""


def to_ascii(name: str, *, idna2003: bool = False) -> str:
    """Return the name with A-labels; a name in ASCII stays as it is. Raises `BadDomain`.

    `idna2003`: map sharp s to ss, and the like (enable_idna2003_compatibility).
    """
    if name.isascii():
        return name
    mapped = _mapped(name, idna2003=idna2003)
    root = "." if mapped.endswith(".") else ""
    found = ".".join(_label(label) for label in mapped.removesuffix(".").split("."))
    if len(found) > NAME_MAX_OCTETS:
        raise BadDomain(f"the name has more than {NAME_MAX_OCTETS} octets in DNS")
    if found.replace(".", "").isdigit():
        raise BadDomain(f"{found} is a number")
    return found + root


def to_unicode(name: str) -> str:
    """Return the name in UTF-8, its valid A-labels decoded; another label stays as it is."""
    return ".".join(map(_decoded, name.split("."))) if ACE in name.lower() else name


def _decoded(label: str) -> str:
    lower = label.lower()
    if not lower.startswith(ACE):
        return label
    try:
        _label(lower)
    except BadDomain:
        return label
    return lower.removeprefix(ACE).encode("ascii").decode("punycode")


def _mapped(name: str, *, idna2003: bool) -> str:
    return unicodedata.normalize("NFC", "".join(_character(c, idna2003=idna2003) for c in name))


def _character(c: str, *, idna2003: bool) -> str:
    """Return the text that stands for a character."""
    if c in DEVIATIONS:
        return DEVIATIONS[c] if idna2003 else c
    if c == "." or c in DOTS:
        return "."
    if c in IGNORED:
        return ""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", c).casefold())
    if "." in text or "\u3002" in text or c in EXCLUDED or not EXCLUDED.isdisjoint(text):
        raise BadDomain(f"{c!a} is not allowed")
    return text


def _label(label: str) -> str:
    """Return the A-label of a mapped label. An A-label must stand for one that is mapped already."""
    if not (label.isascii() and label.startswith(ACE)):
        return _encoded(label)
    try:
        decoded = label.removeprefix(ACE).encode("ascii").decode("punycode")
    except UnicodeError:
        raise BadDomain(f'the label "{label}" is not valid punycode') from None
    try:
        is_valid = not decoded.isascii() and _mapped(decoded, idna2003=False) == decoded and _encoded(decoded) == label
    except BadDomain:
        is_valid = False
    if not is_valid:
        raise BadDomain(f'the label "{label}" does not decode to a valid label')
    return label


def _encoded(label: str) -> str:
    if not label:
        raise BadDomain("a label is empty")
    for has_hyphen, place in (
        (label.startswith("-"), "at its start"),
        (label.endswith("-"), "at its end"),
        (label[2:4] == "--", "in its third and fourth place"),
    ):
        if has_hyphen:
            raise BadDomain(f'the label "{label}" has a hyphen {place}')
    if unicodedata.category(label[0]).startswith("M"):
        raise BadDomain(f'the label "{label}" starts with a combining character')
    for c in label:
        if not (c.isalnum() or c in "-_" if c.isascii() else _fits(c)):
            raise BadDomain(f'the label "{label}" contains {c!a}, which is not allowed')
    found = label if label.isascii() else ACE + label.encode("punycode").decode("ascii")
    if len(found) > LABEL_MAX_OCTETS:
        raise BadDomain(f'the label "{label}" has more than {LABEL_MAX_OCTETS} octets in DNS')
    return found


def _fits(c: str) -> bool:
    return c in DEVIATIONS or unicodedata.category(c) in ALLOWED_CATEGORIES
