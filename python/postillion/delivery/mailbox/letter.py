"""The text of a message for a mailbox: unstuffed, with LF line ends, and with the headers of the final delivery."""

import re
import time

HEADER_MAX_OCTETS = 1024 * 1024
"""Maximum size of the header that is searched for Delivered-To; hopcount_limit ends a loop with a larger header."""

DELIVERED_TO = re.compile(rb"^delivered-to[ \t]*:[ \t]*((?:[^\n]|\n[ \t])*)", re.IGNORECASE | re.MULTILINE)
FROM_LINE = re.compile(rb"^From ", re.MULTILINE)
ATOMS = re.compile(r"[^\x00-\x20\x7f()<>@,;:\\\".\[\]]+(?:\.[^\x00-\x20\x7f()<>@,;:\\\".\[\]]+)*\Z")
CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


class Letter:
    """A message for local delivery."""

    def __init__(self, text: bytes) -> None:
        """`text`: header and body with LF line ends; a missing last one is added."""
        self.text = text if text.endswith(b"\n") or not text else text + b"\n"
        self._delivered_to: frozenset[str] | None = None

    def delivered_to(self) -> frozenset[str]:
        """Return the addresses in the message's Delivered-To headers, in lower case."""
        if self._delivered_to is None:
            end = self.text.find(b"\n\n", 0, HEADER_MAX_OCTETS)
            header = self.text[: end + 1 if end >= 0 else HEADER_MAX_OCTETS]
            values = (found.group(1).replace(b"\n", b"") for found in DELIVERED_TO.finditer(header))
            self._delivered_to = frozenset(normal(value.decode("utf-8", "surrogateescape")) for value in values)
        return self._delivered_to

    def quoted(self) -> bytes:
        """Return the text for an mbox: `From ` at the start of a line becomes `>From `, and an empty line follows."""
        text = self.text
        if text.startswith(b"From ") or b"\nFrom " in text:
            text = FROM_LINE.sub(b">From ", text)
        return text + b"\n"


def delivery_headers(sender: str, original: str | None, delivered: str | None) -> bytes:
    """Return `Return-Path` and, unless None, `X-Original-To` and `Delivered-To`, one line each."""
    lines = f"Return-Path: <{quote(sender)}>\n"
    if original is not None:
        lines += f"X-Original-To: {quote(original)}\n"
    if delivered is not None:
        lines += f"Delivered-To: {quote(delivered)}\n"
    return lines.encode("utf-8", "surrogateescape")


def from_line(sender: str, wall_now: float) -> bytes:
    """Return the first line of a message in an mbox; the null sender is MAILER-DAEMON."""
    date = time.asctime(time.localtime(wall_now))
    return f"From {quote(sender) or 'MAILER-DAEMON'}  {date}\n".encode("utf-8", "surrogateescape")


def quote(address: str) -> str:
    """Return an address for a header: on one line, with its local part quoted if RFC 5322 §3.4.1 requires it."""
    address = CONTROLS.sub("?", address)
    local, sign, domain = address.rpartition("@")
    if not sign:
        local, domain = address, ""
    if not local or ATOMS.match(local) or is_quoted(local):
        return address
    escaped = local.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"{sign}{domain}'


def is_quoted(local: str) -> bool:
    """Return whether a local part is a quoted string (RFC 5321 §4.1.2)."""
    return bool(re.fullmatch(r'"(?:[^"\\]|\\.)*"', local))


def unquote(local: str) -> str:
    """Return a local part without the quotes of RFC 5321 §4.1.2."""
    return re.sub(r"\\(.)", r"\1", local[1:-1]) if len(local) > 1 and is_quoted(local) else local


def normal(address: str) -> str:
    """Return the form of an address for comparisons: stripped, without needless quotes, in lower case."""
    local, sign, domain = address.strip().rpartition("@")
    return f"{unquote(local)}{sign}{domain}".casefold()
