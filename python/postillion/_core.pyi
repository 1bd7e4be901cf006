"""The cores in Rust, as Python sees them.

One class or function a line of business; each says what it gives back, in which units, and how it fails. Times called
`now` are seconds of the monotonic clock, `wall_now` seconds since 1970.
"""

import builtins
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypedDict, final, type_check_only

__all__ = [
    "AgentLink",
    "BenchSink",
    "BenchSource",
    "CleanupSettings",
    "DeliveryJob",
    "HeaderRecipients",
    "JobRecipient",
    "JobStatus",
    "Journal",
    "Log",
    "Maildrop",
    "MaildropReader",
    "MaildropWriter",
    "QueueError",
    "QueueManager",
    "SmtpClient",
    "SmtpClientSettings",
    "SmtpIntake",
    "SmtpdConfig",
    "SmtpdService",
    "SmtpdSession",
    "StoredMessage",
    "Submission",
    "list_queue",
    "maildrop_envelope",
    "parse_addresses",
    "read_message",
    "repair_queue",
]

class QueueError(OSError):
    """The queue cannot be read or written; the text says what failed and where."""

@type_check_only
class _Times(TypedDict):
    """How long something took, in seconds; percentiles are exact to 3 %."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    longest: float

@type_check_only
class _Counts(TypedDict):
    """What a bench has counted. `replies` by what was waited for: greeting, EHLO, MAIL ... end of data, QUIT.

    `message`: to the 250 to the final dot, from when the message was to begin; with a rate that is the clock's time,
    whether a session was free or not. `delivery`: from a message's first octet sent to the sink's taking it; the two
    clocks must be one.
    """

    connections: int
    broken: int
    messages: int
    recipients: int
    octets: int
    refused: int
    refusals: int
    unanswered: int
    duplicates: int
    replies: dict[str, _Times]
    message: _Times
    delivery: _Times
    complaints: list[str]

@final
class BenchSource:
    """Clients that load a server: `sessions` at a time, times in seconds, sizes in octets.

    `messages` None: until `stop`. `reuse`: messages of a connection, 0 for no limit. `octets` of the messages and
    `domains` of the recipients: in turn. `rate`: messages a second that begin by the clock, at most `sessions` at a
    time; over `ramp_s` the clients begin one by one, or the rate grows. Raises `ValueError` for what no load can be,
    `OSError` when the server cannot be reached.
    """

    def __new__(
        cls,
        address: str,
        port: int,
        *,
        sessions: int = 20,
        messages: int | None = None,
        octets: Sequence[int] = ...,
        recipients: int = 1,
        domains: Sequence[str] = ...,
        sender: str = "bench@source.example",
        reuse: int = 1,
        think_s: float = 0.0,
        ramp_s: float = 0.0,
        rate: float | None = None,
        pipelining: bool = False,
        helo: str = "source.example",
    ) -> BenchSource: ...
    def run(self, time_s: float) -> bool:
        """Work for at most so long; True when all is sent and answered. Other threads run meanwhile."""

    def stop(self) -> None:
        """Begin no more messages."""

    def counts(self) -> _Counts:
        """What was counted so far."""

@final
class BenchSink:
    """The other end of a load: it takes all mail but for its faults, and knows second copies of a source's messages.

    A fault is `domain=action[@rcpt|@dot][*share]`: the action is a code of 400 to 599, a time (`2s`, `150ms`) or
    `disconnect`. Raises `ValueError` for other faults, `OSError` when it cannot listen.
    """

    def __new__(
        cls, address: str, port: int, *, name: str = "sink.example", faults: Sequence[str] = ..., seed: int = 1
    ) -> BenchSink: ...
    @property
    def port(self) -> int:
        """Where it listens; asked for with port 0 it is one that was free."""

    def run(self, time_s: float) -> None:
        """Work for so long. Other threads run meanwhile."""

    def counts(self) -> _Counts:
        """What was counted so far."""

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
        ahead_octets: int = 65536,
    ) -> Journal: ...
    def fileno(self) -> int:
        """The descriptor that is readable while `completed` has something to say; it belongs to the journal."""

    def completed(self) -> list[tuple[int, str | None]]:
        """Tickets decided since the last call, each with `None` or the reply to give: `452 4.3.1 Insufficient ...`."""

    def wait(self, timeout_s: float) -> list[tuple[int, str | None]]:
        """As `completed`, but waits for the first one, at most `timeout_s` seconds."""

    def announcements(self) -> bytes:
        """Frames for the queue manager about everything durable that was not taken yet."""

    @property
    def unannounced_octets(self) -> int:
        """What `announcements` would give; above 8 MiB the oldest are dropped, the queue manager reads the disk."""

    def hello(self, pid: int) -> bytes:
        """The frame to say first to the queue manager; it covers what was announced before."""

    def close(self) -> None:
        """Write what is pending and end the thread; later commits fail. Announcements can still be taken."""

def list_queue(
    queue_directory: str,
    take: Callable[[bytes], object],
    *,
    long_queue_ids: bool = False,
    text: bool = False,
    waits: bool = False,
    offsets: Sequence[tuple[int, int]] = ...,
) -> None:
    """Print the queue from disk while no queue manager runs; `take` gets some of the output at a time.

    JSON as `postqueue -j`, or as `postqueue -p` with `text`: then `offsets` says how far the reader's time is ahead of
    UTC (from which second since 1970 on, how many seconds), and `waits` what each message waits for. Raises
    `QueueError` when it cannot be read, and what `take` raises. postqueue(1).
    """

def repair_queue(
    queue_directory: str, *, purge: bool, structure: bool, owner: tuple[int, int] | None = None
) -> list[str]:
    """Put a queue directory in order while no queue manager runs; a line for each thing that was done or left alone.

    `purge`: remove what dead processes left. `structure`: names, places, owners, modes. `owner`: user and group whose
    the files are to be. Raises `QueueError`.
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

