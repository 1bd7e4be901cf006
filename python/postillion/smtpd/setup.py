"""The preparation of smtpd: main.cf as the parts of the server and the settings of its Rust core."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final, NamedTuple

from postillion._core.cleanup import CleanupSettings
from postillion._core.log import Log
from postillion._core.queue import Journal
from postillion._core.smtpd import SmtpdConfig
from postillion._core.tls import TlsServer
from postillion.checks.check import Stage
from postillion.config import Config, effect
from postillion.program import cleanup, tickets
from postillion.restrictions.access import Access
from postillion.smtpd.limits import Limits
from postillion.smtpd.mode import Mode, modes
from postillion.smtpd.rewriters import Rewriters

if TYPE_CHECKING:
    from postillion.handler.handler import Handler
    from postillion.program.daemon import Daemon

PLAINTEXT: Final = frozenset({"LOGIN", "PLAIN"})
"""Mechanisms that send the password in the clear."""


class Parts(NamedTuple):
    """The settings, tables and restriction lists of smtpd, without its queue and without the site's own code."""

    calm: Mode
    stressed: Mode
    cleanup: CleanupSettings
    timeout_s: float
    minfree_octets: int


def prepare(daemon: Daemon) -> Parts:
    """Return the parts of the server, with tables and restriction lists opened. Raises `ConfigError`."""
    config, log = daemon.config, daemon.log
    if config.text("smtpd_python_handler").strip():
        # As root: mail_owner may not be able to read the Python installation. Most sites need no aiosmtpd.
        importlib.import_module("postillion.handler.handler")
    secret = None if daemon.lifeline is None else tickets.take()
    calm, stressed = modes(config, log.warning, secret)
    settings = cleanup.settings(config)
    configs = (calm.config, stressed.config)
    for mode in (calm, stressed):
        _refuse_auth_that_needs_tls(mode)
        server_config(mode.config, None, log, settings, None)
    for refusal in effect.refusals(stressed.config, [daemon.program]):
        raise refusal
    return Parts(
        calm,
        stressed,
        settings,
        min(own.seconds("smtpd_timeout") for own in configs),
        max(minfree_octets(own) for own in configs),
    )


def prepare_as_owner(daemon: Daemon) -> Handler | None:
    """Return the site's handler, loaded without root's rights; None without one. Raises `ConfigError`."""
    config, log = daemon.config, daemon.log
    found = None
    if config.text("smtpd_python_handler").strip():
        # Importing aiosmtpd takes as long as importing everything else, and most sites have no handler.
        from postillion.handler import handler

        found = handler.load(config, log)
    auth_mechanisms(config, log, found)
    return found


def server_config(
    config: Config,
    access: Access | None,
    log: Log,
    cleanup_settings: CleanupSettings,
    journal: Journal | None,
    handler: Handler | None = None,
    tls: TlsServer | None = None,
) -> SmtpdConfig:
    """Return the core's settings; without `access`, `journal` and `tls`, those of a stand-alone session.

    Raises `ConfigError`.
    """
    mechanisms = auth_mechanisms(config, log, handler) if access is not None else []
    asked: set[Stage] = set(handler.stages) if handler is not None else set()
    if access is not None:
        asked |= access.stages | Limits(config).stages | Rewriters(config, access.certificates).stages
    return SmtpdConfig(
        config,
        log,
        cleanup_settings,
        journal,
        asks=asked,
        auth_mechanisms=mechanisms,
        tls=tls,
        recipient_tables=None if access is None else access.recipient_tables,
        stand_alone=access is None,
    )


def auth_mechanisms(config: Config, log: Log, handler: Handler | None) -> list[str]:
    """Return the mechanisms that EHLO announces. The site's handler checks passwords: there is no SASL server.

    Raises `ConfigError` when passwords must not be sent in the clear.
    """
    if not config.flag("smtpd_sasl_auth_enable"):
        return []
    if handler is None or not handler.mechanisms.names:
        log.warning(
            "smtpd_sasl_auth_enable = yes has no effect: smtpd_python_handler has no authenticator, no auth_ method "
            "and no handle_AUTH, and SASL servers (smtpd_sasl_type) are not supported yet"
        )
        return []
    offered = handler.mechanisms.names
    if "noplaintext" in config.items("smtpd_sasl_security_options") and not PLAINTEXT.isdisjoint(offered):
        problem = "smtpd_sasl_security_options = noplaintext is not supported yet, and passwords would go in the clear"
        raise config.error("smtpd_sasl_security_options", problem, "remove it, or offer other mechanisms")
    return offered


def _refuse_auth_that_needs_tls(mode: Mode) -> None:
    config = mode.config
    if (
        config.flag("smtpd_sasl_auth_enable")
        and config.flag("smtpd_tls_auth_only")
        and (mode.tls.level == "none" or mode.tls.problem is not None)
    ):
        problem = "smtpd_tls_auth_only = yes without TLS: no client could log in"
        raise config.error("smtpd_tls_auth_only", problem, "set smtpd_tls_security_level, or remove one of them")


def minfree_octets(config: Config) -> int:
    """Return the minimum free space for accepting mail.

    It is queue_minfree, and at least 1.5 times message_size_limit: queued mail needs room for its reports and forwarded
    copies. Only smtpd asks; reports and forwarded mail may use this room (postconf(5), queue_minfree).
    """
    return max(config.number("queue_minfree"), config.number("message_size_limit") * 3 // 2)
