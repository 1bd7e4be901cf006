"""The parameters of the queue manager's core, from main.cf."""

from collections.abc import Callable

from postillion._core.qmgr import check_settings
from postillion.address.resolve import Resolver
from postillion.config import Config, ConfigError, master_cf
from postillion.tables.lists import DomainList


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
        self.general()
        for name in ("default", self.bounce_service_name, *transports(config)):
            transport(config, name)

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
