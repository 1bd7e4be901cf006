"""A name server with a script: it answers each query as a test says, also wrong, twice, late, or never."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from support.ports import free_port


@dataclass
class Query:
    """A query, and how it came."""

    message: dns.message.Message
    tcp: bool
    server: str
    """The address that was asked."""
    client: Any
    """The address and port of the resolver's socket; None over TCP."""

    @property
    def name(self) -> str:
        """The name of the question, in lower case, without the final dot."""
        return self.message.question[0].name.to_text(omit_final_dot=True).lower()

    def answer(self, *records: str, code: dns.rcode.Rcode = dns.rcode.NOERROR, ttl: int = 300) -> dns.message.Message:
        """Return a response with records: `name kind data`, or `kind data` of the name of the question."""
        response = dns.message.make_response(self.message)
        response.flags |= dns.flags.RA
        response.set_rcode(code)
        for record in records:
            words = record.split(" ", 2) if "." in record.split()[0] else [f"{self.name}.", *record.split(" ", 1)]
            response.answer.append(dns.rrset.from_text(words[0], ttl, "IN", words[1], words[2]))
        return response


Response = dns.message.Message | bytes
Script = Callable[[Query], Sequence[Response]]
"""Returns the responses to a query, none or several."""


@dataclass
class NameServers:
    """Servers with one script at several addresses of this machine and one port, over UDP and TCP."""

    script: Script
    port: int
    queries: list[Query] = field(default_factory=list)

    @property
    def asked(self) -> list[tuple[str, str]]:
        """The address and the protocol of each query."""
        return [(query.server, "tcp" if query.tcp else "udp") for query in self.queries]

    def responses(self, octets: bytes, server: str, client: Any) -> list[bytes]:
        """Return the octets of the responses to a query."""
        query = Query(dns.message.from_wire(octets), client is None, server, client)
        self.queries.append(query)
        return [
            response if isinstance(response, bytes) else response.to_wire(max_size=65535)
            for response in self.script(query)
        ]


class Udp(asyncio.DatagramProtocol):
    """The socket of a server."""

    transport: asyncio.DatagramTransport

    def __init__(self, servers: NameServers, address: str) -> None:
        self._servers = servers
        self._address = address

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        for response in self._servers.responses(data, self._address, addr):
            self.transport.sendto(response, addr)


@contextlib.asynccontextmanager
async def name_servers(script: Script, *addresses: str) -> AsyncIterator[NameServers]:
    """Run servers at these addresses; 127.0.0.1 without any."""
    servers = NameServers(script, free_port())
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        for address in addresses or ("127.0.0.1",):
            at = (address, servers.port)
            transport, _ = await loop.create_datagram_endpoint(lambda a=address: Udp(servers, a), local_addr=at)  # type: ignore[misc]
            stack.callback(transport.close)

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str = address) -> None:
                with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    octets = await reader.readexactly(length)
                    for response in servers.responses(octets, address, None):
                        writer.write(struct.pack("!H", len(response)) + response)
                    await writer.drain()
                writer.close()

            listener = await asyncio.start_server(serve, *at)
            stack.callback(listener.close)
        yield servers
