"""Probes (`sendmail -bv`) of a running site of either program: their lines in the log, and their reports."""

from __future__ import annotations

import email
import email.message
import email.policy
import re
import subprocess
from typing import NamedTuple

from support.mta import Site, commands_of, delivered, local_user, submitted, wait_for

USER = f"{local_user()}@example.org"
SUBJECT = "Mail Delivery Status Report"


class Line(NamedTuple):
    """A line of the log about a recipient."""

    to: str
    orig_to: str | None
    relay: str
    dsn: str
    status: str
    text: str


class Mta:
    """A running site of either program."""

    def __init__(self, site: Site, program: str, closed_port: int) -> None:
        self.site = site
        self.program = program
        self.closed_port = closed_port

    def plain(self, text: str) -> str:
        """Return a text without the names that differ from run to run."""
        text = text.replace(str(self.site.directory), "DIR").replace(f":{self.site.next_port}", ":PORT")
        text = text.replace(f":{self.closed_port}", ":CLOSED")
        return re.sub(r"queued as \w+|forwarded as \w+", lambda found: found[0].rsplit(" ", 1)[0] + " ID", text)

    def sendmail(self, *words: str, text: bytes = b"") -> tuple[str, str]:
        """Run sendmail; return the queue ID and what it printed."""
        before = len(self.site.log_text())
        done = subprocess.run(
            [commands_of(self.program) / "sendmail", "-C", str(self.site.etc), *words],
            input=text,
            capture_output=True,
            timeout=60,
            check=True,
        )
        return submitted(self.site, before), done.stdout.decode()

    def probe(self, *recipients: str, sender: str = USER) -> str:
        """Probe recipients; return the queue ID once the probe is over."""
        queue_id, said = self.sendmail("-bv", "-f", sender, *recipients, text=b"this is not read")
        assert said == f"{SUBJECT} will be mailed to <{sender}>.\n"
        self.over(queue_id)
        return queue_id

    def forget(self, queue_id: str) -> None:
        """Remove a message that waits, if it does."""
        command = self.site.command("postsuper", self.program)
        subprocess.run([*command, "-d", queue_id], capture_output=True, timeout=60, check=False)

    def over(self, queue_id: str) -> None:
        """Wait until a message is removed, and every line about its recipients is in the log."""
        wait_for(f"the end of {queue_id}", lambda: f" {queue_id}: removed" in self.site.log_text())
        delivered(self.site, queue_id)

    def expect(self, queue_id: str, lines: list[Line]) -> None:
        """Check the lines about a message's recipients: an agent may write them after the queue manager's."""
        wait_for(f"the lines of {queue_id}", lambda: len(self.lines(queue_id)) >= len(lines))
        assert self.lines(queue_id) == sorted(lines, key=repr)

    def lines(self, queue_id: str) -> list[Line]:
        """Return the lines about a message's recipients, in order of their text."""
        pattern = re.compile(
            r": to=<(.*?)>(?:, orig_to=<(.*?)>)?, relay=(.*?)(?:, conn_use=\d+)?, delay=.*?, dsn=(.*?), "
            r"status=(\w+) \((.*)\)"
        )
        found = (pattern.search(line) for line in self.site.log_of(queue_id).splitlines())
        return sorted(
            (Line(*(self.plain(part) if part else part for part in match.groups())) for match in found if match),
            key=repr,
        )

    def report(self, queue_id: str, subject: str = SUBJECT) -> email.message.EmailMessage:
        """Wait for the report about a message; return it."""
        found: list[email.message.EmailMessage] = []

        def arrived() -> bool:
            for path in self.site.maildir(local_user()):
                message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
                assert isinstance(message, email.message.EmailMessage)
                if message["Subject"] == subject and f"Queue-ID: {queue_id}\n" in path.read_text(errors="replace"):
                    found.append(message)
            return bool(found)

        wait_for(f"{subject} about {queue_id}", arrived)
        return found[0]


def groups(report: email.message.EmailMessage) -> list[dict[str, str]]:
    """Return the fields about each recipient of a report, in order of the recipient."""
    status = report.get_payload(1)
    assert isinstance(status, email.message.Message)
    parts = status.get_payload()
    assert isinstance(parts, list)
    fields = [
        {name: " ".join(str(value).split()) for name, value in part.items()}
        for part in parts[1:]
        if isinstance(part, email.message.Message)
    ]
    return sorted(fields, key=lambda one: sorted(one.items()))
