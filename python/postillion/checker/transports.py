"""Transports: every service that gets mail must have a program that runs."""

from collections.abc import Iterator

from postillion.config import ConfigError
from postillion.config.master_cf import Entry
from postillion.master.plan import Plan
from postillion.qmgr.settings import Configuration
from postillion.tables import TableError

NOT_DELIVERING = ("anvil", "pickup", "qmgr", "smtpd")
"""Programs that are started and take no mail from the queue manager."""


def refusals(configuration: Configuration, plan: Plan) -> Iterator[ConfigError]:
    """Yield an error for each transport in use that cannot work, at the parameter that names it.

    A default may name a service that is not in master.cf: sites leave out the services that they do not use.
    """
    config = configuration.config
    services = {entry.service: entry for entry in plan.entries if entry.type in ("unix", "fifo", "pass")}
    try:
        for parameter, value, transport in configuration.resolver.transports():
            entry = services.get(transport)
            if entry is None and config.setting(parameter) is None:
                continue
            why = _why_not(transport, entry, plan.started)
            if why is not None:
                shown = f'{parameter}: "{value}" gives mail to "{transport}", {why}'
                yield config.error(parameter, shown, "name another transport, or keep Postfix for this mail")
    except TableError:
        # `read_tables` reports a table that cannot be read.
        return


def _why_not(transport: str, entry: Entry | None, started: list[Entry]) -> str | None:
    """Return the reason why mail for a transport would wait forever; None for a transport that works."""
    if not transport or "$" in transport:
        # The table computes the name from each address.
        return None
    if entry is None:
        return "a service that master.cf does not have"
    if entry not in started:
        return f"and its program {entry.command} is not supported yet"
    return f"and its program {entry.command} delivers no mail" if entry.command in NOT_DELIVERING else None
