"""The server of `aiosmtpd.controller.Controller`: a handler alone, without a queue; aiosmtpd's verbs over Rust's bytes.

    data_received -> Reader.feed_data -> SmtpIntake (Rust) -> readuntil: a command's line     -> smtp_VERB (Python)
                                                           -> message: a content, unstuffed -> handle_DATA (Python)

The dialogue is aiosmtpd's own, and so is every method that a subclass may have replaced. Rust has the input: it finds
lines and the end of a message, and keeps the content. A message wakes Python up once, not once for each line.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections import defaultdict
from typing import Any, Final
from warnings import warn

import aiosmtpd.smtp
from aiosmtpd.smtp import MISSING, syntax

from postillion._core.smtp import SmtpIntake

REFUSALS: Final = {
    SmtpIntake.LINE_TOO_LONG: "500 Line too long (see RFC5321 4.5.3.1.6)",
    SmtpIntake.TOO_MUCH: "552 Error: Too much mail data",
}
"""aiosmtpd's replies to a message that is not kept."""
ATEXT: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
PLAIN_ADDRESS: Final = re.compile(
    rf"<(({ATEXT}(?:\.{ATEXT})*)@{ATEXT}(?:\.{ATEXT})*)>(?: +([!-'*-~][ -~]*))?", re.ASCII
)
"""A dot-atom at a dot-atom (RFC 5322 §3.4.1), in angle brackets, and parameters that begin with no comment."""
WAITING_LINES_MAX: Final = 2
"""Maximum number of unread lines of maximum length before reading pauses."""


