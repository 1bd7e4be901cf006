"""Names to addresses: DNS with a cache of its own, and the system's resolver (`smtp_host_lookup = native`).

Answers are kept for as long as their TTL says, within bounds; that a name or record does not exist, too (RFC 2308);
failures are not. Programs that ask for the same thing at the same time wait for the same answer.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.rdatatype
import dns.resolver

CACHE_MAX_ANSWERS = 10_000
TTL_LEAST_S = 1.0
TTL_MOST_S = 3600.0
NEGATIVE_TTL_MOST_S = 900.0
NEGATIVE_TTL_UNSAID_S = 60.0
"""For an answer that something does not exist, without the SOA record that says for how long."""
LOOKUP_MAX_S = 30.0
"""How long a question may take, all name servers and retries included."""
NATIVE_MAX_S = 30.0
RECORDS_MAX = 100
"""How many records of an answer are looked at."""


class LookupFailed(Exception):
    """A question without an answer. `soft`: worth asking again; `absent`: the name has no such record.

    The text is as Postfix logs it.
    """

    def __init__(self, text: str, *, soft: bool, absent: bool = False, invalid: bool = False) -> None:
        super().__init__(text)
        self.soft = soft
        self.absent = absent
        self.invalid = invalid


class Mx(NamedTuple):
    """An MX record; `host` is empty for the root (a null MX, RFC 7505)."""

    preference: int
    host: str


class _Answer(NamedTuple):
    expires: float
    records: list[str] | LookupFailed


class Resolver:
    """Asks the name servers of /etc/resolv.conf, or those given.

    `clock`: seconds, monotonic.
    """

    def __init__(
        self,
        nameservers: Sequence[str] | None = None,
        port: int = 53,
        *,
        clock: Callable[[], float] | None = None,
        lookup_max_s: float = LOOKUP_MAX_S,
    ) -> None:
        self._nameservers = nameservers
        self._port = port
        self._clock = clock
        self._lookup_max_s = lookup_max_s
        self._asker: dns.asyncresolver.Resolver | None = None
        self._answers: OrderedDict[tuple[str, str], _Answer] = OrderedDict()
        self._asking: dict[tuple[str, str], asyncio.Task[list[str]]] = {}

    async def mx(self, name: str) -> list[Mx]:
        """Return the MX records of a domain. Raises `LookupFailed`."""
        pairs = (record.split(" ", 1) for record in await self.lookup(name, "MX"))
        return [Mx(int(preference), host) for preference, host in pairs]

    async def addresses(self, name: str, families: Sequence[socket.AddressFamily]) -> list[str]:
        """Return the addresses of a host, those of the first family first. Raises `LookupFailed`."""
        found: list[str] = []
        failure: LookupFailed | None = None
        kinds = ["A" if family == socket.AF_INET else "AAAA" for family in families]
        for answer in await asyncio.gather(*(self.lookup(name, kind) for kind in kinds), return_exceptions=True):
            if isinstance(answer, LookupFailed):
                if failure is None or not failure.soft:
                    failure = answer
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found.extend(answer)
        if not found and failure is not None:
            raise failure
        return found

    async def native(self, name: str, families: Sequence[socket.AddressFamily]) -> list[str]:
        """Return the addresses of a host as the system resolves it, /etc/hosts included. Raises `LookupFailed`."""
        loop = asyncio.get_running_loop()
        try:
            asking = loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            found = await asyncio.wait_for(asking, NATIVE_MAX_S)
        except TimeoutError:
            raise LookupFailed(f"unable to look up host {name}: timed out", soft=True) from None
        except (OSError, UnicodeError) as error:
            soft = isinstance(error, socket.gaierror) and error.errno in (socket.EAI_AGAIN, socket.EAI_MEMORY)
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise LookupFailed(f"unable to look up host {name}: {reason}", soft=soft, absent=not soft) from None
        return [str(sockaddr[0]) for family, _, _, _, sockaddr in found if family in families]

    async def lookup(self, name: str, kind: str) -> list[str]:
        """Return the records of one kind, an A or AAAA record as its address, an MX record as `preference host`.

        Raises `LookupFailed`. At most `RECORDS_MAX` records.
        """
        key = (name.lower().rstrip("."), kind)
        now = self._now()
        answer = self._answers.get(key)
        if answer is not None and answer.expires > now:
            self._answers.move_to_end(key)
            if isinstance(answer.records, LookupFailed):
                raise answer.records.with_traceback(None)
            return answer.records
        asking = self._asking.get(key)
        if asking is None:
            asking = self._asking[key] = asyncio.create_task(self._ask(key))
            asking.add_done_callback(lambda done: self._answered(key, done))
        # Who is cancelled must not take the answer away from the others.
        return await asyncio.shield(asking)

    def _answered(self, key: tuple[str, str], done: asyncio.Task[list[str]]) -> None:
        del self._asking[key]
        if not done.cancelled():
            done.exception()  # Seen, even when everyone who waited is gone.

    async def _ask(self, key: tuple[str, str]) -> list[str]:
        name, kind = key
        try:
            qname = dns.name.from_text(name)
        except (dns.exception.DNSException, UnicodeError):
            text = f"Name service error for {name}: invalid host or domain name"
            raise LookupFailed(text, soft=False, invalid=True) from None
        what = f"Host or domain name not found. Name service error for name={name} type={kind}"
        if self._asker is None:
            self._asker = self._configured()
        try:
            answer = await self._asker.resolve(qname, kind, search=False, lifetime=self._lookup_max_s)
        except dns.resolver.NXDOMAIN as error:
            absent = LookupFailed(f"{what}: Host not found", soft=False, absent=True)
            response = error.response(qname)  # type: ignore[no-untyped-call]
            self._keep(key, _negative_ttl_s(response), absent)
            raise absent from None
        except dns.resolver.NoAnswer as error:
            text = f"{what}: Host found but no data record of requested type"
            absent = LookupFailed(text, soft=False, absent=True)
            response = error.response()  # type: ignore[no-untyped-call]
            self._keep(key, _negative_ttl_s(response), absent)
            raise absent from None
        except (dns.exception.DNSException, OSError):
            # Timeouts, SERVFAIL, REFUSED, answers that cannot be read: as a resolver library's "try again".
            raise LookupFailed(f"{what}: Host not found, try again", soft=True) from None
        records = [_text(record) for record in list(answer.rrset or ())[:RECORDS_MAX]]
        self._keep(key, min(max(float(answer.rrset.ttl if answer.rrset else 0), TTL_LEAST_S), TTL_MOST_S), records)
        return records

    def _keep(self, key: tuple[str, str], ttl_s: float, records: list[str] | LookupFailed) -> None:
        self._answers[key] = _Answer(self._now() + ttl_s, records)
        self._answers.move_to_end(key)
        while len(self._answers) > CACHE_MAX_ANSWERS:
            self._answers.popitem(last=False)

    def _configured(self) -> dns.asyncresolver.Resolver:
        if self._nameservers is None:
            try:
                return dns.asyncresolver.Resolver()
            except dns.resolver.NoResolverConfiguration:
                # As resolv.conf(5): without it, the name server of this machine is asked.
                asker = dns.asyncresolver.Resolver(configure=False)
                asker.nameservers = ["127.0.0.1"]
                return asker
        asker = dns.asyncresolver.Resolver(configure=False)
        asker.nameservers = list(self._nameservers)
        asker.port = self._port
        return asker

    def _now(self) -> float:
        return self._clock() if self._clock is not None else asyncio.get_running_loop().time()


def _text(record: object) -> str:
    exchange = getattr(record, "exchange", None)
    if exchange is not None:
        return f"{record.preference} {exchange.to_text(omit_final_dot=True).removesuffix('.')}"  # type: ignore[attr-defined]
    return str(record)


def _negative_ttl_s(response: dns.message.Message) -> float:
    """The TTL of an answer that something does not exist: the lesser of the SOA's TTL and its minimum (RFC 2308 §5)."""
    for rrset in response.authority:
        if rrset.rdtype == dns.rdatatype.SOA and rrset:
            return float(min(rrset.ttl, rrset[0].minimum, NEGATIVE_TTL_MOST_S))
    return NEGATIVE_TTL_UNSAID_S
