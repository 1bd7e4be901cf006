"""The resolver: questions to the stub resolver in Rust, and their answers for the event loop.

The stub (`_core.dns`) has the sockets, the cache and the limits. It asks the name servers of resolv.conf(5) in their
order, over TCP where an answer is too large for UDP. Callers with the same question at the same time share one answer.
Failures are not cached.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postillion._core.dns import Stub
from postillion.config.domain import BadDomain, to_ascii
from postillion.dns.answer import Answer, BadName, Failed, Kind, Mx, NoData, NoName, NoRecords, Records, Srv, Tlsa

if TYPE_CHECKING:
    from postillion._core.dns import _Answer as CoreAnswer

RESOLV_CONF: Final = "/etc/resolv.conf"
VALUES: Final[dict[Kind, Callable[[Any], Any]]] = {"MX": Mx._make, "SRV": Srv._make, "TLSA": Tlsa._make}
"""The types of records that are tuples."""


class Search(NamedTuple):
    """How the search list of resolv.conf(5) applies to a name: the flags RES_DEFNAMES and RES_DNSRCH of resolver(3).

    `defnames`: a name without a dot is also tried below the first domain, with `dnsrch` below all of them. `dnsrch`:
    so is a name with a dot, except at its end.
    """

    defnames: bool = False
    dnsrch: bool = False


NO_SEARCH: Final = Search()
Waiting = tuple["asyncio.Future[Answer[Any]]", str, Kind]


class Resolver:
    """Asks the name servers in /etc/resolv.conf, or those in `nameservers`.

    `clock`: returns monotonic seconds; the event loop's clock by default. `timeout_s`: longest time of a question, with
    the wait for a free place, all servers and retries. `questions_max`: maximum number of questions on the wire; each
    has a socket. `answers_max`: maximum number of cached answers. None: the stub's default. `idna2003`: see `to_ascii`.
    """

    def __init__(
        self,
        nameservers: Sequence[str] | None = None,
        port: int = 53,
        *,
        clock: Callable[[], float] | None = None,
        timeout_s: float | None = None,
        questions_max: int | None = None,
        answers_max: int | None = None,
        idna2003: bool = False,
    ) -> None:
        self._stub = Stub(
            resolv_conf=RESOLV_CONF if nameservers is None else None,
            nameservers=None if nameservers is None else list(nameservers),
            port=port,
            timeout_s=timeout_s,
            questions_max=questions_max,
            answers_max=answers_max,
        )
        self._clock = clock
        self._idna2003 = idna2003
        self._waiting: dict[int, list[Waiting]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop that watches the stub, as long as callers wait."""
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    async def mx(self, name: str) -> Answer[Mx]:
        """Return the MX records of a domain."""
        return await self.lookup(name, "MX")

    async def name_of(self, address: str) -> Answer[str]:
        """Return the host names in the PTR records of an IP address. Nothing proves that they belong to it."""
        ip = ipaddress.ip_address(address.partition("%")[0])
        mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
        return await self.lookup((mapped or ip).reverse_pointer, "PTR")

    async def addresses(
        self, name: str, families: Sequence[socket.AddressFamily], search: Search = NO_SEARCH
    ) -> Answer[str]:
        """Return the addresses of a host, in the order of `families`.

        The addresses of one family are enough. Without any, a `Failed` of one family is the answer, or else the answer
        for the last family.
        """
        kinds: list[Kind] = ["A" if family == socket.AF_INET else "AAAA" for family in families]
        # All questions are on the wire before the first answer is waited for.
        begun = [self._begin(name, kind, search) for kind in kinds]
        answers = [await one if isinstance(one, asyncio.Future) else one for one in begun]
        if len(answers) == 1:
            return answers[0]
        found = [answer for answer in answers if isinstance(answer, Records)]
        if found:
            return Records(
                tuple(address for answer in found for address in answer.list),
                min(answer.ttl for answer in found),
                all(answer.secure for answer in found),
            )
        reasons: list[NoRecords] = [answer for answer in answers if not isinstance(answer, Records)]
        return next((reason for reason in reasons if isinstance(reason, Failed)), reasons[-1])

    async def lookup(self, name: str, kind: Kind) -> Answer[Any]:
        """Return the records of a name.

        A record is a `str` (A, AAAA, PTR, CNAME), `bytes` (TXT, its strings in one), `Mx`, `Srv` or `Tlsa`.
        """
        begun = self._begin(name, kind)
        return await begun if isinstance(begun, asyncio.Future) else begun

    def _begin(self, name: str, kind: Kind, search: Search = NO_SEARCH) -> asyncio.Future[Answer[Any]] | Answer[Any]:
        """Return the answer, or a future for it."""
        if not name.isascii():
            try:
                name = to_ascii(name, idna2003=self._idna2003)
            except BadDomain:
                return BadName(name)
        loop = asyncio.get_running_loop()
        if name.endswith("."):
            search = NO_SEARCH
        name = name.lower().rstrip(".")
        asked = self._stub.ask(name, kind, self._now(loop), defnames=search.defnames, dnsrch=search.dnsrch)
        if not isinstance(asked, int):
            return _value(name, kind, asked)
        if self._loop is not loop:
            self._watch(loop)
        future: asyncio.Future[Answer[Any]] = loop.create_future()
        self._waiting.setdefault(asked, []).append((future, name, kind))
        self._set_timer(loop)
        return future

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        # Callers in a loop that has ended wait no more.
        self._waiting.clear()
        self._timer = None
        loop.add_reader(self._stub.fileno(), self._poll)
        self._loop = loop

    def _poll(self) -> None:
        """Give the callers the answers of finished questions."""
        loop = self._loop
        if loop is None:
            return
        for number, answer in self._stub.poll(self._now(loop)):
            for future, name, kind in self._waiting.pop(number, ()):
                # A cancelled caller takes the answer away from nobody.
                if not future.done():
                    future.set_result(_value(name, kind, answer))
        if self._waiting:
            self._set_timer(loop)
            return
        loop.remove_reader(self._stub.fileno())
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        due = self._stub.next_timeout()
        if due is None or (self._timer is not None and self._due <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = loop.call_later(max(0.0, due - self._now(loop)), self._timeout)

    def _timeout(self) -> None:
        self._timer = None
        self._poll()

    def _now(self, loop: asyncio.AbstractEventLoop) -> float:
        return self._clock() if self._clock is not None else loop.time()


def _value(name: str, kind: Kind, answer: CoreAnswer) -> Answer[Any]:
    if answer[0] == "records":
        make = VALUES.get(kind)
        return Records(answer[1] if make is None else tuple(map(make, answer[1])), answer[2], answer[3])
    if answer[0] == "no data":
        return NoData(name, kind, answer[2])
    if answer[0] == "no name":
        return NoName(name, kind, answer[2])
    if answer[0] == "bad name":
        return BadName(name)
    return Failed(name, kind, answer[1])
