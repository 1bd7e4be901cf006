"""New messages from the mail system itself: reports to senders, and mail that local delivery forwards.

`submit` returns when the message is durable in the queue; only then may its caller finish its own job.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from postillion._core.cleanup import Intake, Options
from postillion._core.queue import Journal, QueueError
from postillion.errors import MessageRefused
from postillion.program import cleanup
from postillion.program.producer import Producer, Tickets
from postillion.tables.answers import MessageLookups, answer_all, answer_content

if TYPE_CHECKING:
    from postillion.program.daemon import Daemon

COMMIT_TIMEOUT_S = 60.0
"""Timeout of a commit. A later success of the commit causes a second copy."""
CLIENT_ATTRIBUTES = ("client_name", "client_address", "client_port", "helo_name", "protocol_name")


class SubmitError(Exception):
    """A message that is not in the queue. `dsn`: the enhanced status code, of class 4 for a temporary failure."""

    def __init__(self, dsn: str, text: str) -> None:
        super().__init__(f"{dsn} {text}")
        self.dsn = dsn
        self.text = text


class NewRecipient(NamedTuple):
    """A recipient of a new message. `original`, `orcpt` and `notify` (bits): as in the envelope."""

    address: str
    original: str | None = None
    orcpt: str | None = None
    notify: int = 0


class NewMessage(NamedTuple):
    """A message for the queue. `parts`: its text with LF line ends. `local`: add missing headers, as for local mail.

    `body`, `ret`, `envid`, `smtputf8`, `requiretls`, `attributes`: as in the envelope. `source`: see `Intake`.
    """

    sender: str
    recipients: Sequence[NewRecipient]
    parts: Sequence[bytes]
    local: bool
    source: str
    body: str = ""
    ret: str = ""
    envid: str | None = None
    smtputf8: bool = False
    requiretls: bool = False
    attributes: Mapping[str, str] = {}


class Submitter:
    """Commits messages to the journal of this process; the first message opens it.

    `options`: what cleanup does with them. `in_place`: a commit blocks the process. Local delivery requires this: the
    journal's thread must not create files while the process has a recipient's rights.
    """

    def __init__(self, process: Daemon, options: Options, *, in_place: bool = False) -> None:
        config = process.config
        self._log = process.log
        self._options = options
        self._in_place = in_place
        self._settings = cleanup.settings(config)
        self._received = f"Received: by {config.text('myhostname')} ({config.text('mail_name')})\n\tid {{id}}; {{date}}"
        self._waiting: dict[int, asyncio.Future[str | None]] = {}
        self._tickets = 0
        self._journal: Journal | None = None
        self._producer: Producer | None = None

    async def submit(self, message: NewMessage) -> str:
        """Return the queue ID of the message once it is on disk. Raises `SubmitError`."""
        try:
            journal, producer = self._opened()
            intake = Intake(
                self._settings,
                journal,
                self._log,
                self._options,
                message.sender,
                message.recipients,
                wall_now=time.time(),
                received=self._received,
                attributes=message.attributes,
                body=message.body,
                smtputf8=message.smtputf8,
                requiretls=message.requiretls,
                ret=message.ret,
                envid=message.envid,
                local=message.local,
                source=message.source,
            )
            lookups = MessageLookups()
            for part in message.parts:
                intake.write(part)
                await answer_content(intake, lookups)
            await answer_all(intake, lookups)
            self._tickets += 1
            ticket = self._tickets
            new_id = intake.commit(ticket)
        except MessageRefused as refused:
            raise SubmitError(refused.dsn, refused.text) from refused
        except QueueError as error:
            raise SubmitError("4.3.0", f"queue file write error: {error}") from error
        problem = self._wait(journal, ticket) if self._in_place else await self._committed(ticket)
        producer.poll()
        if problem is not None:
            dsn, text = _split_reply(problem)
            raise SubmitError(dsn, text)
        return new_id

    async def close(self) -> None:
        """Announce the committed messages, and close the connection and the journal."""
        if self._producer is not None:
            await self._producer.close()
        if self._journal is not None:
            self._journal.close()

    def _opened(self) -> tuple[Journal, Producer]:
        if self._journal is None or self._producer is None:
            self._journal = Journal(".")
            self._producer = Producer(self._journal, Tickets(self._journal, self._completed))
            self._producer.start()
        return self._journal, self._producer

    def _completed(self, ticket: int, problem: str | None) -> None:
        waiting = self._waiting.pop(ticket, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(problem)

    async def _committed(self, ticket: int) -> str | None:
        waiting: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = waiting
        try:
            return await asyncio.wait_for(waiting, COMMIT_TIMEOUT_S)
        except TimeoutError:
            return "451 4.3.0 queue file write error: it takes too long"
        finally:
            self._waiting.pop(ticket, None)

    def _wait(self, journal: Journal, ticket: int) -> str | None:
        deadline = time.monotonic() + COMMIT_TIMEOUT_S
        while (left_s := deadline - time.monotonic()) > 0:
            for finished, problem in journal.wait(left_s):
                if finished == ticket:
                    return problem
        return "451 4.3.0 queue file write error: it takes too long"


def _split_reply(reply: str) -> tuple[str, str]:
    """Return the enhanced status code and the text of a reply such as `452 4.3.1 Insufficient system storage`."""
    _code, dsn, text = (*reply.split(" ", 2), "", "")[:3]
    return (dsn, text) if dsn[:2] in ("4.", "5.") else ("4.3.0", reply)
