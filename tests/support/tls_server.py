"""A scripted SMTP server with TLS: it upgrades at STARTTLS, or begins with TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from support.agents import Script
from support.certificates import Certificate


def context(certificate: Certificate, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Return the settings of a server with this certificate, of this version alone if one is given."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificate.cert, certificate.key)
    if version is not None:
        made.minimum_version = made.maximum_version = version
    return made


@dataclass
class TlsScript(Script):
    """A script whose replies to STARTTLS are `220 go`, and then TLS.

    `tls`: None to close the connection in place of the handshake. `wrapper`: TLS begins with the connection.
    `secured`: the connections with TLS. `in_clear`: commands outside TLS, besides EHLO, STARTTLS and QUIT.
    """

    tls: ssl.SSLContext | None = None
    wrapper: bool = False
    secured: int = 0
    resumed: int = 0
    in_clear: list[str] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    """The names that clients have asked for (SNI)."""

    def __post_init__(self) -> None:
        """Offer STARTTLS, and note the names."""
        if not self.wrapper:
            self.keywords = (*self.keywords, "STARTTLS")
            self.replies.setdefault("STARTTLS", self._start_tls)
        if self.tls is not None:
            self.tls.sni_callback = self._note_name

    def _note_name(self, _socket: object, name: str | None, _context: ssl.SSLContext) -> None:
        self.names.append(name)

    async def _start_tls(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 2.0.0 go\r\n")
        await writer.drain()
        if self.tls is None:
            writer.close()
            raise ConnectionResetError
        await writer.start_tls(self.tls)
        self._note_session(writer)

    def _note_session(self, writer: asyncio.StreamWriter) -> None:
        secured: ssl.SSLObject = writer.get_extra_info("ssl_object")
        self.secured += 1
        self.resumed += bool(secured.session_reused)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            if self.wrapper and self.tls is not None:
                await writer.start_tls(self.tls)
                self._note_session(writer)
            before = len(self.commands)
            await super().serve(reader, writer)
        except (ssl.SSLError, ConnectionError):
            writer.close()
            return
        if writer.get_extra_info("ssl_object") is None:
            said = (command.split(" ")[0] for command in self.commands[before:])
            self.in_clear += [verb for verb in said if verb not in ("EHLO", "LHLO", "STARTTLS", "QUIT")]


@asynccontextmanager
async def tls_server(script: TlsScript) -> AsyncIterator[TlsScript]:
    """Run a scripted server on a free port."""
    listening = await asyncio.start_server(script.serve, "127.0.0.1", 0, limit=2**26)
    script.port = listening.sockets[0].getsockname()[1]
    try:
        yield script
    finally:
        listening.close()
