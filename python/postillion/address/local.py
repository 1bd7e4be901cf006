"""A local recipient's address taken apart: user, extension, domain (recipient_delimiter)."""

from typing import NamedTuple

from postillion.delivery.mailbox.letter import unquote

NEVER_SPLIT = ("mailer-daemon", "postmaster")


class LocalAddress(NamedTuple):
    """An address as local delivery sees it; all but `address` in lower case and without quotes.

    `local` is user, delimiter and extension together. `extension`: None when there is none.
    """

    address: str
    local: str
    user: str
    delimiter: str
    extension: str | None
    domain: str


def take_apart(
    address: str, delimiters: str, *, owner_request_special: bool, double_bounce_sender: str
) -> LocalAddress:
    """Return the parts of an address.

    `owner-list` and `list-request` are not split at a `-` while `owner_request_special` holds, nor are the names that
    every site must have. An extension with a `/` is no extension and is dropped: it could name another directory.
    """
    local, sign, domain = address.rpartition("@")
    if not sign:
        local, domain = domain, ""
    local = unquote(local).casefold()
    at = _split_at(local, delimiters, owner_request_special, double_bounce_sender)
    if at is None:
        return LocalAddress(address, local, local, "", None, domain.lower())
    user, delimiter, extension = local[:at], local[at], local[at + 1 :]
    if "/" in extension:
        return LocalAddress(address, user, user, "", None, domain.lower())
    return LocalAddress(address, local, user, delimiter, extension, domain.lower())


def _split_at(local: str, delimiters: str, owner_request_special: bool, double_bounce_sender: str) -> int | None:
    if not delimiters or local in NEVER_SPLIT or local == double_bounce_sender.casefold():
        return None
    if owner_request_special and "-" in delimiters and (local.startswith("owner-") or local.endswith("-request")):
        return None
    at = min((local.find(char) for char in delimiters if char in local), default=-1)
    # A delimiter at the very start or end parts nothing from anything.
    return at if 0 < at < len(local) - 1 else None
