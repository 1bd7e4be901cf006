"""SMTP replies as values (RFC 5321 §4.2, RFC 3463)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

LINE: Final = re.compile(r"([2-5][0-9][0-9])(?:[ -](.*))?", re.DOTALL)
ENHANCED: Final = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: +(.*))?", re.DOTALL)


class Reply(NamedTuple):
    """SMTP code, enhanced status code (may be empty) and text; LF separates the lines of the text."""

    code: int
    dsn: str
    text: str

    @property
    def refuses(self) -> bool:
        """Whether the client's command fails."""
        return self.code >= 400


INTERNAL_ERROR: Final = Reply(451, "4.3.0", "Error: internal error")
"""The reply when our own code fails: nothing is accepted because of a bug."""


def parse(status: object) -> Reply | None:
    """Return the reply in a text such as `250 2.1.5 Ok`, None if the text is not a reply.

    Lines end with LF or CRLF. An enhanced status code counts only in a reply of one line and of the same class.
    """
    if isinstance(status, bytes):
        status = status.decode("utf-8", "replace")
    if not isinstance(status, str):
        return None
    texts = []
    code = ""
    for line in status.removesuffix("\n").removesuffix("\r").replace("\r\n", "\n").split("\n"):
        found = LINE.fullmatch(line)
        if found is None or (code and found[1] != code):
            return None
        code = found[1]
        texts.append(found[2] or "")
    text = "\n".join(texts)
    found = ENHANCED.fullmatch(text)
    if found is not None and len(texts) == 1 and found[1][0] == code[0]:
        return Reply(int(code), found[1], found[2] or "")
    return Reply(int(code), "", text or " ")
