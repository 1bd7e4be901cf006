"""The resolver of dnspython with the answers of ours: the second implementation that ours is compared with."""

from __future__ import annotations

from typing import Any, Final

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import dns.resolver

from postillion.dns import Answer, BadName, Failed, Mx, NoData, NoName, Records, Srv, Tlsa
from postillion.dns.answer import Kind

RECORDS_MAX: Final = 100
NEGATIVE_TTL_DEFAULT_S: Final = 60.0


class Dnspython:
    """Asks the name server on this machine at a port, without a cache."""

    def __init__(self, port: int, timeout_s: float = 5.0) -> None:
        self._timeout_s = timeout_s
        self._resolver = dns.asyncresolver.Resolver(configure=False)
        self._resolver.nameservers = ["127.0.0.1"]
        self._resolver.port = port
        self._resolver.flags = dns.flags.RD | dns.flags.AD

    async def lookup(self, name: str, kind: Kind) -> Answer[Any]:
        """Return the answer to one question."""
        try:
            qname = dns.name.from_text(name)
        except (dns.exception.DNSException, UnicodeError):
            return BadName(name)
        name = name.lower().rstrip(".")
        try:
            answer = await self._resolver.resolve(qname, kind, search=False, lifetime=self._timeout_s)
        except dns.resolver.NXDOMAIN as error:
            return NoName(name, kind, _negative_ttl_s(error.response(qname)))  # type: ignore[no-untyped-call]
        except dns.resolver.NoAnswer as error:
            return NoData(name, kind, _negative_ttl_s(error.response()))  # type: ignore[no-untyped-call]
        except (dns.exception.DNSException, OSError) as error:
            return Failed(name, kind, str(error))
        rrset = answer.rrset
        assert rrset is not None
        records = tuple(_value(record) for record in list(rrset)[:RECORDS_MAX])
        return Records(records, float(rrset.ttl), bool(answer.response.flags & dns.flags.AD))


def _value(record: Any) -> Any:
    match record.rdtype:
        case dns.rdatatype.MX:
            return Mx(record.preference, _host(record.exchange))
        case dns.rdatatype.PTR | dns.rdatatype.CNAME:
            return _host(record.target)
        case dns.rdatatype.TXT:
            return b"".join(record.strings)
        case dns.rdatatype.TLSA:
            return Tlsa(record.usage, record.selector, record.mtype, record.cert)
        case dns.rdatatype.SRV:
            return Srv(record.priority, record.weight, record.port, _host(record.target))
        case _:
            return str(record.address)


def _host(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).removesuffix(".")


def _negative_ttl_s(response: dns.message.Message) -> float:
    for rrset in response.authority:
        if rrset.rdtype == dns.rdatatype.SOA and rrset:
            return float(min(rrset.ttl, rrset[0].minimum))
    return NEGATIVE_TTL_DEFAULT_S
