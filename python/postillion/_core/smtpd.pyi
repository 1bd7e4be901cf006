"""The SMTP server: configuration, sessions, and the service that owns their sockets."""

import socket
from collections.abc import Sequence, Set
from typing import ClassVar, final

from typing_extensions import disjoint_base

from postillion._core.cleanup import CleanupSettings
from postillion._core.log import Log
from postillion._core.queue import Journal
from postillion._core.tls import TlsServer
from postillion.config import Config

_Tables = Sequence[object]

__all__ = ["Next", "Request", "SmtpdConfig", "SmtpdService", "SmtpdSession"]

@final
class SmtpdConfig:
    """The settings that all SMTP server sessions of a process share, and the journal for their mail.

    The parameters come from `config`. `asks`: the stages at which the owner is asked, by the names of `Check`'s
    methods. `journal` None: the owner of a session takes its messages. `recipient_tables`: the tables of aliases, and
    those of local, relay and virtual mailbox recipients; without them, call `SmtpdService.remember` with `all` only.
    `stand_alone`: a dialogue on standard input. Raises `ConfigError`.
    """

    def __new__(
        cls,
        config: Config,
        log: Log,
        cleanup_settings: CleanupSettings,
        journal: Journal | None,
        *,
        asks: Set[str],
        auth_mechanisms: Sequence[str],
        tls: TlsServer | None = None,
        recipient_tables: tuple[_Tables, _Tables, _Tables, _Tables] | None = None,
        stand_alone: bool = False,
    ) -> SmtpdConfig: ...
    def fall_behind(self, behind: bool) -> None:
        """Delay each new message of all sessions by in_flow_delay, or delay none."""
    @property
    def hostname(self) -> str:
        """The server's name, myhostname."""

@final
class Next:
    """The next step of a session's owner.

    HELO, MAIL, RCPT, VRFY and DATA are questions about a command: answer with `accept` or `reply`.
    """

    IDLE: ClassVar[Next]
    """Write the output. Wait for octets, for `deadline`, or for the journal."""
    FULL: ClassVar[Next]
    """Do the same as for IDLE, but read no more."""
    SLEEP: ClassVar[Next]
    """Wait until `deadline`, then call `timeout`."""
    CLOSE: ClassVar[Next]
    """Write the output and close."""
    START_TLS: ClassVar[Next]
    """Write the output; TLS begins. The service does this."""
    HELO: ClassVar[Next]
    MAIL: ClassVar[Next]
    RCPT: ClassVar[Next]
    VRFY: ClassVar[Next]
    DATA: ClassVar[Next]
    END_OF_DATA: ClassVar[Next]
    """Accept or refuse a whole message, `content`."""
    RSET: ClassVar[Next]
    """Choose the reply. The command is done in any case, also for NOOP and QUIT."""
    NOOP: ClassVar[Next]
    QUIT: ClassVar[Next]
    AUTH: ClassVar[Next]
    """Answer AUTH or a line of its exchange, `argument`: `reply` 334 with a challenge, 235 after `authenticate`, or a
    refusal."""
    LOOKUP: ClassVar[Next]
    """Make the lookups of a complete message: `lookups`, then `answer_lookups`."""
    MESSAGE: ClassVar[Next]
    """Store the message of a stand-alone session: `take_message`, then `stored`."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    @property
    def is_question(self) -> bool:
        """Whether the owner must answer before the session goes on."""

@disjoint_base
class Request:
    """A request of a `SmtpdService` to its owner; `key` is the connection's number."""

    @final
    class Welcome:
        """Find out about an unknown client, then call `begin`."""

        __match_args__ = ("key",)
        def __new__(cls, key: int) -> Request.Welcome: ...
        @property
        def key(self) -> int: ...

    @final
    class Decide:
        """Answer the session's question, then call `proceed`."""

        __match_args__ = ("key", "next")
        def __new__(cls, key: int, next: Next) -> Request.Decide: ...
        @property
        def key(self) -> int: ...
        @property
        def next(self) -> Next: ...

    @final
    class WakeUp:
        """Call `wake` at this time."""

        __match_args__ = ("key", "at")
        def __new__(cls, key: int, at: float) -> Request.WakeUp: ...
        @property
        def key(self) -> int: ...
        @property
        def at(self) -> float: ...

    @final
    class Gone:
        """Forget a connection of an earlier request: it is closed."""

        __match_args__ = ("key",)
        def __new__(cls, key: int) -> Request.Gone: ...
        @property
        def key(self) -> int: ...

    @final
    class Sweep:
        """Call `sweep` from time to time, until it returns False."""

        __match_args__ = ()
        def __new__(cls) -> Request.Sweep: ...

    @final
    class Empty:
        """Go on: the last session has ended after `drain`."""

        __match_args__ = ()
        def __new__(cls) -> Request.Empty: ...

    @final
    class AcceptFailed:
        """Call `accept` after a while: no client can be accepted, for this reason."""

        __match_args__ = ("error",)
        def __new__(cls, error: str) -> Request.AcceptFailed: ...
        @property
        def error(self) -> str: ...

