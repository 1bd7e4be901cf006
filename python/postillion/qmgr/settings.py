"""The parameters of the queue manager: checked here, read from main.cf by its core."""

from collections.abc import Callable

from postillion._core.qmgr import check_settings
from postillion.address.resolve import Resolver
from postillion.config import Config, ConfigError, master_cf
from postillion.tables.lists import DomainList

DEFAULT = "default"
"""The transport whose parameters all others have unless main.cf gives them their own."""


class Configuration:
    """The checked configuration of the queue manager.

    `by_domain`: all addresses of a domain have the same route. `flush_domains`: sites whose mail may be flushed.
    """

    def __init__(self, config: Config, warn: Callable[[str], None]) -> None:
        """Open the tables and read every parameter. Raises `ConfigError`."""
        self.config = config
        self.resolver = Resolver(config, warn)
        self.by_domain = self.resolver.by_domain
        self.flush_domains = DomainList("fast_flush_domains", config)
        self.bounce_service_name = config.text("bounce_service_name")
        shortest, longest = config.seconds("minimal_backoff_time"), config.seconds("maximal_backoff_time")
        if shortest > longest:
            name = "minimal_backoff_time" if config.setting("minimal_backoff_time") else "maximal_backoff_time"
            problem = f"minimal_backoff_time ({shortest:g}s) is above maximal_backoff_time ({longest:g}s)"
            raise config.error(name, problem, "raise the one or lower the other")
        check_settings(config, (DEFAULT, self.bounce_service_name, *transports(config)))


def transports(config: Config) -> list[str]:
    """Return the services of master.cf that can be transports; none when master.cf is invalid."""
    try:
        entries, _ = master_cf.load(config.in_force)
    except ConfigError:
        return []
    return [entry.service for entry in entries if entry.type == "unix" and "/" not in entry.service]


def process_limit(config: Config, service: str) -> int:
    """Return the maximum number of concurrent deliveries of a service: `maxproc` in master.cf, 0 for no limit.

    A service that is not in master.cf has no limit, and neither have the services of an invalid master.cf.
    """
    try:
        entries, _ = master_cf.load(config.in_force)
    except (ConfigError, OSError):
        return 0
    for entry in entries:
        if entry.service == service and entry.type == "unix":
            return config.number("default_process_limit") if entry.maxproc is None else entry.maxproc
    return 0
