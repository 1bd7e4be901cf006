"""A next hop that keeps messages as sent on the wire: every octet between 354 and the end, with stuffed dots.

It keeps the commands as well, without their line ends.
"""

from __future__ import annotations

import re
import socketserver
import threading
from collections.abc import Mapping

from support.threaded import Threaded, ThreadedServer

KEYWORDS = ("PIPELINING", "8BITMIME", "SMTPUTF8")
"""The extensions that a sink offers by default."""


class _Session(socketserver.StreamRequestHandler):
    """One connection: the minimum of SMTP for a sink."""

    server: _Server

    def handle(self) -> None:
        """Reply to commands until the client quits."""
        self.wfile.write(b"220 sink.example ESMTP\r\n")
        recipients: list[str] = []
        for line in self.rfile:
            verb = line[:4].upper()
            self.server.commands.append(line.rstrip(b"\r\n").decode(errors="surrogateescape"))
            if verb in (b"EHLO", b"LHLO"):
                self.wfile.write(self.server.offer)
            elif verb == b"DATA":
                self.wfile.write(b"354 Go ahead\r\n")
                self.server.keep(recipients, self.content())
                recipients = []
                self.wfile.write(b"250 2.0.0 Kept\r\n")
            elif verb == b"QUIT":
                self.wfile.write(b"221 2.0.0 Bye\r\n")
                return
            else:
                reply = "250 2.1.0 Ok"
                if found := re.match(rb"RCPT TO:<(.*?)>", line, re.IGNORECASE):
                    reply = self.server.replies.get(found[1].decode(), reply)
                    if reply.startswith("2"):
                        recipients.append(found[1].decode())
                self.wfile.write(f"{reply}\r\n".encode())

    def content(self) -> bytes:
        """Return the content before CRLF.CRLF. A lone dot after a bare LF is content."""
        lines: list[bytes] = []
        for line in self.rfile:
            if line == b".\r\n" and (not lines or lines[-1].endswith(b"\r\n")):
                return b"".join(lines)
            lines.append(line)
        raise EOFError("the client left in the middle of a message")


class _Server(ThreadedServer):
    """The offers, replies, commands and messages of all connections."""

    def __init__(self, port: int, keywords: tuple[str, ...], replies: Mapping[str, str]) -> None:
        super().__init__(port, _Session)
        offered = ["sink.example", *keywords]
        self.offer = "".join(f"250{' ' if word is offered[-1] else '-'}{word}\r\n" for word in offered).encode()
        self.commands: list[str] = []
        self.replies = replies
        self.arrived = threading.Condition()
        self.messages: dict[str, list[bytes]] = {}

    def keep(self, recipients: list[str], content: bytes) -> None:
        """Store a message under each of its recipients."""
        with self.arrived:
            for recipient in recipients:
                self.messages.setdefault(recipient, []).append(content)
            self.arrived.notify_all()


class WireSink(Threaded[_Server]):
    """Listens on 127.0.0.1:port during its `with` block. `messages`: contents by recipient.

    `replies`: the reply to RCPT for some recipients.
    """

    def __init__(
        self, port: int, keywords: tuple[str, ...] = KEYWORDS, replies: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(_Server(port, keywords, replies or {}))

    @property
    def commands(self) -> list[str]:
        """The commands so far, of all connections."""
        return self._server.commands

    @property
    def messages(self) -> dict[str, list[bytes]]:
        """The messages so far."""
        return self._server.messages

    def wait(self, recipients: set[str], patience_s: float = 60.0) -> None:
        """Wait until each recipient has a message. Raises `TimeoutError` with the missing ones."""

        def missing() -> set[str]:
            return recipients - self.messages.keys()

        with self._server.arrived:
            if not self._server.arrived.wait_for(lambda: not missing(), patience_s):
                raise TimeoutError(f"no message came for {sorted(missing())}")