@final
class CleanupSettings:
    """What a site says about messages that come in: cleanup's parameters.

    `myorigin` is appended to bare addresses, `mydomain` to host names without a dot; None: nothing is. `drop_headers`
    None: Postfix's four. Sizes are octets; `message_size_limit` 0: no limit. `strip_characters` and
    `reject_characters` are written with C's escapes, as in main.cf. See `postillion.program.cleanup.settings`.
    """

    def __new__(
        cls,
        *,
        myhostname: str,
        myorigin: str | None = None,
        mydomain: str | None = None,
        remote_header_rewrite_domain: str | None = None,
        header_size_limit: int = 102_400,
        header_address_token_limit: int = 10_240,
        hopcount_limit: int = 50,
        message_size_limit: int = 10_240_000,
        always_add_missing_headers: bool = False,
        drop_headers: Sequence[str] | None = None,
        undisclosed_recipients_header: str = "",
        replace_stray_cr_lf: bool = True,
        strip_characters: str = "",
        reject_characters: str = "",
        long_queue_ids: bool = False,
        obsolete_from_format: bool = False,
        swap_bangpath: bool = True,
        percent_hack: bool = True,
        utc_offset_s: int = 0,
        zone_name: str = "UTC",
    ) -> CleanupSettings: ...
    def set_zone(self, utc_offset_s: int, name: str) -> None:
        """Local time is so many seconds ahead of UTC from now on, and called so."""

    def date(self, wall_now: float) -> str:
        """The date as a header carries it: `Sun, 22 Nov 2026 17:02:03 +0000 (UTC)`."""

@final
class HeaderRecipients:
    """Collects the recipients that a message's headers name, while it goes by (`sendmail -t`)."""

    def __new__(cls) -> HeaderRecipients: ...
    def feed(self, data: bytes) -> None:
        """Take the next bytes, in any split; lines end with LF or CRLF."""

    def finish(self) -> list[str]:
        """The recipients in order: of Resent- headers if there are any, else of To, Cc and Bcc.

        Raises `ValueError` when a header is too long to be read whole.
        """

@final
class Maildrop:
    """What a file in maildrop/ says besides the content."""

    @property
    def arrival(self) -> float | None:
        """When it was written, in seconds since 1970, as it says itself."""
    @property
    def sender(self) -> str: ...
    @property
    def full_name(self) -> str: ...
    @property
    def recipients(self) -> list[tuple[str, str | None, str | None, int]]:
        """Address, original, ORCPT, NOTIFY bits."""
    @property
    def body(self) -> Literal["", "7BIT", "8BITMIME"]: ...
    @property
    def ret(self) -> Literal["", "FULL", "HDRS"]: ...
    @property
    def envid(self) -> str | None:
        """In its xtext form, as `Submission` takes it."""
    @property
    def remote(self) -> bool:
        """Submitted by a gateway: the headers are not those of a user of this site."""
    @property
    def attributes(self) -> dict[str, str]:
        """Every other attribute, by Postfix's names."""

