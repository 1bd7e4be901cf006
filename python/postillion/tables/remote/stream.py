"""Connections of the text protocols: socketmap, tcp and memcache.

A connection carries one request at a time. Octets that belong to no request end it: they could be taken for the answer
to the next one.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TypeVar, cast

from postillion.tables.remote.pool import LinkLost

T = TypeVar("T")

Parse = Callable[[bytes], tuple[T, int] | None]
"""Takes the octets since the request. Returns the reply and its length, None for an incomplete one.

Raises `ValueError` for a malformed one.
"""


class Stream(asyncio.Protocol):
    """One connection over TCP or a UNIX-domain socket."""

    def __init__(self, reply_max_octets: int) -> None:
        self._reply_max_octets = reply_max_octets
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._news: asyncio.Future[None] | None = None
        self._problem = ""

    async def exchange(self, request: bytes, parse: Parse[T]) -> T:
        """Send a request and return its reply. Raises `LinkLost`."""
        if self._received and not self._problem:
            self._problem = "the server sent octets that belong to no request"
        if self._transport is None or self._problem:
            raise LinkLost(self._problem or "the connection is closed")
        self._transport.write(request)
        while True:
            try:
                found = parse(bytes(self._received))
            except ValueError as problem:
                raise LinkLost(f"malformed reply: {problem}") from None
            if found is not None:
                reply, length = found
                del self._received[:length]
                return reply
            if len(self._received) > self._reply_max_octets:
                raise LinkLost(f"the server sent more than {self._reply_max_octets} octets")
            if self._problem:
                raise LinkLost(self._problem)
            self._news = asyncio.get_running_loop().create_future()
            await self._news

    async def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Collect the reply."""
        self._received += data
        if len(self._received) > 2 * self._reply_max_octets and self._transport is not None:
            self._transport.abort()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        self._problem = "the server closed the connection"
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


async def connect(host: str, port: str, reply_max_octets: int) -> Stream:
    """Return a connection to a host and port; to the UNIX-domain socket `host` if the port is empty.

    Raises `OSError`.
    """
    loop = asyncio.get_running_loop()

    def made() -> Stream:
        return Stream(reply_max_octets)

    if not port:
        _, stream = await loop.create_unix_connection(made, host)
        return stream
    number = int(port) if port.isdigit() else socket.getservbyname(port)
    _, stream = await loop.create_connection(made, host, number)
    return stream
