"""`socketmap:inet:host:port:name` and `socketmap:unix:path:name`: netstrings (socketmap_table(5))."""

from __future__ import annotations

from typing import Final

from postillion.tables.remote.pool import Pool, PooledSource, Server
from postillion.tables.remote.stream import Stream, connect
from postillion.tables.table import TableError, TableTypeError

LENGTH_MAX_DIGITS: Final = 9
"""Maximum number of digits of a netstring's length."""


class SocketmapSource(PooledSource):
    """A table on a server of this protocol."""

    def __init__(self, name: str, address: str, *, query_max_octets: int, reply_max_octets: int) -> None:
        """Parse the address. Raises `TableTypeError`."""
        kind, _, rest = address.partition(":")
        place, colon, self._map = rest.rpartition(":")
        host, sign, port = place.rpartition(":") if kind == "inet" else (place, ":", "")
        if kind not in ("inet", "unix") or not (colon and sign and host and self._map) or (kind == "inet" and not port):
            raise TableTypeError(f'"{name}": expected "socketmap:inet:host:port:name" or "socketmap:unix:path:name"')
        host = host.removeprefix("[").removesuffix("]") if port else host
        self._query_max_octets = query_max_octets
        self._reply_max_octets = reply_max_octets
        whole = reply_max_octets + LENGTH_MAX_DIGITS + 2
        self._pool = Pool([Server(f"{kind}:{place}", lambda: connect(host, port, whole))])

    async def ask(self, key: str) -> str | None:
        """Return the value for `key`; None when there is none. Raises `TableError`."""
        query = f"{self._map} {key}".encode()
        if len(query) > self._query_max_octets:
            raise TableError(f"the query has more than {self._query_max_octets} octets")

        async def work(stream: Stream) -> str | None:
            return answer(await stream.exchange(netstring(query), lambda octets: parse(octets, self._reply_max_octets)))

        return await self._pool.run(work)


def netstring(octets: bytes) -> bytes:
    """Return octets as a netstring."""
    return b"%d:%s," % (len(octets), octets)


def parse(octets: bytes, limit: int) -> tuple[bytes, int] | None:
    """Return the content of a netstring, and its whole length; None for an incomplete one. Raises `ValueError`."""
    digits, colon, _ = octets[: LENGTH_MAX_DIGITS + 1].partition(b":")
    if not colon and len(digits) <= LENGTH_MAX_DIGITS and (not digits or digits.isdigit()):
        return None
    if not colon or not digits.isdigit():
        raise ValueError("expected a netstring")
    length = int(digits)
    if length > limit:
        raise ValueError(f"a reply of more than {limit} octets")
    start = len(digits) + 1
    end = start + length
    if len(octets) <= end:
        return None
    if octets[end : end + 1] != b",":
        raise ValueError("expected a comma behind the netstring")
    return octets[start:end], end + 1


def answer(reply: bytes) -> str | None:
    """Return the value in a reply; None when the server has none. Raises `TableError`."""
    status, space, text = reply.partition(b" ")
    try:
        value = text.decode()
    except UnicodeDecodeError:
        raise TableError("the reply is not UTF-8") from None
    if status == b"OK":
        # Without a space behind it, Postfix takes OK as "not found" too.
        return value if space else None
    if status == b"NOTFOUND":
        return None
    if status in (b"TEMP", b"TIMEOUT", b"PERM"):
        raise TableError(f"the server says: {status.decode()} {value}")
    raise TableError("the server sent a reply of an unknown kind")