@final
class MaildropReader:
    """Reads a file in maildrop/ (Postfix's record format) in pieces."""

    def __new__(cls) -> MaildropReader: ...
    def feed(self, data: bytes) -> bytes:
        """Take the next bytes, in any split; returns the content among them, lines ended with LF.

        Raises `ValueError` with the reason when the file is ill-formed.
        """

    def finish(self) -> Maildrop:
        """What the file said; raises `ValueError` when it is not complete."""

@final
class MaildropWriter:
    """Writes the content segment and the end of a file in maildrop/.

    `dot_ends`: a line with only a dot ends the message. `line_endings`: always, strict or never
    (`sendmail_fix_line_endings`). mbox lines before the headers are left out.
    """

    def __new__(cls, *, dot_ends: bool, line_endings: str = "always") -> MaildropWriter: ...
    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Take the next bytes, in any split; returns records, and False once a dot has ended the message."""

    def finish(self, extracted: Sequence[tuple[str, str | None, str | None, int]] = ...) -> bytes:
        """The records that end the content, recipients that its headers named, and the records that end the file."""

@final
class Submission:
    """A message that a program on this machine hands over; it goes through cleanup into the journal.

    `recipients`: address, original, ORCPT and NOTIFY bits of each. `received`: a trace header with LF inside, in
    which `{id}` stands for the queue ID and `{date}` for the date. `wall_now`, `arrival`: seconds since 1970.
    `local` False: headers are neither completed nor added. Raises `postillion.errors.MessageRefused` when the disk is
    full. A submission that is not committed leaves no trace.
    """

    def __new__(
        cls,
        settings: CleanupSettings,
        journal: Journal,
        log: Log,
        sender: str,
        recipients: Sequence[tuple[str, str | None, str | None, int]],
        *,
        wall_now: float,
        received: str | None = None,
        attributes: Mapping[str, str] = ...,
        arrival: float | None = None,
        full_name: str = "",
        body: str = "",
        smtputf8: bool = False,
        ret: str = "",
        envid: str | None = None,
        local: bool = True,
    ) -> Submission: ...
    @property
    def queue_id(self) -> str: ...
    @property
    def sender(self) -> str:
        """The sender as it was completed; raises `RuntimeError` after `commit`."""

    def write(self, data: bytes) -> None:
        """Take the next bytes, in any split; lines end with LF or CRLF. A problem is told by `commit`."""

    def commit(self, ticket: int) -> str:
        """Hand the message to the journal, which tells of `ticket` when it is durable; returns the queue ID.

        Raises `postillion.errors.MessageRefused`; nothing is queued then.
        """

def maildrop_envelope(
    sender: str,
    recipients: Sequence[tuple[str, str | None, str | None, int]],
    *,
    wall_now: float,
    full_name: str = "",
    body: str = "",
    ret: str = "",
    envid: str | None = None,
    remote: bool = False,
    attributes: Mapping[str, str] = ...,
) -> bytes:
    """The envelope segment of a file in maildrop/."""

def parse_addresses(text: str) -> list[str]:
    """The addresses of an address list (RFC 5322 §3.4), without names and comments."""

@final
class QueueManager:
    """The queue manager: scheduler, queue on disk, and the frames of its peers.

    Takes the queue directory over; raises `QueueError` when it cannot, as when another queue manager has it, and
    `ValueError` for a setting that it does not know. `settings`: Postfix's names; times in seconds.

    A turn of the loop is: `receive` for what came, `tick`, `next_event` until it is None, `outputs`; the next turn is
    due at `deadline`, or when bytes come. Peers are numbers that the caller gives. `piecemeal`: what stands in the
    queue is taken in over the next turns, so that peers are heard and mail goes out meanwhile; else before it returns.
    """

    def __new__(
        cls,
        queue_directory: str,
        settings: dict[str, object],
        log: Log,
        now: float,
        wall_now: float,
        *,
        piecemeal: bool = False,
    ) -> QueueManager: ...
    def close(self) -> None:
        """Let go of the queue directory; every other method raises `ValueError` afterwards."""

    def configure(self, settings: dict[str, object]) -> None:
        """Go by these settings from now on; raises `ValueError` and goes by the old ones when one is not known."""

    def configure_transport(self, name: str | None, settings: dict[str, object]) -> None:
        """Go by these settings for a transport; None: for all that have none of their own."""

    def connected(self, peer: int, *, control: bool = False) -> None:
        """A peer connected. `control`: by the public socket, where only control requests are heard."""

    def receive(self, peer: int, data: bytes, now: float, wall_now: float) -> None:
        """Hear bytes of a peer, in any split; raises `ConnectionError` when the connection is to be closed."""

    def blocked(self, peer: int, blocked: bool) -> None:
        """A peer does not read, or reads again."""

    def lost(self, peer: int, now: float, wall_now: float) -> None:
        """A peer's connection is closed."""

    def tick(self, now: float, wall_now: float) -> None:
        """Let what is due happen."""

    def rescan(self, now: float, wall_now: float) -> None:
        """Look through the queue directory for messages that nobody announced."""

    def next_event(
        self, now: float, wall_now: float
    ) -> tuple[Literal["resolve", "trigger"], str] | tuple[Literal["control"], int, bytes] | None:
        """What is to be decided or done: a route, an agent, a control request; None until the next turn."""

    def resolved(
        self, address: str, transport: str, nexthop: str, recipient: str | None, now: float, wall_now: float
    ) -> None:
        """Answer `("resolve", address)`. `recipient`: what the address becomes, None when it stays."""

    def unresolved(self, address: str, dsn: str, text: str, now: float, wall_now: float) -> None:
        """Answer `("resolve", address)`: it goes nowhere, for good when `dsn` is 5.x.x."""

    def trigger_failed(self, transport: str, reason: str, now: float, wall_now: float) -> None:
        """Answer `("trigger", transport)`: no agent can be started."""

    def outputs(self) -> list[tuple[int, bytes]]:
        """What is to be written, a batch a peer. Facts are on their way to disk before."""

    def deadline(self) -> float:
        """When the next turn is due, on the clock of `now`; 0 is at once."""

    def reply(self, peer: int, json: bytes, *, last: bool = True) -> None:
        """Answer a control request with JSON lines."""

    def list(
        self,
        peer: int,
        now: float,
        wall_now: float,
        *,
        text: bool = False,
        waits: bool = False,
        offsets: Sequence[tuple[int, int]] = ...,
        privileged: bool = False,
    ) -> int:
        """List the queue in a thread: the descriptor of a pipe that gives the listing, for the caller to close.

        Its form is that of `list_queue`. At its end the peer is told `{"listed": n}`. `privileged`: the user owns the
        queue. Raises `OSError` when there are too many listings at a time.
        """

    def flush_site(self, site: str, now: float, wall_now: float) -> None:
        """Try every deferred message for a domain now, as a thread finds them; raises `OSError` as `list` does."""

    def fileno(self) -> int | None:
        """A descriptor that is readable when a thread found something: then a turn is due. None: no threads."""

    def apply(
        self, verb: str, ids: Sequence[str] | None, queues: Sequence[str], now: float, wall_now: float
    ) -> builtins.list[str]:
        """Flush, hold, release, delete or expire; the IDs to which it was done.

        `ids` None: all messages. `queues`: only messages in these queues, by Postfix's names; empty: in any.
        """

    def leave(
        self, peer: int, ids: Sequence[str] | None, queues: Sequence[str], after: str
    ) -> tuple[builtins.list[tuple[str, str, int, int]], builtins.list[str], str | None]:
        """Take messages out of the queue for `peer` to move them; ID, segment file, offset, octets of each.

        At most 10,000, in the order of their IDs, such as come after the ID `after` (empty: all). Then those that are
        being delivered or moved at the moment, and the ID after which there may be more, if so. Until `left` or `lost`
        nothing is done to them.
        """

    def left(self, peer: int, ids: Sequence[str]) -> builtins.list[str]:
        """What `peer` moved is gone from the queue; returns the IDs that it had asked for."""

    def place(self, id: str) -> tuple[str, int, int] | None:
        """The segment file of a message (relative to the queue directory), offset and octets of its record."""

    def counts(self) -> dict[str, int]:
        """How much there is of what."""

