"""Transports: every service that gets mail must have a program that runs."""

from collections.abc import Iterator

from postillion.config import ConfigError
from postillion.config.master_cf import Entry
from postillion.master.plan import Plan
from postillion.qmgr.settings import Configuration
from postillion.tables import TableError

NOT_DELIVERING = ("anvil", "pickup", "qmgr", "smtpd")
"""Programs that are started and take no mail from the queue manager."""
ACCEPTING = ("smtpd", "pickup")
"""Programs that put mail into the queue."""
DOMAINS_OF = {
    "local_transport": "mydestination",
    "relay_transport": "relay_domains",
    "virtual_transport": "virtual_mailbox_domains",
}
QMGR_LINE = "qmgr unix n - n 300 1 qmgr"
ADD = "add the service to master.cf, or mail for it will wait"


def refusals(configuration: Configuration, plan: Plan) -> Iterator[ConfigError]:
    """Yield an error for each transport in use that cannot work, at the parameter that names it."""
    for parameter, text, missing in _broken(configuration, plan):
        if not missing or _is_needed(parameter, configuration, plan):
            fix = ADD if missing else "name another transport, or keep Postfix for this mail"
            yield configuration.config.error(parameter, text, fix)


def warnings(configuration: Configuration, plan: Plan) -> Iterator[str]:
    """Yield a warning for each missing service that some mail may need: that mail would wait."""
    config = configuration.config
    if not accepting(plan):
        return
    for parameter, text, missing in _broken(configuration, plan):
        if missing and not _is_needed(parameter, configuration, plan):
            yield str(config.error(parameter, text, ADD))
    services = _services(plan)
    for parameter, service, mail in (
        ("bounce_service_name", configuration.bounce_service_name, "undeliverable mail"),
        ("virtual_alias_domains", "error", "mail for unknown virtual aliases"),
    ):
        if service not in services and (service != "error" or config.items(parameter)):
            yield str(config.error(parameter, f'{mail} needs "{service}", a service that master.cf does not have', ADD))


def accepting(plan: Plan) -> list[Entry]:
    """Return the services that put mail into the queue."""
    return [entry for entry in plan.started if entry.command in ACCEPTING]


def without_queue_manager(plan: Plan) -> Iterator[ConfigError]:
    """Yield an error when mail is accepted and no line of master.cf runs qmgr."""
    if not any(entry.command == "qmgr" for entry in plan.started):
        for entry in accepting(plan):
            problem = f"{entry.command} accepts mail, and no service runs qmgr, which delivers it"
            yield entry.error(problem, f"add the line: {QMGR_LINE}")


def _broken(configuration: Configuration, plan: Plan) -> Iterator[tuple[str, str, bool]]:
    """Yield parameter and problem of each transport that cannot work; True: a default, whose service is missing.

    Sites leave out the services that they do not use.
    """
    config, services = configuration.config, _services(plan)
    try:
        for parameter, value, transport, table in configuration.resolver.transports():
            entry = services.get(transport)
            why = _why_not(transport, entry, plan.started)
            if why is not None:
                missing = entry is None and config.setting(parameter) is None
                place = f" in {table}" if table else ""
                yield parameter, f'{parameter}: "{value}"{place} gives mail to "{transport}", {why}', missing
    except TableError:
        # `read_tables` reports a table that cannot be read.
        return


def _is_needed(parameter: str, configuration: Configuration, plan: Plan) -> bool:
    """Return whether mail surely comes for a default transport: mail of a class whose domains main.cf names."""
    config = configuration.config
    if not accepting(plan) or config.text("transport_maps").strip():
        return False
    domains = DOMAINS_OF.get(parameter)
    return domains is not None and config.setting(domains) is not None


def _services(plan: Plan) -> dict[str, Entry]:
    return {entry.service: entry for entry in plan.entries if entry.type in ("unix", "fifo", "pass")}


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
