"""A mail server of a test that begins TLS in ways of its own, and notes everything that the client says."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from support.scripted import Scripted

HEADER = struct.Struct("!BHH")
"""Of a record: its type, version and length (RFC 8446 §5.1)."""
KEY_SHARE = 51
RANDOM_OCTETS = 32
LINE_OCTETS = 2**20
END = b".\r\n"
PATIENCE_S = 30.0
SECURED = "(TLS)"
CLOSED = "(close_notify)"
Handshake = Callable[[socket.socket], socket.socket | None]
"""Begins TLS as a server; returns None to close the connection."""


class Kind(NamedTuple):
    """A kind of server. `answer`: to STARTTLS; `handshake`: follows 220, or comes first with `wrapper`.

    `offers`: EHLO has STARTTLS. `behind`: octets in the packet of the answer. `replies`: by verb, and by `.`.
    `names`: in the reply to EHLO, by connection in turn. `keywords`: the others of EHLO.
    """

    handshake: Handshake = lambda _: None
    offers: bool = True
    answer: str = "220 2.0.0 go"
    wrapper: bool = False
    behind: bytes = b""
    replies: dict[str, str] = {}  # noqa: RUF012 - nobody changes it
    names: tuple[str, ...] = ("mx.example",)
    keywords: tuple[str, ...] = ("8BITMIME",)


class TlsPeer:
    """A server of one kind. `heard`: the lines of all connections in order, with `SECURED` where TLS begins.

    `hellos`: the ClientHello of each handshake, without what is random. `messages`: each with its final dot.
    """

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self.heard: list[str] = []
        self.hellos: list[str] = []
        self.messages: list[bytes] = []
        self._server = Scripted(self._serve)
        self.port = self._server.port

    @property
    def connections(self) -> int:
        """Number of connections so far."""
        return self._server.connections

    def close(self) -> None:
        """Stop listening, and close every connection."""
        self._server.close()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(PATIENCE_S)
        if self._kind.wrapper:
            secured = self._secure(client)
            if secured is not None:
                with secured:
                    # A client may leave a server that it does not want. The test still reads its commands.
                    with contextlib.suppress(OSError):
                        self._greet(secured)
                    self._talk(secured, offers=False)
            return
        self._greet(client)
        if self._talk(client, offers=self._kind.offers):
            secured = self._secure(client)
            if secured is not None:
                with secured:
                    self._talk(secured, offers=False)

    def _greet(self, client: socket.socket) -> None:
        client.sendall(b"220 mx.example ESMTP\r\n")

    def _secure(self, client: socket.socket) -> socket.socket | None:
        hello = peek_hello(client)
        if hello:
            self.hellos.append(hello)
        secured = self._kind.handshake(client)
        if secured is not None:
            self.heard.append(SECURED)
        return secured

    def _talk(self, client: socket.socket, *, offers: bool) -> bool:
        """Answer commands; return whether TLS begins."""
        for line in self._lines(client):
            verb = line.split(" ")[0].upper()
            self.heard.append(line)
            if verb == "STARTTLS":
                client.sendall(f"{self._kind.answer}\r\n".encode() + self._kind.behind)
                if self._kind.answer.startswith("2"):
                    return True
            elif verb in ("EHLO", "LHLO"):
                name = self._kind.names[self.connections % len(self._kind.names)]
                words = [name, *(["STARTTLS"] if offers else []), *self._kind.keywords]
                lines = [*(f"250-{word}" for word in words[:-1]), f"250 {words[-1]}"]
                client.sendall("".join(f"{line}\r\n" for line in lines).encode())
            elif verb == "DATA":
                go = self._kind.replies.get(verb, "354 go")
                client.sendall(f"{go}\r\n".encode())
                if not go.startswith("3"):
                    continue
                self._message(client)
                client.sendall(f"{self._kind.replies.get('.', '250 2.0.0 taken')}\r\n".encode())
            else:
                usual = "221 2.0.0 bye" if verb == "QUIT" else "250 2.0.0 fine"
                client.sendall(f"{self._kind.replies.get(verb, usual)}\r\n".encode())
            if verb == "QUIT":
                break
        return False

    def _lines(self, client: socket.socket) -> Iterator[str]:
        while line := read_line(client):
            yield line.decode("utf-8", "replace").rstrip("\r\n")
        if isinstance(client, ssl.SSLSocket):
            self.heard.append(CLOSED)

    def _message(self, client: socket.socket) -> None:
        """Take a message. Without a recipient it is the final dot alone, and no message."""
        message = b""
        while True:
            # By lines: a command may follow in the same packet.
            line = read_line(client)
            if not line:
                raise ConnectionResetError
            message += line
            if line == END:
                break
        if message != END:
            self.messages.append(message)


def read_line(client: socket.socket) -> bytes:
    """Return the next line, read by single octets: what follows may be a handshake. Empty at the end."""
    line = b""
    while not line.endswith(b"\n") and len(line) < LINE_OCTETS:
        octet = client.recv(1)
        if not octet:
            break
        line += octet
    return line


def peek_hello(client: socket.socket) -> str:
    """Return the client's first record as text, without what is random; empty if the client closes. It stays unread."""
    head = _peek(client, HEADER.size)
    if len(head) < HEADER.size:
        return ""
    kind, _, length = HEADER.unpack(head)
    record = _peek(client, HEADER.size + length)
    return describe_hello(record) if kind == 0x16 else record.hex()