@final
class SmtpClientSettings:
    """What a client does the same way on every connection; the names are main.cf's without `smtp_`, times in seconds.

    `min_data_rate`: octets a second; None without smtp_per_request_deadline.
    Raises `ValueError` for a protocol other than smtp and lmtp, and for a name that EHLO cannot carry.
    """

    def __new__(
        cls,
        *,
        protocol: str,
        helo_name: str,
        myhostname: str,
        always_send_ehlo: bool,
        never_send_ehlo: bool,
        skip_5xx_greeting: bool,
        discard_ehlo_keywords: list[str],
        line_length_limit: int,
        min_data_rate: float | None,
        helo_timeout: float,
        mail_timeout: float,
        rcpt_timeout: float,
        data_init_timeout: float,
        data_xfer_timeout: float,
        data_done_timeout: float,
        rset_timeout: float,
    ) -> SmtpClientSettings: ...

@final
class SmtpClient:
    """One connection to a server, and the job that it carries: bytes in, bytes out, verdicts into the job.

    Every method that returns an int says how things stand: MORE (waiting for the server), FINISHED (the job is done
    with this server; the connection may take another), CLOSED (as FINISHED or failed, and the connection is of no use
    any more: write `take_output`, close) or STALE (the server had closed a connection that was kept: the job deserves
    a new one) or SENDING (a large message has more to send: `send_body` when what is there is written). NEXT is added
    for a job before that is done with this server, while the one that followed it went on. Recipients that are open
    afterwards want another server. A job that follows comes back untouched when its predecessor ends otherwise.
    """

    MORE: int
    FINISHED: int
    CLOSED: int
    STALE: int
    SENDING: int
    NEXT: int

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
    ) -> SmtpClient: ...
    def deliver(
        self,
        job: DeliveryJob,
        now: float,
        *,
        last_address: bool = True,
        last_session: bool = True,
        keep: bool = True,
    ) -> int:
        """Carry a job, at once or when the handshake is done. Without `keep`, QUIT may go with the final dot.

        `last_address`, `last_session`: no other server is to be tried when this one fails before or after the
        handshake, so soft verdicts are final. Raises `ValueError` when there is a job already.
        """

    def takes_another(self, now: float) -> bool:
        """Whether a job may follow the one under way, and would gain by it.

        The server has PIPELINING, its verdicts take no longer than its replies to commands, and it is not late now.
        Not while a large message is being sent.
        """

    def follow(self, job: DeliveryJob, *, last_session: bool = True) -> None:
        """Carry this job after the one under way; its commands go out with the end of the message before it, or now.

        Raises `ValueError` when there is no job under way, or one that follows it already.
        """

    def withdraw(self) -> None:
        """Take the job that follows back. When its commands are sent, the connection ends with the job under way."""

    def receive(self, data: bytes, now: float) -> int:
        """Take bytes from the server."""

    def lost(self, now: float) -> int:
        """The server closed the connection, or it broke."""

    def timeout(self, now: float) -> int:
        """Give up when `deadline` has passed."""

    def progressed(self, octets: int, now: float) -> None:
        """The server has taken so many octets of what waited to be written: a message may take longer."""

    def send_body(self, now: float) -> int:
        """Put the next piece of a large message into the output."""

    @property
    def sending(self) -> bool:
        """A large message has more to send: call `send_body` when the output has gone out."""

    def quit(self) -> None:
        """Take leave; write `take_output` and close."""

    def take_output(self) -> bytes | None:
        """What is to be written, since the last call."""

    @property
    def deadline(self) -> float | None:
        """When the server's answer is overdue; None while nothing is awaited."""

    @property
    def transactions(self) -> int:
        """Transactions begun."""

