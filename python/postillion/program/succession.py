"""The successor of a program that may not read a changed table any more.

A program opens its tables as root. When the file of one changes that mail_owner cannot read, the program asks master
for a successor: it writes a line to its standard error, which master reads. Master starts the successor, as root, and
lets the program finish its sessions.
"""

import os
from typing import Final

REQUEST: Final = "request: successor"
"""The line for master. It is not logged."""
STANDARD_ERROR: Final = 2


def request() -> None:
    """Ask master for a successor."""
    os.write(STANDARD_ERROR, f"{REQUEST}\n".encode())
