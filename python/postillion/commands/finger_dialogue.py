"""A connection of posttls-finger: commands and replies, in the clear and then inside TLS."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from postillion._core.tls import TlsChannel

if TYPE_CHECKING:
    from collections.abc import Callable

    from postillion._core.tls import TlsClient, TlsPolicy

READ_OCTETS: Final = 64 * 1024
LINE_MAX_OCTETS: Final = 2048
"""Maximum octets of a line of the server that are kept, as in Postfix (line_length_limit)."""
REPLY_MAX_LINES: Final = 1000
DIGITS: Final = "0123456789"


class LostError(Exception):
    """The server does not answer: `lost connection`, `timeout`, or a reply without an end."""


class Reply(NamedTuple):
    """A reply. `code`: 0 for a malformed one. `lines`: its texts without codes."""

    code: int
    lines: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        """Whether the code is 2xx."""
        return self.code // 100 == 2

    def __str__(self) -> str:
        # As in Postfix, the end of a line is a character that cannot be printed.
        return f"{self.code} " + "?".join(self.lines)


class Dialogue:
    """An open connection. `chat`: gets each line with its direction."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, chat: Callable[[str], None]) -> None:
        self._reader = reader
        self._writer = writer
        self._chat = chat
        self._unread = bytearray()
        self.channel: TlsChannel | None = None

    async def reply(self, timeout_s: float, *, shown: bool = True) -> Reply:
        """Return the next reply. `timeout_s` is for the whole of it. Raises `LostError`."""
        texts: list[str] = []
        try:
            async with asyncio.timeout(timeout_s):
                for _ in range(REPLY_MAX_LINES):
                    line = _printable(await self._line())
                    if shown:
                        self._chat(f"< {line}")
                    digits = len(line) - len(line.lstrip(DIGITS))
                    code = int(line[:3]) if digits == 3 else 0
                    is_last = line[digits : digits + 1] != "-"
                    texts.append(line[digits if is_last else digits + 1 :].lstrip(" "))
                    if is_last:
                        return Reply(code, tuple(texts))
        except TimeoutError:
            raise LostError("timeout") from None
        raise LostError(f"reply with more than {REPLY_MAX_LINES} lines")

    def command(self, text: str, *, shown: bool = True) -> None:
        """Send a command."""
        if shown:
            self._chat(f"> {text}")
        line = text.encode() + b"\r\n"
        if self.channel is None:
            self._writer.write(line)
        else:
            self.channel.send(line)
            self._flush()

    async def secure(self, client: TlsClient, policy: TlsPolicy, timeout_s: float) -> tuple[str, list[str]] | None:
        """Make the handshake; return its failure: the reason, and the library's errors.

        Unread octets in the clear are dropped. Raises `ValueError` when the library has no TLS for the policy.
        """
        self._unread.clear()
        channel = self.channel = TlsChannel(client, policy)
        try:
            async with asyncio.timeout(timeout_s):
                while not channel.is_established:
                    self._flush()
                    if channel.failure is not None:
                        return ("-1" if channel.failure else "lost connection"), channel.failure
                    self._unread += channel.receive(await self._octets())
        except TimeoutError:
            return "Connection timed out", []
        except LostError as lost:
            return str(lost), []
        self._flush()
        return None

    def close(self) -> None:
        """Close the connection; TLS says goodbye."""
        if self.channel is not None:
            self.channel.close()
            self._flush()
        self._writer.close()

    async def _line(self) -> bytes:
        while (end := self._unread.find(b"\n")) < 0:
            # The rest of a longer line is dropped.
            del self._unread[LINE_MAX_OCTETS:]
            octets = await self._octets()
            self._unread += octets if self.channel is None else self._decrypted(octets)
        line = bytes(self._unread[:end])
        del self._unread[: end + 1]
        return line[:LINE_MAX_OCTETS].rstrip(b"\r")

    def _decrypted(self, octets: bytes) -> bytes:
        assert self.channel is not None
        plain = self.channel.receive(octets)
        self._flush()
        if not plain and (self.channel.ended or self.channel.failure is not None):
            raise LostError("lost connection")
        return plain

    async def _octets(self) -> bytes:
        """Return octets from the socket. Raises `LostError` at the end."""
        try:
            octets = await self._reader.read(READ_OCTETS)
        except OSError:
            octets = b""
        if not octets:
            raise LostError("lost connection")
        return octets

    def _flush(self) -> None:
        assert self.channel is not None
        self._writer.write(self.channel.take_output())


def _printable(line: bytes) -> str:
    return "".join(char if char.isascii() and char.isprintable() else "?" for char in line.decode("latin-1"))
