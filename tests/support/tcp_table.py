"""A server of a tcp: table (tcp_table(5)), for tests with either program."""

import socketserver

from support.threaded import Threaded, ThreadedServer


class _Handler(socketserver.StreamRequestHandler):
    """One connection: a reply for each request."""

    server: "_Server"

    def handle(self) -> None:
        """Reply until the client leaves."""
        for line in self.rfile:
            key = line.decode().strip().removeprefix("get ")
            self.server.keys.append(key)
            value = self.server.rows.get(key)
            reply = "500 no such key" if value is None else f"200 {value}" if value else "400 the table is down"
            self.wfile.write(f"{reply}\n".encode())


class _Server(ThreadedServer):
    def __init__(self, port: int, rows: dict[str, str]) -> None:
        super().__init__(port, _Handler)
        self.rows = rows
        self.keys: list[str] = []


class TcpTable(Threaded[_Server]):
    """Answers on 127.0.0.1:port during its `with` block. An empty value in `rows` is a failure."""

    def __init__(self, port: int, rows: dict[str, str]) -> None:
        super().__init__(_Server(port, rows))

    @property
    def keys(self) -> list[str]:
        """The keys of all lookups so far."""
        return self._server.keys
