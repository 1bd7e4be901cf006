"""A TCP proxy in front of a server: it cuts, holds and refuses connections when a test says so."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType

from support.ports import free_port
from support.scripted import END_MAX_S, Scripted

CHUNK_OCTETS = 65536


class Proxy:
    """Passes the connections to `host:port` on to a port of 127.0.0.1, during its `with` block."""

    def __init__(
        self, target: int, host: str = "127.0.0.1", change: Callable[[bytes], bytes] = lambda octets: octets
    ) -> None:
        """`change`: changes the first octets that the server sends on a connection."""
        self.port = free_port()
        self.received = 0
        """Octets that the server has sent, on all connections."""
        self.sent = b""
        """Octets that the clients have sent."""
        self._target = target
        self._host = host
        self._change = change
        self._limit: int | None = None
        self._flowing = threading.Event()
        self._flowing.set()
        self._server: Scripted | None = None

    def __enter__(self) -> Proxy:
        self.accept()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        self.refuse()

    def accept(self) -> None:
        """Listen, after `refuse`."""
        self._server = Scripted(self._relay, self.port, self._host)

    def refuse(self) -> None:
        """End every connection, and stop listening: clients are refused."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def cut(self) -> None:
        """End every connection."""
        assert self._server is not None
        self._server.cut()

    def cut_after(self, octets: int | None) -> None:
        """End each later connection once the server has sent this number of octets; None: no longer."""
        self._limit = octets

    def hold(self) -> None:
        """Keep what the server sends."""
        self._flowing.clear()

    def release(self) -> None:
        """Pass on what was held, and all that follows."""
        self._flowing.set()

    def _relay(self, client: socket.socket) -> None:
        left = self._limit
        with socket.create_connection(("127.0.0.1", self._target)) as server:
            asking = threading.Thread(target=self._ask, args=(client, server), daemon=True)
            asking.start()
            try:
                change = self._change
                while (left is None or left > 0) and (octets := server.recv(CHUNK_OCTETS)):
                    self.received += len(octets)
                    octets, change = change(octets)[:left], lambda octets: octets
                    left = None if left is None else left - len(octets)
                    self._flowing.wait()
                    client.sendall(octets)
            finally:
                for each in (client, server):
                    with contextlib.suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)
                asking.join(END_MAX_S)

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while octets := client.recv(CHUNK_OCTETS):
                self.sent += octets
                server.sendall(octets)
        # Whether or not the server ends then: nobody waits for its answer.
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
