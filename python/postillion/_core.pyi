"""The cores in Rust, as Python sees them.

One class or function a line of business; each says what it gives back, in which units, and how it fails. Times called
`now` are seconds of the monotonic clock, `wall_now` seconds since 1970.
"""

from typing import Literal, final

class QueueError(OSError):
    """The queue cannot be read or written; the text says what failed and where."""

@final
class Journal:
    """Where a process that receives mail makes it durable (docs/queue.md).

    Messages are committed by the cores that receive them; a thread writes many with one sync. Raises `QueueError` when
    the queue directory cannot be used. Sizes are octets; `minfree_octets` is queue_minfree, 0 for no limit.
    """

    def __new__(
        cls,
        queue_directory: str,
        *,
        minfree_octets: int = 0,
        segment_max_octets: int = 33554432,
        segment_max_age_s: float = 30.0,
        large_message_octets: int = 1048576,
    ) -> Journal: ...
    def fileno(self) -> int:
        """The descriptor that is readable while `completed` has something to say; it belongs to the journal."""

    def completed(self) -> list[tuple[int, str | None]]:
        """Tickets decided since the last call, each with `None` or the reply to give: `452 4.3.1 Insufficient ...`."""

    def wait(self, timeout_s: float) -> list[tuple[int, str | None]]:
        """As `completed`, but waits for the first one, at most `timeout_s` seconds."""

    def announcements(self) -> bytes:
        """Frames for the queue manager about everything durable that was not taken yet."""

    def hello(self, pid: int) -> bytes:
        """The frame to say first to the queue manager; it covers what was announced before."""

    def close(self) -> None:
        """Write what is pending and end the thread; later commits fail. Announcements can still be taken."""

def read_queue(queue_directory: str, *, long_queue_ids: bool = False) -> list[bytes]:
    """The queue from disk, one JSON object a message as `postqueue -j` prints it, while no queue manager runs.

    Raises `QueueError` when it cannot be read. postqueue(1).
    """

@final
class Log:
    """A program's log: lines are formatted here and written in batches by a thread.

    `destination`: a path to append to (`/dev/stdout` for standard output, whatever it is), `syslog:` and a socket's
    path, or `memory:`. `facility`: syslog's number, 2 for mail. Raises `OSError` when it cannot be opened.
    """

    def __new__(
        cls,
        host: str,
        syslog_name: str,
        program: str,
        pid: int,
        utc_offset_s: int,
        destination: str,
        *,
        permissions: int = 0o600,
        facility: int = 2,
    ) -> Log: ...
    def line(self, severity: str, text: str) -> None:
        """Add a line of severity info, warning, error, fatal or panic; raises `ValueError` for another word."""

    def info(self, text: str) -> None:
        """Add a line about an event."""

    def warning(self, text: str) -> None:
        """Add a line about something to look at."""

    def set_utc_offset(self, utc_offset_s: int) -> None:
        """Local time is so many seconds ahead of UTC from now on."""

    def flush(self) -> None:
        """Wait until every line so far is written."""

    def take_lines(self) -> list[str]:
        """The lines of a `memory:` log so far, without stamp, host and tag."""

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

@final
class DeliveryJob:
    """One message, one next hop, some of its recipients."""

    @property
    def job(self) -> int:
        """The number by which the queue manager knows it."""
    @property
    def kind(self) -> Literal["deliver", "bounce", "warn"]: ...
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
