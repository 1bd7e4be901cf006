"""The ledger of acknowledged messages, and the check that each one arrived.

Each message carries a unique number. After its 250 (or sendmail's exit status 0) the number goes into the ledger: a
file outside the queue, synced after each line. After all faults, every number in the ledger must have arrived, whole:
at the next hop, in a Maildir, or in a non-delivery report to its sender. A message without a reply may arrive or not. A
refused message (4xx, 5xx) must not arrive.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import smtplib
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from support.mta import wait_for
from support.sink import Sink

RETRY_PAUSE_S = 0.05
CLIENT_TIMEOUT_S = 20.0
SENDMAIL_TIMEOUT_S = 60.0
NUMBER = re.compile(rb"^X-Number: (\d+)$", re.MULTILINE)
QUEUED_AS = re.compile(rb"queued as (\S+)")
BOUNDARY = re.compile(rb'boundary="([^"]+)"')
SMALL_MAX_OCTETS = 8 * 1024
MIDDLE_OCTETS = 400 * 1024
"""Two such messages fit in a segment, and the journal writes zeros ahead."""
MIDDLE_ONE_IN = 20
LARGE_OCTETS = 1200 * 1024
"""Too large to share a segment with other messages."""
LARGE_ONE_IN = 100


class Route(NamedTuple):
    """The transaction that one client repeats, at most once in `pace_s`.

    `a_session`: the number of transactions in a session; 0: all in one.
    """

    sender: str
    recipients: Sequence[str]
    pace_s: float = 0.0
    a_session: int = 0


@dataclass
class Ledger:
    """Sends from several threads during its `load` block, and records the replies.

    `path`: the ledger's file. `acknowledged`: queue IDs by number; empty for a message from sendmail.
    """

    port: int
    sendmail: list[str]
    path: Path
    acknowledged: dict[int, str] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    """Time of each acknowledgement (seconds since 1970)."""
    refused: set[int] = field(default_factory=set)
    """Numbers of the messages with a 4xx or 5xx reply."""
    broken: list[str] = field(default_factory=list)
    """Errors that ended a session or kept it from its start."""
    begun: int = 0
    """Number of messages begun. Their numbers are 1 to `begun`."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ending: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def load(self, routes: Sequence[Route], *, local: Sequence[Route] = ()) -> Iterator[None]:
        """Send during the block: `routes` by SMTP, one client each, and `local` by sendmail."""
        self._ending.clear()
        threads = [threading.Thread(target=self._by_smtp, args=(route,)) for route in routes]
        threads += [threading.Thread(target=self._by_sendmail, args=(route,)) for route in local]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ending.set()
            for thread in threads:
                thread.join()

    def _number(self) -> int:
        with self._lock:
            self.begun += 1
            return self.begun

    def _note(self, number: int, queue_id: str) -> None:
        with self._lock:
            with self.path.open("ab", buffering=0) as file:
                file.write(f"{number} {digest(body(number))} {queue_id}\n".encode())
                os.fsync(file.fileno())
            self.acknowledged[number] = queue_id
            self.times.append(time.time())

    def _by_smtp(self, route: Route) -> None:
        while not self._ending.is_set():
            # The server may be dead or not up again yet: the next connection shows it.
            try:
                self._session(route)
            except (OSError, smtplib.SMTPException) as problem:
                self.broken.append(repr(problem))
                self._ending.wait(RETRY_PAUSE_S)

    def _session(self, route: Route) -> None:
        with smtplib.SMTP("127.0.0.1", self.port, "client.example.net", CLIENT_TIMEOUT_S) as client:
            client.ehlo_or_helo_if_needed()
            sent = 0
            while not self._ending.is_set() and (not route.a_session or sent < route.a_session):
                self._transaction(client, route)
                sent += 1
                self._ending.wait(route.pace_s)

    def wait_for_more(self, count: int, patience_s: float) -> None:
        """Wait for `count` more acknowledged messages."""
        wanted = len(self.acknowledged) + count
        wait_for("mail to flow", lambda: len(self.acknowledged) >= wanted, patience_s)

    def send(self, route: Route) -> int:
        """Send one message by SMTP, successful or not; return its number."""
        with (
            contextlib.suppress(OSError, smtplib.SMTPException),
            smtplib.SMTP("127.0.0.1", self.port, "client.example.net", CLIENT_TIMEOUT_S) as client,
        ):
            client.ehlo_or_helo_if_needed()
            self._transaction(client, route)
        return self.begun

    def submit(self, route: Route) -> int:
        """Send one message by sendmail, successful or not; return its number."""
        number = self._number()
        command = [*self.sendmail, "-i", "-f", route.sender, *route.recipients]
        content = message(number, "\n").encode()
        done = subprocess.run(command, input=content, capture_output=True, timeout=SENDMAIL_TIMEOUT_S)
        if done.returncode == 0:
            self._note(number, "")
        return number

    def _transaction(self, client: smtplib.SMTP, route: Route) -> None:
        number = self._number()
        replies = [client.mail(route.sender), *(client.rcpt(to) for to in route.recipients)]
        if any(code >= 400 for code, _ in replies):
            self.refused.add(number)
            client.rset()
            return
        try:
            code, text = client.data(message(number, "\r\n"))
        except smtplib.SMTPDataError:
            self.refused.add(number)
            raise
        found = QUEUED_AS.search(text)
        if code == 250 and found:
            self._note(number, found[1].decode())
        else:
            self.refused.add(number)

    def _by_sendmail(self, route: Route) -> None:
        while not self._ending.is_set():
            self.submit(route)
            self._ending.wait(route.pace_s)


