"""local: the agent for mail to this system's users (local(8)).

File operations are synchronous and short, and use the recipient's rights. The event loop continues while a delivery
waits for a lock, a command, or the sync of a directory. The program starts as root (unpriv `n` in master.cf) and
stays root; an installation of an ordinary user delivers to that user only.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import TYPE_CHECKING, NoReturn

from postillion._core.cleanup import Options
from postillion._core.delivery import DeliveryJob, JobRecipient
from postillion._core.queue import QueueError
from postillion.delivery.account import NoAnswerError, NotPermittedError, rest_as
from postillion.delivery.accounts import Accounts
from postillion.delivery.agent import PROBE, Agent
from postillion.delivery.local.aliases import Aliases
from postillion.delivery.local.recipient import Delivery, Outcome, Report, Tools
from postillion.delivery.local.settings import LocalSettings
from postillion.delivery.mailbox.letter import Letter, quote
from postillion.delivery.mailbox.maildir import Maildirs
from postillion.delivery.submit import CLIENT_ATTRIBUTES, NewMessage, NewRecipient, SubmitError, Submitter
from postillion.delivery.verdict import DEFERRED, Verdict, deferred, failed, sent
from postillion.program import daemon

if TYPE_CHECKING:
    from postillion.program.daemon import Daemon

CAPACITY = 20
"""Maximum number of concurrent jobs; they overlap while they wait for commands and locks."""
MEMORY_MAX_RECIPIENTS = 10_000
"""Maximum number of deferred recipients whose finished targets are remembered; the next attempt skips those targets."""
RELAY = "local"
NEVER, SUCCESS = 1, 2
"""NOTIFY= as bits (RFC 3461 §4.1)."""


class LocalAgent(Agent):
    """The agent of one service."""

    answers_probes = True

    def __init__(self, process: Daemon) -> None:
        super().__init__(process, capacity=CAPACITY)
        settings = LocalSettings.load(process.config, self.log.warning)
        aliases = Aliases(
            settings.alias_maps,
            owner_request_special=settings.owner_request_special,
            expand_owner_alias=settings.expand_owner_alias,
        )
        self._settings = settings
        self._tools = Tools(settings, aliases, Maildirs(), Accounts(), self.log.warning)
        self._submitter = Submitter(process, Options.INTERNAL, in_place=True)
        self._memory: OrderedDict[tuple[str, int], dict[str, Verdict]] = OrderedDict()

    async def deliver(self, job: DeliveryJob) -> None:
        """Finish every recipient of the job."""
        if job.kind == PROBE:
            for recipient in job.recipients:
                await self._probe(job, recipient)
            return
        try:
            letter = Letter(job.text())
        except QueueError as error:
            verdict = deferred("4.3.0", f"queue file read error: {error}")
            for recipient in job.recipients:
                self._finish_recipient(job, recipient, recipient.address, verdict)
            return
        for recipient in job.recipients:
            await self._deliver_recipient(job, recipient, letter)

    async def close(self) -> None:
        """Close the connection that announces forwarded mail, and end the threads for accounts."""
        self._tools.accounts.close()
        await self._submitter.close()

    async def _probe(self, job: DeliveryJob, recipient: JobRecipient) -> None:
        """Say where a message would go. There is none: nothing is delivered, forwarded or remembered."""
        original = recipient.original or recipient.address
        delivery = Delivery(job, Letter(b""), recipient.address, original, self._tools, probes=True)
        outcome = await delivery.deliver()
        self._log(job, recipient, outcome, outcome.verdict())

    async def _deliver_recipient(self, job: DeliveryJob, recipient: JobRecipient, letter: Letter) -> None:
        key = (job.queue_id, recipient.index)
        done = self._memory.get(key, {})
        original = recipient.original or recipient.address
        delivery = Delivery(job, letter, recipient.address, original, self._tools, done)
        outcome = await delivery.deliver()
        for sender, addresses in outcome.forwards.items():
            await self._forward(job, recipient, letter, sender, addresses, outcome, done)
        verdict = outcome.verdict()
        if verdict.outcome == DEFERRED and done:
            self._memory[key] = done
            if len(self._memory) > MEMORY_MAX_RECIPIENTS:
                self._memory.popitem(last=False)
        else:
            self._memory.pop(key, None)
        self._log(job, recipient, outcome, verdict)

    def _log(self, job: DeliveryJob, recipient: JobRecipient, outcome: Outcome, verdict: Verdict) -> None:
        """Log each report. The line of the final verdict comes last, because it finishes the recipient."""
        last = next((n for n, report in enumerate(outcome.reports) if report.verdict is verdict), None)
        for n, (address, (word, dsn, text), action) in enumerate(outcome.reports):
            if n != last:
                job.note(recipient.index, address, word, dsn, text, relay=RELAY, action=action)
        report = Report(recipient.address, verdict) if last is None else outcome.reports[last]
        self._finish_recipient(job, recipient, *report)

    def _finish_recipient(
        self, job: DeliveryJob, recipient: JobRecipient, address: str, verdict: Verdict, action: str | None = None
    ) -> None:
        word, dsn, text = verdict
        job.status(recipient.index, word, dsn, text, relay=RELAY, address=address, action=action)

    async def _forward(
        self,
        job: DeliveryJob,
        recipient: JobRecipient,
        letter: Letter,
        sender: str,
        addresses: list[str],
        outcome: Outcome,
        done: dict[str, Verdict],
    ) -> None:
        """Queue a new message for the addresses in an alias or a .forward file.

        It keeps the DSN options of the original except for success reports, which each alias would multiply. Mail with
        another sender, such as a list's owner, has no DSN options (RFC 3461 §5.2.7).
        """
        target = f"forward from {sender}"
        if target in done:
            outcome.earlier.append(done[target])
            return
        same_sender = sender == job.sender
        notify = NEVER if recipient.notify == SUCCESS else recipient.notify & ~SUCCESS
        original = recipient.original or recipient.address
        dsn_options = (original, recipient.orcpt, notify) if same_sender else (None, None, 0)
        head = b""
        if "forward" in self._settings.prepend_delivered_header:
            head = f"Delivered-To: {quote(recipient.address)}\n".encode("utf-8", "surrogateescape")
        message = NewMessage(
            sender,
            [NewRecipient(address, *dsn_options) for address in addresses],
            (head, letter.text),
            local=False,
            source="forward",
            body=job.body,
            ret=job.ret if same_sender else "",
            envid=job.envid if same_sender else None,
            smtputf8=job.smtputf8,
            requiretls=job.requiretls,
            attributes={name: value for name in CLIENT_ATTRIBUTES if (value := job.attribute(name)) is not None},
        )
        try:
            new_id = await self._submitter.submit(message)
        except SubmitError as error:
            verdict, action = failed(error.dsn, f"cannot forward: {error.text}"), None
        else:
            verdict, action = sent(f"forwarded as {new_id}"), "relayed"
            done[target] = verdict
        outcome.reports.append(Report(recipient.address, verdict, action))


def prepare(process: Daemon) -> LocalAgent:
    """Return the agent. Raises `ConfigError`."""
    return LocalAgent(process)


async def serve(process: Daemon, agent: LocalAgent) -> None:
    """Deliver until the daemon stops; the program runs as mail_owner between two deliveries."""
    try:
        rest_as(process.config.text("mail_owner"))
    except (NotPermittedError, NoAnswerError) as error:
        process.fatal(str(error))
    await agent.serve()


def main() -> NoReturn:
    """Run the program as master starts it."""
    daemon.run(daemon.start("local", sys.argv[1:]), prepare, serve)


if __name__ == "__main__":
    main()
