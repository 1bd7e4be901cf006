"""Hostile clients, and checks that the server stays healthy.

`RawClient` is a connection on which the test chooses every byte. `Watch` knows the server's smtpd processes: after each
client they must be the same ones, not much larger, and serve an honest client.
"""

import contextlib
import errno
import itertools
import re
import smtplib
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from postillion.master import programs
from support.mta import Site, local_user, processes, running, wait_for

REPLY_MAX_S = 20.0
GROWTH_MAX_KIB = 8 * 1024
"""Maximum growth of a process during all tests of a module: less than any one of the large inputs."""
LARGE_OCTETS = 10_000_000
HEAD_OCTETS = 4096
"""A message's marker is in the first octets."""
REPLY_LINE = re.compile(rb"([2-5][0-9][0-9])([ -])(.*)\r\n")


@dataclass
class Reply:
    """A reply: its code, and its text with lines joined by LF."""

    code: int
    text: str


class RawClient:
    """A connection to the server; `greeting=False` leaves the banner unread."""

    def __init__(self, port: int, *, source: str = "127.0.0.1", greeting: bool = True) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), REPLY_MAX_S, (source, 0))
        self.file = self.socket.makefile("rb")
        self.name = f"[{source}]:{self.socket.getsockname()[1]}"
        """The client's name in the log, with `smtpd_client_port_logging = yes`."""
        if greeting:
            assert self.reply().code == 220

    def send(self, octets: bytes) -> None:
        """Send everything. A closed connection is no error here: the replies show it."""
        try:
            self.socket.sendall(octets)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def reply(self) -> Reply:
        """Return the next reply. Raises `EOFError` when the server has closed the connection."""
        lines = []
        while True:
            line = self.file.readline()
            if not line:
                raise EOFError
            found = REPLY_LINE.fullmatch(line)
            assert found, line
            lines.append(found[3].decode())
            if found[2] == b" ":
                return Reply(int(found[1]), "\n".join(lines))

    def ask(self, octets: bytes) -> Reply:
        """Send octets; return the next reply."""
        self.send(octets)
        return self.reply()

    def replies(self) -> list[Reply]:
        """Return every reply until the server closes or resets the connection."""
        found = []
        while True:
            try:
                found.append(self.reply())
            except (EOFError, ConnectionResetError):
                return found

    def end(self) -> list[Reply]:
        """Shut down the sending side; return every reply until the server closes."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
        return self.replies()

    def transaction(self, recipient: str) -> None:
        """Start a transaction, up to the 354."""
        dialogue = (b"EHLO client.example\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<%s>\r\n" % recipient.encode())
        for line in dialogue:
            assert self.ask(line).code == 250
        assert self.ask(b"DATA\r\n").code == 354

    def reset(self) -> None:
        """Reset the connection (RST), as a crashing machine does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Close both directions."""
        self.file.close()
        self.socket.close()

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass
class Watch:
    """The smtpd processes of a running site, and the acknowledged messages."""

    site: Site
    user: str
    pids: list[int] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    _size_kib: dict[int, int] = field(default_factory=dict)
    _markers: dict[Path, str] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def recipient(self) -> str:
        """The recipient of all mail."""
        return f"{self.user}@example.org"

    def marker(self) -> str:
        """Return a unique word for a message."""
        return f"marker-{next(self._numbers)}-end"

    def begin(self) -> None:
        """Record the processes and their sizes, after each has served honest clients."""

        def all_served() -> bool:
            self.serve()
            log = self.site.log_text()
            return all(log.count(f"smtpd[{pid}]: disconnect") >= 3 for pid in self.pids)

        count = programs.processes("smtpd", 0, programs.processors())
        wait_for("the processes of smtpd", lambda: len(processes(self.site, "smtpd")) == count)
        self.pids = sorted(processes(self.site, "smtpd"))
        wait_for("each process to serve clients", all_served)
        self._size_kib = {pid: high_water_kib(pid) for pid in self.pids}

    def serve(self) -> None:
        """Send a message as an honest client."""
        with smtplib.SMTP("127.0.0.1", self.site.port, "client.example", REPLY_MAX_S) as client:
            marker = self.marker()
            client.sendmail("", [self.recipient], f"From: a@example.net\r\nX-Marker: {marker}\r\n\r\nbody\r\n")
            self.acknowledged.append(marker)

    def check(self) -> None:
        """Check that no process died or grew, and that the next client is served."""
        assert sorted(processes(self.site, "smtpd")) == self.pids
        self.serve()
        growth = {pid: high_water_kib(pid) - size for pid, size in self._size_kib.items()}
        assert max(growth.values()) <= GROWTH_MAX_KIB, growth
        assert "Traceback" not in self.site.log_text()

    def found(self) -> dict[str, list[Path]]:
        """Return the delivered messages by their markers."""
        delivered: dict[str, list[Path]] = {}
        for path in self.site.maildir(self.user):
            if path not in self._markers:
                with path.open(errors="replace") as file:
                    marker = re.search(r"marker-\d+-end", file.read(HEAD_OCTETS))
                self._markers[path] = marker[0] if marker else ""
            delivered.setdefault(self._markers[path], []).append(path)
        return delivered

    def message(self, marker: str) -> bytes:
        """Wait for the delivery of a message; return it."""
        wait_for(f"the message {marker}", lambda: marker in self.found())
        (path,) = self.found()[marker]
        return path.read_bytes()

    def check_arrivals(self) -> None:
        """Wait until every acknowledged message has arrived."""

        def missing() -> list[str]:
            return sorted(set(self.acknowledged) - self.found().keys())

        wait_for("every acknowledged message", lambda: not missing())

    def logged(self, text: str) -> None:
        """Wait until the log contains `text`."""
        wait_for(f"{text!r} in the log", lambda: text in self.site.log_text())

    def logged_like(self, pattern: str) -> None:
        """Wait until the log matches `pattern`."""
        wait_for(f"{pattern!r} in the log", lambda: re.search(pattern, self.site.log_text()))


@contextlib.contextmanager
def watched(site: Site) -> Iterator[Watch]:
    """Run a site during the block. At its end, every acknowledged message must arrive."""
    with running(site):
        watch = Watch(site, local_user())
        watch.begin()
        yield watch
        watch.check_arrivals()


def high_water_kib(pid: int) -> int:
    """Return the peak resident memory of a process, in KiB."""
    found = re.search(r"^VmHWM:\s*(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1])