_Requests = (
    list[
        Request.Welcome
        | Request.Decide
        | Request.WakeUp
        | Request.Gone
        | Request.Sweep
        | Request.Empty
        | Request.AcceptFailed
    ]
    | None
)

@final
class SmtpdSession:
    """One client's session: octets and time in, octets and a `Next` out.

    Its owner or a `SmtpdService` moves the octets. Methods that return a `Next` return the next step.
    """

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
        tls_log_level: int | None = None,
    ) -> SmtpdSession: ...
    def greet(self, now: float) -> Next:
        """Greet the client with 220."""

    def receive(self, data: bytes, now: float) -> Next:
        """Receive bytes, in any split."""

    def eof(self, now: float) -> Next:
        """Note that no more bytes will come."""

    def accept(self, now: float) -> Next:
        """Accept the command in question. Raises `ValueError` when no question is open."""

    def reply(self, code: int, dsn: str, text: str, now: float) -> Next:
        """Answer the open question with this reply; `dsn` may be empty.

        Raises `ValueError` when no question is open, or for an invalid code.
        """

    def lookups(self) -> list[tuple[int, bytes]]:
        """Take the lookups of the open question LOOKUP: numbers of tables (`postillion.tables.answers`) and keys."""

    def answer_lookups(
        self, asked: Sequence[tuple[int, bytes]], given: Sequence[tuple[str, bytes | str | None]], now: float
    ) -> Next:
        """Answer LOOKUP: an answer for each lookup, in the same order. Raises `ValueError` unless LOOKUP is open."""

    def content(self) -> bytes:
        """Return the message in question, lines ended with CRLF, dots unstuffed."""

    def take_message(self) -> tuple[str, list[tuple[str, str | None, int]], str, str, str | None, bytes]:
        """Return the message of a stand-alone session, its lines ended with LF.

        The parts are: sender, recipients with ORCPT and NOTIFY, BODY, RET, ENVID, content.
        """

    def stored(self, queue_id: str, error: str | None, now: float) -> Next:
        """Report that the message of a stand-alone session is stored; `error`: the reply that refuses it."""

    def take_output(self) -> bytes | None:
        """Return the octets to write since the last call; None without any."""

    def timeout(self, now: float) -> Next:
        """Do what is due at `deadline`."""

    def lost(self) -> None:
        """Note that the connection is gone. A commit in progress goes on."""

    def authenticate(self, method: str, user: str) -> None:
        """Name the user for a `reply` of 235 to the open question."""

    @property
    def authenticated(self) -> bool:
        """Whether the client is authenticated."""
    @property
    def client(self) -> tuple[str, str, str]:
        """The client's address, its name, and its name by reverse lookup alone."""
    @property
    def group(self) -> int | None:
        """The group whose accepted recipients are remembered for the client; None without one."""
    @property
    def deadline(self) -> float:
        """The time of the next `timeout`, if nothing happens before."""
    @property
    def committing(self) -> bool:
        """Whether the journal holds a message of this session."""
    @property
    def sender(self) -> str | None:
        """The reverse path, accepted or in question; None before MAIL."""
    @property
    def recipient(self) -> str | None:
        """The recipient in question."""
    @property
    def unlisted(self) -> str | None:
        """The listing (`postillion.checks.check.Listing`) whose tables do not have the recipient; None: not asked."""
    @property
    def extended(self) -> bool:
        """Whether the client said EHLO."""
    @property
    def argument(self) -> str:
        """The argument of the command in question."""
    @property
    def mail_parameters(self) -> list[str]:
        """The parameters of MAIL: `SIZE=5`, `BODY=8BITMIME`."""
    @property
    def rcpt_parameters(self) -> list[str]:
        """The parameters of the RCPT in question."""
    @property
    def transactions(self) -> int:
        """Number of accepted MAIL commands."""
    @property
    def ehlo_text(self) -> str:
        """The reply to EHLO: the host's name, then one keyword in each line, without codes."""
    @property
    def recipients(self) -> list[str]:
        """The accepted recipients of the current message."""
    @property
    def recipient_count(self) -> int:
        """Number of accepted recipients."""
    @property
    def helo(self) -> str | None:
        """The client's name in HELO or EHLO; None before it."""
    @property
    def protocol(self) -> str:
        """SMTP or ESMTP."""
    @property
    def certificate(self) -> tuple[str, str, bool] | None:
        """The TLS certificate that the client has shown; None without one.

        Its fingerprint, that of its public key, and whether a trusted authority has issued it.
        """
    def complete_headers(self) -> None:
        """Complete the headers of the client's messages as those of local mail."""
    @property
    def talked_early(self) -> bool:
        """Whether the client sent a command before the reply that it must wait for."""

