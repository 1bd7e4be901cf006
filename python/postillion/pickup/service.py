"""From maildrop/ into the queue: one file after the other, removed only when its message is durable.

A file is read twice: first for its envelope and to see that it is whole, then for its content. Between the commit and
the removal the message exists twice; a crash there delivers it twice, and no crash loses it.
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

from postillion._core.cleanup import CleanupSettings, Submission
from postillion._core.log import Log
from postillion._core.pickup import Maildrop, MaildropReader
from postillion._core.queue import Journal
from postillion.errors import MessageRefused
from postillion.pickup.maildrop import REPORTED_MAX, NotAMessage, Submitted, shown
from postillion.pickup.maildrop import Maildrop as Directory

IN_FLIGHT_MAX: Final = 100
"""So many messages wait for the disk at a time; the next ones stay in maildrop/ until then."""
BATCH_NAMES: Final = 1_000
"""A scan sorts so many names at a time, whatever the directory holds."""
SLICE_S: Final = 0.01
"""A scan works so long, or on one file; then triggers, signals and completions are heard."""
STUCK_MAX: Final = 10_000
"""After so many files that are queued and cannot be removed nothing more is taken: the directory can't be written."""
TEMPORARY_MAX: Final = 10
"""After so many temporary refusals there is no use in going on: the disk is full."""

_name = attrgetter("name")


class IllFormed(Exception):
    """A file is not what Postfix's format says; the text says where."""


@dataclass(frozen=True)
class Site:
    """What the service needs of main.cf: `myhostname`, and whether addresses may be UTF-8."""

    myhostname: str
    smtputf8: bool


