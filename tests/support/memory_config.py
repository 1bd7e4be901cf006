"""Configurations in memory."""

from postillion._core.cleanup import CleanupSettings
from postillion.config import Config
from postillion.config.main_cf import Setting


def config(**values: str) -> Config:
    """Return the configuration of mx.example.org, a host in example.org, with these parameters."""
    given = {"myhostname": "mx.example.org", "myorigin": "example.org", "mydomain": "example.org"} | values
    return Config("/etc/postfix", {name: Setting(value, "-o", None) for name, value in given.items()})


def cleanup_settings(**values: str) -> CleanupSettings:
    """Return cleanup's settings in that configuration, in UTC."""
    return CleanupSettings(config(**values), 0, "UTC")
