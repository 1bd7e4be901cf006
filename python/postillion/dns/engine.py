"""The engine of the resolver: questions to name servers through dnspython.

dnspython imports its event loop and the types of records at their first use. mail_owner may not be able to read the
Python installation then, so this module loads all that answers need.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.resolver

from postillion.dns.answer import Answer, BadName, Failed, Kind, Mx, NoData, NoName, Records

RECORDS_MAX: Final = 100
"""Maximum number of records of an answer that are used."""
NEGATIVE_TTL_DEFAULT_S: Final = 60.0
"""Time to live of a negative answer without an SOA record."""
TYPES: Final = "A AAAA CNAME DNAME MX NS NSEC NSEC3 OPT PTR RRSIG SOA"
"""Types of records in the answers to our questions. A record of another type stays opaque."""

dns.asyncbackend.set_default_backend("asyncio")
for _type in TYPES.split():
    dns.rdata.get_rdata_class(dns.rdataclass.IN, dns.rdatatype.from_text(_type))  # type: ignore[no-untyped-call]


class Engine:
    """Asks the name servers in /etc/resolv.conf, or those in `nameservers`.

    `timeout_s`: timeout of a question, with all servers and retries.
    """

    def __init__(self, nameservers: Sequence[str] | None, port: int, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._resolver = _configured(nameservers, port)
        # RFC 6840 §5.7: the AD bit in a question asks for the AD bit in the answer.
        self._resolver.flags = dns.flags.RD | dns.flags.AD

    async def ask(self, name: str, kind: Kind) -> Answer[Any]:
        """Return the answer to one question; addresses and host names are `str`, MX records are `Mx`."""
        try:
            qname = dns.name.from_text(name)
        except (dns.exception.DNSException, UnicodeError):
            return BadName(name)
        try:
            answer = await self._resolver.resolve(qname, kind, search=False, lifetime=self._timeout_s)
        except dns.resolver.NXDOMAIN as error:
            return NoName(name, kind, _negative_ttl_s(error.response(qname)))  # type: ignore[no-untyped-call]
        except dns.resolver.NoAnswer as error:
            return NoData(name, kind, _negative_ttl_s(error.response()))  # type: ignore[no-untyped-call]
        except (dns.exception.DNSException, OSError) as error:
            return Failed(name, kind, str(error))
        rrset = answer.rrset
        if rrset is None:
            return NoData(name, kind, _negative_ttl_s(answer.response))
        records = tuple(_value(record) for record in list(rrset)[:RECORDS_MAX])
        return Records(records, float(rrset.ttl), bool(answer.response.flags & dns.flags.AD))


def _configured(nameservers: Sequence[str] | None, port: int) -> dns.asyncresolver.Resolver:
    if nameservers is None:
        try:
            return dns.asyncresolver.Resolver()
        except dns.resolver.NoResolverConfiguration:
            # The default of resolv.conf(5) is the name server on this machine.
            nameservers = ["127.0.0.1"]
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = list(nameservers)
    resolver.port = port
    return resolver


def _value(record: Any) -> str | Mx:
    if record.rdtype == dns.rdatatype.MX:
        return Mx(record.preference, _host(record.exchange))
    if record.rdtype == dns.rdatatype.PTR:
        return _host(record.target)
    return str(record.address)


def _host(name: dns.name.Name) -> str:
    """Return a name without its final dot; the root becomes the empty string."""
    return name.to_text(omit_final_dot=True).removesuffix(".")


def _negative_ttl_s(response: dns.message.Message) -> float:
    """Return the time to live of a negative answer: the lesser of the SOA's TTL and its minimum (RFC 2308 §5)."""
    for rrset in response.authority:
        if rrset.rdtype == dns.rdatatype.SOA and rrset:
            return float(min(rrset.ttl, rrset[0].minimum))
    return NEGATIVE_TTL_DEFAULT_S
