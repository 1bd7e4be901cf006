"""From maildrop/ into the queue: one file after the other, removed only when its message is durable.

A file is read twice: first for its envelope and to see that it is whole, then for its content. Between the commit and
the removal the message exists twice; a crash there delivers it twice, and no crash loses it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from postillion._core import CleanupSettings, Journal, Log, Maildrop, MaildropReader, Submission
from postillion.errors import MessageRefused
from postillion.pickup.maildrop import Maildrop as Directory
from postillion.pickup.maildrop import NotAMessage, Submitted, shown

IN_FLIGHT_MAX: Final = 100
"""So many messages wait for the disk at a time; the next ones stay in maildrop/ until then."""
BATCH_NAMES: Final = 1_000
"""A scan sorts so many names at a time, whatever the directory holds."""
TEMPORARY_MAX: Final = 10
"""After so many temporary refusals there is no use in going on: the disk is full."""


class IllFormed(Exception):
    """A file is not what Postfix's format says; the text says where."""


@dataclass(frozen=True)
class Site:
    """What the service needs of main.cf: `myhostname`, and whether addresses may be UTF-8."""

    myhostname: str
    smtputf8: bool


class Pickup:
    """Takes messages from maildrop/. Its owner calls `scan` when something may be there, and `committed` for tickets.

    `refused(file, envelope, refusal)` is called for a message that will never be taken; the file is still there.
    """

    def __init__(
        self,
        site: Site,
        directory: Directory,
        settings: CleanupSettings,
        journal: Journal,
        log: Log,
        refused: Callable[[Submitted, Maildrop, MessageRefused], None],
    ) -> None:
        self._site = site
        self._directory = directory
        self._settings = settings
        self._journal = journal
        self._log = log
        self._refused = refused
        self._tickets = 0
        self._in_flight: dict[int, tuple[str, Submitted]] = {}
        self._names: set[str] = set()
        self._room = asyncio.Event()
        self._room.set()
        self._stuck: dict[str, int] = {}

    @property
    def in_flight(self) -> int:
        """How many messages wait for the disk."""
        return len(self._in_flight)

    async def scan(self) -> None:
        """Look at every name once and take what is complete; returns when each is refused or waits for the disk.

        Gives up after `TEMPORARY_MAX` messages that the queue does not take for now; they stay for the next scan.
        """
        temporary = 0
        names = self._directory.names()
        while batch := sorted(islice(names, BATCH_NAMES)):
            for name in batch:
                await self._room.wait()
                if name in self._names:
                    continue
                try:
                    self._take(name)
                except MessageRefused as refusal:
                    self._log.warning(f"maildrop/{shown(name)}: {refusal}; it stays there")
                    temporary += 1
                    if temporary == TEMPORARY_MAX:
                        return
                # Triggers, signals and completions are heard between two files.
                await asyncio.sleep(0)

    def committed(self, ticket: int, error: str | None) -> None:
        """A message is on disk, or `error` says why it is not: then its file stays."""
        queue_id, file = self._in_flight.pop(ticket)
        self._names.discard(file.name)
        self._room.set()
        if error is not None:
            self._log.warning(f"{queue_id}: maildrop/{shown(file.name)}: {error}; it stays there")
            return
        self._remove(file)

    def _take(self, name: str) -> None:
        """Hand one file to the journal. Raises `MessageRefused` when no message is taken at present."""
        try:
            file = self._directory.open(name)
        except NotAMessage as problem:
            if self._directory.first_report(name):
                self._log.warning(f"maildrop/{shown(name)}: {problem}")
            return
        if file is None or self._stuck.get(name) == file.inode:
            if file is not None:
                os.close(file.descriptor)
            return
        try:
            self._submit(file)
        except IllFormed as problem:
            self._log.warning(f"maildrop/{shown(name)}: uid={file.uid}: ill-formed: {problem}; moved to corrupt/")
            self._away(file, self._directory.set_aside)
        except OSError as problem:
            self._log.warning(f"maildrop/{shown(name)}: {problem.strerror}")
        finally:
            os.close(file.descriptor)

    def _submit(self, file: Submitted) -> None:
        envelope = read_envelope(file)
        address_utf8 = not all(
            address.isascii() for address in (envelope.sender, *(recipient[0] for recipient in envelope.recipients))
        )
        submission = Submission(
            self._settings,
            self._journal,
            self._log,
            envelope.sender,
            envelope.recipients,
            wall_now=time.time(),
            received=f"Received: by {self._site.myhostname} (Postfix, from userid {file.uid})\n\tid {{id}}; {{date}}",
            full_name=envelope.full_name,
            body=envelope.body,
            smtputf8=self._site.smtputf8 and address_utf8,
            ret=envelope.ret,
            envid=envelope.envid,
            local=not envelope.remote,
        )
        self._log.info(f"{submission.queue_id}: uid={file.uid} from=<{envelope.sender}>")
        reader = MaildropReader()
        try:
            for chunk in file.chunks():
                submission.write(reader.feed(chunk))
            reader.finish()
        except ValueError as problem:
            raise IllFormed(str(problem)) from None
        ticket = self._tickets = self._tickets + 1
        try:
            queue_id = submission.commit(ticket)
        except MessageRefused as refusal:
            if not refusal.permanent:
                raise
            self._refused(file, envelope, refusal)
            return
        self._in_flight[ticket] = (queue_id, file)
        self._names.add(file.name)
        if len(self._in_flight) >= IN_FLIGHT_MAX:
            self._room.clear()

    def settle(self, file: Submitted) -> None:
        """A refused message is dealt with: its file goes."""
        self._remove(file)

    def set_aside(self, file: Submitted) -> None:
        """A refused message is for a person to look at: its file goes to corrupt/."""
        self._away(file, self._directory.set_aside)

    def _remove(self, file: Submitted) -> None:
        self._away(file, self._directory.remove)

    def _away(self, file: Submitted, move: Callable[[Submitted], None]) -> None:
        try:
            move(file)
        except OSError as problem:
            # Not taken again while this process lives: better one copy too few in maildrop/ than a copy a minute.
            self._stuck[file.name] = file.inode
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
