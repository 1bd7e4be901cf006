"""A server of a test, in a thread."""

import socketserver
import threading
from types import TracebackType
from typing import Generic, Self, TypeVar

POLL_S = 0.05
"""Longest time until the thread sees that it must end."""
S = TypeVar("S", bound=socketserver.BaseServer)


class Threaded(Generic[S]):
    """Serves during its `with` block."""

    def __init__(self, server: S) -> None:
        self._server = server

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL_S,))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
