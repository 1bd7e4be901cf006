"""A next hop (stock aiosmtpd) that keeps each message byte for byte."""

import threading
import time
from dataclasses import dataclass, field
from types import TracebackType

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session


@dataclass
class Received:
    """A message as received. `at`: its arrival time, in seconds since 1970."""

    mail_from: str
    rcpt_tos: list[str]
    content: bytes
    at: float = field(default_factory=time.time)


@dataclass
class Sink:
    """Listens on 127.0.0.1:port during its `with` block. `refuse` maps recipients to refusals."""

    port: int
    refuse: dict[str, str] = field(default_factory=dict)
    messages: list[Received] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, rcpt_options: list[str]
    ) -> str:
        """Reply with the recipient's refusal, if it has one."""
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Keep the message."""
        content = envelope.content
        assert isinstance(content, bytes)
        with self.arrived:
            self.messages.append(Received(envelope.mail_from or "", list(envelope.rcpt_tos), content))
            self.arrived.notify_all()
        return "250 2.0.0 Ok: kept"

    def wait(self, count: int, patience_s: float = 60.0) -> list[Received]:
        """Wait for `count` messages; return them. Raises `TimeoutError` after `patience_s`."""
        with self.arrived:
            if not self.arrived.wait_for(lambda: len(self.messages) >= count, patience_s):
                raise TimeoutError(f"{len(self.messages)} of {count} messages came in {patience_s} s")
            return list(self.messages)

    def __enter__(self) -> "Sink":
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port, server_hostname="sink.example")
        self._controller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._controller.stop()
