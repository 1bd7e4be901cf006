"""A question to the restriction lists, and the outcomes of a restriction."""

from __future__ import annotations

from typing import Final

from postillion.address.destination import Destination
from postillion.checks.check import Client, Dialogue
from postillion.checks.reply import Reply
from postillion.restrictions.site import Site


class Ok:
    """The outcome that ends a list in the client's favour."""


OK: Final = Ok()
Outcome = Reply | Ok | None
"""A refusal, `OK`, or None to ask the next restriction (DUNNO in Postfix's words)."""


class Question:
    """One question: the site, the client, the dialogue so far, and the subject.

    `subject` and `noun` name the subject in replies: `<x@example.org>: Recipient address rejected`.
    """

    __slots__ = ("_destination", "client", "dialogue", "noun", "recipient", "sender", "site", "subject")

    def __init__(self, site: Site, client: Client, dialogue: Dialogue, recipient: str = "") -> None:
        self.site = site
        self.client = client
        self.dialogue = dialogue
        self.recipient = recipient
        self.sender = dialogue.sender or ""
        self.subject = recipient
        self.noun = "Recipient address"
        self._destination: Destination | None = None

    @property
    def destination(self) -> Destination:
        """The destination of the recipient's mail. Raises `TableError`."""
        if self._destination is None:
            self._destination = self.site.destination(self.recipient)
        return self._destination

    def about(self, noun: str) -> None:
        """Make this the subject: client, helo, sender, recipient or data."""
        if noun == "recipient":
            self.subject, self.noun = self.recipient, "Recipient address"
        elif noun == "sender":
            self.subject, self.noun = self.sender, "Sender address"
        elif noun == "helo":
            self.subject, self.noun = self.dialogue.helo or "", "Helo command"
        elif noun == "data":
            self.subject, self.noun = "DATA", "Data command"
        else:
            self.subject, self.noun = f"{self.client.name}[{self.client.address}]", "Client host"

    def rejected(self, code: int, dsn: str, why: str) -> Reply:
        """Return a refusal that names the subject."""
        return Reply(code, dsn, f"<{self.subject}>: {self.noun} rejected: {why}")
