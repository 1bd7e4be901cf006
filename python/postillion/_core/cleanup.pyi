"""What happens to a message between its arrival and the queue."""

from collections.abc import Mapping, Sequence
from typing import final

from postillion._core.log import Log
from postillion._core.queue import Journal

__all__ = ["CleanupSettings", "Submission"]

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
