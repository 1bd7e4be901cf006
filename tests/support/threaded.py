"""A server of a test, in a thread."""

import contextlib
import socket
import socketserver
import threading
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

POLL_S = 0.05
"""Longest time until the thread sees that it must end."""
S = TypeVar("S", bound=socketserver.BaseServer)


class ThreadedServer(socketserver.ThreadingTCPServer):
    """A server with one thread for each connection; closing the server ends its connections.

    A client that keeps a connection would talk to an earlier test's server otherwise.
    """

    allow_reuse_address = True

    def __init__(self, port: int, handler: type[socketserver.BaseRequestHandler]) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection, which `server_close` may end, in a thread."""
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection. A connection that either side closed early is no fault."""
        with contextlib.suppress(OSError, EOFError):
            super().finish_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a connection that was served."""
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Close the listener, end the connections, and wait for their threads."""
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        super().server_close()


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
