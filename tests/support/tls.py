"""Clients of a server with TLS: an SMTP client, and `openssl s_client`."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess

from support.certificates import Certificate
from support.peers import peer

PATIENCE_S = 60.0
CLOSED = "(closed)"
"""Stands for the end of the connection, with or without a reset."""


def context(
    version: ssl.TLSVersion | None = None, ciphers: str = "", certificate: Certificate | None = None
) -> ssl.SSLContext:
    """Return the settings of a client that accepts every server, of this version alone if one is given."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    if version is not None:
        made.minimum_version = made.maximum_version = version
    if ciphers:
        made.set_ciphers(ciphers)
    if certificate is not None:
        made.load_cert_chain(certificate.cert, certificate.key)
    return made


class TlsClient:
    """An SMTP client that reads whole replies. `tls`: begin with TLS, before the greeting."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.port: int = self.socket.getsockname()[1]
        self._rest = b""
        if tls is not None:
            self.secure(tls)

    def secure(self, tls: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        """Begin TLS. Raises `ssl.SSLError` or `OSError` when the handshake fails."""
        assert self._rest == b"", "plaintext stands behind the reply to STARTTLS"
        secured = tls.wrap_socket(self.socket, server_hostname="mx.example.org", session=session)
        self.socket = secured
        return secured

    def reply(self) -> list[str]:
        """Return the lines of a reply; `CLOSED` for the end of the connection."""
        lines: list[str] = []
        while not lines or lines[-1][3:4] == "-":
            line, end, rest = self._rest.partition(b"\n")
            if end:
                lines.append(line.decode().rstrip("\r"))
                self._rest = rest
                continue
            try:
                octets = self.socket.recv(65536)
            except (ConnectionResetError, ssl.SSLEOFError):
                octets = b""
            if not octets:
                return [*lines, CLOSED]
            self._rest += octets
        return lines

    def say(self, *lines: str) -> list[str]:
        """Say each line, and wait for its reply; return the lines of all replies."""
        replies: list[str] = []
        for line in lines:
            self.socket.sendall(line.encode() + b"\r\n")
            replies += self.reply()
        return replies

    def starttls(self, tls: ssl.SSLContext, helo: str = "EHLO client.example") -> list[str]:
        """Read the greeting, begin TLS by STARTTLS and say HELO or EHLO again; return the replies."""
        replies = [*self.reply(), *self.say(helo, "STARTTLS")]
        self.secure(tls)
        return replies + self.say(helo)

    def close(self) -> None:
        """Close the connection without a word."""
        self.socket.close()


def s_client(port: int, *words: str) -> str:
    """Return the output of `openssl s_client`, which says QUIT and waits until the server closes the connection.

    Without the wait it would sometimes miss the server's tickets, which come behind the handshake of TLS 1.3.
    """
    command = [peer("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-starttls", "smtp", "-ign_eof", *words]
    result = subprocess.run(
        command, input="QUIT\r\n", capture_output=True, text=True, errors="replace", timeout=PATIENCE_S, check=False
    )
    return result.stdout + result.stderr


def negotiated(port: int, *words: str) -> str:
    """Return version, cipher and group of `openssl s_client`: `TLSv1.3 TLS_AES_256_GCM_SHA384 X25519`, or `fails`."""
    output = s_client(port, "-brief", *words)
    found = [
        re.search(pattern, output)
        for pattern in (r"Protocol version: (\S+)", r"Ciphersuite: (\S+)", r"Temp Key: (.*), \d+ bits")
    ]
    return " ".join(match[1] for match in found if match) if found[0] else "fails"
