"""A delivery agent's side: its link to the queue manager, its jobs, and the SMTP session that delivers them."""

from collections.abc import Sequence
from typing import ClassVar, Literal, final

from postillion._core.log import Log
from postillion._core.smtp import SmtpClientSettings

__all__ = ["AgentLink", "DeliveryJob", "DeliverySession", "JobRecipient", "JobStatus", "Next", "TracedStatus"]

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
        """Return the first frame of a new connection, and drop the rest of the connection before."""

    def receive(self, data: bytes) -> list[DeliveryJob]:
        """Return the jobs that are complete with these bytes. Raises `ConnectionError` for anything but jobs."""

    def close_idle_files(self, now: float) -> int:
        """Close segments that no `DeliverySession` has read for two seconds; return the number of open ones.

        `now`: seconds, on the clock of the sessions.
        """

@final
class DeliveryJob:
    """One message, one next hop, some of its recipients."""

    @property
    def job(self) -> int:
        """The queue manager's number for the job."""
    @property
    def kind(self) -> Literal["deliver", "bounce", "warn", "confirm", "probe", "report"]:
        """`probe`: say what a delivery would do, and deliver nothing. `report`: report what `traced` says."""
    @property
    def queue_id(self) -> str:
        """In the form of enable_long_queue_ids."""
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
        """All recipients of the job, as a new list each time."""
    @property
    def trace(self) -> Literal["", "record", "probe"]:
        """The report that the sender wants of the first attempt."""
    @property
    def traced(self) -> list[TracedStatus]:
        """The lines of the report, as a new list each time; several for a recipient whose alias has several targets."""
    @property
    def left(self) -> int:
        """The number of recipients without a final status."""
    def content(self) -> bytes:
        """Return the message in wire form: CRLF, dots stuffed, no final dot. Raises `QueueError`, also for a probe."""

    def text(self, eol: bytes = ...) -> bytes:
        """Return the message for a mailbox: dots unstuffed, line ends as `eol` (LF or CRLF). Raises as `content`."""

    def fail(self, dsn: str, text: str) -> None:
        """Give each recipient without a status this one: no server is available.

        A soft failure counts against the destination.
        """

    def fail_as_heard(self, dsn: str, text: str) -> None:
        """As `fail`, with the last server's failure if there was one."""

    def attribute(self, name: str) -> str | None:
        """Return an attribute of the envelope: client_name, client_address, helo_name, protocol_name, message_id ..."""

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
        action: str | None = None,
    ) -> bool:
        """Give the recipient with this index in the envelope its final status, and log it; false when it has one.

        A probe that would be `sent` is logged as deliverable, any other one as undeliverable. `action`: the word for
        the sender's report of the attempt; None: as the outcome says.
        `address`: the target of the recipient's alias or .forward file; the line shows it as `to`, and the recipient
        as `orig_to`. A job that reports to the sender logs no line. `transmission_s` None: the time since the job was
        received, less `setup_s`. Raises `IndexError` for an unknown index, `ValueError` for an invalid code or outcome.
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
        action: str | None = None,
    ) -> None:
        """Log the status of one of the recipient's several targets. The recipient keeps its own status.

        Raises as `status` does.
        """

    def site_failed(self, dsn: str, text: str) -> None:
        """Report that the whole destination failed; the queue manager reduces its concurrency."""

    def result(self) -> bytes:
        """Return the frames for the queue manager. It defers recipients without a status."""

@final
class TracedStatus:
    """The result of a recipient, or of one target of its alias or .forward file, in the report of an attempt."""

    @property
    def index(self) -> int:
        """The recipient's index in the envelope."""
    @property
    def address(self) -> str:
        """The address: the recipient's, or that of the target."""
    @property
    def action(self) -> str:
        """The word of the report: delivered, relayed, expanded, delayed, failed, deliverable or undeliverable."""
    @property
    def relay(self) -> str: ...
    @property
    def status(self) -> JobStatus: ...

@final
class Next:
    """The next step of a session's owner, after it wrote `take_output`. Compare with `is`."""

    MORE: ClassVar[Next]
    """Wait for the server, at most until `deadline`."""
    SENDING: ClassVar[Next]
    """Call `send_body` when the output is written: a large message has another piece."""
    ASKING: ClassVar[Next]
    """As MORE; when `asks` has lookups, call `answer` with their answers."""
    FOLLOWED: ClassVar[Next]
    """Report the job, then call `next`: the job is done with this server; the job that followed is in progress."""
    FINISHED: ClassVar[Next]
    """Report the job: it is done with this server. The connection accepts another one."""
    CLOSED: ClassVar[Next]
    """Close the connection and report the job: it is done with this server."""
    STALE: ClassVar[Next]
    """Close the connection and deliver the job on another one: the server had closed this one while it was idle."""

