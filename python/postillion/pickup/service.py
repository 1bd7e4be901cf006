"""Messages from maildrop/ into the queue: a file is removed when its message is durable.

A file is read twice: for its envelope and completeness, then for its content. Between the commit and the removal the
message exists twice: a crash there causes a second delivery, and no crash loses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import Final

from postillion._core.cleanup import CleanupSettings, Intake, Options
from postillion._core.log import Log
from postillion._core.pickup import Maildrop, MaildropReader
from postillion._core.queue import Journal
from postillion.errors import MessageRefused
from postillion.pickup.maildrop import REPORTED_MAX, NotAMessage, Submitted, shown
from postillion.pickup.maildrop import Maildrop as Directory
from postillion.tables.answers import MessageLookups, answer_all, answer_content

IN_FLIGHT_MAX: Final = 100
"""Maximum number of messages that wait for the disk; others stay in maildrop/."""
BATCH_NAMES: Final = 1_000
"""Number of names that a scan reads and sorts at a time."""
SLICE_S: Final = 0.01
"""Longest time of a scan without a return to the event loop; one file may take longer."""
STUCK_MAX: Final = 10_000
"""Maximum number of queued files that cannot be removed; then pickup stops, because the directory is not writable."""
TEMPORARY_MAX: Final = 10
"""Maximum number of temporary refusals in a scan; then the disk is probably full, and the scan ends."""

_name = attrgetter("name")


class IllFormed(Exception):
    """A file that violates Postfix's format; the text names the place."""


@dataclass(frozen=True)
class Site:
    """The parameters of the service.

    `smtputf8`: addresses may be UTF-8. `options` and `report_options` tell cleanup how to treat messages and reports.
    """

    myhostname: str
    smtputf8: bool
    options: Options = Options.EXTERNAL
    report_options: Options = Options.INTERNAL


