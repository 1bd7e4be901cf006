"""Files in maildrop/, and the recipients in headers."""

from collections.abc import Mapping, Sequence
from typing import Literal, final

__all__ = ["HeaderRecipients", "Maildrop", "MaildropReader", "MaildropWriter", "maildrop_envelope", "parse_addresses"]

@final
class HeaderRecipients:
    """Collects the recipients in a message's headers, as the message is read (`sendmail -t`)."""

    def __new__(cls) -> HeaderRecipients: ...
    def feed(self, data: bytes) -> None:
        """Receive the next bytes, in any split; lines end with LF or CRLF."""

    def finish(self) -> list[str]:
        """Return the recipients in order: of Resent- headers if there are any, else of To, Cc and Bcc.

        Raises `ValueError` when a header exceeds the limit.
        """

@final
class Maildrop:
    """The data of a file in maildrop/ besides the content."""

    @property
    def arrival(self) -> float | None:
        """When it was written, in seconds since 1970; None without a time."""
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
        """In its xtext form, for `Intake`."""
    @property
    def trace(self) -> Literal["", "record", "probe"]:
        """The report that the sender wants of the first attempt, for `Intake`. A probe is never mail."""
    @property
    def requiretls(self) -> bool:
        """Whether the sender asks for REQUIRETLS (`sendmail -O requiretls=yes`)."""
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
        """Receive the next bytes, in any split; return the content in them, lines ended with LF.

        Raises `ValueError` with the reason when the file is ill-formed.
        """

    def finish(self) -> Maildrop:
        """Return the file's data; raises `ValueError` when the file is incomplete."""

@final
class MaildropWriter:
    """Writes the content segment and the end of a file in maildrop/.

    `dot_ends`: a line with only a dot ends the message. `line_endings`: always, strict or never
    (`sendmail_fix_line_endings`). mbox lines before the headers are left out.
    """

    def __new__(cls, *, dot_ends: bool, line_endings: str = "always") -> MaildropWriter: ...
    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Receive the next bytes, in any split; return records, and False once a dot has ended the message."""

    def finish(self, extracted: Sequence[tuple[str, str | None, str | None, int]] = ...) -> bytes:
        """Return the end of the content, the recipients in its headers, and the end of the file."""

def maildrop_envelope(
    sender: str,
    recipients: Sequence[tuple[str, str | None, str | None, int]],
    *,
    wall_now: float,
    full_name: str = "",
    body: str = "",
    ret: str = "",
    envid: str | None = None,
    trace: str = "",
    requiretls: bool = False,
    remote: bool = False,
    attributes: Mapping[str, str] = ...,
) -> bytes:
    """Return the envelope segment of a file in maildrop/.

    `body` and `ret`: the keywords of BODY and RET, empty for none. `trace`: record, probe, or empty. Raises
    `ValueError` for another word.
    """

def parse_addresses(text: str) -> list[str]:
    """Return the addresses of an address list (RFC 5322 §3.4), without names and comments."""
