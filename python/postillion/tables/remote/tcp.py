"""`tcp:host:port`: a request line and a reply line (tcp_table(5))."""

from __future__ import annotations

import re
from typing import Final

from postillion.tables.remote.pool import Pool, PooledSource, Server
from postillion.tables.remote.stream import Stream, connect
from postillion.tables.table import TableError, TableTypeError

LINE_MAX_OCTETS: Final = 4096
"""Maximum length of a reply with its LF."""
REQUEST_MAX_OCTETS: Final = 1024 * 1024
"""Maximum length of a request. The server decides about a long key, as with Postfix, which has no limit."""
ENCODED: Final = re.compile(rb"[^!-$&-~]")
"""Octets that a request encodes: `%`, white space, and all that does not print."""
DECODED: Final = re.compile(rb"%([0-9A-Fa-f]{2})")


class TcpSource(PooledSource):
    """A table on a server of this protocol."""

    def __init__(self, name: str, address: str) -> None:
        """Parse the address. Raises `TableTypeError`."""
        host, colon, port = address.rpartition(":")
        if not colon or not host or not port:
            raise TableTypeError(f'"{name}": expected "tcp:host:port"')
        host = host.removeprefix("[").removesuffix("]")
        self._pool = Pool([Server(address, lambda: connect(host, port, LINE_MAX_OCTETS))])

    async def ask(self, key: str) -> str | None:
        """Return the value for `key`; None when there is none. Raises `TableError`."""
        line = request(key.encode())
        if len(line) > REQUEST_MAX_OCTETS:
            raise TableError(f"the request has more than {REQUEST_MAX_OCTETS} octets")

        async def work(stream: Stream) -> str | None:
            code, text = await stream.exchange(line, reply)
            return answer(code, text)

        return await self._pool.run(work)


def request(key: bytes) -> bytes:
    """Return the request for a key."""
    return b"get " + ENCODED.sub(lambda found: b"%%%02X" % found.group()[0], key) + b"\n"


def reply(octets: bytes) -> tuple[tuple[int, bytes], int] | None:
    """Return code and text of a reply, and its length; None for an incomplete one. Raises `ValueError`."""
    end = octets.find(b"\n")
    if end < 0:
        return None
    if end >= LINE_MAX_OCTETS:
        raise ValueError(f"a line of more than {LINE_MAX_OCTETS} octets")
    line = octets[:end]
    # A code without a space behind it is malformed: Postfix defers the mail too.
    if line[:4] not in (b"200 ", b"400 ", b"500 "):
        raise ValueError("expected 200, 400 or 500, and a space")
    return (int(line[:3]), line[4:]), end + 1


def answer(code: int, text: bytes) -> str | None:
    """Return the value in a reply, None for 500. Raises `TableError` for 400 and an undecodable value."""
    if code == 500:
        return None
    if re.search(rb"%(?![0-9A-Fa-f]{2})", text):
        raise TableError("the reply has a % without two hexadecimal digits")
    found = DECODED.sub(lambda match: bytes((int(match.group(1), 16),)), text)
    try:
        value = found.decode()
    except UnicodeDecodeError:
        raise TableError("the reply is not UTF-8") from None
    if code == 400:
        raise TableError(f"the server says: {value}")
    return value
