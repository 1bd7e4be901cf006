"""SMTP: the client's settings and logins, and the input of an SMTP server in Python."""

from collections.abc import Sequence
from typing import Final, final

from postillion._core.tls import TlsClient
from postillion.config import Config

__all__ = ["SASL_MECHANISMS", "SmtpClientSettings", "SmtpIntake", "SmtpLogin"]

SASL_MECHANISMS: Final[tuple[str, ...]]
"""The names of the SASL mechanisms, the preferred ones first."""

@final
class SmtpClientSettings:
    """The settings that all connections of a client share.

    `protocol`: smtp or lmtp, the prefix of the parameters. `checks`: as in `CleanupSettings`. `mechanisms`: those of
    smtp_sasl_mechanism_filter; None without a filter. `tls`: None where no connection uses
    TLS. Raises `ConfigError`; `ValueError` for another protocol.
    """

    def __new__(
        cls,
        config: Config,
        protocol: str,
        checks: Sequence[tuple[str, Sequence[object]]] | None = None,
        mechanisms: Sequence[str] | None = None,
        tls: TlsClient | None = None,
    ) -> SmtpClientSettings: ...

@final
class SmtpLogin:
    """A client's login at a server. Its repr does not show the password."""

    def __new__(cls, user: str, password: bytes) -> SmtpLogin:
        """Log in with a name and a password, or a token. Raises `UnicodeEncodeError` for a name that is not UTF-8."""

    @staticmethod
    def refused(dsn: str, said: str) -> SmtpLogin:
        """Return a login that the server has refused before: mail gets that reply if the server offers AUTH.

        Raises `ValueError` for a bad status code.
        """

    @staticmethod
    def unknown() -> SmtpLogin:
        """Return the login of a client whose table has failed: mail waits if the server offers AUTH."""

@final
class SmtpIntake:
    """The unread octets of a peer, given out by line, by count, or as a whole message.

    Lines and messages have limits. The caller limits the waiting octets: it stops reading from the peer.
    """

    LINE_TOO_LONG: int
    TOO_MUCH: int

    def __new__(cls, line_limit: int) -> SmtpIntake:
        """`line_limit`: maximum number of octets of a line without its end."""

    def feed(self, data: bytes) -> bool:
        """Take the next octets; return whether a result is ready. A message is ready at its end."""

    def take_line(self, end: bytes) -> bytes | int | None:
        """Return a line with its end; None when its end has not come.

        Return a number for a line above the limit: it has at least this number of octets, and none is taken. Raises
        `ValueError` for an empty end.
        """

    def take(self, most: int) -> bytes:
        """Return at most `most` octets, at once."""

    def begin_message(self, *, line_octets: int, message_octets: int | None) -> bool:
        """Read a message from here to CRLF.CRLF; return whether it has ended. Limits in octets on the wire; None: none.

        A message above a limit is read to its end and not kept. The octets of an unfinished message are dropped.
        """

    def take_message(self) -> bytes | int | None:
        """Return the message with CRLF line ends and unstuffed dots, LINE_TOO_LONG or TOO_MUCH; None before its end."""

    @property
    def reads_message(self) -> bool:
        """Whether a message is being read."""

    def clear(self) -> None:
        """Drop the waiting octets. A message in progress goes on."""

    def __len__(self) -> int:
        """Return the number of waiting octets."""
