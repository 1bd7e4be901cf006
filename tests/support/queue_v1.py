"""A queue of version 1 that a release before version 2 wrote, a reader of that version, and that release where it is.

queue_v1.tar.xz holds the segments and state log of a site that the build of commit 6e2a4d4 ran. It had got ten messages
by SMTP, delivered one recipient of one and all of another, deferred the rest because their next hop did not listen, and
held one. `expected.json` holds what that build read: the text of each message and its recipients.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import struct
import tarfile
from dataclasses import dataclass
from pathlib import Path

from support.queue_files import RECORD_HEADER_OCTETS, SEGMENT_HEADER_OCTETS, crc32c

ARCHIVE = Path(__file__).with_name("queue_v1.tar.xz")
OLDER_PYTHON = os.environ.get("POSTILLION_OLDER", "")
"""The Python of a virtual environment with a release that writes version 1; empty without one."""
FAR = "100d"
"""The longest lifetime: mail of the archive that is deferred would bounce after it."""


@dataclass(frozen=True)
class Expected:
    """A message of the archive. `text`: unstuffed, with LF; None for the large one. `waiting`: open recipients."""

    sha256: str
    octets: int
    text: str | None
    waiting: list[str]
    held: bool


def unpack(queue: Path) -> dict[str, Expected]:
    """Put the archive's queue into an empty queue directory, owned as that one; return its messages by queue ID."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(queue, filter="data")
    listing = queue / "expected.json"
    found = json.loads(listing.read_text())
    listing.unlink()
    if os.geteuid() == 0:
        owner = "postfix" if "postfix" in (user.pw_name for user in pwd.getpwall()) else "nobody"
        for path in (path for name in ("incoming", "active") for path in (queue / name, *(queue / name).iterdir())):
            shutil.chown(path, owner)
    return {
        queue_id: Expected(
            message["sha256"],
            message["octets"],
            message["text"],
            [address for address, done in message["recipients"] if not done],
            message.get("held", False),
        )
        for queue_id, message in found.items()
    }


def read_segment(path: Path) -> dict[int, bytes]:
    """Return the contents in a segment of version 1 by the number of their queue IDs; fail for any other octets."""
    octets = path.read_bytes()
    magic, version, _, _, salt, _, checksum = struct.unpack_from("<4sHHQQII", octets)
    assert (magic, version) == (b"\x93PSG", 1), path
    assert checksum == crc32c(octets[: SEGMENT_HEADER_OCTETS - 4])
    contents = {}
    at = SEGMENT_HEADER_OCTETS
    while at < len(octets):
        header = octets[at : at + RECORD_HEADER_OCTETS]
        magic, version, _, own, number, length, envelope_length, content_crc, envelope_crc, checksum = struct.unpack(
            "<4sHHQQQIIII", header
        )
        assert (magic, version, own) == (b"\x93PRC", 1, salt), f"{path} at {at}"
        assert checksum == crc32c(header[:-4])
        at += RECORD_HEADER_OCTETS
        content, envelope = octets[at : at + length], octets[at + length : at + length + envelope_length]
        assert (crc32c(content), crc32c(envelope)) == (content_crc, envelope_crc), f"{path} at {at}"
        contents[number] = content
        at += length + envelope_length
    return contents
