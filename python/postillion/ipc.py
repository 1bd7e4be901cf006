"""Asking the queue manager: how commands speak over public/qmgr.

    for row in ask(path, {"verb": "list"}):
        ...

Frames are those of `postillion_core::ipc::frame`; the requests are in `postillion.qmgr.control`.
"""

import socket
import struct
from collections.abc import Iterator
from typing import Any, Final

import msgspec

FRAME_VERSION: Final = 1
CONTROL: Final = 7
CONTROL_REPLY: Final = 8
FRAME_MAX_OCTETS: Final = 64 * 1024 * 1024
TIMEOUT_S: Final = 60.0
"""The longest silence of a queue manager that is alive."""
READ_OCTETS: Final = 256 * 1024


class NotRunning(Exception):
    """Nobody answers: the mail system is down. The text says why."""


class Refused(Exception):
    """The queue manager does not do what was asked. The text says why."""


def ask(path: str, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the lines of the answer, whatever they say. `path`: the socket public/qmgr.

    Raises `NotRunning` when there is no queue manager or it falls silent.
    """
    decoder = msgspec.json.Decoder()
    for line in ask_lines(path, request):
        yield decoder.decode(line)


def do(path: str, request: dict[str, Any]) -> dict[str, Any]:
    """Return the one line that answers a command. Raises `Refused` and `NotRunning`."""
    answer: dict[str, Any] = {}
    for answer in ask(path, request):
        if "error" in answer:
            raise Refused(answer["error"])
    return answer


def ask_lines(path: str, request: dict[str, Any]) -> Iterator[bytes]:
    """Yield the lines of the answer as JSON. Raises `NotRunning`."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(TIMEOUT_S)
            peer.connect(path)
            peer.sendall(_control(msgspec.json.encode(request)))
            yield from _reply_lines(peer)
    except OSError as problem:
        raise NotRunning(problem.strerror or str(problem)) from None


def _control(json: bytes) -> bytes:
    return struct.pack("<IBBI", 6 + len(json), FRAME_VERSION, CONTROL, len(json)) + json


def _reply_lines(peer: socket.socket) -> Iterator[bytes]:
    last = False
    buffer = bytearray()
    while not last:
        while len(buffer) < 4 or len(buffer) < 4 + int.from_bytes(buffer[:4], "little"):
            data = peer.recv(READ_OCTETS)
            if not data:
                raise NotRunning("the queue manager hung up")
            buffer += data
            if len(buffer) >= 4 and int.from_bytes(buffer[:4], "little") > FRAME_MAX_OCTETS:
                raise NotRunning("this is no queue manager")
        octets = int.from_bytes(buffer[:4], "little")
        version, kind, marked, length = struct.unpack_from("<BBBI", buffer, 4) if octets >= 7 else (0, 0, 0, 0)
        if version != FRAME_VERSION or kind != CONTROL_REPLY or length != octets - 7:
            raise NotRunning("the queue manager is of another release")
        last = bool(marked)
        lines = bytes(buffer[11 : 4 + octets]).splitlines()
        del buffer[: 4 + octets]
        yield from lines
