"""The SMTP server: configuration, sessions, and the service that has them on its sockets."""

import socket
from collections.abc import Sequence, Set
from typing import ClassVar, final

from typing_extensions import disjoint_base

from postillion._core.cleanup import CleanupSettings
from postillion._core.log import Log
from postillion._core.queue import Journal
from postillion.config import Config

__all__ = ["Next", "Request", "SmtpdConfig", "SmtpdService", "SmtpdSession"]

@final
class SmtpdConfig:
    """The settings that all SMTP server sessions of a process share, and the journal for their mail.

    The parameters come from `config`. `asks`: the stages at which the owner is asked, by the names of `Check`'s
    methods. `journal` None: the owner of a session takes its messages. `stand_alone`: a dialogue on standard input.
    Raises `ConfigError`.
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
        stand_alone: bool = False,
    ) -> SmtpdConfig: ...
    def fall_behind(self, behind: bool) -> None:
        """From now on each new message of any session waits for in_flow_delay first, or no longer does."""
    @property
    def ehlo_text(self) -> str:
        """The reply to EHLO: the host's name and a keyword a line, without codes."""

@final
class Next:
    """The next step of a session's owner.

    IDLE: write the output and wait for octets, for `deadline`, or for the journal. FULL: the same, but read no more.
    SLEEP: wait until `deadline`, then call `timeout`. CLOSE: write the output and close. HELO, MAIL, RCPT, VRFY, DATA:
    decide, then `accept` or `reply`. END_OF_DATA: the same about a whole message, `content`. RSET, NOOP, QUIT: say the
    reply; the command is done in any case. AUTH, or a line of its exchange (`argument`): `reply` 334 with a challenge,
    235 after `authenticate`, or a refusal. MESSAGE: a stand-alone session has a whole message, `take_message` and
    `stored`.
    """

    IDLE: ClassVar[Next]
    FULL: ClassVar[Next]
    SLEEP: ClassVar[Next]
    CLOSE: ClassVar[Next]
    HELO: ClassVar[Next]
    MAIL: ClassVar[Next]
    RCPT: ClassVar[Next]
    VRFY: ClassVar[Next]
    DATA: ClassVar[Next]
    END_OF_DATA: ClassVar[Next]
    RSET: ClassVar[Next]
    NOOP: ClassVar[Next]
    QUIT: ClassVar[Next]
    AUTH: ClassVar[Next]
    MESSAGE: ClassVar[Next]
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
        """A connection is gone that an earlier request was about."""

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
        """No session is left, after `drain`."""

        __match_args__ = ()
        def __new__(cls) -> Request.Empty: ...

    @final
    class AcceptFailed:
        """No client can be accepted, for this reason: call `accept` after a while."""

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
    """One client's session: octets and time in, octets and a `Next` out. Its owner or a `SmtpdService` moves octets."""

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
    def greet(self, now: float) -> Next:
        """Say 220; returns the next step."""

    def receive(self, data: bytes, now: float) -> Next:
        """Take bytes as they came; returns the next step."""

    def eof(self, now: float) -> Next:
        """No more bytes will come; returns the next step."""

    def accept(self, now: float) -> Next:
        """Answer the open question with yes; returns the next step. Raises `ValueError` when none is open."""

    def reply(self, code: int, dsn: str, text: str, now: float) -> Next:
        """Answer the open question with this reply, `dsn` may be empty; returns the next step. Raises `ValueError`."""

    def content(self) -> bytes:
        """The message in question, lines ended with CRLF, dots unstuffed."""

    def take_message(self) -> tuple[str, list[tuple[str, str | None, int]], str, str, str | None, bytes]:
        """A stand-alone session's message: sender, recipients with ORCPT and NOTIFY, BODY, RET, ENVID, content.

        The content's lines end with LF.
        """

    def stored(self, queue_id: str, error: str | None, now: float) -> Next:
        """The stand-alone session's message is stored, or not (`error`: the text of the reply); the next step."""

    def take_output(self) -> bytes | None:
        """Everything to be written since the last call."""

    def timeout(self, now: float) -> Next:
        """Time has passed; returns the next step."""

    def lost(self) -> None:
        """The connection is gone. A commit that runs goes on."""

    def authenticate(self, method: str, user: str) -> None:
        """A reply of 235 to the open question authenticates the client as this user."""

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
        """The argument of the command in question."""
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
        """The accepted recipients of the current message."""
    @property
    def recipient_count(self) -> int:
        """How many recipients were accepted."""
    @property
    def helo(self) -> str | None:
        """The client's name in HELO or EHLO; None before it."""
    @property
    def protocol(self) -> str:
        """SMTP or ESMTP."""
    @property
    def talked_early(self) -> bool:
        """Whether the client sent a command too early."""

@final
class SmtpdService:
    """All sessions of a process, on sockets of their own.

    The calls return requests to the owner, None for none. A `key` is a connection's number; numbers of closed
    connections are ignored.
    """

    def __new__(
        cls, name: str, config: SmtpdConfig, stressed: SmtpdConfig | None, journal: Journal, *, limit: int = 0
    ) -> SmtpdService:
        """`stressed`: for sessions that begin while all places are taken, and for 1,000 s after.

        `limit`: places, 0 for no limit. Raises `OSError`.
        """

    def fileno(self) -> int:
        """Readable while `poll` has something to do."""

    def listen(self, listener: socket.socket) -> None:
        """Listen on a copy of this socket. Raises `OSError`."""

    def accept(self, accepting: bool) -> None:
        """Accept clients while there is room, or leave them in the sockets' queues; none after `drain`.

        Raises `OSError`.
        """

    def drain(self) -> _Requests:
        """Accept no more clients; `Request.Empty` comes when the last one has left. Raises `OSError`."""

    def adopt(self, socket: socket.socket, address: str, port: int, now: float) -> tuple[int, _Requests]:
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
        """Clients from this address are greeted without a request, until that time."""

    def remember(self, group: int, scope: str, until: float) -> None:
        """Clients of this group (0 to 15) may send to `scope`, a recipient or `@domain`, until that time."""

    def poll(self, now: float) -> _Requests:
        """Serve every socket that is ready. Raises `OSError`."""

    def finish(self, now: float) -> _Requests:
        """Answer the clients whose commits are done."""

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
        dismissal: str | None = None,
    ) -> _Requests:
        """Greet a client, or say `refusal` (code, dsn, text) or 421 with `dismissal`. Raises `ValueError`."""

    def proceed(self, key: int, next: Next, now: float) -> _Requests:
        """A question was answered in the session, which then returned `next`."""

    def wake(self, key: int, now: float) -> _Requests:
        """A session's sleep may be over."""

    def abort(self, key: int, now: float) -> _Requests:
        """Close a connection at once."""

    def write(self, key: int, octets: bytes, now: float) -> _Requests:
        """Send octets outside the dialogue."""

    def sweep(self, now: float) -> tuple[bool, _Requests]:
        """Close the sessions whose timeout has passed; False when no session is left."""

    def stop(self, now: float) -> _Requests:
        """End every session that has no message on its way; call it again for the others."""
