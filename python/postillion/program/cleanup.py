"""Cleanup's parameters from main.cf and master.cf, for every program that receives messages."""

from __future__ import annotations

import os
import time

from postillion._core.cleanup import CleanupSettings
from postillion.config import Config, master_cf
from postillion.tables.checks import open_checks

PROGRAM = "cleanup"
"""The program of Postfix, and the usual name of its service."""


def settings(config: Config) -> CleanupSettings:
    """Return cleanup's parameters. Raises `ConfigError` for a bad value."""
    return of_service(service(config))


def of_service(own: Config) -> CleanupSettings:
    """Return the parameters of a cleanup service that has this configuration. Raises `ConfigError`."""
    return CleanupSettings(own, *zone(), open_checks(own))


def service(config: Config) -> Config:
    """Return the configuration of the cleanup service that `cleanup_service_name` names: with the `-o` of its line.

    Raises `ConfigError` for a service that master.cf does not have.
    """
    name = config.text("cleanup_service_name")
    # A directory may have a main.cf alone.
    has_services = os.path.exists(os.path.join(config.in_force, "master.cf"))
    entries = master_cf.load(config.in_force)[0] if has_services else []
    for entry in entries:
        if entry.command == PROGRAM and entry.service == name:
            own = config.overridden(entry.overrides(), entry.path, entry.line)
            # The program reads all its tables while it has the rights to.
            own.opened = config.opened
            return own
    if name != PROGRAM:
        problem = f"cleanup_service_name = {name}: master.cf has no cleanup service with this name"
        raise config.error(
            "cleanup_service_name", problem, f"add its line to master.cf, or remove this one ({PROGRAM})"
        )
    return config


def zone() -> tuple[int, str]:
    """Return the seconds that local time is ahead of UTC now, and the name of the time zone."""
    local = time.localtime()
    return local.tm_gmtoff, local.tm_zone