class Pickup:
    """Takes messages from maildrop/. Its owner calls `scan` when something may be there, and `committed` for tickets.

    `report(file, envelope, queue_id, refusal)` gives the report for the sender of a message that will never be taken,
    or None where there is nobody to tell: its file goes to corrupt/ then.
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
        """How many messages wait for the disk."""
        return len(self._in_flight)

    def fall_behind(self, behind: bool) -> None:
        """While the queue manager is behind, each message waits for in_flow_delay, or until it has caught up."""
        if behind:
            self._caught_up.clear()
        else:
            self._caught_up.set()

    async def scan(self) -> None:
        """Look at every name once and take what is complete; returns when each is refused or waits for the disk.

        Gives up after `TEMPORARY_MAX` messages that the queue does not take for now; they stay for the next scan.
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
                        if self._take(name):
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
        """Flow control: while the queue manager is behind, the next message waits."""
        if self._in_flow_delay_s and not self._caught_up.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._caught_up.wait(), self._in_flow_delay_s)

    def _may_be_mail(self, entry: os.DirEntry[str]) -> bool:
        """Say whether a name is worth opening: what is no message by its kind, and was named, costs no system call."""
        try:
            return entry.is_file(follow_symlinks=False) or not self._directory.is_reported(entry.name, entry.inode())
        except OSError:
            return False

    def _hostile(self, name: str, inode: int, problem: str) -> None:
        if self._directory.first_report(name, inode):
            self._log.warning(f"maildrop/{shown(name)}: {problem}")
            if self._directory.reported == REPORTED_MAX:
                self._log.warning(f"maildrop: {REPORTED_MAX} names are no messages; further ones are not named")

    def committed(self, ticket: int, error: str | None) -> None:
        """A message is on disk, or `error` says why it is not: then its file stays."""
        queue_id, file = self._in_flight.pop(ticket)
        self._names.discard(file.name)
        self._room.set()
        if error is not None:
            self._log.warning(f"{queue_id}: maildrop/{shown(file.name)}: {error}; it stays there")
            return
        self._remove(file)

    def _take(self, name: str) -> bool:
        """Hand one file to the journal; say whether it is there. Raises `MessageRefused` when none is taken now."""
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
            self._submit(file)
            return True
        except IllFormed as problem:
            self._log.warning(f"maildrop/{shown(name)}: uid={file.uid}: ill-formed: {problem}; moved to corrupt/")
            self._away(file, self._directory.set_aside)
        except OSError as problem:
            self._log.warning(f"maildrop/{shown(name)}: {problem.strerror}")
        finally:
            os.close(file.descriptor)
        return False

    def _submit(self, file: Submitted) -> None:
        envelope = read_envelope(file)
        # Only the mail system itself says what happened to a message before it came here (`postsuper -r`).
        own = file.uid == os.geteuid()
        facts = dict(envelope.attributes) if own else {}
        origin = facts.pop("log_ident", None)
        utf8 = facts.pop("smtputf8", None) == "yes"
        arrival = envelope.arrival if own and envelope.arrival is not None else time.time()
        address_utf8 = not all(
            address.isascii() for address in (envelope.sender, *(recipient[0] for recipient in envelope.recipients))
        )
        submission = Submission(
            self._settings,
            self._journal,
            self._log,
            envelope.sender,
            envelope.recipients if own else [(to, None, orcpt, notify) for to, _, orcpt, notify in envelope.recipients],
            wall_now=time.time(),
            arrival=min(arrival, time.time()),
            attributes=facts,
            received=f"Received: by {self._site.myhostname} (Postfix, from userid {file.uid})\n\tid {{id}}; {{date}}",
            full_name=envelope.full_name,
            body=envelope.body,
            smtputf8=self._site.smtputf8 and (address_utf8 or utf8),
            ret=envelope.ret,
            envid=envelope.envid,
            local=not envelope.remote,
        )
        orig_id = "" if origin is None else f" orig_id={origin}"
        self._log.info(f"{submission.queue_id}: uid={file.uid} from=<{envelope.sender}>{orig_id}")
        reader = MaildropReader()
        try:
            for chunk in file.chunks():
                submission.write(reader.feed(chunk))
            reader.finish()
        except ValueError as problem:
            raise IllFormed(str(problem)) from None
        self._commit(submission, file, envelope)

    def _commit(self, submission: Submission, file: Submitted, envelope: Maildrop) -> None:
        """Hand the message to the journal, or what is to be told its sender; the file goes when that is on disk."""
        queue_id = submission.queue_id
        ticket = self._tickets = self._tickets + 1
        try:
            submission.commit(ticket)
        except MessageRefused as refusal:
            if not refusal.permanent:
                raise
            self._log_refusal(queue_id, file, envelope, refusal)
            report = self._report(file, envelope, queue_id, refusal)
            told = None if report is None else self._tell(envelope.sender, report, ticket)
            if told is None:
                self._log.warning(f"{queue_id}: maildrop/{shown(file.name)}: moved to corrupt/")
                self._away(file, self._directory.set_aside)
                return
            self._log.info(f"{queue_id}: sender non-delivery notification: {told}")
            queue_id = told
        self._in_flight[ticket] = (queue_id, file)
        self._names.add(file.name)
        if len(self._in_flight) >= IN_FLIGHT_MAX:
            self._room.clear()

    def _tell(self, sender: str, report: bytes, ticket: int) -> str | None:
        """Hand a report to the journal; return its queue ID, None when it is refused for good."""
        submission = Submission(
            self._settings,
            self._journal,
            self._log,
            "",
            [(sender, None, None, 0)],
            wall_now=time.time(),
            received=f"Received: by {self._site.myhostname} (Postfix)\n\tid {{id}}; {{date}}",
            body="" if report.isascii() else "8BITMIME",
            smtputf8=self._site.smtputf8 and not sender.isascii(),
        )
        submission.write(report)
        try:
            return submission.commit(ticket)
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
            # Not taken again while this process lives: better one copy too few in maildrop/ than a copy a minute.
            self._stuck[file.name] = file.inode
            if len(self._stuck) == STUCK_MAX:
                self._log.line("error", f"maildrop: {STUCK_MAX} files cannot be removed; no more mail is taken")
            self._log.line("error", f"maildrop/{shown(file.name)}: cannot be removed: {problem.strerror}")


def read_envelope(file: Submitted) -> Maildrop:
    """Return what the file says besides the content, having read it to its end. Raises `IllFormed`."""
    reader = MaildropReader()
    try:
        for chunk in file.chunks():
            reader.feed(chunk)
        return reader.finish()
    except ValueError as problem:
        raise IllFormed(str(problem)) from None
