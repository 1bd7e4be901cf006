"""The keys of `postmap -h` and `-b`: the header fields and body lines of a message, as header_checks(5) sees them."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BOUNDARIES_MAX = 100
"""Maximum depth of MIME parts, as Postfix's `mime_nesting_limit`."""
FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")
BOUNDARY = re.compile(rb'boundary[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.IGNORECASE)


def message_keys(message: bytes, *, headers: bool, body: bool, mime: bool) -> Iterator[bytes]:
    """Yield a key for each header field (a folded one has newlines) and for each line of the body.

    `mime`: the header fields of parts and attached messages count as header fields, else as lines of the body.
    """
    lines = message.splitlines() if b"\r" not in message else message.replace(b"\r\n", b"\n").split(b"\n")
    boundaries: list[bytes] = []
    at, end = 0, len(lines)
    in_header = True
    content_type = b""
    while at < end:
        line = lines[at]
        at += 1
        if in_header and FIELD.match(line):
            field = [line]
            while at < end and lines[at][:1] in {b" ", b"\t"}:
                field.append(lines[at])
                at += 1
            if line.lower().startswith(b"content-type:"):
                content_type = b" ".join(field).partition(b":")[2].strip()
            if headers:
                yield b"\n".join(field)
            continue
        if in_header:
            in_header = mime and not line and content_type.lower().startswith(b"message/")
            kind, content_type = content_type, b""
            boundary = BOUNDARY.search(kind)
            if mime and boundary and kind.lower().startswith(b"multipart/") and len(boundaries) < BOUNDARIES_MAX:
                boundaries.append(boundary[1] if boundary[1] is not None else boundary[2])
        elif mime and line.startswith(b"--"):
            found = next((n for n, boundary in enumerate(boundaries) if line[2:].startswith(boundary)), None)
            if found is not None:
                closes = line[2 + len(boundaries[found]) :].startswith(b"--")
                del boundaries[found + (0 if closes else 1) :]
                in_header = not closes
        if body:
            yield line