@final
class DeliverySession:
    """One connection to a server, and the jobs on it: bytes in, bytes out, statuses into the job.

    `port`: 0 for a socket in the file system, which `address` names. `now`, here and below: seconds, monotonic.
    Recipients without a status after FINISHED, CLOSED or STALE need another server. A job that follows is unchanged
    when the job before it ends with one of these.
    """

    def __new__(
        cls,
        settings: SmtpClientSettings,
        host: str,
        address: str,
        port: int,
        nexthop: str,
        now: float,
        *,
        loop_detect: bool = False,
        best: bool = True,
    ) -> DeliverySession: ...
    def deliver(
        self,
        job: DeliveryJob,
        now: float,
        *,
        last_address: bool = True,
        last_session: bool = True,
        keep: bool = True,
    ) -> Next:
        """Deliver a job, now or after the handshake. Without `keep`, QUIT may follow the final dot at once.

        `last_address`, `last_session`: no other server is left when this one fails before or after the handshake, so a
        soft status is final. Raises `ValueError` when the session has a job.
        """

    def may_follow(self, now: float) -> bool:
        """Return whether `follow` is possible and useful.

        The server has PIPELINING, its verdicts take no longer than its replies to commands, it is not late, no other
        job follows, and no large message is being sent.
        """

    def follow(self, job: DeliveryJob, *, last_session: bool = True) -> None:
        """Deliver a job after the one in progress. Its commands are sent with the end of the message before it, or now.

        Raises `ValueError` when the session has no job, or another job follows it.
        """

    def withdraw(self) -> None:
        """Drop the job that follows. If its commands are sent, the connection ends with the job in progress."""

    def receive(self, data: bytes, now: float) -> Next:
        """Receive bytes from the server, in any split."""

    def lost(self, now: float) -> Next:
        """Note that the server closed the connection, or that it broke."""

    def timeout(self, now: float) -> Next:
        """End the dialogue when `deadline` has passed."""

    def send_body(self, now: float) -> Next:
        """Put the next piece of a large message into the output."""

    def next(self, now: float) -> Next:
        """Go on after FOLLOWED."""

    def asks(self) -> list[tuple[int, bytes]]:
        """Take the lookups that the job needs now: numbers of tables (`postillion.tables.answers`) and keys."""

    def answer(
        self, asked: Sequence[tuple[int, bytes]], given: Sequence[tuple[str, bytes | str | None]], now: float
    ) -> Next:
        """Receive an answer for each lookup, in the same order. Answers that come too late have no effect."""

    def progressed(self, octets: int, now: float) -> None:
        """Note that the server accepted octets of earlier output: a message may take longer."""

    def quit(self) -> None:
        """Send QUIT. Write `take_output` and close."""

    def take_output(self) -> bytes | None:
        """Return the bytes for the server since the last call."""

    @property
    def sending(self) -> bool:
        """A large message has another piece: call `send_body` when the output is written."""

    @property
    def deadline(self) -> float | None:
        """When to call `timeout`; None while the session waits for nothing."""

    @property
    def transactions(self) -> int:
        """The number of transactions, with the one in progress."""

@final
class JobRecipient:
    """A recipient of a job."""

    @property
    def index(self) -> int:
        """The recipient's number in the envelope."""
    @property
    def address(self) -> str: ...
    @property
    def original(self) -> str | None: ...
    @property
    def orcpt(self) -> str | None:
        """As received, in its xtext form: `rfc822;user@example.org`."""
    @property
    def notify(self) -> int:
        """NOTIFY= as bits: 1 NEVER, 2 SUCCESS, 4 FAILURE, 8 DELAY; 0 without NOTIFY."""
    @property
    def status(self) -> JobStatus | None:
        """The status to report, in jobs of the kinds bounce and warn."""

@final
class JobStatus:
    """The status of a recipient."""

    @property
    def outcome(self) -> Literal["sent", "deferred", "bounced"]: ...
    @property
    def dsn(self) -> str: ...
    @property
    def text(self) -> str:
        """The reason, in the log line between parentheses."""
    @property
    def remote(self) -> str | None:
        """The host that sent the reply, as `name[address]:port`."""
