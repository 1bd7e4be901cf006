"""The resolver: a cache, one question at a time for each name and kind, and limits.

Answers stay in the cache for their time to live, within limits; so do negative answers (RFC 2308). Failures are not
cached. Callers with the same question at the same time share one answer.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from postillion.config.domain import BadDomain, to_ascii
from postillion.dns.answer import Answer, BadName, Failed, Kind, Mx, NoData, NoName, NoRecords, Records

if TYPE_CHECKING:
    from postillion.dns.engine import Engine

CACHE_MAX_ANSWERS: Final = 10_000
TTL_MIN_S: Final = 1.0
TTL_MAX_S: Final = 3600.0
NEGATIVE_TTL_MAX_S: Final = 900.0
TIMEOUT_S: Final = 30.0
"""Timeout of a question, with the wait for a free place, all name servers and retries."""
QUESTIONS_MAX: Final = 1000
"""Maximum number of concurrent questions; each has a socket of its own."""

Key = tuple[str, Kind]
Cached = Records[Any] | NoData | NoName


class Resolver:
    """Asks the name servers in /etc/resolv.conf, or those in `nameservers`.

    A program makes its resolver before it drops its rights: mail_owner may not be able to read the Python installation.
    Only a program with a resolver imports dnspython.

    `clock`: returns monotonic seconds; the event loop's clock by default. `idna2003`: see `to_ascii`.
    """

    def __init__(
        self,
        nameservers: Sequence[str] | None = None,
        port: int = 53,
        *,
        clock: Callable[[], float] | None = None,
        timeout_s: float = TIMEOUT_S,
        questions_max: int = QUESTIONS_MAX,
        idna2003: bool = False,
    ) -> None:
        # dnspython takes long to import, and a program without a resolver never needs it.
        from postillion.dns.engine import Engine

        self._open = partial(Engine, nameservers, port=port, timeout_s=timeout_s)
        self._clock = clock
        self._timeout_s = timeout_s
        self._idna2003 = idna2003
        self._places = asyncio.Semaphore(questions_max)
        self._engine: Engine | None = None
        self._cache: OrderedDict[Key, tuple[float, Cached]] = OrderedDict()
        self._questions: dict[Key, asyncio.Task[Answer[Any]]] = {}

    async def mx(self, name: str) -> Answer[Mx]:
        """Return the MX records of a domain."""
        return await self._lookup(name, "MX")

    async def name_of(self, address: str) -> Answer[str]:
        """Return the host names in the PTR records of an IP address. Nothing proves that they belong to it."""
        ip = ipaddress.ip_address(address.partition("%")[0])
        mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
        return await self._lookup((mapped or ip).reverse_pointer, "PTR")

    async def addresses(self, name: str, families: Sequence[socket.AddressFamily]) -> Answer[str]:
        """Return the addresses of a host, in the order of `families`.

        The addresses of one family are enough. Without any, a `Failed` of one family is the answer, or else the answer
        for the last family.
        """
        kinds: list[Kind] = ["A" if family == socket.AF_INET else "AAAA" for family in families]
        answers = await asyncio.gather(*(self._lookup(name, kind) for kind in kinds))
        found = [answer for answer in answers if isinstance(answer, Records)]
        if found:
            return Records(
                tuple(address for answer in found for address in answer.list),
                min(answer.ttl for answer in found),
                all(answer.secure for answer in found),
            )
        reasons: list[NoRecords] = [answer for answer in answers if not isinstance(answer, Records)]
        return next((reason for reason in reasons if isinstance(reason, Failed)), reasons[-1])

    async def _lookup(self, name: str, kind: Kind) -> Answer[Any]:
        if not name.isascii():
            try:
                name = to_ascii(name, idna2003=self._idna2003)
            except BadDomain:
                return BadName(name)
        key = (name.lower().rstrip("."), kind)
        cached = self._cache.get(key)
        if cached is not None and (ttl := cached[0] - self._now()) > 0.0:
            self._cache.move_to_end(key)
            return replace(cached[1], ttl=ttl)
        question = self._questions.get(key)
        if question is None:
            question = self._questions[key] = asyncio.create_task(self._ask(key), name=f"DNS {kind} {key[0]}")
            question.add_done_callback(lambda _: self._questions.pop(key))
        # A cancelled caller must not take the answer away from the others.
        return await asyncio.shield(question)

    async def _ask(self, key: Key) -> Answer[Any]:
        try:
            async with asyncio.timeout(self._timeout_s), self._places:
                if self._engine is None:
                    self._engine = self._open()
                answer = await self._engine.ask(*key)
        except TimeoutError:
            return Failed(*key, "timeout")
        if isinstance(answer, Failed | BadName):
            return answer
        if isinstance(answer, Records):
            ttl = min(max(answer.ttl, TTL_MIN_S), TTL_MAX_S)
        else:
            ttl = min(answer.ttl, NEGATIVE_TTL_MAX_S)
        answer = replace(answer, ttl=ttl)
        self._cache[key] = (self._now() + ttl, answer)
        self._cache.move_to_end(key)
        while len(self._cache) > CACHE_MAX_ANSWERS:
            self._cache.popitem(last=False)
        return answer

    def _now(self) -> float:
        return self._clock() if self._clock is not None else asyncio.get_running_loop().time()
