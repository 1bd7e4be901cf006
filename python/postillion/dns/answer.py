"""The answers of DNS: `Records`, or one of `NoData`, `NoName`, `BadName` and `Failed`.

Names of questions are in lower case, without the final dot. Host names in records have the case of the record, and no
final dot. Times to live are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar

Kind = Literal["A", "AAAA", "MX", "PTR", "TXT", "TLSA", "SRV", "CNAME"]
T = TypeVar("T")


class Mx(NamedTuple):
    """An MX record; `host` is empty for the root (a null MX, RFC 7505)."""

    preference: int
    host: str


class Srv(NamedTuple):
    """An SRV record (RFC 2782); `host` is empty for the root: there is no such service."""

    priority: int
    weight: int
    port: int
    host: str


class Tlsa(NamedTuple):
    """A TLSA record (RFC 6698 §2.1)."""

    usage: int
    selector: int
    matching: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Records(Generic[T]):
    """The records of a name, in the order of the answer.

    `ttl`: the remaining time to live, within the limits of the cache. `secure`: the name server validated the answer
    (the AD bit, RFC 4035 §3.2.3), which is worth as much as the connection to that server.
    """

    list: tuple[T, ...]
    ttl: float
    secure: bool


@dataclass(frozen=True, slots=True)
class NoData:
    """The name exists and has no record of this kind (RFC 2308 §2.2)."""

    name: str
    kind: Kind
    ttl: float


@dataclass(frozen=True, slots=True)
class NoName:
    """The name does not exist (NXDOMAIN, RFC 2308 §2.1)."""

    name: str
    kind: Kind
    ttl: float


@dataclass(frozen=True, slots=True)
class BadName:
    """The text is not a domain name; no server was asked."""

    name: str


@dataclass(frozen=True, slots=True)
class Failed:
    """No server gave a usable answer: a timeout, SERVFAIL, REFUSED. A later question may succeed."""

    name: str
    kind: Kind
    why: str


NoRecords = NoData | NoName | BadName | Failed
Answer = Records[T] | NoData | NoName | BadName | Failed
