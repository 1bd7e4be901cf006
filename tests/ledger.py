"""The ledger: what was acknowledged, and whether it arrived.

Clients send messages that each carry a number of their own and note the number after its 250, outside the queue. When
all faults are over, every noted number must have arrived. A number that was never noted may arrive or not: its client
got no 250 and would have sent it again.
"""

import collections
import contextlib
import re
import smtplib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from sink import Received

RETRY_PAUSE_S = 0.05
CLIENT_TIMEOUT_S = 20.0


@dataclass
class Ledger:
    """Sends through `port` from several threads while its `load` block lasts."""

    port: int
    acknowledged: set[int] = field(default_factory=set)
    _next: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ending: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def load(self, clients: int) -> Iterator[None]:
        """Keep `clients` threads sending while the block lasts."""
        threads = [threading.Thread(target=self._send) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ending.set()
            for thread in threads:
                thread.join()

    def _send(self) -> None:
        while not self._ending.is_set():
            try:
                with smtplib.SMTP("127.0.0.1", self.port, "client.example.net", CLIENT_TIMEOUT_S) as client:
                    while not self._ending.is_set():
                        with self._lock:
                            self._next += 1
                            number = self._next
                        text = f"From: a@example.net\r\nX-Number: {number}\r\n\r\nbody of {number}\r\n"
                        client.sendmail("", ["x@next.example"], text)
                        with self._lock:
                            self.acknowledged.add(number)
            except (OSError, smtplib.SMTPException):
                # Killed under us, or not up again yet: the next connection tells.
                self._ending.wait(RETRY_PAUSE_S)

    def verdict(self, messages: list[Received]) -> tuple[set[int], int]:
        """Return the acknowledged numbers that are missing, and how many messages came more than once."""
        counts: collections.Counter[int] = collections.Counter()
        for message in messages:
            found = re.search(rb"^X-Number: (\d+)\r$", message.content, re.MULTILINE)
            assert found, message.content
            number = int(found.group(1))
            assert f"body of {number}\r\n".encode() in message.content
            counts[number] += 1
        return self.acknowledged - counts.keys(), sum(counts.values()) - len(counts)