@final
class SmtpIntake:
    """What a peer has said and nobody has taken yet: by line, by count, or as a whole message.

    Bounded are lines and messages; the caller bounds how many octets wait, by reading no more of the peer.
    """

    LINE_TOO_LONG: int
    TOO_MUCH: int

    def __new__(cls, line_limit: int) -> SmtpIntake:
        """`line_limit`: octets of a line without its end."""

    def feed(self, data: bytes) -> bool:
        """Take the next octets: is there something to take? While a message is read, not before its end."""

    def take_line(self, end: bytes) -> bytes | int | None:
        """A line with its end; None when its end has not come.

        A number when it is longer than the limit: so many octets and more belong to it, and none is taken. Raises
        `ValueError` for an empty end.
        """

    def take(self, most: int) -> bytes:
        """At most so many octets, at once."""

    def begin_message(self, *, line_octets: int, message_octets: int | None) -> bool:
        """Read a message from here to CRLF.CRLF: has it ended already? Limits in octets on the wire; None: none.

        One that goes above a limit is read to its end, and not kept. What was read of another is forgotten.
        """

    def take_message(self) -> bytes | int | None:
        """The message, its lines ended with CRLF, dots unstuffed; LINE_TOO_LONG, TOO_MUCH; None: it has not ended."""

    @property
    def reads_message(self) -> bool:
        """Is a message being read?"""

    def clear(self) -> None:
        """Forget what waits; a message that is read goes on."""

    def __len__(self) -> int:
        """How many octets wait."""

