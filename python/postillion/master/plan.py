"""The services that a configuration makes master run, with the addresses of each."""

from postillion.config import Config, ConfigError, effect, master_cf, unknown
from postillion.config.master_cf import Entry
from postillion.master import listeners, programs
from postillion.master.listeners import Address
from postillion.program.log import Target

LISTENERS_MAX = 150
"""Maximum number of listeners of a service; their descriptors stay below `listeners.FD_FLOOR` in the program."""


CLEANUP = "cleanup"
DISABLED = "master_service_disable"
ABSOLUTE = ("queue_directory", "data_directory")
"""Directories that master and the programs change to, or open files in, from different places."""
ALONE = ("pickup", "qmgr")
"""Programs that work alone: a second qmgr would die at each start, a second pickup would submit a message twice."""


class Plan:
    """The parts of main.cf and master.cf that master needs; creating a plan has no side effect.

    `entries`: the enabled services. `started`: those that master starts. `services`: the same with their addresses.
    """

    def __init__(self, directory: str) -> None:
        """Read main.cf and master.cf; raises `ConfigError` for the first error."""
        self.config = Config.load(directory)
        for name in ABSOLUTE:
            if not self.config.text(name).startswith("/"):
                problem = f"{name}: {self.config.text(name)} is a relative path"
                raise self.config.error(name, problem, "give a path that begins with /")
        # Other defaults repeat it: without this, the error for an empty value would name one of them.
        self.config.text("myhostname")
        self.target = Target.find(self.config)
        entries, self._notices = master_cf.load(directory)
        disabled = self.config.items(DISABLED)
        self.entries = master_cf.enabled(entries, disabled)
        for word in master_cf.unmatched(entries, disabled):
            fix = "give types such as inet, and name/type"
            self._notices.append(str(self.config.error(DISABLED, f'{DISABLED}: "{word}" fits no service', fix)))
        self.started = programs.startable(self.entries)
        self.services: list[tuple[Entry, list[Address]]] = []
        taken: dict[Address, Entry] = {}
        owners: dict[str, Entry] = {}
        for entry in self.started:
            if entry.command in ALONE and (owner := owners.setdefault(entry.command, entry)) is not entry:
                problem = f"{entry.command} works alone in the queue directory, and line {owner.line} starts it already"
                raise entry.error(problem, "remove one of the lines")
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

    @property
    def warnings(self) -> list[str]:
        """Settings that are allowed but likely a mistake, or that have no effect: one line each, with its place."""
        found = [
            *self.config.notices,
            *unknown.warnings(self.config),
            *self._notices,
            *effect.warnings(self.config, self.config.settings),
        ]
        for entry in self.entries:
            if entry not in self.started and entry.overrides():
                found += _ignored(entry)
            names = dict(entry.overrides())
            own = self.config.overridden(names.items(), entry.path, entry.line)
            found += effect.warnings(own, names)
        jailed = [entry for entry in self.started if entry.chroot]
        if jailed:
            names_of = ", ".join(entry.service for entry in jailed)
            found.append(f'{jailed[0].path}: "y" in the chroot field has no effect yet: {names_of}')
        return [*found, *programs.absent(self.entries)]


def _ignored(entry: Entry) -> list[str]:
    """Return a warning for each `-o` of a service without a process of its own.

    Only the checker knows which parameters of a cleanup line have their effect (`checker.absorbed`).
    """
    if entry.command not in programs.BUILT_IN or entry.command == CLEANUP:
        return []
    place = f"{entry.path}, line {entry.line}"
    where = programs.BUILT_IN[entry.command]
    return [
        f"{place}: -o {name} of {entry.service} has no effect: {entry.command} works {where}" for name in missed(entry)
    ]


def missed(entry: Entry) -> list[str]:
    """Return the names that a line sets and a site would miss without their effect."""
    return [name for name, _ in entry.overrides() if name not in NOT_MISSED and not effect.has_no_effect(name)]


NOT_MISSED = ("syslog_name",)
