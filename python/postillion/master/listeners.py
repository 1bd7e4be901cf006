"""The sockets and fifos of services: their addresses, and how to bind them.

Descriptors stay above `FD_FLOOR`: a program inherits its own in the low numbers.
"""

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping

from postillion.config import Config, ConfigError
from postillion.config.master_cf import Entry

FD_FLOOR = 200
BACKLOG = 4096
"""Backlog of listen(2), above any burst of connections; net.core.somaxconn limits it."""
UNIX_MODE = 0o666
"""Mode of a socket; the modes of public/ and private/ control the access to it."""

EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104

Address = tuple[str, str, int]
"""Identity of a listener: (type, IP address or path relative to the queue directory, port or 0)."""


def addresses(entry: Entry, config: Config) -> list[Address]:
    """Return the addresses of a service; raises `ConfigError` for an invalid service name."""
    if entry.type != "inet":
        if not entry.service or "/" in entry.service or len(entry.service) > 90:
            raise entry.error(f'bad service name: "{entry.service}"', "give a short name without slashes")
        return [(entry.type, f"{'private' if entry.private else 'public'}/{entry.service}", 0)]
    host, port = _host_port(entry, config)
    found: list[Address] = []
    for address in _hosts(entry, config, host):
        if ("inet", address, port) not in found:
            found.append(("inet", address, port))
    if not found:
        raise entry.error(f'no address for "{entry.service}"', "give an address of a version in inet_protocols")
    return found


def _host_port(entry: Entry, config: Config) -> tuple[str, int]:
    host, _, port = entry.service.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    number = int(port) if port.isascii() and port.isdigit() else _port_by_name(port, config)
    if not 0 < number < 65536:
        fix = "give host:port or port, the port as a number or as a name of /etc/services"
        raise entry.error(f'bad service name: "{entry.service}"', fix)
    return host, number


def _port_by_name(name: str, config: Config) -> int:
    """Return the port of a service name from known_tcp_ports (`smtps=submissions=465`) or /etc/services; 0 for none."""
    for word in config.items("known_tcp_ports"):
        *names, port = word.split("=")
        if name in names and port.isdigit():
            return int(port)
    try:
        return socket.getservbyname(name, "tcp")
    except OSError:
        return 0


def _hosts(entry: Entry, config: Config, host: str) -> Iterator[str]:
    """Yield the IP addresses of a host name, or of inet_interfaces without a host name."""
    protocols = config.items("inet_protocols")
    families = [
        family
        for word, family in (("ipv4", socket.AF_INET), ("ipv6", socket.AF_INET6))
        if "all" in protocols or word in protocols
    ]
    if socket.AF_INET6 in families and not _has_ipv6():
        families.remove(socket.AF_INET6)
    names = [host] if host else config.items("inet_interfaces")
    for name in names:
        if name == "all":
            yield from ("0.0.0.0" if family == socket.AF_INET else "::" for family in families)  # noqa: S104
            continue
        if name == "loopback-only":
            yield from ("127.0.0.1" if family == socket.AF_INET else "::1" for family in families)
            continue
        try:
            answers = socket.getaddrinfo(name.strip("[]"), None, type=socket.SOCK_STREAM)
        except OSError:
            raise entry.error(f'bad hostname or network address: "{name}"', "give an address of this machine") from None
        yield from (str(answer[4][0]) for answer in answers if answer[0] in families)


def _has_ipv6() -> bool:
    return os.path.exists("/proc/net/if_inet6") or not os.path.exists("/proc/net")


def examine(entry: Entry, addresses: Iterable[Address]) -> None:
    """Raise `ConfigError` for an IP address that this machine lacks; the port may be in use, by this mail system."""
    for kind, place, port in addresses:
        if kind == "inet":
            try:
                with socket.socket(_family(place), socket.SOCK_STREAM) as probe:
                    probe.bind((place, 0))
            except OSError as error:
                raise refuse(entry, (kind, place, port), error) from None


def bind(address: Address, own: Mapping[Address, int]) -> int:
    """Bind an address and return its descriptor; paths are relative to the current directory. Raises `OSError`.

    `own`: the listeners of this master. A port may have one on all addresses and one on a single address, as in
    Postfix; a client gets the one with its address.
    """
    kind, place, port = address
    if kind == "inet":
        fd = _bind_inet(place, port, [fd for other, fd in own.items() if _overlap(address, other)])
    elif kind == "fifo":
        fd = _open_fifo(place)
    else:
        fd = _bind_unix(place, socket.SOCK_DGRAM if kind == "unix-dgram" else socket.SOCK_STREAM)
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FD_FLOOR)
    os.close(fd)
    os.set_blocking(high, False)
    return high


def release(address: Address, fd: int) -> None:
    """Stop listening: refuse the connections that wait for accept(2), and remove a socket's file."""
    os.close(fd)
    if address[0] != "inet":
        _unlink(address[1])


def why(address: Address, error: OSError) -> tuple[str, str]:
    """Return the problem and the fix for an address that cannot be bound."""
    kind, place, port = address
    where = f"{place} port {port}" if kind == "inet" else place
    fix = "make the queue directory writable"
    if error.errno == errno.EADDRINUSE:
        fix = "stop the program that listens there (ss -ltnp shows it), or change the port in this line"
    elif kind == "inet" and error.errno in (errno.EACCES, errno.EPERM):
        fix = "start as root, or use a port above 1023"
    elif kind == "inet":
        fix = "give an address of this machine"
    return f"bind {where}: {error.strerror}", fix


def refuse(entry: Entry, address: Address, error: OSError) -> ConfigError:
    """Return the error for a line of master.cf whose socket cannot be bound."""
    return entry.error(*why(address, error))


def _overlap(one: Address, other: Address) -> bool:
    """Return whether one of two listeners on a port is on all addresses, and the other on one of these."""
    places = {one[1], other[1]}
    same = one[0] == other[0] == "inet" and one[2] == other[2] and _family(one[1]) == _family(other[1])
    return same and len(places) == 2 and not places.isdisjoint(EVERY_ADDRESS)


def _bind_inet(address: str, port: int, beside: Collection[int]) -> int:
    """Return the descriptor of a listener. It shares the port with the listeners `beside`, never with a stranger."""
    family = _family(address)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if beside:
            for fd in (listener.fileno(), *beside):
                _share_port(fd)
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener.detach()


def _share_port(fd: int) -> None:
    with socket.socket(fileno=os.dup(fd)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _bind_unix(path: str, kind: socket.SocketKind) -> int:
    _unlink(path)
    listener = socket.socket(socket.AF_UNIX, kind)
    try:
        listener.bind(path)
        os.chmod(path, UNIX_MODE)
        if kind == socket.SOCK_STREAM:
            listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener.detach()


def _open_fifo(path: str) -> int:
    _unlink(path)
    os.mkfifo(path, 0o600)
    os.chmod(path, 0o622)  # noqa: S103 - any user may wake the service, as in Postfix
    # Open for reading and writing: then the last writer's close is not an end of file.
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def _unlink(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode)):
        raise FileExistsError(errno.EEXIST, "the name belongs to a file that is not a socket", path)
    os.unlink(path)
