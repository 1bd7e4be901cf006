"""`memcache:/file`: a memcached server, with a backup table behind it (memcache_table(5))."""

from __future__ import annotations

import re
from typing import Final

from postillion.tables.deferred import ask
from postillion.tables.remote.mapping import Mapping, OpenTable, template
from postillion.tables.remote.parameters import Parameters
from postillion.tables.remote.pool import LinkLost, Pool, PooledSource, Server
from postillion.tables.remote.stream import Stream, connect
from postillion.tables.remote.table import RemoteTable
from postillion.tables.table import Table, TableError, Warn

KEY_MAX_OCTETS: Final = 250
"""Maximum length of a key in memcached's protocol. A longer one fails; the backup has it all the same."""
SPACE: Final = re.compile(r"[ \t\n\v\f\r]")
"""Space in a key would begin a second word or line of the command, so no key has any."""
VALUE: Final = re.compile(rb"VALUE ([^ ]+) (\d{1,10}) (\d{1,10})(?: \d{1,20})?")


class MemcacheSource(PooledSource):
    """A table in a memcached server."""

    def __init__(self, name: str, parameters: Parameters, warn: Warn, open_table: OpenTable) -> None:
        """Read the parameters. Raises `ConfigError`."""
        self._mapping = Mapping(name, parameters, warn, open_table)
        self._key = template(parameters, "key_format", "%s")
        backup = parameters.text("backup")
        self._backup: Table | None = open_table(backup) if backup else None
        self._flags = parameters.number("flags", 0)
        self._ttl = parameters.number("ttl", 3600)
        self._data_max_octets = parameters.number("data_size_limit", 10240, low=1)
        self._line_max_octets = parameters.number("line_size_limit", 1024, low=1)
        self._tries = parameters.number("max_try", 2, low=1)
        parameters.number("retry_pause", 1)
        timeout_s = parameters.number("timeout", 2, low=1)
        address = parameters.text("memcache", "inet:localhost:11211")
        host, port = _server(parameters, address)
        whole = self._line_max_octets + self._data_max_octets + len("\r\nEND\r\n")
        self._pool = Pool([Server(address, lambda: connect(host, port, whole))], attempt_max_s=timeout_s)

    async def ask(self, key: str) -> str | None:
        """Return the value for `key`; None when neither the server nor the backup has one. Raises `TableError`."""
        if not await self._mapping.admits(key):
            return None
        wanted = self._key.query(key, str)
        if not wanted or SPACE.search(wanted):
            # Postfix does not ask the backup either.
            return None
        found: str | None = None
        try:
            found = await self._cached(wanted)
        except TableError:
            if self._backup is None:
                raise
        if found is not None or self._backup is None:
            return found
        found = await ask(self._backup, key)
        if found is not None:
            await self._store(wanted, found)
        return found

    async def close(self) -> None:
        """Close the connections."""
        await super().close()
        if isinstance(self._backup, RemoteTable):
            await self._backup.close()

    def prepare(self) -> None:
        """Read the backup table. Raises `TableError`."""
        if self._backup is not None:
            self._backup.refresh()

    async def _cached(self, wanted: str) -> str | None:
        key = wanted.encode()
        if len(key) > KEY_MAX_OCTETS:
            raise TableError(f"the key has more than {KEY_MAX_OCTETS} octets")

        async def work(stream: Stream) -> bytes | None:
            return await stream.exchange(b"get %s\r\n" % key, lambda octets: value(octets, key, self._data_max_octets))

        found = await self._pool.run(work)
        if found is None:
            return None
        try:
            return found.decode()
        except UnicodeDecodeError:
            raise TableError("the value is not UTF-8") from None

    async def _store(self, wanted: str, found: str) -> None:
        """Store a value of the backup. A server that fails does not matter: the value is known."""
        key, octets = wanted.encode(), found.encode("utf-8", "surrogateescape")
        if len(key) > KEY_MAX_OCTETS or len(octets) > self._data_max_octets:
            return
        request = b"set %s %d %d %d\r\n%s\r\n" % (key, self._flags, self._ttl, len(octets), octets)

        async def work(stream: Stream) -> bytes:
            return await stream.exchange(request, stored)

        try:
            await self._pool.run(work)
        except (TableError, LinkLost):
            return


def value(octets: bytes, key: bytes, limit: int) -> tuple[bytes | None, int] | None:
    """Return the value in a reply to `get`, and the reply's length; None for an incomplete one. Raises `ValueError`."""
    line, end, rest = octets.partition(b"\r\n")
    if not end:
        return None
    if line == b"END":
        return None, len(line) + 2
    found = VALUE.fullmatch(line)
    if found is None or found.group(1) != key:
        raise ValueError("expected VALUE or END")
    length = int(found.group(3))
    if length > limit:
        raise ValueError(f"a value of more than {limit} octets (data_size_limit)")
    tail = b"\r\nEND\r\n"
    if len(rest) < length + len(tail):
        return None
    if rest[length : length + len(tail)] != tail:
        raise ValueError("expected END behind the value")
    return rest[:length], len(line) + 2 + length + len(tail)


def stored(octets: bytes) -> tuple[bytes, int] | None:
    """Return the line of a reply to `set`, and its length; None for an incomplete one."""
    line, end, _ = octets.partition(b"\r\n")
    return (line, len(line) + 2) if end else None


def _server(parameters: Parameters, address: str) -> tuple[str, str]:
    """Return host and port; the path and an empty port for a UNIX-domain socket. Raises `ConfigError`."""
    kind, _, rest = address.partition(":")
    if kind == "unix" and rest:
        return rest, ""
    host, colon, port = rest.rpartition(":")
    if kind != "inet" or not colon or not host or not port:
        raise parameters.error("memcache", f'bad value "{address}" for memcache', "give inet:host:port or unix:/path")
    return host.removeprefix("[").removesuffix("]"), port
