"""The recipients that exist, by local_recipient_maps, relay_recipient_maps, virtual_mailbox_maps and the aliases.

See LOCAL_RECIPIENT_README.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from postillion._core.address import AddressRules
from postillion.address.classes import Class
from postillion.address.destination import Destination
from postillion.config import Config
from postillion.tables import Maps, open_maps

KNOWN_FOR_S: Final = 10.0
"""Time for which a found user is cached. An unknown user is looked up each time."""
KNOWN_MAX: Final = 10_000
ALWAYS_KNOWN: Final = ("postmaster", "mailer-daemon")
"""Local parts that no table has to know, beside double_bounce_sender: bounces come from them."""


class KnownUsers:
    """The recipient tables of each address class."""

    def __init__(self, config: Config, warn: Callable[[str], None]) -> None:
        """Open the tables. Raises `TableTypeError`."""

        def maps(name: str) -> Maps:
            return open_maps(name, config, warn=warn)

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
        alias_code = config.number("unknown_virtual_alias_reject_code")
        self._no_alias = alias_code, " in virtual alias table" if names else ""

    def knows_all(self, kind: Class) -> bool:
        """Return whether every recipient of this class counts as existing."""
        maps, _, _ = self._tables.get(kind, (None, 0, ""))
        return kind is Class.DEFAULT or (maps is not None and not maps)

    def missing_from(self, destination: Destination) -> tuple[int, str] | None:
        """Return reply code and table (` in local recipient table`) for an unknown recipient, else None.

        A class without a table knows every recipient; the class of virtual aliases is the exception, because there
        nothing else exists. Raises `TableError`.
        """
        if self.knows_all(destination.kind):
            return None
        if destination.kind is Class.LOCAL and destination.local.casefold() in self._never_refused:
            return None
        maps, code, name = self._tables.get(destination.kind, (None, *self._no_alias))
        known_as = destination.kind, destination.local, destination.domain
        now = time.monotonic()
        if self._known.get(known_as, 0.0) > now:
            return None
        keys = self._keys(destination)
        tables = self._rewriting if maps is None else [*self._rewriting, maps]
        if any(found.lookup(key) is not None for found in tables for key in keys):
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[known_as] = now + KNOWN_FOR_S
            return None
        return code, name

    def _keys(self, destination: Destination) -> list[str]:
        """Return the search keys of a recipient: with its extension, without it, the whole domain."""
        is_local = destination.kind is Class.LOCAL
        return self._rules.recipient_keys(destination.local, destination.domain, is_local=is_local)
