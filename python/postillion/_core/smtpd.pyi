"""The SMTP server: configuration, sessions, and the service that has them on its sockets."""

import socket
from collections.abc import Sequence
from typing import final

from postillion._core.cleanup import CleanupSettings
from postillion._core.log import Log
from postillion._core.queue import Journal

__all__ = ["SmtpdConfig", "SmtpdService", "SmtpdSession"]

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
        allow_min_user: bool = False,
        resolve_numeric_domain: bool = False,
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
