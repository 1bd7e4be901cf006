"""The parameters of the queue manager's core, from main.cf."""

from collections.abc import Callable

from postillion.address.resolve import Resolver
from postillion.config import Config, ConfigError, master_cf
from postillion.tables.lists import DomainList

LIMITS = (
    "qmgr_message_active_limit",
    "qmgr_message_recipient_limit",
    "qmgr_message_recipient_minimum",
    "delay_logging_resolution_limit",
)
TIMES = (
    "minimal_backoff_time",
    "maximal_backoff_time",
    "maximal_queue_lifetime",
    "bounce_queue_lifetime",
    "delay_warning_time",
    "transport_retry_time",
    "qmgr_clog_warn_time",
    "qmgr_ipc_timeout",
    "queue_run_delay",
)
ADDRESS_FLAGS = ("owner_request_special", "allow_min_user", "resolve_numeric_domain")
TRANSPORT_NUMBERS = (
    "destination_concurrency_limit",
    "destination_recipient_limit",
    "delivery_slot_cost",
    "delivery_slot_loan",
    "delivery_slot_discount",
    "minimum_delivery_slots",
    "recipient_limit",
    "extra_recipient_limit",
    "recipient_refill_limit",
)
TRANSPORT_TIMES = ("destination_rate_delay", "transport_rate_delay", "recipient_refill_delay")
TRANSPORT_TEXTS = ("destination_concurrency_positive_feedback", "destination_concurrency_negative_feedback")
COHORT_LIMIT = "destination_concurrency_failed_cohort_limit"
INITIAL = "initial_destination_concurrency"
PROCESS_LIMIT = "process_limit"


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

    def general(self) -> dict[str, object]:
        """Return the parameters of all transports."""
        return general(self.config, route_by_domain=self.by_domain)


def transports(config: Config) -> list[str]:
    """Return the services of master.cf that can be transports; none when master.cf is invalid."""
    try:
        entries, _ = master_cf.load(config.in_force)
    except ConfigError:
        return []
    return [entry.service for entry in entries if entry.type == "unix" and "/" not in entry.service]


def general(config: Config, *, route_by_domain: bool) -> dict[str, object]:
    """Return the parameters of all transports, by Postfix's names; times in seconds. Raises `ConfigError`."""
    shortest, longest = config.seconds("minimal_backoff_time"), config.seconds("maximal_backoff_time")
    if shortest > longest:
        name = "minimal_backoff_time" if config.setting("minimal_backoff_time") else "maximal_backoff_time"
        problem = f"minimal_backoff_time ({shortest:g}s) is above maximal_backoff_time ({longest:g}s)"
        raise config.error(name, problem, "raise the one or lower the other")
    return {
        **{name: config.number(name) for name in LIMITS},
        **{name: config.seconds(name) for name in TIMES},
        **{name: config.text(name) for name in ("recipient_delimiter", "double_bounce_sender")},
        **{name: config.flag(name) for name in ADDRESS_FLAGS},
        "defer_transports": config.items("defer_transports"),
        "confirm_delay_cleared": config.flag("confirm_delay_cleared"),
        "soft_bounce": config.flag("soft_bounce"),
        "enable_long_queue_ids": config.flag("enable_long_queue_ids"),
        "bounce_service_name": config.text("bounce_service_name"),
        "route_by_domain": route_by_domain,
    }


def transport(config: Config, name: str) -> dict[str, object]:
    """Return the parameters of one transport, by Postfix's suffixes. Raises `ConfigError`."""
    numbers = {suffix: config.transport_number(name, suffix) for suffix in TRANSPORT_NUMBERS}
    own_initial = f"{name}_{INITIAL}"
    return {
        **numbers,
        **{suffix: config.transport_seconds(name, suffix) for suffix in TRANSPORT_TIMES},
        **{suffix: config.transport_text(name, suffix) for suffix in TRANSPORT_TEXTS},
        PROCESS_LIMIT: process_limit(config, name),
        COHORT_LIMIT: float(config.transport_number(name, COHORT_LIMIT)),
        INITIAL: config.number(own_initial if config.setting(own_initial) else INITIAL),
    }


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
