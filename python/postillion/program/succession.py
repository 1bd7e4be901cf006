"""The successor of a program that may not read a changed file any more.

A program opens its tables and keys as root. When a file changes that mail_owner cannot read, the program asks master
for a successor: it writes a line to its standard error, which master reads. Master starts the successor, as root, and
lets the program finish its sessions. Keys are checked first: keys that cannot be used would leave clients without TLS.
"""

import os
from typing import Final

REQUEST: Final = "request: successor"
"""The line for master. It is not logged."""
REQUEST_CHECKED: Final = "request: successor with changed keys"
"""The same, for a successor whose keys can be used."""
OLD_KEYS: Final = "the old keys stay in use"
"""The end of a warning about keys that cannot be used."""
STANDARD_ERROR: Final = 2


def request() -> None:
    """Ask master for a successor."""
    _say(REQUEST)


def request_checked() -> None:
    """Ask master for a successor after a check of its keys."""
    _say(REQUEST_CHECKED)


def _say(line: str) -> None:
    os.write(STANDARD_ERROR, f"{line}\n".encode())
