"""Errors that several programs share. A refusal carries its reply: the code, the enhanced code and the text."""

from __future__ import annotations


class MessageRefused(Exception):
    """A message that is not taken; nothing of it is in the queue.

    `code` is the SMTP code (4xx: worth another try, 5xx: for good), `dsn` the enhanced status code without which no
    report can be written, `text` the reason as the client reads it.
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
        """True when the same message would be refused again."""
        return self.code >= 500