def _peek(client: socket.socket, octets: int) -> bytes:
    return client.recv(octets, socket.MSG_PEEK | socket.MSG_WAITALL)


def describe_hello(record: bytes) -> str:
    """Return a ClientHello (RFC 8446 §4.1.2): versions, ciphers, and extensions in order, in hexadecimal digits."""
    at = HEADER.size + 4

    def take(octets: int) -> bytes:
        nonlocal at
        at += octets
        return record[at - octets : at]

    def vector(octets: int) -> bytes:
        return take(int.from_bytes(take(octets), "big"))

    words = [f"record={record[1:3].hex()}", f"version={take(2).hex()}"]
    take(RANDOM_OCTETS)
    words.append(f"session={len(vector(1))}")
    words += [f"ciphers={vector(2).hex()}", f"compression={vector(1).hex()}"]
    take(2)
    while at < len(record):
        number, data = int.from_bytes(take(2), "big"), vector(2)
        # The group and the length of a share say enough.
        words.append(f"{number}={data[:6].hex() if number == KEY_SHARE else data.hex()}")
    return " ".join(words)


def by(context: ssl.SSLContext) -> Handshake:
    """Return the handshake of a server with these settings. After a failure it reads on until the client closes."""

    def shake(client: socket.socket) -> socket.socket | None:
        again = client.dup()
        try:
            return context.wrap_socket(client, server_side=True)
        except ssl.SSLError:
            # Closing with unread octets would reset the connection, and the client would miss the alert.
            again.shutdown(socket.SHUT_WR)
            silent(again)
            return None
        finally:
            again.close()

    return shake


def saying(octets: bytes) -> Handshake:
    """Return a handshake that says these octets in place of its own, waits for an answer and closes."""

    def shake(client: socket.socket) -> socket.socket | None:
        take_record(client)
        client.sendall(octets)
        while client.recv(65536):
            pass
        return None

    return shake


def closing(client: socket.socket) -> None:
    """Close the connection behind the client's first record."""
    take_record(client)


def resetting(client: socket.socket) -> None:
    """Reset the connection when the client's first octets are there."""
    client.recv(1, socket.MSG_PEEK)
    # The socket has no time to send what it has: closing resets the connection.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def silent(client: socket.socket) -> None:
    """Say nothing until the client closes."""
    while client.recv(65536):
        pass


def take_record(client: socket.socket) -> bytes:
    """Return the client's next record."""
    head = client.recv(HEADER.size, socket.MSG_WAITALL)
    return head + client.recv(HEADER.unpack(head)[2], socket.MSG_WAITALL)
