"""The processing of a message between its arrival and the queue."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, final

from postillion._core.log import Log
from postillion._core.queue import Journal
from postillion.config import Config

__all__ = ["CleanupSettings", "Intake", "Options", "Rehearsal"]

@final
class CleanupSettings:
    """A site's settings for incoming messages: cleanup's parameters, and the zone of local time.

    `checks`: each of the parameters header_checks, mime_header_checks, nested_header_checks and body_checks, with its
    tables. Raises `ConfigError`. See `postillion.program.cleanup.settings`.
    """

    def __new__(
        cls,
        config: Config,
        utc_offset_s: int,
        zone_name: str,
        checks: Sequence[tuple[str, Sequence[object]]] | None = None,
    ) -> CleanupSettings: ...
    def set_zone(self, utc_offset_s: int, name: str) -> None:
        """Set the offset of local time from UTC, and its name."""

    def date(self, wall_now: float) -> str:
        """Return the date in the form of a header field: `Sun, 22 Nov 2026 17:02:03 +0000 (UTC)`."""

@final
class Options:
    """The parts of cleanup that apply to a message, by the way that it comes: checks, address maps, copies."""

    EXTERNAL: ClassVar[Options]
    """For mail from clients and users: everything."""
    INTERNAL: ClassVar[Options]
    """For the mail system's own mail: address maps alone."""

    @staticmethod
    def received(config: Config) -> Options:
        """Return `EXTERNAL` without what `receive_override_options` switches off. Raises `ConfigError`."""

    @staticmethod
    def report(config: Config) -> Options:
        """Return `INTERNAL` for a report, with checks under `internal_mail_filter_classes`. Raises `ConfigError`."""

@final
class Intake:
    """The way into the queue, for a message that a program on this machine submits.

    `body` and `ret`: the keywords of BODY and RET, empty for none; raises `ValueError` for another word. `recipients`:
    address, original, ORCPT and NOTIFY bits of each. `received`: a trace header with LF inside, in
    which `{id}` stands for the queue ID and `{date}` for the date. `wall_now`, `arrival`: seconds since 1970.
    `local` False: headers are neither completed nor added. `source`: sendmail, bounce, notify, forward or unknown, for
    smtputf8_autodetect_classes. `trace`: record, probe, or empty for no report of the first attempt. Raises
    `postillion.errors.MessageRefused` when the disk is full. An intake without `commit` leaves no trace.
    """

    def __new__(
        cls,
        settings: CleanupSettings,
        journal: Journal,
        log: Log,
        options: Options,
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
        requiretls: bool = False,
        ret: str = "",
        envid: str | None = None,
        trace: str = "",
        local: bool = True,
        source: str = "unknown",
    ) -> Intake: ...
    @property
    def queue_id(self) -> str: ...
    def write(self, data: bytes) -> None:
        """Receive the next bytes, in any split; lines end with LF or CRLF. `commit` reports a problem."""

    def content_lookups(self) -> list[tuple[int, bytes]]:
        """Take the next lookups of the content so far, for its checks. Empty: the next `write` may follow."""

    def final_lookups(self) -> list[tuple[int, bytes]]:
        """End the content, and take the next lookups in remote tables: numbers of tables and keys.

        Empty: `commit` may follow. Otherwise `answer` them and call it again, as `tables.answers.answer_all`.
        """

    def answer(self, asked: Sequence[tuple[int, bytes]], given: Sequence[tuple[str, bytes | str | None]]) -> None:
        """Receive an answer for each lookup, in the same order."""

    def commit(self, ticket: int) -> str:
        """Commit the message and return the queue ID; the journal reports `ticket` when the message is durable.

        Raises `postillion.errors.MessageRefused`; then nothing is queued.
        """

@final
class Rehearsal:
    """The envelope of a message from the network as cleanup maps it, without a message. Nothing is queued."""

    def __new__(
        cls, settings: CleanupSettings, options: Options, sender: str, recipient: str, wall_now: float
    ) -> Rehearsal: ...
    def final_lookups(self) -> list[tuple[int, bytes]]:
        """Take the next lookups. Empty: `result` has the addresses. Otherwise `answer` them and call it again."""

    def answer(self, asked: Sequence[tuple[int, bytes]], given: Sequence[tuple[str, bytes | str | None]]) -> None:
        """Receive an answer for each lookup, in the same order."""

    @property
    def warnings(self) -> list[str]:
        """The warnings for the log."""

    def result(self) -> tuple[str, list[str]]:
        """Return the sender and the recipients. Raises `postillion.errors.MessageRefused`."""
