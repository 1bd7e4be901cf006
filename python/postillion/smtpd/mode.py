"""The lists and limits that a session keeps from its beginning to its end, for normal times and for stress.

A service whose sessions are all in use is under stress (STRESS_README). Sessions that begin then have the values of
main.cf with `stress = yes`, as a smtpd process that Postfix's master starts at such a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from postillion._core.tls import TlsServer
from postillion.config import Config, ConfigError, core_dumps
from postillion.program.tickets import Secret
from postillion.restrictions.access import Access
from postillion.smtpd import expiry, sni
from postillion.smtpd.clients import Clients
from postillion.smtpd.limits import Limits
from postillion.smtpd.names import Names
from postillion.smtpd.rewriters import Rewriters


class Mode(NamedTuple):
    """The settings of sessions that begin in normal times, or of those that begin under stress."""

    config: Config
    access: Access
    clients: Clients
    limits: Limits
    rewriters: Rewriters
    tls: TlsServer


def modes(config: Config, warn: Callable[[str], None], secret: Secret | None = None) -> tuple[Mode, Mode]:
    """Return the settings for normal times and for stress, with their tables opened. `secret`: of session tickets.

    Both have the same lists and limits unless a value of them depends on $stress. Raises `ConfigError`.
    """
    calm, stressed = config.by_stress()
    names = Names(warn, enabled=calm.flag("smtpd_peername_lookup"))
    access = Access(calm, warn)
    clients, rewriters = Clients(calm, access, names), Rewriters(calm, access.certificates)
    usual = Mode(calm, access, clients, Limits(calm), rewriters, tls_server(calm, warn, secret))
    try:
        if calm.reads_like(stressed):
            return usual, usual._replace(config=stressed)
        if calm.flag("smtpd_peername_lookup") != stressed.flag("smtpd_peername_lookup"):
            names = Names(warn, enabled=stressed.flag("smtpd_peername_lookup"))
        # Routes do not depend on $stress: Postfix's trivial-rewrite does not get it.
        access = Access(stressed, warn, access.resolver)
        clients, rewriters = Clients(stressed, access, names), Rewriters(stressed, access.certificates)
        tls = tls_server(stressed, warn, secret)
        return usual, Mode(stressed, access, clients, Limits(stressed), rewriters, tls)
    except ConfigError as error:
        raise ConfigError(error.path, error.line, f"under stress: {error.problem}", error.fix) from None


def tls_server(config: Config, warn: Callable[[str], None], secret: Secret | None) -> TlsServer:
    """Return TLS of the server, with its keys read. Raises `ConfigError` where mail needs TLS, and it does not work."""
    tls = TlsServer(config, sni.tables(config), secret)
    if tls.level != "none":
        core_dumps.forbid()
    if tls.problem is not None:
        name, text, fix = tls.problem
        error = config.error(name, f"{name}: {text}", fix)
        if tls.level == "encrypt":
            raise error
        warn(f"{error} (TLS is not offered)")
    for text in (*tls.warnings, *expiry.warnings(config, tls)):
        warn(text)
    return tls
