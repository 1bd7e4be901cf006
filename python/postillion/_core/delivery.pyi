"""A delivery agent's side: its link to the queue manager, and the jobs that come over it."""

from typing import Literal, final

from postillion._core.log import Log

__all__ = ["AgentLink", "DeliveryJob", "JobRecipient", "JobStatus"]

@final
class AgentLink:
    """A delivery agent's end of its connection to the queue manager: frames in, jobs out.

    `delay_resolution_digits`: delay_logging_resolution_limit, 0..6. `soft_bounce`: what would bounce is deferred.
    """

    def __new__(
        cls,
        log: Log,
        queue_directory: str,
        *,
        long_queue_ids: bool = False,
        delay_resolution_digits: int = 6,
        soft_bounce: bool = False,
    ) -> AgentLink: ...
    def register(self, transport: str, pid: int, capacity: int) -> bytes:
        """The frame that opens a connection; what was left of the connection before is forgotten."""

    def receive(self, data: bytes) -> list[DeliveryJob]:
        """The jobs that are complete with these bytes. Raises `ConnectionError` when they are no frames of ours."""

    def close_idle_files(self, now: float) -> int:
        """Close segments that `SmtpClient` keeps open and has not read for two seconds; how many are open.

        `now`: seconds, the clock that the client is called with.
        """

@final
class DeliveryJob:
    """One message, one next hop, some of its recipients."""

    @property
    def job(self) -> int:
        """The number by which the queue manager knows it."""
    @property
    def kind(self) -> Literal["deliver", "bounce", "warn", "confirm"]: ...
    @property
    def queue_id(self) -> str:
        """In the form that enable_long_queue_ids asks for."""
    @property
    def sender(self) -> str:
        """The reverse path without angle brackets; empty for the null sender."""
    @property
    def transport(self) -> str: ...
    @property
    def nexthop(self) -> str: ...
    @property
    def size_octets(self) -> int:
        """As the log's `size=`: unstuffed, a line end counted as one."""
    @property
    def arrival(self) -> float:
        """Seconds since 1970."""
    @property
    def smtputf8(self) -> bool: ...
    @property
    def body(self) -> Literal["", "7BIT", "8BITMIME"]: ...
    @property
    def envid(self) -> str | None:
        """As received, in its xtext form."""
    @property
    def ret(self) -> Literal["", "FULL", "HDRS"]: ...
    @property
    def recipients(self) -> list[JobRecipient]:
        """All of the job, settled or not; a new list each time."""
    @property
    def left(self) -> int:
        """How many recipients have no status yet."""
    def content(self) -> bytes:
        """The message as it crosses the wire: CRLF, dots stuffed, no final dot. Raises `QueueError`."""

    def text(self, eol: bytes = ...) -> bytes:
        """The message for a mailbox: dots unstuffed, lines ending with `eol` (LF or CRLF). Raises `QueueError`."""

    def fail(self, dsn: str, text: str) -> None:
        """Settle every open recipient: no server was reached. A soft failure counts against the destination."""

    def fail_as_heard(self, dsn: str, text: str) -> None:
        """As `fail`, with what the last server said, if any said something that did not settle everybody."""

    def attribute(self, name: str) -> str | None:
        """A named fact of the envelope: client_name, client_address, helo_name, protocol_name, message_id ..."""

    def status(
        self,
        index: int,
        outcome: Literal["sent", "deferred", "bounced"],
        dsn: str,
        text: str,
        *,
        relay: str = "none",
        remote: str | None = None,
        setup_s: float = 0.0,
        transmission_s: float | None = None,
        conn_use: int = 0,
        address: str | None = None,
    ) -> bool:
        """Settle the recipient with this index in the envelope and log its line; false when it was settled before.

        `address`: where an alias or a .forward file led; the line shows it, and the recipient as `orig_to`. Jobs of
        the kinds bounce and warn have no line: what they report was logged when it happened.
        `transmission_s` None: the time since the job came, less `setup_s`. Raises `IndexError` for an index that
        the job has not, `ValueError` for a code or an outcome that is none.
        """

    def note(
        self,
        index: int,
        address: str,
        outcome: Literal["sent", "deferred", "bounced"],
        dsn: str,
        text: str,
        *,
        relay: str = "none",
    ) -> None:
        """Log what became of one of several places where the recipient's mail went; it stays unsettled.

        Raises as `status` does.
        """

    def site_failed(self, dsn: str, text: str) -> None:
        """The destination as a whole failed: the queue manager slows it down."""

    def result(self) -> bytes:
        """The frame for the queue manager; it reads recipients without a status as deferred."""

@final
class JobRecipient:
    """A recipient of a job."""

    @property
    def index(self) -> int:
        """Its place in the message's envelope."""
    @property
    def address(self) -> str: ...
    @property
    def original(self) -> str | None: ...
    @property
    def orcpt(self) -> str | None:
        """As received, in its xtext form: `rfc822;user@example.org`."""
    @property
    def notify(self) -> int:
        """NOTIFY= as bits: 1 NEVER, 2 SUCCESS, 4 FAILURE, 8 DELAY; 0 when nothing was said."""
    @property
    def status(self) -> JobStatus | None:
        """What is to be reported, in jobs of the kinds bounce and warn."""

@final
class JobStatus:
    """How a recipient fared."""

    @property
    def outcome(self) -> Literal["sent", "deferred", "bounced"]: ...
    @property
    def dsn(self) -> str: ...
    @property
    def text(self) -> str:
        """The reason, as it stands in the log between parentheses."""
    @property
    def remote(self) -> str | None:
        """The host that said so, as `name[address]:port`."""