@final
class SmtpdConfig:
    """What all SMTP server sessions of a process share: main.cf's parameters by their meaning, and where mail goes.

    `journal` None: for stand-alone sessions, whose owner takes the messages. `forbid_bare_newline`: no, normalize,
    note or reject. `asks_*`: the command is a question to the owner; `asks_content`: so is every whole message;
    `asks_verbs`: so are these of RSET, NOOP and QUIT. Raises `ValueError`.
    """

    def __new__(
        cls,
        log: Log,
        cleanup_settings: CleanupSettings,
        journal: Journal | None,
        *,
        myhostname: str,
        banner: str,
        mail_name: str = "Postfix",
        message_size_limit: int = 10_240_000,
        smtputf8: bool = True,
        strict_smtputf8: bool = False,
        strict_envelopes: bool = False,
        discard_ehlo_keywords: Sequence[str] = ...,
        disable_vrfy: bool = False,
        helo_required: bool = False,
        line_length_limit: int = 2048,
        recipient_limit: int = 1000,
        recipient_overshoot_limit: int = 1000,
        soft_error_limit: int = 10,
        hard_error_limit: int = 20,
        junk_command_limit: int = 100,
        error_sleep_s: float = 1.0,
        in_flow_delay_s: float = 0.0,
        timeout_s: float = 300.0,
        per_request_deadline: bool = False,
        min_data_rate: int = 500,
        forbid_unauth_pipelining: bool = True,
        forbid_bare_newline: str = "normalize",
        bare_newline_reject_code: int = 550,
        forbidden_commands: Sequence[str] = ...,
        forbid_non_letters: bool = True,
        noop_commands: Sequence[str] = ...,
        asks_helo: bool = False,
        asks_mail: bool = False,
        asks_data: bool = False,
        asks_content: bool = False,
        asks_verbs: Sequence[str] = ...,
        log_client_port: bool = False,
        auth_mechanisms: Sequence[str] = ...,
        auth_line_limit: int = 12_288,
        names_users: bool = False,
        rewrites_for_users: bool = False,
        soft_bounce: bool = False,
    ) -> SmtpdConfig: ...
    def fall_behind(self, behind: bool) -> None:
        """From now on each new message of any session waits for in_flow_delay first, or no longer does."""
    @property
    def ehlo_text(self) -> str:
        """What EHLO is answered: the host's name and a keyword a line, without codes."""

