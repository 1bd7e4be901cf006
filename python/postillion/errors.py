"""Errors of several programs. A refusal carries its reply: the code, the enhanced status code and the text."""

from __future__ import annotations


class MessageRefused(Exception):
    """A refused message; no part of it is in the queue.

    `code`: the SMTP reply code, 4xx for a temporary and 5xx for a permanent refusal. `dsn`: the enhanced status code
    for the reply and a report. `text`: the reason for the client.
    """

    def __init__(self, code: int, dsn: str, text: str) -> None:
        super().__init__(code, dsn, text)
        self.code = code
        self.dsn = dsn
        self.text = text

    def __str__(self) -> str:
        return f"{self.code} {self.dsn} {self.text}"

    @property
    def permanent(self) -> bool:
        """Whether the same message would be refused again."""
        return self.code >= 500
