"""The services that a configuration makes master run, with the addresses of each."""

from postillion.config import Config, ConfigError, effect, master_cf
from postillion.config.master_cf import Entry
from postillion.master import listeners, programs
from postillion.master.listeners import Address
from postillion.program.log import Target

LISTENERS_MAX = 150
"""Maximum number of listeners of a service; their descriptors stay below `listeners.FD_FLOOR` in the program."""


class Plan:
    """A configuration that was read and checked completely; creating one has no side effect."""

    def __init__(self, directory: str) -> None:
        """Read main.cf and master.cf; raises `ConfigError` for the first error."""
        self.config = Config.load(directory)
        self.config.validate()
        self.target = Target.find(self.config)
        entries, notices = master_cf.load(directory)
        started, absent = programs.startable(master_cf.enabled(entries, self.config.items("master_service_disable")))
        self.warnings = [*self.config.warnings, *notices, *effect.warnings(self.config, started), *absent]
        self.services: list[tuple[Entry, list[Address]]] = []
        taken: dict[Address, Entry] = {}
        for entry in started:
            wanted = listeners.addresses(entry, self.config)
            if len(wanted) > LISTENERS_MAX:
                raise entry.error(f"more than {LISTENERS_MAX} addresses", "listen on all with inet_interfaces = all")
            for address in wanted:
                other = taken.setdefault(address, entry)
                if other is not entry:
                    problem = f"listens on {address[1]} port {address[2]} as line {other.line} does"
                    raise entry.error(problem, "remove one of the lines")
            self.services.append((entry, wanted))
        if not self.services:
            raise ConfigError(entries[0].path if entries else directory, None, "no service to start", "add some")
