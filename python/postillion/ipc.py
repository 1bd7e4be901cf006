"""Asking the queue manager: how commands speak over public/qmgr; and what it tells those who accept mail.

    for row in ask(path, {"verb": "list"}):
        ...

Frames are those of `postillion_core::ipc::frame`; the requests are in `postillion.qmgr.control`.
"""

import socket
import struct
from collections.abc import Iterator
from typing import Any, Final, Self

import msgspec

FRAME_VERSION: Final = 1
CONTROL: Final = 7
CONTROL_REPLY: Final = 8
FLOW: Final = 9
FRAME_MAX_OCTETS: Final = 64 * 1024 * 1024
TIMEOUT_S: Final = 60.0
"""The longest silence of a queue manager that is alive."""
READ_OCTETS: Final = 256 * 1024
_FLOW_FRAME: Final = struct.Struct("<IBBB")


class NotRunning(Exception):
    """Nobody answers: the mail system is down. The text says why."""


class Refused(Exception):
    """The queue manager does not do what was asked. The text says why."""


class Session:
    """A connection to a queue manager, for one request after the other. `path`: the socket public/qmgr.

    Raises `NotRunning` when there is no queue manager, and wherever it falls silent.
    """

    def __init__(self, path: str) -> None:
        self._peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._peer.settimeout(TIMEOUT_S)
            self._peer.connect(path)
        except OSError as problem:
            self._peer.close()
            raise NotRunning(problem.strerror or str(problem)) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._peer.close()

    def lines(self, request: dict[str, Any]) -> Iterator[bytes]:
        """Yield the lines of the answer as JSON."""
        try:
            self._peer.sendall(_control(msgspec.json.encode(request)))
            yield from _reply_lines(self._peer)
        except OSError as problem:
            raise NotRunning(problem.strerror or str(problem)) from None

    def ask(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the lines of the answer, whatever they say."""
        try:
            for line in self.lines(request):
                yield msgspec.json.decode(line)
        except msgspec.DecodeError:
            raise NotRunning("this is no queue manager") from None

    def do(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the one line that answers a command. Raises `Refused`."""
        answer: dict[str, Any] = {}
        for answer in self.ask(request):
            if "error" in answer:
                raise Refused(answer["error"])
        return answer


def ask(path: str, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the lines of the answer to one request. Raises `NotRunning`."""
    with Session(path) as session:
        yield from session.ask(request)


def ask_lines(path: str, request: dict[str, Any]) -> Iterator[bytes]:
    """Yield the lines of the answer to one request as JSON. Raises `NotRunning`."""
    with Session(path) as session:
        yield from session.lines(request)


def do(path: str, request: dict[str, Any]) -> dict[str, Any]:
    """Return the one line that answers one command. Raises `Refused` and `NotRunning`."""
    with Session(path) as session:
        return session.do(request)


def flow_frames(received: bytes) -> tuple[bool | None, bytes]:
    """Return what the last whole Flow frame says (has the queue manager fallen behind?), and the octets left over.

    Raises `ValueError` when it is no such frame.
    """
    said = None
    at = 0
    while len(received) - at >= _FLOW_FRAME.size:
        octets, version, kind, behind = _FLOW_FRAME.unpack_from(received, at)
        if (octets, version, kind) != (_FLOW_FRAME.size - 4, FRAME_VERSION, FLOW):
            raise ValueError("no flow frame")
        said = bool(behind)
        at += _FLOW_FRAME.size
    return said, received[at:]


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
