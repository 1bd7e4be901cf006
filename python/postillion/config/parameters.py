"""The parameters by name: programs, postconf and the checks of main.cf share one declaration."""

import os

FAMILIES = (
    "address",
    "cleanup",
    "delivery",
    "queue",
    "smtpd",
    "smtpd_restrictions",
    "smtpd_tls",
    "smtp",
    "lmtp",
    "tls",
    "tlsproxy",
    "postscreen",
    "system",
)
"""The files of the parameter table, which the Rust core reads too (settings/defaults.rs)."""
TEMPLATE = "transport"
COMPUTED = "computed:"
"""Prefix of a default that `Config.default` computes."""

Row = tuple[str, ...]
"""Name, kind, default, one line of documentation; a fifth column if no program reads the parameter (effect.py)."""


def rows(family: str) -> list[Row]:
    """Return the rows of a file of the table: columns separated by tabs, comments after `#`."""
    path = os.path.join(os.path.dirname(__file__), "table", f"{family}.tsv")
    with open(path, encoding="utf-8") as lines:
        return [tuple(line.rstrip("\n").split("\t")) for line in lines if not line.startswith("#")]


PARAMETERS: dict[str, Row] = {row[0]: row for family in FAMILIES for row in rows(family)}

TEMPLATES: dict[str, Row] = {row[0].removeprefix(TEMPLATE): row for row in rows(TEMPLATE)}
"""Parameters of each transport of master.cf, by suffix such as `_destination_rate_delay`."""


def row(name: str) -> Row | None:
    """Return the declaration of a parameter, also of `<transport>_...`; None for an unknown name."""
    found = PARAMETERS.get(name)
    if found is not None:
        return found
    suffix = template_suffix(name)
    if suffix is None:
        return None
    return name, *TEMPLATES[suffix][1:]


def is_raw(name: str) -> bool:
    """Return whether the program that reads a parameter expands its `$name`, and nothing else does."""
    found = PARAMETERS.get(name)
    return found is not None and found[1] == "raw"


def template_suffix(name: str) -> str | None:
    """Return the longest suffix in `TEMPLATES` of a name such as `relay_recipient_limit`; None without one."""
    at = name.find("_")
    while at > 0:
        if name[at:] in TEMPLATES:
            return name[at:]
        at = name.find("_", at + 1)
    return None


def nearest(name: str) -> str | None:
    """Return the most similar declared name; None when no name is similar."""
    import difflib

    found = difflib.get_close_matches(name, PARAMETERS, n=1, cutoff=0.75)
    return found[0] if found else None
