"""A local recipient's address taken apart: user, extension, domain (recipient_delimiter)."""

from typing import NamedTuple

from postillion._core.address import AddressRules


class LocalAddress(NamedTuple):
    """An address as local delivery sees it; all but `address` in lower case and without quotes.

    `local` is user, delimiter and extension together. `extension`: None without one, empty for `user+`.
    """

    address: str
    local: str
    user: str
    delimiter: str
    extension: str | None
    domain: str


def take_apart(address: str, rules: AddressRules) -> LocalAddress:
    """Return the parts of an address.

    An extension with a `/` is no extension and is dropped: it could name another directory.
    """
    local, domain = rules.split(address)
    local = local.casefold()
    user, delimiter, extension = rules.extension(local) or (local, "", None)
    if extension is not None and "/" in extension:
        return LocalAddress(address, user, user, "", None, domain)
    return LocalAddress(address, local, user, delimiter, extension, domain)
