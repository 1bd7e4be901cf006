"""The time until certificates expire: for `postillion check`, and for the log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from postillion._core.tls import TlsServer
from postillion.config import Config

WARNING_DAYS: Final = 14
"""A certificate that expires within this time gives a warning. Most are renewed 30 days before their end."""


def warnings(config: Config, tls: TlsServer) -> Iterator[str]:
    """Yield a warning for each certificate that has expired or will soon."""
    for name, subject, days in tls.expiries:
        if days < WARNING_DAYS:
            yield str(config.error(name, f"{name}: the certificate of {subject} {_when(days)}", "renew it"))


def lines(tls: TlsServer) -> Iterator[str]:
    """Yield a line for each certificate."""
    for name, subject, days in tls.expiries:
        yield f"{name}: the certificate of {subject} {_when(days)}"


def _when(days: int) -> str:
    if days < 0:
        return "has expired"
    return "expires today" if days == 0 else f"expires in {days} day{'s' * (days != 1)}"