class Pickup:
    """Takes messages from maildrop/. Its owner calls `scan` for new files, and `committed` for finished commits.

    `report(file, envelope, queue_id, refusal)` returns the report for the sender of a permanently refused message;
    None moves its file to corrupt/.
    """

    def __init__(
        self,
        site: Site,
        directory: Directory,
        settings: CleanupSettings,
        journal: Journal,
        log: Log,
        report: Callable[[Submitted, Maildrop, str, MessageRefused], bytes | None],
        *,
        in_flow_delay_s: float = 0.0,
    ) -> None:
        self._site = site
        self._directory = directory
        self._settings = settings
        self._journal = journal
        self._log = log
        self._report = report
        self._tickets = 0
        self._in_flight: dict[int, tuple[str, Submitted]] = {}
        self._names: set[str] = set()
        self._room = asyncio.Event()
        self._room.set()
        self._in_flow_delay_s = in_flow_delay_s
        self._caught_up = asyncio.Event()
        self._caught_up.set()
        self._stuck: dict[str, int] = {}

    @property
    def in_flight(self) -> int:
        """The number of messages that wait for the disk."""
        return len(self._in_flight)

    def fall_behind(self, behind: bool) -> None:
        """Start or stop flow control: each message waits up to in_flow_delay for the queue manager to catch up."""
        if behind:
            self._caught_up.clear()
        else:
            self._caught_up.set()

    async def scan(self) -> None:
        """Check every name once and submit the complete files; return when each was refused or waits for the disk.

        Stops after `TEMPORARY_MAX` temporary refusals; the other files stay for the next scan.
        """
        temporary = 0
        loop = asyncio.get_running_loop()
        slice_end = loop.time() + SLICE_S
        entries = self._directory.entries()
        try:
            while batch := sorted(islice(entries, BATCH_NAMES), key=_name):
                for name in map(_name, filter(self._may_be_mail, batch)):
                    if name in self._names:
                        continue
                    await self._room.wait()
                    if len(self._stuck) >= STUCK_MAX:
                        return
                    try:
                        if await self._take(name):
                            await self._flow()
                    except MessageRefused as refusal:
                        self._log.warning(f"maildrop/{shown(name)}: {refusal}; it stays there")
                        temporary += 1
                        if temporary == TEMPORARY_MAX:
                            return
                    if loop.time() >= slice_end:
                        await asyncio.sleep(0)
                        slice_end = loop.time() + SLICE_S
                await asyncio.sleep(0)
        finally:
            entries.close()

    async def _flow(self) -> None:
        """Delay the next message while the queue manager is behind (flow control)."""
        if self._in_flow_delay_s and not self._caught_up.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._caught_up.wait(), self._in_flow_delay_s)

    def _may_be_mail(self, entry: os.DirEntry[str]) -> bool:
        """Return whether to open an entry; a logged entry that is not a regular file costs no system call."""
        try:
            return entry.is_file(follow_symlinks=False) or not self._directory.is_reported(entry.name, entry.inode())
        except OSError:
            return False

    def _hostile(self, name: str, inode: int, problem: str) -> None:
        if self._directory.first_report(name, inode):
            self._log.warning(f"maildrop/{shown(name)}: {problem}")
            if self._directory.reported == REPORTED_MAX:
                self._log.warning(f"maildrop: {REPORTED_MAX} names are not messages; further ones are not logged")

    def committed(self, ticket: int, error: str | None) -> None:
        """Finish a message: remove its file, or keep it when `error` says that the commit failed."""
        queue_id, file = self._in_flight.pop(ticket)
        self._names.discard(file.name)
        self._room.set()
        if error is not None:
            self._log.warning(f"{queue_id}: maildrop/{shown(file.name)}: {error}; it stays there")
            return
        self._remove(file)

    async def _take(self, name: str) -> bool:
        """Submit one file; return whether it was submitted. Raises `MessageRefused` for a temporary refusal."""
        try:
            file = self._directory.open(name)
        except NotAMessage as problem:
            self._hostile(name, problem.inode, str(problem))
            return False
        if file is None or self._stuck.get(name) == file.inode:
            if file is not None:
                os.close(file.descriptor)
            return False
        try:
            await self._submit(file)
            return True
        except IllFormed as problem:
            self._log.warning(f"maildrop/{shown(name)}: uid={file.uid}: ill-formed: {problem}; moved to corrupt/")
            self._away(file, self._directory.set_aside)
        except OSError as problem:
            self._log.warning(f"maildrop/{shown(name)}: {problem.strerror}")
        finally:
            os.close(file.descriptor)
        return False

    async def _submit(self, file: Submitted) -> None:
        envelope = read_envelope(file)
        # Only the mail system itself may give a message's history (`postsuper -r`).
        own = file.uid == os.geteuid()
        facts = dict(envelope.attributes) if own else {}
        origin = facts.pop("log_ident", None)
        utf8 = facts.pop("smtputf8", None) == "yes"
        arrival = envelope.arrival if own and envelope.arrival is not None else time.time()
        intake = Intake(
            self._settings,
            self._journal,
            self._log,
            self._site.options,
            envelope.sender,
            envelope.recipients if own else [(to, None, orcpt, notify) for to, _, orcpt, notify in envelope.recipients],
            wall_now=time.time(),
            arrival=min(arrival, time.time()),
            attributes=facts,
            received=f"Received: by {self._site.myhostname} (Postfix, from userid {file.uid})\n\tid {{id}}; {{date}}",
            full_name=envelope.full_name,
            body=envelope.body,
            smtputf8=self._site.smtputf8 and utf8,
            requiretls=envelope.requiretls,
            ret=envelope.ret,
            envid=envelope.envid,
            trace=envelope.trace,
            local=not envelope.remote,
            source="sendmail",
        )
        orig_id = "" if origin is None else f" orig_id={origin}"
        self._log.info(f"{intake.queue_id}: uid={file.uid} from=<{envelope.sender}>{orig_id}")
        reader, lookups = MaildropReader(), MessageLookups()
        for chunk in file.chunks():
            intake.write(_content(reader, chunk))
            await answer_content(intake, lookups)
        _envelope(reader)
        await self._commit(intake, file, envelope, lookups)

    async def _commit(self, intake: Intake, file: Submitted, envelope: Maildrop, lookups: MessageLookups) -> None:
        """Commit the message, or the report for its sender; `committed` then removes the file."""
        queue_id = intake.queue_id
        ticket = self._tickets = self._tickets + 1
        try:
            await answer_all(intake, lookups)
            intake.commit(ticket)
        except MessageRefused as refusal:
            if not refusal.permanent:
                raise
            self._log_refusal(queue_id, file, envelope, refusal)
            report = self._report(file, envelope, queue_id, refusal)
            report_id = None if report is None else await self._submit_report(envelope.sender, report, ticket)
            if report_id is None:
                self._log.warning(f"{queue_id}: maildrop/{shown(file.name)}: moved to corrupt/")
                self._away(file, self._directory.set_aside)
                return
            self._log.info(f"{queue_id}: sender non-delivery notification: {report_id}")
            queue_id = report_id
        self._in_flight[ticket] = (queue_id, file)
        self._names.add(file.name)
        if len(self._in_flight) >= IN_FLIGHT_MAX:
            self._room.clear()

    async def _submit_report(self, sender: str, report: bytes, ticket: int) -> str | None:
        """Commit a report; return its queue ID, or None after a permanent refusal."""
        intake = Intake(
            self._settings,
            self._journal,
            self._log,
            self._site.report_options,
            "",
            [(sender, None, None, 0)],
            wall_now=time.time(),
            received=f"Received: by {self._site.myhostname} (Postfix)\n\tid {{id}}; {{date}}",
            body="" if report.isascii() else "8BITMIME",
            smtputf8=self._site.smtputf8 and not sender.isascii(),
            source="bounce",
        )
        intake.write(report)
        try:
            await answer_all(intake)
            return intake.commit(ticket)
        except MessageRefused as refusal:
            if not refusal.permanent:
                raise
            return None

    def _log_refusal(self, queue_id: str, file: Submitted, envelope: Maildrop, refusal: MessageRefused) -> None:
        delay = max(0.0, time.time() - file.written)
        reason = f"dsn={refusal.dsn}, status=bounced ({refusal.text.removeprefix('Error: ')})"
        for address, *_ in envelope.recipients:
            self._log.info(
                f"{queue_id}: to=<{address}>, relay=none, delay={delay:.2g}, delays={delay:.2g}/0/0/0, {reason}"
            )

    def _remove(self, file: Submitted) -> None:
        self._away(file, self._directory.remove)

    def _away(self, file: Submitted, move: Callable[[Submitted], None]) -> None:
        try:
            move(file)
        except OSError as problem:
            # This process skips the file from now on; otherwise each scan would queue another copy.
            self._stuck[file.name] = file.inode
            if len(self._stuck) == STUCK_MAX:
                self._log.line("error", f"maildrop: {STUCK_MAX} files cannot be removed; pickup takes no more mail")
            self._log.line("error", f"maildrop/{shown(file.name)}: cannot be removed: {problem.strerror}")


def read_envelope(file: Submitted) -> Maildrop:
    """Read the file to its end and return its envelope. Raises `IllFormed`."""
    reader = MaildropReader()
    for chunk in file.chunks():
        _content(reader, chunk)
    return _envelope(reader)


def _content(reader: MaildropReader, chunk: bytes) -> bytes:
    """Return the content in the next part of a file. Raises `IllFormed`."""
    try:
        return reader.feed(chunk)
    except ValueError as problem:
        raise IllFormed(str(problem)) from None


def _envelope(reader: MaildropReader) -> Maildrop:
    """Return the envelope at the end of a file. Raises `IllFormed`."""
    try:
        return reader.finish()
    except ValueError as problem:
        raise IllFormed(str(problem)) from None
