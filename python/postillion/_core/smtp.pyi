"""SMTP: the client, and what a server in Python reads with."""

from typing import final

from postillion._core.delivery import DeliveryJob

__all__ = ["SmtpClient", "SmtpClientSettings", "SmtpIntake"]

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
