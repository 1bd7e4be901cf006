"""The non-delivery report for a message from maildrop/ that was refused."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from postillion._core.pickup import Maildrop, MaildropReader
from postillion.config import ConfigError
from postillion.delivery.bounce import template_file
from postillion.delivery.bounce.report import BOUNCE, Notification, Reported, Reporter, wanted, write_report
from postillion.delivery.bounce.template import BUILT_IN
from postillion.errors import MessageRefused
from postillion.pickup.maildrop import Submitted

if TYPE_CHECKING:
    from collections.abc import Callable

    from postillion.config import Config

RETURNED_MAX_OCTETS: Final = 256 * 1024
"""Maximum size of the start of the message that is read for the headers in the report."""


class Reports:
    """Writes reports with the parameters of main.cf, and with the site's template.

    `warn` gets a text for each template that is ignored.
    """

    def __init__(self, config: Config, warn: Callable[[str], None]) -> None:
        try:
            templates = template_file.of_site(config, warn)
        except ConfigError as error:
            # bounce ends without its templates. Mail that users submit does not wait for them.
            warn(str(error))
            templates = BUILT_IN
        self._reporter = Reporter.of(config, templates, warn)
        self._double_bounce = config.text("double_bounce_sender")

    def report(self, file: Submitted, envelope: Maildrop, queue_id: str, refusal: MessageRefused) -> bytes | None:
        """Return the report with LF line ends; None when no recipient or sender wants one."""
        recipients = [recipient for recipient in envelope.recipients if wanted(BOUNCE, recipient[3])]
        if not recipients or envelope.sender.partition("@")[0] in ("", self._double_bounce):
            return None
        reason = refusal.text.removeprefix("Error: ")
        notification = Notification(
            kind=BOUNCE,
            queue_id=queue_id,
            sender=envelope.sender,
            to=envelope.sender,
            arrival=file.written,
            retry_until=file.written,
            envid=envelope.envid,
            smtputf8=not envelope.sender.isascii(),
            message=beginning(file),
            headers_only=True,
            message_id=None,
            recipients=[
                Reported(address, original, orcpt, refusal.dsn, reason, None)
                for address, original, orcpt, _ in recipients
            ],
        )
        return write_report(notification, self._reporter, time.time())


def beginning(file: Submitted) -> bytes:
    """Return the start of the content, up to `RETURNED_MAX_OCTETS`."""
    reader = MaildropReader()
    content = bytearray()
    for chunk in file.chunks():
        content += reader.feed(chunk)
        if len(content) >= RETURNED_MAX_OCTETS:
            break
    return bytes(content[:RETURNED_MAX_OCTETS])