@final
class SmtpdSession:
    """One client's session: bytes and time in, turns and bytes out. It moves them itself, or a `SmtpdService` does.

    A turn says what the owner does next. IDLE: write the output and wait. ENDED: write it and close. SLEEPING: wait
    until `deadline`, then `timeout`. FULL: read no more until something was answered. HELO, MAIL, RCPT, VRFY, DATA:
    decide, then `accept` or `reply`. CONTENT: a whole message is there, look at its `content`, then the same. RSET,
    NOOP, QUIT: what is to be said? The command itself is done. AUTH, or a client's answer to a challenge (`argument`):
    `reply` 334 with the next one, 235 after `authenticate`, or a refusal. MESSAGE: a stand-alone session has a whole
    message, `take_message` and `stored`. Questions are above IDLE.
    """

    IDLE: int
    ENDED: int
    SLEEPING: int
    FULL: int
    HELO: int
    MAIL: int
    RCPT: int
    VRFY: int
    DATA: int
    MESSAGE: int
    CONTENT: int
    RSET: int
    NOOP: int
    QUIT: int
    AUTH: int

    def __new__(
        cls,
        config: SmtpdConfig,
        name: str,
        address: str,
        port: int,
        now: float,
        *,
        reverse_name: str = "unknown",
        rewrites_headers: bool = False,
        bare_newline_spared: bool = False,
    ) -> SmtpdSession: ...
    def greet(self, now: float) -> int:
        """Say 220; returns the next turn."""

    def receive(self, data: bytes, now: float) -> int:
        """Take bytes as they came; returns the next turn."""

    def eof(self, now: float) -> int:
        """No more bytes will come; returns the next turn."""

    def accept(self, now: float) -> int:
        """Answer the open question with yes; returns the next turn. Raises `ValueError` when none is open."""

    def reply(self, code: int, dsn: str, text: str, now: float) -> int:
        """Answer the open question with this reply, `dsn` may be empty; returns the next turn. Raises `ValueError`."""

    def content(self) -> bytes:
        """The message in question, lines ended with CRLF, dots unstuffed."""

    def take_message(self) -> tuple[str, list[tuple[str, str | None, int]], str, str, str | None, bytes]:
        """A stand-alone session's message: sender, recipients with ORCPT and NOTIFY, BODY, RET, ENVID, content.

        The content's lines end with LF.
        """

    def stored(self, queue_id: str, error: str | None, now: float) -> int:
        """The stand-alone session's message is stored, or not (`error`: the text of the reply); the next turn."""

    def take_output(self) -> bytes | None:
        """Everything to be written since the last call."""

    def timeout(self, now: float) -> int:
        """Time has passed; returns the next turn."""

    def lost(self) -> None:
        """The connection is gone. A commit that runs goes on."""

    def authenticate(self, method: str, user: str) -> None:
        """What a reply of 235 to the open question will mean: the client is this user."""

    @property
    def authenticated(self) -> bool:
        """Has the client shown that it is a user?"""
    @property
    def client(self) -> tuple[str, str, str]:
        """The client's address, its name, and its name by reverse lookup alone."""
    @property
    def group(self) -> int | None:
        """The group whose recipients are remembered for the client, if they are."""
    @property
    def deadline(self) -> float:
        """When `timeout` is due, if nothing happens before."""
    @property
    def committing(self) -> bool:
        """Does the journal hold a message of this session?"""
    @property
    def sender(self) -> str | None:
        """The reverse path, accepted or in question; None before MAIL."""
    @property
    def recipient(self) -> str | None:
        """The recipient in question."""
    @property
    def extended(self) -> bool:
        """Was it EHLO that named the client?"""
    @property
    def argument(self) -> str:
        """What stands behind the verb in question."""
    @property
    def mail_parameters(self) -> list[str]:
        """The parameters of MAIL: `SIZE=5`, `BODY=8BITMIME`."""
    @property
    def rcpt_parameters(self) -> list[str]:
        """The parameters of the RCPT in question."""
    @property
    def transactions(self) -> int:
        """How many MAILs were accepted."""
    @property
    def recipients(self) -> list[str]:
        """Who was accepted, of the message in the making."""
    @property
    def recipient_count(self) -> int:
        """How many recipients were accepted."""
    @property
    def helo(self) -> str | None:
        """What the client called itself; None before HELO."""
    @property
    def protocol(self) -> str:
        """SMTP or ESMTP."""
    @property
    def talked_early(self) -> bool:
        """Did the client speak before it was its turn?"""

