"""Lines of master.cf whose program has no process here: cleanup and trivial-rewrite work in other programs.

The `-o` of a cleanup line hold for each service whose `cleanup_service_name` names it.
"""

from collections.abc import Iterator

from postillion.config import Config, effect
from postillion.config.master_cf import Entry
from postillion.master.plan import CLEANUP, Plan, missed
from postillion.program import cleanup
from postillion.tables import read_tables

ANY = "*"
ABSORBED = {CLEANUP: ANY, "trivial-rewrite": "rewrite"}
"""Programs whose work others do, and the service of master.cf that these do it for."""
NAME = "cleanup_service_name"


def check(plan: Plan) -> Iterator[str]:
    """Yield a warning for each `-o` without effect. Raises `ConfigError` for unsafe parameters and bad tables."""
    named = {configured(plan.config, entry).text(NAME) for entry in _workers(CLEANUP, plan)}
    for entry in plan.entries:
        if ABSORBED.get(entry.command) not in (entry.service, ANY):
            continue
        read: set[str] = set()
        if _workers(entry.command, plan):
            entry.check_arguments()
            own = configured(plan.config, entry)
            for error in effect.refusals(own, [entry.command]):
                raise error
            if entry.command == CLEANUP:
                read = _cleanup_reads(own)
        if entry.command == CLEANUP:
            why = "cleanup does not read it" if entry.service in named else f"no {NAME} names this service"
            for name in missed(entry):
                if entry.service not in named or name not in read:
                    yield f"{entry.path}, line {entry.line}: -o {name} of {entry.service} has no effect: {why}"


def configured(config: Config, entry: Entry) -> Config:
    """Return the configuration of one service: main.cf with the `-o` of its line in master.cf."""
    return config.overridden([("service_name", entry.service), *entry.overrides()], entry.path, entry.line)


def _workers(command: str, plan: Plan) -> list[Entry]:
    """Return the started services that do a program's work."""
    return [entry for entry in plan.started if command in effect.WORKS_AS.get(entry.command, ())]


def _cleanup_reads(own: Config) -> set[str]:
    """Return the parameters that cleanup reads. Raises `ConfigError` for a bad value or table."""
    cleanup.of_service(own)
    for error in read_tables(own):
        raise error
    return own.names_read()
