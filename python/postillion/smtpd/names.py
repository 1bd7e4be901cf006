"""The verified name of a client: from the hosts file, or from DNS in both directions (smtpd_peername_lookup).

The owner of an address can put any name into its reverse zone, so a name is valid only if it resolves to the address.
Verified names are cached. A lookup never blocks the event loop, and its timeout is `TIMEOUT_S`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import socket
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from postillion.dns import Records, Resolver

UNKNOWN: Final = "unknown"
TIMEOUT_S: Final = 5.0
"""Timeout of a lookup; then the client's name is `unknown`."""
UNKNOWN_FOR_S: Final = 60.0
"""Time in the cache for an address without a verified name."""
CACHED_MAX: Final = 4096
QUESTIONS_MAX: Final = 100
"""Maximum number of concurrent questions to DNS; others wait for a free place within TIMEOUT_S."""
HOSTS_PATH: Final = "/etc/hosts"
HOSTS_CHECK_S: Final = 10.0
HOSTNAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
HOSTNAME_MAX_OCTETS: Final = 255


class Name(NamedTuple):
    """A client's verified name and the name in its reverse zone; each may be `unknown`."""

    name: str
    reverse_name: str


NOBODY: Final = Name(UNKNOWN, UNKNOWN)


class Names:
    """Looks up the names of clients."""

    def __init__(
        self,
        warn: Callable[[str], None],
        *,
        enabled: bool = True,
        hosts: str = HOSTS_PATH,
        resolver: Resolver | None = None,
    ) -> None:
        self._warn = warn
        self._enabled = enabled
        self._hosts = HostsFile(hosts)
        self._cached: dict[str, tuple[float, Name]] = {}
        self._running: dict[str, asyncio.Task[Name]] = {}
        self._resolver = resolver
        if enabled and resolver is None:
            self._resolver = Resolver(timeout_s=TIMEOUT_S, questions_max=QUESTIONS_MAX)

    def known(self, address: str) -> Name | None:
        """Return the name of an address from the cache or the hosts file; None when a lookup is necessary."""
        if not self._enabled:
            return NOBODY
        now = time.monotonic()
        entry = self._cached.get(address)
        if entry is not None and entry[0] > now:
            return entry[1]
        name = self._hosts.name_of(address, now)
        if name is not None:
            return self._keep(address, Name(name, name), HOSTS_CHECK_S)
        if ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            # Name servers have no names for loopback addresses.
            return self._keep(address, NOBODY, UNKNOWN_FOR_S)
        return None

    async def lookup(self, address: str) -> Name:
        """Return the name of an address; `unknown` when there is none within TIMEOUT_S."""
        task = self._running.get(address)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._ask(address), name=f"name of {address}")
            self._running[address] = task
            task.add_done_callback(lambda _: self._running.pop(address, None))
        return await asyncio.shield(task)

    async def _ask(self, address: str) -> Name:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                name, ttl_s = await self._verify(address)
        except TimeoutError:
            name, ttl_s = NOBODY, UNKNOWN_FOR_S
        return self._keep(address, name, ttl_s)

    async def _verify(self, address: str) -> tuple[Name, float]:
        """Return the name of an address and its time in the cache: the time to live of both answers."""
        if self._resolver is None:
            return NOBODY, UNKNOWN_FOR_S
        reverse = await self._resolver.name_of(address)
        if not isinstance(reverse, Records):
            return NOBODY, UNKNOWN_FOR_S
        claimed = reverse.list[0]
        if len(claimed) > HOSTNAME_MAX_OCTETS or not HOSTNAME.fullmatch(claimed) or _is_address(claimed):
            return NOBODY, UNKNOWN_FOR_S
        client = ipaddress.ip_address(address.partition("%")[0])
        family = socket.AF_INET if client.version == 4 else socket.AF_INET6
        forward = await self._resolver.addresses(claimed, (family,))
        if isinstance(forward, Records) and any(ipaddress.ip_address(found) == client for found in forward.list):
            return Name(claimed, claimed), min(reverse.ttl, forward.ttl)
        self._warn(f"hostname {claimed} does not resolve to address {address}")
        return Name(UNKNOWN, claimed), UNKNOWN_FOR_S

    def _keep(self, address: str, name: Name, seconds: float) -> Name:
        while len(self._cached) >= CACHED_MAX:
            del self._cached[next(iter(self._cached))]
        self._cached[address] = (time.monotonic() + seconds, name)
        return name


class HostsFile:
    """hosts(5): checked every HOSTS_CHECK_S, and read after a change."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._names: dict[str, str] = {}
        self._checked = float("-inf")
        self._stamp: tuple[int, int] | None = None

    def name_of(self, address: str, now: float) -> str | None:
        """Return the first name of an address; None when the file has none."""
        if now - self._checked > HOSTS_CHECK_S:
            self._checked = now
            self._read()
        return self._names.get(address)

    def _read(self) -> None:
        try:
            status = os.stat(self._path)
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp == self._stamp:
                return
            with open(self._path, encoding="utf-8", errors="replace") as file:
                lines = file.readlines()
        except OSError:
            return
        self._stamp = stamp
        self._names = {}
        for line in lines:
            words = line.partition("#")[0].split()
            if len(words) >= 2 and HOSTNAME.fullmatch(words[1]):
                self._names.setdefault(words[0], words[1])


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
