"""Secrets of remote tables: passwords that no log line, exception or traceback shows."""

from __future__ import annotations

from urllib.parse import quote

from postillion.config import core_dumps
from postillion.config.secrets import HIDDEN


class Secret:
    """A password. Its `repr` and `str` do not show it; `reveal` is for the library that sends it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return HIDDEN

    def __bool__(self) -> bool:
        return bool(self._text)

    def reveal(self) -> str:
        """Return the password."""
        return self._text


class Secrets:
    """The passwords of one table."""

    def __init__(self) -> None:
        self._hidden: list[Secret] = []

    def add(self, text: str) -> Secret:
        """Return the password as a secret that `redact` hides. The process leaves no core dump from now on."""
        secret = Secret(text)
        if text:
            core_dumps.forbid()
            self._hidden.append(secret)
        return secret

    def redact(self, text: str) -> str:
        """Return a text from a library or a server without the passwords."""
        for secret in self._hidden:
            for form in {secret.reveal(), quote(secret.reveal(), safe=""), repr(secret.reveal())[1:-1]}:
                text = text.replace(form, HIDDEN)
        return text
