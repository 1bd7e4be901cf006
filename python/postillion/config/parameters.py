"""The parameters by name: one declaration serves the programs, postconf and the checks of main.cf."""

from postillion.config.table import (
    address,
    cleanup,
    delivery,
    lmtp,
    postscreen,
    queue,
    smtp,
    smtpd,
    smtpd_restrictions,
    smtpd_tls,
    system,
    tls,
    tlsproxy,
    transport,
)

FAMILIES = (
    address,
    cleanup,
    delivery,
    queue,
    smtpd,
    smtpd_restrictions,
    smtpd_tls,
    smtp,
    lmtp,
    tls,
    tlsproxy,
    postscreen,
    system,
)
COMPUTED = "computed:"
"""A default that starts so is made by a function: see `Config.default`."""

Row = tuple[str, ...]
"""Name, kind, default, one line of documentation; a fifth column when no program reads it (see effect.py)."""

PARAMETERS: dict[str, Row] = {row[0]: row for family in FAMILIES for row in family.ROWS}

TEMPLATES: dict[str, Row] = {row[0].removeprefix("transport"): row for row in transport.ROWS}
"""By suffix such as `_destination_rate_delay`: parameters that every transport of master.cf has under its own name."""

RUNTIME = ("domain_to_ascii",)
"""Names of the language that are no parameters: postconf -d does not list them."""


def row(name: str) -> Row | None:
    """Return the declaration of a parameter, `<transport>_...` included; None for a name that is not declared."""
    found = PARAMETERS.get(name)
    if found is not None:
        return found
    suffix = template_suffix(name)
    if suffix is None:
        return None
    return name, *TEMPLATES[suffix][1:]


def template_suffix(name: str) -> str | None:
    """Return the suffix of `TEMPLATES` that a name such as `relay_recipient_limit` ends with, the longest one."""
    at = name.find("_")
    while at > 0:
        if name[at:] in TEMPLATES:
            return name[at:]
        at = name.find("_", at + 1)
    return None


def nearest(name: str) -> str | None:
    """Return the declared name most like `name`, or None when none is like it."""
    import difflib

    found = difflib.get_close_matches(name, PARAMETERS, n=1, cutoff=0.75)
    return found[0] if found else None
