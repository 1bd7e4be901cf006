"""A fixture's program, Postillion or Postfix, and the mail, log and commands of its running site."""

import re
import smtplib
import subprocess

import pytest

from support.mta import Site, local_user, wait_for
from support.peers import postfix_home, root

PROGRAMS = ["postillion", "postfix"]
"""The `params` of a fixture."""
MESSAGE = "Subject: {}\r\n\r\nbody\r\n"


def program(request: pytest.FixtureRequest) -> str:
    """Return the program of a fixture. Skip or fail when Postfix is not installed, or the test lacks root for it."""
    if request.param == "postfix":
        root()
        postfix_home()
    return str(request.param)


class Server:
    """A running site of either program."""

    def __init__(self, site: Site, program: str) -> None:
        self.site = site
        self.program = program
        self.user = f"{local_user()}@example.org"

    def send(self, sender: str, recipient: str, subject: str, *options: str) -> str:
        """Send a message; return its queue ID."""
        with smtplib.SMTP("127.0.0.1", self.site.port) as client:
            client.ehlo("client.example")
            client.mail(sender)
            client.rcpt(recipient, options)
            code, text = client.data(MESSAGE.format(subject).encode())
        assert code == 250, text
        return text.decode().rsplit(" ", 1)[1]

    def log(self, pattern: str) -> None:
        """Wait for a log line that matches."""
        wait_for(f"{pattern} in the log", lambda: re.search(pattern, self.site.log_text()))

    def mail(self, subject: str, text: str) -> str:
        """Wait for a message with this subject and text in the user's Maildir; return it."""
        found: list[str] = []

        def arrived() -> list[str]:
            messages = (path.read_text(errors="replace") for path in self.site.maildir(local_user()))
            found.extend(message for message in messages if f"\nSubject: {subject}\n" in message and text in message)
            return found

        wait_for(f"{subject} about {text}", arrived)
        return found[0]

    def command(self, program: str, *arguments: str) -> str:
        """Run a command of the site's program; return its output."""
        command = [*self.site.command(program, self.program), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