class Reader:
    """The input of a client, with the methods of `asyncio.StreamReader`, and `message`.

    One coroutine at a time may wait. A message has its own limits: reading goes on while it arrives.
    """

    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        """`limit`: octets of a line without its end."""
        # These two names are asyncio's: aiosmtpd empties the one and replaces the other when TLS starts.
        self._buffer = SmtpIntake(limit)
        self._transport: Any = None
        self._limit = limit
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None
        self._eof = False
        self._exception: BaseException | None = None
        self._paused = False
        self._deaf = False

    def feed_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take octets from the socket."""
        if self._deaf:
            return
        if self._buffer.feed(bytes(data)):
            self._wake()
            if not self._paused and len(self._buffer) > WAITING_LINES_MAX * self._limit and self._transport is not None:
                self._transport.pause_reading()
                self._paused = True

    def feed_eof(self) -> None:
        """Note that the client sends nothing more."""
        self._eof = True
        self._wake()

    def set_transport(self, transport: asyncio.BaseTransport) -> None:
        """Set the transport whose reading pauses while too many lines wait."""
        self._transport = transport

    def exception(self) -> BaseException | None:
        """Return the error that ended the connection; None without one."""
        return self._exception

    def set_exception(self, error: BaseException) -> None:
        """Raise this error in the coroutine that reads: the connection is broken."""
        self._exception = error
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.cancelled():
            waiter.set_exception(error)

    def at_eof(self) -> bool:
        """Return whether all octets are taken and the peer has closed."""
        return self._eof and not len(self._buffer)

    def stop_listening(self) -> None:
        """Drop unread and further input until `listen`: it was sent before TLS (RFC 3207 §4.2)."""
        self._deaf = True
        self._buffer.clear()
        self._resume()

    def listen(self) -> None:
        """Undo `stop_listening`."""
        self._deaf = False

    async def message(self, *, line_octets: int, message_octets: int | None) -> bytes | int:
        """Return the message that follows, dots unstuffed; or why nothing is kept of it, as in `REFUSALS`.

        `line_octets`: of a line on the wire, with its CRLF; `message_octets`: of all lines, None for no limit. A
        message ends at CRLF.CRLF alone (RFC 5321 §4.1.1.4); a bare LF is text. Raises `asyncio.IncompleteReadError`.
        """
        self._check()
        self._buffer.begin_message(line_octets=line_octets, message_octets=message_octets)
        while (content := self._buffer.take_message()) is None:
            await self._wait()
        self._resume()
        return content

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        """Return a line. Raises `asyncio.LimitOverrunError` and `asyncio.IncompleteReadError` as asyncio does."""
        self._check()
        while True:
            line = self._buffer.take_line(separator)
            if isinstance(line, bytes):
                self._resume()
                return line
            if line is not None:
                raise asyncio.LimitOverrunError("the line is longer than the limit", line)
            await self._wait()

    async def readline(self) -> bytes:
        """Return a line; what there is of it at the end.

        Raises `ValueError` when it is longer than the limit, after all of it was read: asyncio leaves the rest, which
        would be taken for a command.
        """
        overlong = False
        while True:
            try:
                line = await self.readuntil()
            except asyncio.IncompleteReadError as incomplete:
                line = incomplete.partial
            except asyncio.LimitOverrunError as overrun:
                await self.read(overrun.consumed)
                overlong = True
                continue
            if overlong:
                raise ValueError("the line is longer than the limit")
            return line

    async def read(self, n: int = -1) -> bytes:
        """Return up to `n` octets, at least one unless the end has come; all to the end if `n` is negative."""
        self._check()
        pieces = []
        while n:
            if not len(self._buffer):
                if self._eof:
                    break
                await self._wait()
                continue
            pieces.append(self._buffer.take(n if n > 0 else len(self._buffer)))
            if n > 0:
                break
        self._resume()
        return b"".join(pieces)

    async def readexactly(self, n: int) -> bytes:
        """Return `n` octets. Raises `asyncio.IncompleteReadError`."""
        if n < 0:
            raise ValueError("a number of octets is not negative")
        self._check()
        while len(self._buffer) < n:
            await self._wait(n)
        taken = self._buffer.take(n)
        self._resume()
        return taken

    def __aiter__(self) -> Reader:
        return self

    async def __anext__(self) -> bytes:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    def _check(self) -> None:
        if self._exception is not None:
            raise self._exception

    async def _wait(self, expected: int | None = None) -> None:
        """Wait for more; when none comes, give up what there is."""
        if self._eof:
            raise asyncio.IncompleteReadError(self._buffer.take(len(self._buffer)), expected)
        if self._waiter is not None:
            raise RuntimeError("another coroutine is waiting for what this client says")
        self._resume(wanted=True)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _resume(self, *, wanted: bool = False) -> None:
        if self._paused and (wanted or len(self._buffer) <= self._limit):
            self._paused = False
            if self._transport is not None:
                self._transport.resume_reading()


class SMTP(aiosmtpd.smtp.SMTP):
    """The server for `factory` of `aiosmtpd.controller.Controller`, with aiosmtpd's arguments; see docs/aiosmtpd.md."""

    _heard: Reader
    """The same as `_reader`, by its own type."""
    _made = True

    def __init__(self, handler: object, **arguments: Any) -> None:
        # aiosmtpd keeps these in one dictionary for all connections: one client's EHLO would change another's limits.
        self.command_size_limits = defaultdict(lambda: self.command_size_limit)
        self._made = False
        super().__init__(handler, **arguments)
        self._made = True

    def __dir__(self) -> list[str]:
        # The constructor looks for verbs among all names, with their values, for every connection: it took longer than
        # the dialogue. It finds what it looks for among these.
        if self._made:
            return list(super().__dir__())
        return [name for name in dir(type(self)) if name.startswith(("smtp_", "auth_"))] + list(vars(self))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the dialogue, or go on with it under TLS."""
        super().connection_made(transport)
        self._heard.listen()

    def _cb_client_connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # asyncio's reader stays as what its writer asks for an exception; nothing is fed to it.
        super()._cb_client_connected(reader, writer)
        self._heard = Reader(self.line_length_limit, self.loop)
        self._heard.set_transport(writer.transport)
        self._reader = self._heard  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Take octets from the socket."""
        self._heard.feed_data(data)

    def eof_received(self) -> bool | None:
        """Note that the client sends nothing more."""
        keep: bool | None = super().eof_received()
        # Under TLS the transport is closed now, and `connection_lost` says so.
        if self.session is not None and self.session.ssl is None:
            self._heard.feed_eof()
        return keep

    def connection_lost(self, error: Exception | None) -> None:
        """End the dialogue."""
        super().connection_lost(error)
        if error is None:
            self._heard.feed_eof()
        else:
            self._heard.set_exception(error)

    @syntax("STARTTLS", when="tls_context")
    async def smtp_STARTTLS(self, arg: str | None) -> None:
        """Start TLS; what the client said behind the command is forgotten at once."""
        if self.tls_context and not arg:
            self._heard.stop_listening()
        await super().smtp_STARTTLS(arg)

    @syntax("DATA")
    async def smtp_DATA(self, arg: str | None) -> None:
        """Read a message, and give it to the handler."""
        if await self.check_helo_needed() or await self.check_auth_needed("DATA"):
            return
        envelope = self.envelope
        assert envelope is not None
        if not envelope.rcpt_tos:
            await self.push("503 Error: need RCPT command")
            return
        if arg:
            await self.push("501 Syntax: DATA")
            return
        await self.push("354 End data with <CR><LF>.<CR><LF>")
        most = max(self.data_size_limit, 0) if self.data_size_limit else None
        content = await self._heard.message(line_octets=self.line_length_limit, message_octets=most)
        if isinstance(content, int):
            await self.push(REFUSALS[content])
            self._set_post_data_state()  # type: ignore[no-untyped-call]
            return
        try:
            envelope.content = self._decoded(content) if self._decode_data else content
        except UnicodeDecodeError:
            await self.push("500 Error: strict ASCII mode")
            return
        envelope.original_content = content
        status = await self._hand_over()
        self._set_post_data_state()  # type: ignore[no-untyped-call]
        await self.push("250 OK" if status is MISSING else status)

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        """Return the address and what follows it, as aiosmtpd does: its grammar is for addresses that need one."""
        plain = None if "=?" in arg else PLAIN_ADDRESS.fullmatch(arg)
        if plain is None:
            address: tuple[str | None, str | None] = super()._getaddr(arg)
            return address
        if self.local_part_limit and len(plain[2]) > self.local_part_limit:
            return None, None
        return plain[1], plain[3] or ""

    def _decoded(self, content: bytes) -> str:
        return content.decode("utf-8", "surrogateescape") if self.enable_SMTPUTF8 else content.decode("ascii")

    async def _hand_over(self) -> Any:
        """Return the handler's reply; MISSING when it has none."""
        if "DATA" in self._handle_hooks:
            return await self._call_handler_hook("DATA")
        process = getattr(self.event_handler, "process_message", None)
        if process is None:
            return MISSING
        warn("Use handler.handle_DATA() instead of .process_message()", DeprecationWarning, stacklevel=2)
        session, envelope = self.session, self.envelope
        assert session is not None
        assert envelope is not None
        status = process(session.peer, envelope.mail_from, envelope.rcpt_tos, envelope.content)
        if inspect.isawaitable(status):
            status = await status
        return MISSING if status is None else status
