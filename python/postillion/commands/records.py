"""Records of a message, as postcat shows them and as files in maildrop/ hold them.

A record is a type (one octet), a length in groups of seven bits (the lowest first, the high bit says that more
follow), and data. The types and their names are Postfix's (its `rec_type.h` and postcat(1)). A message of this queue
is no such file; `postcat` gives its parts as records all the same, with the octets' true places.
"""

from __future__ import annotations

import time

from postillion.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO, Final

NAMES: Final = {
    "C": "message_size",
    "T": "message_arrival_time",
    "c": "create_time",
    "F": "sender_fullname",
    "I": "content_inspector",
    "L": "content_filter",
    "S": "sender",
    "D": "done_recipient",
    "R": "recipient",
    "O": "original_recipient",
    "/": "canceled_recipient",
    "W": "warning_message_time",
    "A": "named_attribute",
    "K": "killed_record",
    "<": "return_receipt",
    ">": "errors_to",
    "P": "priority",
    "V": "verp_delimiters",
    "p": "pointer_record",
    "r": "ret_flags",
    "i": "dsn_envelope_id",
    "o": "dsn_orig_rcpt",
    "n": "dsn_notify_flags",
    "m": "milter_count",
    "w": "padding",
}
CONTENT_NAMES: Final = {"N": "regular_text", "L": "unterminated_text", "p": "pointer_record", "w": "padding"}
TIMES: Final = "TcW"
FIRST: Final = frozenset(b"CTcFSAI")
"""Types of the first record in a queue file."""
LENGTH_MAX_GROUPS: Final = 5
RECORD_MAX_OCTETS: Final = 64 * 1024 * 1024
POINTERS_MAX: Final = 10_000
"""Maximum number of pointer records that are followed: they may form a cycle."""


class BadRecord(Exception):
    """Malformed octets in the place of a record; the text says what is wrong."""


class Record:
    """One record. `offset`: where it begins."""

    __slots__ = ("data", "kind", "offset")

    def __init__(self, offset: int, kind: str, data: bytes) -> None:
        self.offset = offset
        self.kind = kind
        self.data = data


class Shown:
    """The parts of a message to show, and the columns of each record. `numeric`: times as numbers, and no headings."""

    def __init__(
        self,
        *,
        envelope: bool = True,
        headers: bool = True,
        body: bool = True,
        types: bool = False,
        offsets: bool = False,
        names: bool = False,
        numeric: bool = False,
    ) -> None:
        self.envelope = envelope
        self.headers = headers
        self.body = body
        self.types = types
        self.offsets = offsets
        self.names = names
        self.numeric = numeric


def read(file: BinaryIO, *, follow: bool = True) -> Iterator[Record]:
    """Yield the records of a file from its start. Raises `BadRecord`, also for a file that is no queue file.

    `follow`: go where pointer records point; otherwise they are shown in their place.
    """
    offset, pointers = 0, 0
    while kind := file.read(1):
        if offset == 0 and kind[0] not in FIRST:
            raise BadRecord("input is not a valid queue file")
        length, octets = _length(file)
        data = file.read(length)
        if len(data) < length:
            raise BadRecord(f"unexpected EOF in data, record type {kind[0]} length {length}")
        record = Record(offset, chr(kind[0]), data)
        offset += 1 + octets + length
        target = data.strip()
        if follow and record.kind == "p" and target.isdigit() and int(target) > 0 and file.seekable():
            pointers += 1
            if pointers > POINTERS_MAX:
                raise BadRecord("pointer records lead in a circle")
            offset = file.seek(int(target))
        else:
            yield record
            if record.kind == "E":
                return
    if offset:
        raise BadRecord("no end record")


def _length(file: BinaryIO) -> tuple[int, int]:
    """Return a record's length, and the octets that say it."""
    length = 0
    for group in range(LENGTH_MAX_GROUPS):
        octet = file.read(1)
        if not octet:
            raise BadRecord("unexpected EOF in record length")
        length |= (octet[0] & 0x7F) << (7 * group)
        if octet[0] < 0x80:
            if length > RECORD_MAX_OCTETS:
                break
            return length, group + 1
    raise BadRecord("bad record length")


class Printer:
    """Writes records as postcat does, one `show` each. `name`: what the headings say."""

    def __init__(self, out: BinaryIO, name: str, shown: Shown) -> None:
        self._out = out
        self._name = name
        self._shown = shown
        self._headings = shown.envelope and not shown.numeric
        self._content = False
        self._in_headers = False
        self._open_line = False
        """The last record of the content was the first part of a line."""
        self._unfinished = False
        """The last line that was written has no end."""
        if self._headings:
            self._out.write(f"*** ENVELOPE RECORDS {name} ***\n".encode())

    @property
    def satisfied(self) -> bool:
        """Whether no later record is wanted."""
        only_headers = self._shown.headers and not (self._shown.envelope or self._shown.body)
        return only_headers and self._content and not self._in_headers

    def show(self, record: Record) -> None:
        """Write a record, if it belongs to a part that is wanted."""
        kind = record.kind
        if kind in "MXE" and not (self._content and kind == "M"):
            unfinished, self._unfinished = self._unfinished, False
            self._content, self._in_headers, self._open_line = kind == "M", kind == "M", False
            heading = {"M": "MESSAGE CONTENTS", "X": "HEADER EXTRACTED", "E": "MESSAGE FILE END"}[kind]
            if self._headings:
                self._out.write(b"\n" if unfinished else b"")
                self._write(record, f"*** {heading} {self._name} ***\n".encode())
        elif self._content and kind in CONTENT_NAMES:
            self._text(record)
        elif self._shown.envelope:
            self._write(record, self._field(kind, record.data).encode() + b"\n")

    def _text(self, record: Record) -> None:
        if self._in_headers and not self._open_line:
            self._in_headers = is_header(record.data)
        whole = record.kind == "N"
        self._open_line = not whole
        if self._shown.headers if self._in_headers else self._shown.body:
            name = f"{CONTENT_NAMES[record.kind]}: ".encode() if self._shown.names else b""
            # A part of a line ends in its place, but for a listing with names or offsets.
            listing = self._shown.names or self._shown.offsets
            self._unfinished = not (whole or listing)
            self._write(record, name + record.data + (b"" if self._unfinished else b"\n"))

    def _write(self, record: Record, line: bytes) -> None:
        shown = self._shown
        prefix = (f"{record.offset:9d} " if shown.offsets else "") + (f"{ord(record.kind):3d} " if shown.types else "")
        self._out.write(prefix.encode() + line)

    def _field(self, kind: str, data: bytes) -> str:
        text = data.decode("utf-8", "replace")
        attribute, _, value = text.partition("=")
        if kind == "A" and attribute == "create_time":
            kind, text = "c", value
        if kind in TIMES:
            text = self._time(text)
        return f"{NAMES.get(kind, 'unknown_record_type')}: {printable(text)}"

    def _time(self, text: str) -> str:
        """Return a time: `seconds`, or `seconds microseconds`, since 1970."""
        seconds, _, micros = text.partition(" ")
        if not seconds.isdigit() or len(seconds) > 11:
            return text
        if self._shown.numeric:
            return f"{seconds}.{micros.strip() or 0:0>6}"
        return time.ctime(int(seconds))


def is_header(line: bytes) -> bool:
    """Return whether a line belongs to the headers: it has a name and a colon, or continues the line before."""
    if line[:1] in (b" ", b"\t"):
        return True
    name = line.partition(b":")[0].rstrip(b" \t")
    return b":" in line and bool(name) and all(33 <= octet <= 126 for octet in name)
