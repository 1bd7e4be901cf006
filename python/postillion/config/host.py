"""The name and the addresses of this machine, for the defaults of parameters.

The sources are ioctl calls (netdevice(7)) and /proc/net/if_inet6. They are read on demand.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    # ipaddress and socket take 8 ms to import, and most programs never need them here.
    from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

SIOCGIFCONF = 0x8912
SIOCGIFNETMASK = 0x891B
IFREQ_OCTETS = 40
INTERFACES_MAX = 1024


def name() -> str:
    """Return the system's name (gethostname(2))."""
    return os.uname().nodename


def addresses() -> list[IPv4Interface | IPv6Interface]:
    """Return the addresses of all interfaces with their network's prefix length, IPv4 first."""
    return [*_ipv4(), *_ipv6()]


def resolve(text: str) -> list[str]:
    """Return the IP addresses of a host; an address stands for itself. Raises `OSError` for an unknown host."""
    import socket

    try:
        answers = socket.getaddrinfo(text, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(str(error)) from None
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def _ipv4() -> list[IPv4Interface]:
    import array
    import fcntl
    import ipaddress
    import socket
    import struct

    found: list[IPv4Interface] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        buffer = array.array("B", bytes(IFREQ_OCTETS * INTERFACES_MAX))
        start, octets = buffer.buffer_info()
        answer = fcntl.ioctl(asker, SIOCGIFCONF, struct.pack("iP", octets, start))
        used = struct.unpack("iP", answer)[0]
        for at in range(0, used, IFREQ_OCTETS):
            request = buffer[at : at + IFREQ_OCTETS].tobytes()
            try:
                mask = fcntl.ioctl(asker, SIOCGIFNETMASK, request)
            except OSError:
                mask = bytes(20) + b"\xff\xff\xff\xff"
            address = socket.inet_ntoa(request[20:24])
            found.append(ipaddress.IPv4Interface(f"{address}/{socket.inet_ntoa(mask[20:24])}"))
    return found


def _ipv6() -> list[IPv6Interface]:
    import ipaddress

    try:
        with open("/proc/net/if_inet6", encoding="ascii") as file:
            lines = file.readlines()[:INTERFACES_MAX]
    except OSError:
        return []
    found = []
    for line in lines:
        fields = line.split()
        packed, prefix = bytes.fromhex(fields[0]), int(fields[2], 16)
        found.append(ipaddress.IPv6Interface((packed, prefix)))
    return sorted(found, key=lambda interface: (not interface.ip.is_loopback, interface.ip))


def mynetworks(style: str, own: Sequence[IPv4Interface | IPv6Interface]) -> str:
    """Return the default of mynetworks for a `mynetworks_style`: host, subnet or class (postconf(5))."""
    import ipaddress

    words: list[str] = []
    for interface in own:
        network: IPv4Network | IPv6Network = interface.network
        if style == "host":
            network = ipaddress.ip_network(interface.ip)
        elif style == "class" and isinstance(interface, ipaddress.IPv4Interface):
            first = interface.ip.packed[0]
            prefix = 8 if first < 128 else 16 if first < 192 else 24 if first < 224 else 4
            network = ipaddress.IPv4Network((interface.ip, prefix), strict=False)
        word = str(network) if network.version == 4 else f"[{network.network_address}]/{network.prefixlen}"
        if word not in words:
            words.append(word)
    return " ".join(words)
