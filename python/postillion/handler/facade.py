"""The `server` that hooks of a site's handler get: what they may use of aiosmtpd's `SMTP`, over the Rust dialogue.

It is no `aiosmtpd.smtp.SMTP`: that class has many members that a dialogue in Rust cannot serve. Named here are those
that it can: the state of the session, `push`, the socket, and what aiosmtpd's own AUTH code asks of its server.
"""

from __future__ import annotations

import asyncio
from typing import Any, AnyStr, Protocol

import aiosmtpd.smtp


class Socket(Protocol):
    """A client's connection; its methods are called on the event loop that serves clients."""

    loop: asyncio.AbstractEventLoop

    @property
    def peer(self) -> tuple[str, int] | None:
        """Address and port of the client, None when it is gone."""
        ...

    def write(self, octets: bytes) -> None:
        """Send octets outside the dialogue."""

    def abort(self) -> None:
        """Close at once."""


class Lines(Protocol):
    """An AUTH exchange: it takes pushed lines, and gives the client's lines."""

    def push(self, line: str) -> None:
        """Take a line for the client."""

    async def readline(self) -> bytes:
        """Return the client's next line."""
        ...


class ClientTransport(asyncio.Transport):
    """A connection as a transport. Hooks run in threads of their own, so calls go through the event loop."""

    def __init__(self, socket: Socket) -> None:
        super().__init__()
        self._socket = socket
        self._peer = socket.peer

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return `peername`: address and port."""
        return self._peer if name == "peername" and self._peer is not None else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send octets to the client, outside the dialogue."""
        self._socket.loop.call_soon_threadsafe(self._socket.write, bytes(data))

    def is_closing(self) -> bool:
        """Return whether the client is gone."""
        return self._socket.peer is None

    def abort(self) -> None:
        """Close at once."""
        self._socket.loop.call_soon_threadsafe(self._socket.abort)

    close = abort


class ServerFacade:
    """One session's server, as hooks see it."""

    # aiosmtpd's own AUTH (see `postillion.handler.auth`), and the helpers that a handler's mechanisms call.
    smtp_AUTH = aiosmtpd.smtp.SMTP.smtp_AUTH
    auth_LOGIN = aiosmtpd.smtp.SMTP.auth_LOGIN
    auth_PLAIN = aiosmtpd.smtp.SMTP.auth_PLAIN
    challenge_auth = aiosmtpd.smtp.SMTP.challenge_auth
    check_helo_needed = aiosmtpd.smtp.SMTP.check_helo_needed
    AuthLoginUsernameChallenge = aiosmtpd.smtp.SMTP.AuthLoginUsernameChallenge
    AuthLoginPasswordChallenge = aiosmtpd.smtp.SMTP.AuthLoginPasswordChallenge
    _auth_interact = aiosmtpd.smtp.SMTP._auth_interact
    _334_PREFIX = aiosmtpd.smtp.SMTP._334_PREFIX
    _authenticate = aiosmtpd.smtp.SMTP._authenticate
    _call_handler_hook = aiosmtpd.smtp.SMTP._call_handler_hook
    _auth_require_tls = False
    _tls_protocol = None
    _authenticator: Any = None
    _auth_callback: Any = None
    _auth_methods: Any = None
    _handle_hooks: Any = None

    def __init__(self, socket: Socket, handler: object, hostname: str) -> None:
        self.event_handler = handler
        self.hostname = hostname
        self.loop = socket.loop
        self.session = aiosmtpd.smtp.Session(socket.loop)
        self.envelope = aiosmtpd.smtp.Envelope()
        self.transport: ClientTransport | None = ClientTransport(socket)
        self.session.peer = self.transport.get_extra_info("peername")
        self._reader: Lines | None = None

    async def push(self, status: AnyStr) -> None:
        """Send a line to the client before the hook's answer, or in its place; in AUTH it is the exchange's line."""
        line = status.encode("utf-8") if isinstance(status, str) else status
        if self._reader is not None:
            self._reader.push(line.decode("utf-8", "replace"))
        elif self.transport is not None:
            self.transport.write(line + b"\r\n")

    def carry(self, exchange: Lines | None) -> None:
        """Give pushed lines to an AUTH exchange from now on; None ends this."""
        self._reader = exchange

    def gone(self) -> None:
        """Let go of the connection: it is closed."""
        self.transport = None