@dataclass
class Arrivals:
    """The messages that left a site: at the next hop, and in a Maildir. `poll` counts new ones.

    `wrong`: descriptions of messages that arrived changed.
    """

    sink: Sink
    maildir: Path
    copies: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    """Arrival time of each copy (seconds since 1970)."""
    _seen: set[str] = field(default_factory=set)
    _taken: int = 0

    def poll(self) -> None:
        """Count the messages that arrived since the last poll."""
        messages = self.sink.messages[self._taken :]
        self._taken += len(messages)
        for received in messages:
            self._count(received.content, received.at)
        new = set(os.listdir(self.maildir)) - self._seen if self.maildir.exists() else set()
        for name in sorted(new):
            path = self.maildir / name
            self._count(path.read_bytes(), path.stat().st_mtime)
        self._seen |= new

    def _count(self, content: bytes, at: float) -> None:
        content = content.replace(b"\r\n", b"\n")
        found = NUMBER.search(content)
        if found is None:
            self.wrong.append(f"no number in {content[:2000]!r}")
            return
        number = int(found[1])
        arrived = content[found.end() :].partition(b"\n\n")[2]
        boundary = BOUNDARY.search(content, 0, found.start())
        if boundary:
            arrived = arrived.partition(b"\n--" + boundary[1])[0]
        if digest(arrived.rstrip(b"\n")) != digest(body(number)):
            self.wrong.append(f"{number} arrived as {arrived[:200]!r}")
        self.copies[number] += 1
        self.times.append(at)

    def missing(self, ledger: Ledger) -> list[int]:
        """Return the acknowledged numbers that have not arrived."""
        self.poll()
        return sorted(ledger.acknowledged.keys() - self.copies.keys())

    def duplicates(self) -> int:
        """Return the number of copies beyond the first ones."""
        return self.copies.total() - len(self.copies)


def body(number: int) -> bytes:
    """Return the body of message `number`: lines of hexadecimal digits, with LF between them."""
    rng = random.Random(number)
    if number % LARGE_ONE_IN == 0:
        octets = LARGE_OCTETS
    else:
        octets = MIDDLE_OCTETS if number % MIDDLE_ONE_IN == 0 else rng.randrange(SMALL_MAX_OCTETS)
    digits = rng.randbytes(octets // 2).hex()
    return "\n".join(digits[at : at + 76] for at in range(0, len(digits), 76)).encode()


def digest(content: bytes) -> str:
    """Return the hash of a body, as the ledger stores it."""
    return hashlib.sha256(content).hexdigest()


def message(number: int, eol: str) -> str:
    """Return message `number`; its header carries the number."""
    head = [
        "From: a@example.net",
        "To: undisclosed:;",
        f"Message-ID: <{number}@client.example.net>",
        f"X-Number: {number}",
        "Subject: ledger",
    ]
    return eol.join([*head, "", *body(number).decode().split("\n"), ""])
