"""A delivery agent's side: its link to the queue manager, its jobs, and its connections to servers."""

from collections.abc import Sequence
from typing import Literal, final

from typing_extensions import disjoint_base

from postillion._core.log import Log
from postillion._core.smtp import SmtpClientSettings, SmtpLogin
from postillion._core.tls import TlsPolicy
from postillion.config import Config

__all__ = [
    "AgentLink",
    "DeliveryJob",
    "DeliveryService",
    "JobRecipient",
    "JobStatus",
    "Request",
    "TracedStatus",
]

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
        """Close segments that no job has read for two seconds; return the number of open ones.

        `now`: seconds, on the clock of `DeliveryService`.
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
    def requiretls(self) -> bool:
        """Whether the sender asks for REQUIRETLS (RFC 8689)."""
    @property
    def waives_tls(self) -> bool:
        """Whether the message has the header `TLS-Required: no`, and the site obeyed it when it came."""
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

@disjoint_base
class Request:
    """A request of a `DeliveryService` to its owner; `ticket` is a job's number."""

    @final
    class Find:
        """Call `connect` with the next server of a job, or `give_up`.

        `tried`: host, address and port of a reused connection that left recipients open; it is not tried again.
        `completed`: the last server has seen a transaction, and left recipients for another one. `tls`: what the sender
        asks for.
        """

        __match_args__ = ("ticket", "nexthop", "tried", "completed", "tls")
        def __new__(
            cls,
            ticket: int,
            nexthop: str,
            tried: tuple[str, str, int] | None,
            completed: bool,
            tls: Literal["usual", "waived", "required"],
        ) -> Request.Find: ...
        @property
        def ticket(self) -> int: ...
        @property
        def nexthop(self) -> str: ...
        @property
        def tried(self) -> tuple[str, str, int] | None: ...
        @property
        def completed(self) -> bool: ...
        @property
        def tls(self) -> Literal["usual", "waived", "required"]: ...

    @final
    class Ask:
        """Make lookups for a job, then call `answer`: numbers of tables (`postillion.tables.answers`) and keys.

        `key`: the connection's number. `first`: they begin a part of the message, whose time begins now.
        """

        __match_args__ = ("key", "ticket", "lookups", "first")
        def __new__(cls, key: int, ticket: int, lookups: list[tuple[int, bytes]], first: bool) -> Request.Ask: ...
        @property
        def key(self) -> int: ...
        @property
        def ticket(self) -> int: ...
        @property
        def lookups(self) -> list[tuple[int, bytes]]: ...
        @property
        def first(self) -> bool: ...

    @final
    class Tls:
        """Count a TLS session for the reports to the domain of a job (RFC 8460).

        `fault`: why there is none with the right server, as the kind of §4.3 and more about it.
        """

        __match_args__ = ("ticket", "fault")
        def __new__(cls, ticket: int, fault: tuple[str, str] | None) -> Request.Tls: ...
        @property
        def ticket(self) -> int: ...
        @property
        def fault(self) -> tuple[str, str] | None: ...

    @final
    class Login:
        """Remember that a server has refused the login of a job, with 535. `said`: its reply on one line."""

        __match_args__ = ("ticket", "dsn", "said")
        def __new__(cls, ticket: int, dsn: str, said: str) -> Request.Login: ...
        @property
        def ticket(self) -> int: ...
        @property
        def dsn(self) -> str: ...
        @property
        def said(self) -> str: ...

    @final
    class Done:
        """Forget a job of an earlier request."""

        __match_args__ = ("ticket",)
        def __new__(cls, ticket: int) -> Request.Done: ...
        @property
        def ticket(self) -> int: ...

    @final
    class Sweep:
        """Call `sweep` from time to time, until it returns False."""

        __match_args__ = ()
        def __new__(cls) -> Request.Sweep: ...

@final
class DeliveryService:
    """All connections of an agent to its servers, and the jobs on them.

    Wait until `fileno` is readable, call `poll`, and handle `take_requests` and `take_results` after each call. `now`:
    seconds, on one monotonic clock. Calls for a job or a connection that is gone have no effect.
    """

    def __new__(cls, client: SmtpClientSettings, config: Config, log: Log) -> DeliveryService:
        """Read the parameters of connections. Raises `ConfigError`."""

    def fileno(self) -> int: ...
    def __len__(self) -> int:
        """Return the number of jobs in progress."""

    def job(self, ticket: int) -> DeliveryJob | None:
        """Return a job in progress."""

    def receive(self, link: AgentLink, data: bytes, now: float) -> None:
        """Start the jobs that are complete with these bytes. Raises `ConnectionError` for anything but jobs."""

    def connect(
        self,
        ticket: int,
        host: str,
        address: str,
        port: int,
        now: float,
        *,
        loop_detect: bool = False,
        best: bool = True,
        last_address: bool = True,
        last_session: bool = True,
        source: str | None = None,
        hosts: int = 1,
        login: SmtpLogin | None = None,
        tls: TlsPolicy | None = None,
        requiretls: Literal["enforce", "opportunistic+starttls", "opportunistic", "disable"] = "disable",
        reuses: bool = True,
        reuses_tls: bool = False,
    ) -> None:
        """Connect to a server for a job. `Find` comes again when that fails, or when the server leaves recipients open.

        `address`: an IP address, or the path of a socket with `port` 0. `loop_detect`: a server that gives our own name
        is a mail loop. `best`: no host of the next hop has a better preference. `last_address`, `last_session`: no
        other server is left when this one fails before or after the handshake, so a soft status is final. `source`:
        the address to connect from. `hosts`: the number of hosts of the next hop. `login`: None without an account at
        this server. `tls`: None for a connection in the clear. `requiretls`: what it must have for mail with
        REQUIRETLS, as smtp_requiretls_policy. `reuses`, `reuses_tls`: it takes further jobs, also inside TLS.
        """

    def note(self, ticket: int, dsn: str, text: str) -> None:
        """Note why no server was found at one of the next hops of a job. Raises `ValueError` for an invalid code."""

    def give_up(self, ticket: int) -> None:
        """End a job for which no server is left: its recipients get the last failure."""

    def defer(self, ticket: int, bug: str) -> None:
        """End a job after a bug; log it."""

    def answer(
        self,
        key: int,
        ticket: int,
        asked: Sequence[tuple[int, bytes]],
        given: Sequence[tuple[str, bytes | str | None]],
        now: float,
    ) -> None:
        """Receive an answer for each lookup of a job on a connection, in the same order."""

    def fail(self, key: int, ticket: int, bug: str, now: float) -> None:
        """As `defer`, for a job whose lookups have met a bug: the connection is closed."""

    def poll(self, now: float) -> None:
        """Serve all sockets that are ready."""

    def sweep(self, now: float) -> bool:
        """Apply the timeouts of all connections. False when none is left; then `Sweep` comes with the next one."""

    def drain(self) -> None:
        """Keep no connection from now on."""

    def stop(self, now: float) -> None:
        """Close all connections, and report the jobs in progress without the open recipients."""

    def take_requests(
        self,
    ) -> list[Request.Find | Request.Ask | Request.Tls | Request.Login | Request.Done | Request.Sweep]:
        """Take the requests since the last call."""

    def take_results(self) -> bytes | None:
        """Take the frames for the queue manager since the last call; None when there are none."""

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
