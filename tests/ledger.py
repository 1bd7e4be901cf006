"""The ledger: what was acknowledged, and whether it arrived.

Clients send messages that each carry a number of their own and note the number after its 250 (or sendmail's exit status
0), outside the queue. When all faults are over, every noted number must have arrived somewhere: at the next hop, in a
Maildir, or as a non-delivery report to its sender. A number that was never noted may arrive or not: its client got no
250 and would have sent it again.
"""

import collections
import contextlib
import re
import smtplib
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

RETRY_PAUSE_S = 0.05
CLIENT_TIMEOUT_S = 20.0
NUMBER = re.compile(rb"^X-Number: (\d+)\r?$", re.MULTILINE)


@dataclass
class Ledger:
    """Sends from several threads while its `load` block lasts, and remembers what was acknowledged."""

    port: int
    sendmail: list[str]
    acknowledged: set[int] = field(default_factory=set)
    _next: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ending: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def load(self, routes: Iterable[tuple[str, str]], *, local: tuple[str, str]) -> Iterator[None]:
        """Send while the block lasts: by SMTP, one client for each (sender, recipient), and `local` by sendmail."""
        threads = [threading.Thread(target=self._by_smtp, args=route) for route in routes]
        threads.append(threading.Thread(target=self._by_sendmail, args=local))
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
            self._next += 1
            return self._next

    def _note(self, number: int) -> None:
        with self._lock:
            self.acknowledged.add(number)

    def _by_smtp(self, sender: str, recipient: str) -> None:
        while not self._ending.is_set():
            # Killed under us, or not up again yet: the next connection tells.
            with (
                contextlib.suppress(OSError, smtplib.SMTPException),
                smtplib.SMTP("127.0.0.1", self.port, "client.example.net", CLIENT_TIMEOUT_S) as client,
            ):
                while not self._ending.is_set():
                    number = self._number()
                    client.sendmail(sender, [recipient], message(number, "\r\n"))
                    self._note(number)
            self._ending.wait(RETRY_PAUSE_S)

    def _by_sendmail(self, sender: str, recipient: str) -> None:
        while not self._ending.is_set():
            number = self._number()
            command = [*self.sendmail, "-i", "-f", sender, recipient]
            done = subprocess.run(command, input=message(number, "\n").encode(), capture_output=True, timeout=60)
            if done.returncode == 0:
                self._note(number)

    def missing(self, arrived: Callable[[], Iterable[bytes]]) -> tuple[set[int], int]:
        """Return the acknowledged numbers that are in no message of `arrived`, and how many messages came twice."""
        counts: collections.Counter[int] = collections.Counter()
        for content in arrived():
            found = NUMBER.search(content)
            assert found, content
            counts[int(found.group(1))] += 1
        return self.acknowledged - counts.keys(), sum(counts.values()) - len(counts)


def message(number: int, eol: str) -> str:
    """Return a message that carries its number in the header."""
    return eol.join(["From: a@example.net", f"X-Number: {number}", "Subject: ledger", "", f"body of {number}", ""])
