"""bounce: the agent that notifies senders of failed and delayed mail (bounce(8)).

A job names the message and the recipients to report. They are reported when the notification is durable in the queue.
After an earlier crash the queue manager repeats the job; after a later one the sender may get a second notification.

A failed notification is not reported to a sender: with the class 2bounce in `notify_classes`, the postmaster gets it
from `double_bounce_sender`. Failed mail of that sender is dropped. The classes bounce and delay send the postmaster a
copy of each notification.

A report of an attempt (`sendmail -v`, `sendmail -bv`) tells all that was logged, whatever NOTIFY= says. Instead of the
null sender, the postmaster gets it with the class 2bounce, and nobody without.

The program reads `bounce_template_file` at its start. A bad template gives a warning; the built-in one takes its place.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from postillion._core.cleanup import Options
from postillion._core.delivery import DeliveryJob, JobRecipient, TracedStatus
from postillion._core.queue import QueueError
from postillion.delivery.agent import PROBE, Agent, serve
from postillion.delivery.bounce import template_file
from postillion.delivery.bounce.report import (
    BOUNCE,
    CONFIRM,
    REPORT,
    WARN,
    Notification,
    Reported,
    Reporter,
    wanted,
    write_report,
)
from postillion.delivery.submit import NewMessage, NewRecipient, SubmitError, Submitter
from postillion.program import daemon

if TYPE_CHECKING:
    from postillion.program.daemon import Daemon

CAPACITY = 20
"""Maximum number of concurrent jobs; their commits share an fsync."""
PHRASES = {
    BOUNCE: "non-delivery notification",
    WARN: "delay notification",
    CONFIRM: "delivery status notification",
    REPORT: "delivery status notification",
}


class BounceAgent(Agent):
    """The agent of one service: bounce, defer or trace."""

    answers_probes = True

    def __init__(self, process: Daemon) -> None:
        super().__init__(process, capacity=CAPACITY)
        config = process.config
        warn = process.log.warning
        self._reporter = Reporter.of(config, template_file.of_site(config, warn), warn)
        self._bounce_size_limit = config.number("bounce_size_limit")
        self._lifetime_s = config.seconds("maximal_queue_lifetime")
        self._redacts = config.flag("requiretls_redact_dsn")
        self._waives_tls = config.flag("tls_required_enable")
        self._threaded = config.flag("enable_threaded_bounces")
        self._notify_classes = frozenset(config.items("notify_classes"))
        self._postmasters = {
            "bounce": config.text("bounce_notice_recipient"),
            "delay": config.text("delay_notice_recipient"),
            "2bounce": config.text("2bounce_notice_recipient"),
        }
        self._double_bounce = config.text("double_bounce_sender")
        self._submitter = Submitter(process, Options.report(config))

    async def deliver(self, job: DeliveryJob) -> None:
        """Report the job's recipients, then finish them."""
        if job.kind in ("deliver", PROBE):
            for recipient in job.recipients:
                job.status(recipient.index, "bounced", "5.3.5", "the bounce service delivers no mail")
            return
        try:
            await self._notify(job)
        except SubmitError as error:
            self.log.warning(f"{job.queue_id}: no notification of the sender yet: {error}")
            self._finish_all(job, "deferred", "4" + error.dsn[1:], error.text)
        else:
            self._finish_all(job, "sent", "2.0.0", "reported")

    async def close(self) -> None:
        """Close the connection that announces notifications."""
        await self._submitter.close()

    async def _report_attempt(self, job: DeliveryJob) -> None:
        """Queue the report of an attempt. Raises `SubmitError`."""
        is_double = job.sender.partition("@")[0].casefold() == self._double_bounce.casefold()
        if is_double or (not job.sender and "2bounce" not in self._notify_classes):
            whose = "double" if is_double else "single"
            self.log.info(f"{job.queue_id}: not sending trace/success notification for {whose}-bounce message")
            return
        by_index = {recipient.index: recipient for recipient in job.recipients}
        traced = [_traced(line, by_index[line.index]) for line in job.traced if line.index in by_index]
        headers_only = job.ret != "FULL" or self._is_redacted(job)
        notification = replace(self._notification(job, []), recipients=traced, headers_only=headers_only)
        if job.sender:
            await self._submit(job, notification, "", "sender")
        else:
            await self._tell_postmaster(job, notification, "2bounce")

    async def _notify(self, job: DeliveryJob) -> None:
        """Queue every notification of the job. Raises `SubmitError`."""
        if job.kind == REPORT:
            await self._report_attempt(job)
            return
        recipients = [recipient for recipient in job.recipients if wanted(job.kind, recipient.notify)]
        if job.sender.partition("@")[0].casefold() == self._double_bounce.casefold():
            if job.kind == BOUNCE:
                self.log.warning(f"{job.queue_id}: undeliverable postmaster notification discarded")
            return
        if job.sender == "":
            if job.kind == BOUNCE and "2bounce" in self._notify_classes:
                # NOTIFY= does not apply: it comes from the sender, and the sender is null.
                whole = replace(self._notification(job, job.recipients), headers_only=self._is_redacted(job))
                await self._tell_postmaster(job, whole, "2bounce")
            return
        notification = self._notification(job, recipients)
        if recipients:
            await self._submit(job, notification, "", "sender")
        if job.kind == CONFIRM:
            return
        copy = "bounce" if job.kind == BOUNCE else "delay"
        if copy in self._notify_classes:
            everyone = replace(notification, recipients=[_reported(recipient) for recipient in job.recipients])
            await self._tell_postmaster(job, everyone, copy)

    async def _tell_postmaster(self, job: DeliveryJob, notification: Notification, notify_class: str) -> None:
        to = self._postmasters[notify_class]
        copy = replace(notification, to=to if "@" in to else f"{to}@{self._reporter.myorigin}", postmaster_copy=True)
        if notify_class != "2bounce":
            copy = replace(copy, headers_only=True)
        await self._submit(job, copy, f"{self._double_bounce}@{self._reporter.myorigin}", "postmaster")

    async def _submit(self, job: DeliveryJob, notification: Notification, sender: str, whom: str) -> None:
        """Queue one notification; after a permanent refusal, queue it again with the message's headers only."""
        try:
            new_id = await self._submitter.submit(self._message(job, notification, sender))
        except SubmitError as error:
            if error.dsn.startswith("4") or notification.headers_only:
                raise
            smaller = replace(notification, headers_only=True)
            new_id = await self._submitter.submit(self._message(job, smaller, sender))
        self.log.info(f"{job.queue_id}: {whom} {PHRASES[notification.kind]}: {new_id}")

    def _message(self, job: DeliveryJob, notification: Notification, sender: str) -> NewMessage:
        text = write_report(notification, self._reporter, time.time())
        return NewMessage(
            sender,
            [NewRecipient(notification.to)],
            (text,),
            local=True,
            source="notify" if notification.postmaster_copy else "bounce",
            body="" if text.isascii() else "8BITMIME",
            smtputf8=job.smtputf8,
            requiretls=job.requiretls and not self._redacts,
        )

    def _is_redacted(self, job: DeliveryJob) -> bool:
        """Return whether a report must not have the content, because it may go out in the clear (RFC 8689 §5)."""
        return job.requiretls and self._redacts

    def _notification(self, job: DeliveryJob, recipients: list[JobRecipient]) -> Notification:
        try:
            message: bytes | None = job.text()
        except QueueError as error:
            self.log.warning(f"{job.queue_id}: the message can't be returned: {error}")
            message = None
        too_long = 0 < self._bounce_size_limit < job.size_octets
        return Notification(
            kind=job.kind,
            queue_id=job.queue_id,
            sender=job.sender,
            to=job.sender,
            arrival=job.arrival,
            retry_until=job.arrival + self._lifetime_s,
            envid=job.envid,
            smtputf8=job.smtputf8,
            message=message,
            # A warning needs no text: the message is still in the queue.
            headers_only=job.kind != BOUNCE or job.ret == "HDRS" or too_long or self._is_redacted(job),
            message_id=job.attribute("message_id") if self._threaded else None,
            waives_tls=job.waives_tls and not job.requiretls and self._waives_tls,
            recipients=[_reported(recipient) for recipient in recipients],
        )

    def _finish_all(self, job: DeliveryJob, outcome: str, dsn: str, text: str) -> None:
        for recipient in job.recipients:
            job.status(recipient.index, "sent" if outcome == "sent" else "deferred", dsn, text)


def _reported(recipient: JobRecipient) -> Reported:
    status = recipient.status
    dsn, text, remote = ("5.0.0", "the reason is unknown", None)
    if status is not None:
        dsn, text, remote = status.dsn, status.text, status.remote
    return Reported(recipient.address, recipient.original, recipient.orcpt, dsn, text, remote)


def _traced(line: TracedStatus, recipient: JobRecipient) -> Reported:
    """Return what the report says of a line: the target of an alias is expanded from it."""
    status = line.status
    original = recipient.original or (recipient.address if line.address != recipient.address else None)
    return Reported(
        line.address, original, recipient.orcpt, status.dsn, status.text, status.remote, line.relay, line.action
    )


def prepare(process: Daemon) -> BounceAgent:
    """Return the agent. Raises `ConfigError`."""
    return BounceAgent(process)


def main() -> NoReturn:
    """Run the program as master starts it."""
    daemon.run(daemon.start("bounce", sys.argv[1:]), prepare, serve)


if __name__ == "__main__":
    main()
