"""The recipients that exist, by local_recipient_maps, relay_recipient_maps, virtual_mailbox_maps and the aliases.

See LOCAL_RECIPIENT_README.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from postillion._core.address import AddressRules
from postillion.address.classes import Class
from postillion.address.destination import Destination
from postillion.address.resolve import ERROR, REPORTING, Route
from postillion.checks.check import Listing
from postillion.config import Config
from postillion.tables import Maps, Table, open_maps

KNOWN_FOR_S: Final = 10.0
"""Time for which a found user is cached. An unknown user is looked up each time."""
KNOWN_MAX: Final = 10_000
ERROR_CODE: Final = 550
"""Reply code for a recipient whose mail goes to the error transport."""
RETRY_CODE: Final = 450
"""Reply code for a recipient whose mail goes to the retry transport."""
STATUS: Final = re.compile(r"[245]\.(\d{1,3}\.\d{1,3})(?:\s+|$)(.*)", re.DOTALL)
"""An enhanced status code before a text."""
UNCHECKED: Final = "no_unknown_recipient_checks"
"""The word of receive_override_options after which no recipient is looked up."""
ALWAYS_KNOWN: Final = ("postmaster", "mailer-daemon")
"""Local parts that no table has to know, beside double_bounce_sender: bounces come from them."""
LISTINGS: Final[dict[Class, Listing]] = {
    Class.LOCAL: "local",
    Class.RELAY: "relay",
    Class.VIRTUAL_MAILBOX: "virtual",
}
"""The classes that have a table of recipients."""


class RecipientTables(NamedTuple):
    """The tables that list recipients: those that give another address, and those of each class."""

    aliases: tuple[Table, ...]
    local: tuple[Table, ...]
    relay: tuple[Table, ...]
    virtual: tuple[Table, ...]


class KnownUsers:
    """The recipient tables of each address class."""

    def __init__(self, config: Config, warn: Callable[[str], None]) -> None:
        """Open the tables. Raises `TableTypeError`."""

        def maps(name: str) -> Maps:
            return open_maps(name, config, warn=warn)

        self._checks = UNCHECKED not in config.items("receive_override_options")
        self._rewriting = [maps(name) for name in ("recipient_canonical_maps", "canonical_maps", "virtual_alias_maps")]
        self._rewriting = [table for table in self._rewriting if table]
        self._rules = AddressRules(config)
        names = config.flag("show_user_unknown_table_name")

        def table(parameter: str, code: str, name: str) -> tuple[Maps, int, str]:
            return maps(parameter), config.number(code), f" in {name} table" if names else ""

        self._tables: dict[Class, tuple[Maps, int, str]] = {
            Class.LOCAL: table("local_recipient_maps", "unknown_local_recipient_reject_code", "local recipient"),
            Class.RELAY: table("relay_recipient_maps", "unknown_relay_recipient_reject_code", "relay recipient"),
            Class.VIRTUAL_MAILBOX: table(
                "virtual_mailbox_maps", "unknown_virtual_mailbox_reject_code", "virtual mailbox"
            ),
        }
        self._known: dict[tuple[Class, str, str], float] = {}
        self._never_refused = {*ALWAYS_KNOWN, config.text("double_bounce_sender").casefold()}
        self._alias_code = config.number("unknown_virtual_alias_reject_code")

    @property
    def tables(self) -> RecipientTables:
        """The tables, for the Rust core."""
        aliases = tuple(table for maps in self._rewriting for table in maps.tables)
        return RecipientTables(aliases, *(self._tables[kind][0].tables for kind in LISTINGS))

    def listing(self, kind: Class, route: Route) -> Listing:
        """Return which recipients of a domain of this class exist. `route`: that of the domain.

        A class without a table has all of them. Where mail goes to the error or the retry transport, those exist that
        a map gives another address. Under `UNCHECKED` all do.
        """
        if not self._checks:
            return "all"
        if route.transport in REPORTING:
            return "aliases"
        return LISTINGS[kind] if kind in LISTINGS and self._tables[kind][0] else "all"

    def needs_no_table(self, destination: Destination) -> bool:
        """Return whether a recipient exists in any case."""
        return destination.kind is Class.LOCAL and destination.local.casefold() in self._never_refused

    def unlisted(
        self, destination: Destination, route: Route, *, asked: str | None = None
    ) -> tuple[int, str, str] | None:
        """Return code, enhanced code and text of the reply to an unknown recipient, None for a known one.

        `route`: its mail's route. `asked`: the listing whose tables do not have it, as the core has found; they are not
        asked again. Raises `TableError`.
        """
        listing = self.listing(destination.kind, route)
        if listing == "all":
            return None
        if listing == "aliases":
            if asked != listing and self._is_rewritten(destination):
                return None
            code = RETRY_CODE
            if route.transport == ERROR:
                code = self._alias_code if destination.kind is Class.VIRTUAL_ALIAS else ERROR_CODE
            found = STATUS.match(route.nexthop)
            detail, why = (found[1], found[2]) if found else ("1.1", route.nexthop)
            return code, f"{code // 100}.{detail}", why
        if self.needs_no_table(destination):
            return None
        maps, code, name = self._tables[destination.kind]
        known_as = destination.kind, destination.local, destination.domain
        now = time.monotonic()
        if self._known.get(known_as, 0.0) > now:
            return None
        if asked != listing and (self._is_rewritten(destination) or self._is_in(maps, destination)):
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[known_as] = now + KNOWN_FOR_S
            return None
        return code, f"{code // 100}.1.1", f"User unknown{name}"

    def _is_rewritten(self, destination: Destination) -> bool:
        return any(self._is_in(maps, destination) for maps in self._rewriting)

    def _is_in(self, maps: Maps, destination: Destination) -> bool:
        return maps.first(self._keys(destination)) is not None

    def _keys(self, destination: Destination) -> list[str]:
        """Return the search keys of a recipient: with its extension, without it, the whole domain."""
        is_local = destination.kind is Class.LOCAL
        return self._rules.recipient_keys(destination.local, destination.domain, is_local=is_local)
