"""The syntax of next hops (transport(5), postconf(5) relayhost).

`example.org` means the hosts in its MX records, `[mx.example.org]` that host; `:port` or `:service` may follow. The
next hops of a list, separated by commas or blanks, are tried in order. LMTP also has `unix:/path` and
`inet:host:port`.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import NamedTuple

DESTINATIONS_MAX = 100
"""Maximum number of next hops of a list that are used."""
HOST_MAX_CHARS = 255
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?![0-9.]*\Z){_LABEL}(?:\.{_LABEL})*\.?")
"""A host name, which is not a number."""
_SERVICES = {"smtp": 25, "lmtp": 24, "submission": 587, "submissions": 465, "smtps": 465}


class BadNextHop(ValueError):
    """An invalid next hop; the text gives the reason."""


class NextHop(NamedTuple):
    """One next hop. `text`: as written. `mx`: look up its MX records.

    `address`: the IP address, when the next hop is one. `path`: a socket in the file system; then `host` is empty.
    """

    text: str
    host: str
    port: int
    mx: bool
    address: str | None = None
    path: str = ""


def parse_list(nexthop: str, default_port: int, *, lmtp: bool = False) -> list[NextHop]:
    """Return the next hops of a list, in order. Raises `BadNextHop`."""
    if lmtp and nexthop.startswith("unix:"):
        return [parse(nexthop, default_port, lmtp=True)]
    words = nexthop.replace(",", " ").split()
    if not words:
        raise BadNextHop("null destination")
    return [parse(word, default_port, lmtp=lmtp) for word in words[:DESTINATIONS_MAX]]


def parse(text: str, default_port: int, *, lmtp: bool = False) -> NextHop:
    """Return one next hop. Raises `BadNextHop`."""
    written = text
    if lmtp:
        if text.startswith("unix:"):
            return NextHop(written, "", 0, False, path=text.removeprefix("unix:"))
        text = text.removeprefix("inet:")
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise BadNextHop(f'missing "]", or text after it, in server description: {text}')
        port = rest[1:]
        mx = False
    else:
        host, _, port = text.partition(":")
        mx = not lmtp
    if not host:
        raise BadNextHop(f"missing host name in server description: {text}")
    address = _literal(host)
    if address is None and not _may_be_host(host):
        raise BadNextHop(f"valid hostname or network address required in server description: {text}")
    return NextHop(written, host, port_number(port, default_port), mx and address is None, address)


def _literal(host: str) -> str | None:
    # An IPv4 address ends in a digit, an IPv6 address has a colon. The exception for other names is slow.
    # One with a scope is valid on a single machine.
    if "%" in host or (not host[-1:].isdigit() and ":" not in host):
        return None
    try:
        return str(ipaddress.ip_address(host.removeprefix("IPv6:").removeprefix("ipv6:")))
    except ValueError:
        return None


def _may_be_host(name: str) -> bool:
    """Return whether DNS can have a name: an error of the site must not bounce its mail like an unknown domain."""
    if not name.isascii():
        return True
    return len(name) <= HOST_MAX_CHARS and _HOST.fullmatch(name) is not None


def is_host_name(name: str) -> bool:
    """Return whether a name in ASCII is a host name without a dot at its end, and not a number."""
    return bool(name) and name.isascii() and not name.endswith(".") and _may_be_host(name)


def port_number(text: str, default: int) -> int:
    """Return the port of a number or a service name; `default` for empty text. Raises `BadNextHop`."""
    if not text:
        return default
    if text.isascii() and text.isdigit():
        number = int(text) if len(text) < 6 else 0
        if not 0 < number < 65536:
            raise BadNextHop(f"bad network port: {text}")
        return number
    try:
        return _SERVICES.get(text) or socket.getservbyname(text, "tcp")
    except OSError:
        raise BadNextHop(f"unknown service: {text}/tcp") from None
