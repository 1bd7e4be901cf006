"""The reports about TLS sessions of a configuration (RFC 8460): to a collector's socket, or as files of our own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postillion.delivery.smtp.tls.tlsrpt import TlsReports
from postillion.delivery.smtp.tls.tlsrpt_socket import PATH_MAX_OCTETS, TlsReportSocket

if TYPE_CHECKING:
    from postillion._core.log import Log
    from postillion.config import Config
    from postillion.dns import Resolver

Reports = TlsReports | TlsReportSocket


def open_reports(config: Config, prefix: str, resolver: Resolver, log: Log, wall_now: float) -> Reports | None:
    """Return the reports; None without `smtp_tlsrpt_enable = yes`. Raises `ConfigError`."""
    if not config.flag(f"{prefix}_tlsrpt_enable"):
        return None
    parameter = f"{prefix}_tlsrpt_socket_name"
    path = config.text(parameter)
    if not path:
        return TlsReports.of(config, prefix, resolver, log.warning, wall_now)
    if len(path.encode()) > PATH_MAX_OCTETS:
        problem = f"{parameter}: the path of a socket has at most {PATH_MAX_OCTETS} octets"
        raise config.error(parameter, problem, "give a shorter path, such as run/tlsrpt/tlsrpt.sock")
    return TlsReportSocket(path, resolver, log.info, log.warning)