@final
class SmtpdService:
    """All sessions of a process, and their sockets.

    Methods that return requests return None without any. A `key` is a connection's number; the number of a closed
    connection is ignored.
    """

    def __new__(
        cls, name: str, config: SmtpdConfig, stressed: SmtpdConfig | None, journal: Journal, *, limit: int = 0
    ) -> SmtpdService:
        """`limit`: maximum number of sessions, 0 for no limit.

        `stressed`: the settings for sessions that begin while the limit is reached, and for 1,000 s after that. Raises
        `OSError`.
        """

    def fileno(self) -> int:
        """Return a descriptor that is readable while `poll` has something to do."""

    def listen(self, listener: socket.socket) -> None:
        """Listen on a copy of this socket. Raises `OSError`."""

    def accept(self, accepting: bool) -> None:
        """Accept clients below the limit, or leave them in the sockets' queues; none after `drain`.

        Raises `OSError`.
        """

    def drain(self) -> _Requests:
        """Accept no more clients. `Request.Empty` comes when the last session has ended. Raises `OSError`."""

    def adopt(self, socket: socket.socket, address: str, port: int, now: float) -> tuple[int, _Requests]:
        """Serve a client on a copy of a connection that was accepted elsewhere; return its number.

        Raises `OSError`, and `ValueError` for an invalid address.
        """

    def __len__(self) -> int: ...
    def peer(self, key: int) -> tuple[str, int] | None:
        """Return the address and port of a client; None when it is gone."""

    def is_stressed(self, key: int) -> bool:
        """Return whether a client came under stress; its session keeps those settings."""

    def session(self, key: int) -> SmtpdSession | None:
        """Return the session of a connection; None before its beginning."""

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
        tls_log_level: int | None = None,
        stressed: bool = False,
    ) -> None:
        """Greet clients from this address without a request, until that time; `stressed`: those under stress."""

    def remember(self, group: int, scope: str, until: float, *, listing: str = "all", stressed: bool = False) -> None:
        """Accept `scope`, a recipient or `@domain`, from clients of this group (0 to 15) until that time.

        `listing`: the recipients of the domain, as in `postillion.checks.check.Listing`. `stressed`: from clients that
        came under stress. Raises `ValueError` for an unknown listing.
        """

    def poll(self, now: float) -> _Requests:
        """Serve every socket that is ready. Raises `OSError`."""

    def collect(self) -> None:
        """Take the commits that are done or have failed from the journal."""

    def finish(self, now: float) -> _Requests:
        """Answer the clients of the collected commits."""

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
        tls_log_level: int | None = None,
        refusal: tuple[int, str, str] | None = None,
        dismissal: str | None = None,
    ) -> _Requests:
        """Greet a client; or refuse it with `refusal` (code, dsn, text), or with 421 and the text `dismissal`.

        Raises `ValueError` for an invalid code.
        """

    def proceed(self, key: int, next: Next, now: float) -> _Requests:
        """Go on with a session that returned `next` to an answer."""

    def wake(self, key: int, now: float) -> _Requests:
        """Wake up a session that sleeps."""

    def abort(self, key: int, now: float) -> _Requests:
        """Close a connection at once."""

    def write(self, key: int, octets: bytes, now: float) -> _Requests:
        """Send octets to a client outside the dialogue."""

    def sweep(self, now: float) -> tuple[bool, _Requests]:
        """Close the sessions whose timeout has passed; return False when no session is left."""

    def stop(self, now: float) -> _Requests:
        """End every session without a message in progress; call it again for the others."""
