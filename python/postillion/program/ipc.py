"""The client side of the queue manager: requests of commands over public/qmgr, and Flow frames to producers.

    for row in ask(path, {"verb": "list"}):
        ...

`postillion_core::ipc::frame` defines the frames, `postillion.qmgr.control` the requests.
"""

from __future__ import annotations

import os
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final, Self

FRAME_VERSION: Final = 1
CONTROL: Final = 7
CONTROL_REPLY: Final = 8
FLOW: Final = 9
FRAME_MAX_OCTETS: Final = 64 * 1024 * 1024
TIMEOUT_S: Final = 60.0
"""Timeout of each read and write."""
READ_OCTETS: Final = 256 * 1024
_FLOW_FRAME: Final = struct.Struct("<IBBB")


class NotRunning(Exception):
    """No queue manager answers, so the mail system is down; the text gives the reason."""


class Refused(Exception):
    """The queue manager refuses a request; the text gives the reason."""


class Session:
    """A connection to the queue manager for one request after the other. `path`: the socket public/qmgr.

    Every method raises `NotRunning` when no queue manager answers within `TIMEOUT_S`.
    """

    def __init__(self, path: str) -> None:
        self._peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._buffer = bytearray()
        self._descriptors: list[int] = []
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
        """Close the connection."""
        self._peer.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()

    def chunks(self, request: dict[str, Any]) -> Iterator[bytes]:
        """Yield the answer in chunks that end anywhere: lines of JSON, or a listing in the requested form.

        A listing comes through a pipe that the queue manager sends; the reply then confirms that it is complete.
        """
        import json

        try:
            self._peer.sendall(_control(json.dumps(request, ensure_ascii=False).encode()))
            for text, pipe in self._replies():
                if pipe is None:
                    yield text
                    continue
                with open(pipe, "rb", buffering=0) as listing:
                    while data := listing.read(READ_OCTETS):
                        yield data
                for last, _ in self._replies():
                    if b'"listed"' not in last:
                        yield last
                return
        except OSError as problem:
            raise NotRunning(problem.strerror or str(problem)) from None

    def _replies(self) -> Iterator[tuple[bytes, int | None]]:
        """Yield the text of each reply, up to the last one, with the descriptor that came with it."""
        last = False
        while not last:
            while len(self._buffer) < 4 or len(self._buffer) < 4 + int.from_bytes(self._buffer[:4], "little"):
                data, descriptors, _, _ = socket.recv_fds(self._peer, READ_OCTETS, 1)
                self._descriptors += descriptors
                if not data:
                    raise NotRunning("the queue manager closed the connection")
                self._buffer += data
                if len(self._buffer) >= 4 and int.from_bytes(self._buffer[:4], "little") > FRAME_MAX_OCTETS:
                    raise NotRunning("the peer is not a queue manager")
            octets = int.from_bytes(self._buffer[:4], "little")
            version, kind, marked, length = (
                struct.unpack_from("<BBBI", self._buffer, 4) if octets >= 7 else (0, 0, 0, 0)
            )
            if version != FRAME_VERSION or kind != CONTROL_REPLY or length != octets - 7:
                raise NotRunning("the queue manager is from another release")
            last = bool(marked)
            text = bytes(self._buffer[11 : 4 + octets])
            del self._buffer[: 4 + octets]
            yield text, self._descriptors.pop(0) if self._descriptors else None

    def ask(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the lines of the answer, errors included."""
        # A listing may have a million lines. For one, json is enough, which takes a tenth of the time to import.
        import msgspec

        try:
            for line in self._lines(request):
                yield msgspec.json.decode(line)
        except msgspec.DecodeError:
            raise NotRunning("the peer is not a queue manager") from None

    def do(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the one line of the answer to a command. Raises `Refused`."""
        import json

        answer: dict[str, Any] = {}
        for line in self._lines(request):
            try:
                answer = json.loads(line)
            except ValueError:
                raise NotRunning("the peer is not a queue manager") from None
            if "error" in answer:
                raise Refused(answer["error"])
        return answer

    def _lines(self, request: dict[str, Any]) -> Iterator[bytes]:
        rest = b""
        for chunk in self.chunks(request):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
        if rest:
            yield rest


def ask(path: str, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the lines of the answer to one request. Raises `NotRunning`."""
    with Session(path) as session:
        yield from session.ask(request)


def do(path: str, request: dict[str, Any]) -> dict[str, Any]:
    """Return the one line of the answer to one command. Raises `Refused` and `NotRunning`."""
    with Session(path) as session:
        return session.do(request)


def flow_frames(received: bytes) -> tuple[bool | None, bytes]:
    """Return whether the queue manager is behind, from the last whole Flow frame, and the remaining octets.

    Raises `ValueError` for another frame.
    """
    latest = None
    at = 0
    while len(received) - at >= _FLOW_FRAME.size:
        octets, version, kind, behind = _FLOW_FRAME.unpack_from(received, at)
        if (octets, version, kind) != (_FLOW_FRAME.size - 4, FRAME_VERSION, FLOW):
            raise ValueError("not a Flow frame")
        latest = bool(behind)
        at += _FLOW_FRAME.size
    return latest, received[at:]


def _control(json: bytes) -> bytes:
    return struct.pack("<IBBI", 6 + len(json), FRAME_VERSION, CONTROL, len(json)) + json


def reply(json: bytes, *, last: bool) -> bytes:
    """Return the frame of a reply."""
    return struct.pack("<IBBBI", 7 + len(json), FRAME_VERSION, CONTROL_REPLY, last, len(json)) + json
