"""Cleanup's parameters from main.cf, for every program that receives messages."""

from __future__ import annotations

import time

from postillion._core.cleanup import CleanupSettings
from postillion.config import Config


def settings(config: Config) -> CleanupSettings:
    """Return cleanup's parameters. Raises `ConfigError` for a bad value."""
    return CleanupSettings(config, *zone())


def zone() -> tuple[int, str]:
    """Return the seconds that local time is ahead of UTC now, and the name of the time zone."""
    local = time.localtime()
    return local.tm_gmtoff, local.tm_zone
