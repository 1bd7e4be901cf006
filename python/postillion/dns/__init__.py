"""DNS: one resolver for all programs, with a cache and limits; its answers are values.

answer     records, or the reason why there are none
resolver   the stub resolver of the core, for the event loop
"""

from postillion.config.domain import BadDomain, to_ascii
from postillion.dns.answer import Answer, BadName, Failed, Mx, NoData, NoName, NoRecords, Records, Srv, Tlsa
from postillion.dns.resolver import Resolver, Search

__all__ = [
    "Answer",
    "BadDomain",
    "BadName",
    "Failed",
    "Mx",
    "NoData",
    "NoName",
    "NoRecords",
    "Records",
    "Resolver",
    "Search",
    "Srv",
    "Tlsa",
    "to_ascii",
]
