"""Runs of posttls-finger, Debian's and ours, against hosts in signed and unsigned zones, in a network of their own.

    unshare --mount --net python -m support.finger_site DIRECTORY

The name server on port 53 is unbound, and the mail server on port 25 has TLS. One line of JSON comes out: for each row
of `ROWS` the output of both programs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from support.dane_site import DOMAINS, hosts
from support.peers import peer

OURS = str(Path(sys.executable).parent / "posttls-finger")
ROWS = (
    *(("-c", domain) for domain in DOMAINS),
    *(("-c", "-l", "dane-only", domain) for domain in ("signed.test", "none.signed.test", "unusable.signed.test")),
    *(("-c", "-M", level, domain) for level in ("may", "encrypt") for domain in ("good.plain.test", "none.plain.test")),
    ("-c", "-f", "plainhost.signed.test"),
    ("-c", "-h", "dns,native", "signed.test"),
    ("-c", "-l", "verify", "signed.test"),
    ("-c", "-l", "secure", "signed.test", "good.signed.test"),
    ("-c", "nosuch.signed.test"),
    ("signed.test",),
)
"""The arguments of the runs."""


def main(directory: Path) -> None:
    """Run both programs for each row, and print their output."""
    with hosts(directory):
        print(json.dumps([[_said(program, row) for program in (OURS, peer("posttls-finger"))] for row in ROWS]))


def _said(program: str, row: tuple[str, ...]) -> str:
    done = subprocess.run([program, *row], stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    return done.stdout + f"exit status {done.returncode}\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
