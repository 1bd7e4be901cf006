"""Segments and frames in Python: a second writer of both formats, and a producer without a server."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path

from postillion._core.queue import list_queue

MAIN_CF = """
myhostname = mx.example.org
mydestination = example.org, localhost
relay_domains = example.com
virtual_mailbox_domains = mailbox.example
virtual_alias_domains = alias.example
queue_directory = {directory}
maillog_file = /dev/null
"""
"""The main.cf of a queue manager without other programs."""
SEGMENT_HEADER_OCTETS = 32
RECORD_HEADER_OCTETS = 48
BODY_BITS = 40
FRAME_VERSION = 1
SLOT_BITS = 12
PRODUCER, ARRIVED, SEALED, CONTROL, CONTROL_REPLY = 1, 2, 3, 7, 8


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC32C = _crc_table()


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of `data`."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC32C[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def text(value: str) -> bytes:
    """Return a text in the encoding of codec.rs."""
    data = value.encode()
    return struct.pack("<I", len(data)) + data


def optional(value: str | None) -> bytes:
    """Return an optional text in the encoding of codec.rs."""
    return b"\0" if value is None else b"\1" + text(value)


@dataclass
class Message:
    """A message to queue. `usec`: its arrival time, which also makes its queue ID."""

    usec: int
    recipients: list[str]
    sender: str = "sender@example.org"
    content: bytes = b"Subject: x\r\n\r\nbody\r\n"
    notify: int = 0
    attributes: dict[str, str] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """The queue ID as a number."""
        return self.usec << SLOT_BITS

    @property
    def id(self) -> str:
        """The short queue ID."""
        return f"{self.usec % 1_000_000:05X}{self.usec // 1_000_000 << SLOT_BITS:X}"

    def envelope(self) -> bytes:
        """Return the encoded envelope."""
        parts = [struct.pack("<QQ", self.number, self.usec), text(self.sender), b"\0\0\0", optional(None)]
        parts.append(struct.pack("<QI", len(self.content), len(self.recipients)))
        parts += [text(to) + optional(None) + optional(None) + bytes([self.notify]) for to in self.recipients]
        parts.append(struct.pack("<I", len(self.attributes)))
        parts += [text(name) + text(value) for name, value in self.attributes.items()]
        return b"".join(parts)


def _checked(head: bytes) -> bytes:
    return head + struct.pack("<I", crc32c(head))


def record(message: Message, salt: int, version: int = 2) -> bytes:
    """Return a message's record: in version 2 with the header fields behind the body."""
    envelope = message.envelope()
    fields, empty, body = message.content.partition(b"\r\n\r\n")
    head, body = (fields + empty, body) if version > 1 else (b"", message.content)
    content = body + head
    header = b"\x93PRC" + struct.pack(
        "<HHQQQIII",
        version,
        0,
        salt,
        message.number,
        len(body) | len(head) << BODY_BITS,
        len(envelope),
        crc32c(content),
        crc32c(envelope),
    )
    return _checked(header) + content + envelope


def contents(segment: bytes) -> list[bytes]:
    """Return the content of each message in a segment: its header fields, then its body."""
    found, at = [], SEGMENT_HEADER_OCTETS
    while segment[at : at + 4] == b"\x93PRC":
        *_, lengths, envelope_octets, _, _ = struct.unpack_from("<HHQQQIII", segment, at + 4)
        body = at + RECORD_HEADER_OCTETS
        head = body + (lengths & ((1 << BODY_BITS) - 1))
        envelope = head + (lengths >> BODY_BITS)
        found.append(segment[head:envelope] + segment[body:head])
        at = envelope + envelope_octets
    return found


def frame(kind: int, payload: bytes) -> bytes:
    """Return a frame."""
    return struct.pack("<IBB", len(payload) + 2, FRAME_VERSION, kind) + payload


def write_segment(directory: Path, number: int, messages: list[Message], version: int = 2) -> bytes:
    """Write a whole segment; return the frames that announce it: Producer, Arrived, Sealed."""
    salt = 0x1234_5678_9ABC_DEF0 ^ number
    data = _checked(b"\x93PSG" + struct.pack("<HHQQI", version, 0, number, salt, 0))
    assert len(data) == SEGMENT_HEADER_OCTETS
    announced = []
    for message in messages:
        whole = record(message, salt, version)
        announced.append(struct.pack("<QQQ", number, len(data), len(whole)) + message.envelope())
        data += whole
    (directory / "incoming").mkdir(exist_ok=True, parents=True)
    (directory / "incoming" / f"{number:016X}").write_bytes(data)
    return (
        frame(PRODUCER, struct.pack("<IQQ", os.getpid(), number, SEGMENT_HEADER_OCTETS))
        + frame(ARRIVED, struct.pack("<I", len(announced)) + b"".join(announced))
        + frame(SEALED, struct.pack("<QQ", number, len(data)))
    )


def announce(directory: Path, number: int, messages: list[Message]) -> socket.socket:
    """Queue messages as a producer does; return the open connection to the queue manager."""
    frames = write_segment(directory, number, messages)
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(str(directory / "private" / "qmgr"))
    peer.sendall(frames)
    return peer


def read_queue(directory: str, *, long_queue_ids: bool = False) -> list[bytes]:
    """Return the messages in segments as JSON lines, read from disk."""
    pieces: list[bytes] = []
    list_queue(directory, pieces.append, long_queue_ids=long_queue_ids)
    return [line for line in b"".join(pieces).splitlines() if b'"queue_name": "maildrop"' not in line]
