"""Client names: address to name and back again, from the hosts file and DNS (smtpd_peername_lookup).

A name counts only if it leads back to the address, for anybody can write any name into the reverse zone of an address
of theirs. Answers are kept for a while; a lookup never blocks the loop and never takes longer than `LOOKUP_MAX_S`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

UNKNOWN: Final = "unknown"
LOOKUP_MAX_S: Final = 5.0
KNOWN_FOR_S: Final = 300.0
UNKNOWN_FOR_S: Final = 60.0
CACHED_MAX: Final = 4096
LOOKUPS_MAX: Final = 100
"""Lookups at a time; further clients wait for their turn within LOOKUP_MAX_S."""
HOSTS_PATH: Final = "/etc/hosts"
HOSTS_CHECK_S: Final = 10.0
HOSTNAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
HOSTNAME_MAX_OCTETS: Final = 255


class Name(NamedTuple):
    """A client's verified name and the one that its reverse zone claims; each may be `unknown`."""

    name: str
    reverse_name: str


NOBODY: Final = Name(UNKNOWN, UNKNOWN)


class Names:
    """Finds out how clients are called."""

    def __init__(self, warn: Callable[[str], None], *, enabled: bool = True, hosts: str = HOSTS_PATH) -> None:
        self._warn = warn
        self._enabled = enabled
        self._hosts = HostsFile(hosts)
        self._cached: dict[str, tuple[float, Name]] = {}
        self._running: dict[str, asyncio.Task[Name]] = {}
        self._turns = asyncio.Semaphore(LOOKUPS_MAX)
        self._resolver: Resolver | None = None

    def known(self, address: str) -> Name | None:
        """Return the name of an address if it is known without waiting."""
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
            # No name server knows this machine's inside.
            return self._keep(address, NOBODY, UNKNOWN_FOR_S)
        return None

    async def lookup(self, address: str) -> Name:
        """Return the name of an address; `unknown` when there is none, or none within LOOKUP_MAX_S."""
        task = self._running.get(address)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._ask(address), name=f"name of {address}")
            self._running[address] = task
            task.add_done_callback(lambda _: self._running.pop(address, None))
        return await asyncio.shield(task)

    async def _ask(self, address: str) -> Name:
        try:
            async with asyncio.timeout(LOOKUP_MAX_S), self._turns:
                found = await self._ask_dns(address)
        except TimeoutError:
            found = NOBODY
        return self._keep(address, found, UNKNOWN_FOR_S if found.name == UNKNOWN else KNOWN_FOR_S)

    async def _ask_dns(self, address: str) -> Name:
        import dns.asyncresolver
        import dns.exception
        import dns.resolver
        import dns.reversename

        try:
            if self._resolver is None:
                self._resolver = dns.asyncresolver.Resolver()
            answer = await self._resolver.resolve(dns.reversename.from_address(address), "PTR", lifetime=LOOKUP_MAX_S)
            claimed = str(answer[0].target).rstrip(".")
        except (dns.exception.DNSException, OSError):
            return NOBODY
        if len(claimed) > HOSTNAME_MAX_OCTETS or not HOSTNAME.fullmatch(claimed) or _is_address(claimed):
            return NOBODY
        wanted = ipaddress.ip_address(address)
        try:
            kind = "A" if wanted.version == 4 else "AAAA"
            forward = await self._resolver.resolve(claimed + ".", kind, lifetime=LOOKUP_MAX_S)
            if any(ipaddress.ip_address(record.address) == wanted for record in forward):
                return Name(claimed, claimed)
        except (dns.exception.DNSException, OSError):
            pass
        self._warn(f"hostname {claimed} does not resolve to address {address}")
        return Name(UNKNOWN, claimed)

    def _keep(self, address: str, name: Name, seconds: float) -> Name:
        while len(self._cached) >= CACHED_MAX:
            del self._cached[next(iter(self._cached))]
        self._cached[address] = (time.monotonic() + seconds, name)
        return name


class HostsFile:
    """hosts(5): read when it changed, looked at every HOSTS_CHECK_S at most."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._names: dict[str, str] = {}
        self._checked = float("-inf")
        self._stamp: tuple[int, int] | None = None

    def name_of(self, address: str, now: float) -> str | None:
        """Return the first name of an address, None when the file has none."""
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
