"""The sources of the system's accounts (nsswitch.conf(5)): files of this machine, or servers that need time."""

import os
import re

NSSWITCH = "/etc/nsswitch.conf"
NSCD_SOCKET = "/var/run/nscd/socket"
"""The socket of nscd, which the C library asks before all sources; nscd may ask servers."""
FILES = {"passwd": "/etc/passwd", "group": "/etc/group"}
"""The databases of accounts, and their files."""
LOCAL_SOURCES = frozenset({"files", "compat", "systemd"})
"""Sources that read files, or ask systemd on this machine."""
FILE_MAX_OCTETS = 1024 * 1024
"""Maximum size of a file that is read here. A larger one counts as a source that needs time."""


def answers_at_once(database: str) -> bool:
    """Return whether every lookup in `database`, passwd or group, needs files of this machine alone.

    A missing file has the default of the C library, `files`. For a file that cannot be read the answer is no.
    """
    if os.path.exists(NSCD_SOCKET):
        return False
    try:
        text = _text(NSSWITCH)
        found = sources(text, database)
        return found <= LOCAL_SOURCES and ("compat" not in found or not _refers(_text(FILES[database])))
    except OSError:
        return False


def sources(text: str, database: str) -> set[str]:
    """Return the sources of a database in the text of nsswitch.conf, without actions such as [NOTFOUND=return]."""
    found: set[str] = set()
    for line in text.splitlines():
        name, colon, words = line.partition("#")[0].partition(":")
        if colon and name.strip() == database:
            found.update(re.sub(r"\[[^\]]*\]?", " ", words).split())
    return found


def _refers(accounts: str) -> bool:
    """Return whether a file of accounts includes or excludes those of a server: lines with + or - (compat)."""
    return any(line.startswith(("+", "-")) for line in accounts.splitlines())


def _text(path: str) -> str:
    """Return the text of a file, an empty one for a missing file. Raises `OSError`."""
    try:
        with open(path, "rb") as file:
            octets = file.read(FILE_MAX_OCTETS + 1)
    except FileNotFoundError:
        return ""
    if len(octets) > FILE_MAX_OCTETS:
        raise OSError(f"more than {FILE_MAX_OCTETS} octets")
    return octets.decode("utf-8", "replace")
