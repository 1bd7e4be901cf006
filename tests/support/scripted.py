"""A server of a test: a function answers each connection."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

END_MAX_S = 10.0
"""Longest time until the threads of a server have ended."""


class Scripted:
    """A server on 127.0.0.1; `serve` answers each connection in a thread of its own."""

    def __init__(self, serve: Callable[[socket.socket], None], port: int = 0, host: str = "127.0.0.1") -> None:
        """`port`: 0 for any."""
        self._listener = socket.create_server((host, port))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._serve = serve
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(client)
            self._start(self._run, client)

    def _run(self, client: socket.socket) -> None:
        try:
            self._serve(client)
        except OSError:
            pass
        finally:
            client.close()

    def cut(self) -> None:
        """End every connection."""
        for client in self._open:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening, close every connection, and wait for the threads."""
        # A thread that waits for a socket sees its shutdown, but not its close. The thread that accepts ends first: a
        # connection that it has just taken is cut too.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(END_MAX_S)
        self.cut()
        for thread in self._threads:
            thread.join(END_MAX_S)
            assert not thread.is_alive(), "a thread of the server goes on"