@final
class SmtpdService:
    """All sessions of a process, on sockets of their own.

    What only the owner can decide comes back as wishes, None for none: the connection's number, what is wished for, a
    time, a text. Above SmtpdSession.IDLE: a session's question, answer it there and `proceed`. SmtpdSession.SLEEPING:
    `wake` at that time. GONE: a connection that was wished something of is gone. WELCOME: a client that is not known:
    `begin`. SWEEP: `sweep` from now on until it says that nobody is left. EMPTY: nobody is left, after `drain`.
    ACCEPT_FAILED: nobody can be accepted for this reason: `accept` after a while. Numbers of connections that are gone
    are ignored.
    """

    GONE: int
    WELCOME: int
    SWEEP: int
    EMPTY: int
    ACCEPT_FAILED: int

    def __new__(
        cls, name: str, config: SmtpdConfig, stressed: SmtpdConfig | None, journal: Journal, *, limit: int = 0
    ) -> SmtpdService:
        """`stressed`: for sessions that begin while all places are taken, and for 1,000 s after.

        `limit`: places, 0 for no limit. Raises `OSError`.
        """

    def fileno(self) -> int:
        """Readable while `turn` has something to do."""

    def listen(self, listener: socket.socket) -> None:
        """Listen on a copy of this socket. Raises `OSError`."""

    def accept(self, accepting: bool) -> None:
        """Accept clients while there is room, or leave them in the sockets' queues; nobody after `drain`.

        Raises `OSError`.
        """

    def drain(self) -> list[tuple[int, int, float, str | None]] | None:
        """Accept nobody any more, and say when the last one has left. Raises `OSError`."""

    def adopt(
        self, socket: socket.socket, address: str, port: int, now: float
    ) -> tuple[int, list[tuple[int, int, float, str | None]] | None]:
        """Serve a client on a copy of a connection that was accepted elsewhere; its number. Raises `OSError`."""

    def __len__(self) -> int: ...
    def peer(self, key: int) -> tuple[str, int] | None:
        """Address and port of a client; None when it is gone."""

    def session(self, key: int) -> SmtpdSession | None:
        """The session of a connection, once it has begun."""

    def know(
        self,
        address: str,
        name: str,
        reverse_name: str,
        until: float,
        *,
        group: int | None = None,
        rewrites_headers: bool = False,
        bare_newline_spared: bool = False,
    ) -> None:
        """Clients from this address are greeted without a wish, until that time."""

    def remember(self, group: int, scope: str, until: float) -> None:
        """Clients of this group (0 to 15) may send to `scope`, a recipient or `@domain`, until that time."""

    def turn(self, now: float) -> list[tuple[int, int, float, str | None]] | None:
        """Serve every socket that is ready. Raises `OSError`."""

    def settle(self, now: float) -> list[tuple[int, int, float, str | None]] | None:
        """Answer the clients whose commits the journal has settled."""

    def begin(
        self,
        key: int,
        address: str,
        name: str,
        reverse_name: str,
        now: float,
        *,
        group: int | None = None,
        rewrites_headers: bool = False,
        bare_newline_spared: bool = False,
        refusal: tuple[int, str, str] | None = None,
        turn_away: str | None = None,
    ) -> list[tuple[int, int, float, str | None]] | None:
        """Greet a client, or say `refusal` (code, dsn, text) or 421 with `turn_away`. Raises `ValueError`."""

    def proceed(self, key: int, turn: int, now: float) -> list[tuple[int, int, float, str | None]] | None:
        """A question was answered in the session, which then said `turn`."""

    def wake(self, key: int, now: float) -> list[tuple[int, int, float, str | None]] | None:
        """A session's sleep may be over."""

    def abort(self, key: int, now: float) -> list[tuple[int, int, float, str | None]] | None:
        """Close a connection at once."""

    def write(self, key: int, octets: bytes, now: float) -> list[tuple[int, int, float, str | None]] | None:
        """Say something out of turn."""

    def sweep(self, now: float) -> tuple[bool, list[tuple[int, int, float, str | None]] | None]:
        """Look at the time of every session; False when nobody is left."""

    def stop(self, now: float) -> list[tuple[int, int, float, str | None]] | None:
        """End every session that has no message on its way; call it again for the others."""

@final
class StoredMessage:
    """A message as it stands on disk."""

    @property
    def path(self) -> str:
        """Its segment, relative to the queue directory."""
    @property
    def offset(self) -> int: ...
    @property
    def record_octets(self) -> int: ...
    @property
    def size_octets(self) -> int:
        """Octets of the content as the log counts them."""
    @property
    def sender(self) -> str: ...
    @property
    def arrival(self) -> float:
        """Seconds since 1970."""
    @property
    def envid(self) -> str | None: ...
    @property
    def smtputf8(self) -> bool: ...
    @property
    def body(self) -> Literal["", "7BIT", "8BITMIME"]: ...
    @property
    def ret(self) -> Literal["", "FULL", "HDRS"]: ...
    @property
    def attributes(self) -> list[tuple[str, str]]: ...
    @property
    def recipients(self) -> list[tuple[str, str | None, str | None, int, bool]]:
        """Address, original, ORCPT, NOTIFY bits, and whether it is done."""
    def fields(self, *, long_queue_ids: bool = False) -> list[tuple[int, str, str]]:
        """Each field of the envelope: its place in the segment, its type in Postfix's letters, its text."""
    def text(self) -> bytes:
        """The content, lines ended with LF; raises `QueueError` when it is not what was committed."""

def read_message(queue_directory: str, id: str, place: tuple[str, int, int] | None = None) -> StoredMessage | None:
    """The message of that name; None when it is not in the queue. Nothing is changed.

    `place`: as `QueueManager.place` says it; otherwise every segment may be read. Raises `QueueError`.
    """
