"""Cleanup's parameters from main.cf, for every program that receives messages."""

from __future__ import annotations

import time

from postillion._core.cleanup import CleanupSettings
from postillion.config import Config


def settings(config: Config) -> CleanupSettings:
    """Return cleanup's parameters. Raises `ConfigError` for a bad value."""
    zone_s, zone_name = zone()
    return CleanupSettings(
        myhostname=config.text("myhostname"),
        myorigin=config.text("myorigin") if config.flag("append_at_myorigin") else None,
        mydomain=config.text("mydomain") if config.flag("append_dot_mydomain") else None,
        remote_header_rewrite_domain=config.text("remote_header_rewrite_domain") or None,
        header_size_limit=config.number("header_size_limit"),
        header_address_token_limit=config.number("header_address_token_limit"),
        hopcount_limit=config.number("hopcount_limit"),
        message_size_limit=config.number("message_size_limit"),
        always_add_missing_headers=config.flag("always_add_missing_headers"),
        drop_headers=config.items("message_drop_headers"),
        undisclosed_recipients_header=config.text("undisclosed_recipients_header"),
        replace_stray_cr_lf=config.flag("cleanup_replace_stray_cr_lf"),
        strip_characters=config.text("message_strip_characters"),
        reject_characters=config.text("message_reject_characters"),
        long_queue_ids=config.flag("enable_long_queue_ids"),
        obsolete_from_format=config.text("header_from_format") == "obsolete",
        swap_bangpath=config.flag("swap_bangpath"),
        percent_hack=config.flag("allow_percent_hack"),
        utc_offset_s=zone_s,
        zone_name=zone_name,
    )


def zone() -> tuple[int, str]:
    """Return the seconds that local time is ahead of UTC now, and the name of the time zone."""
    local = time.localtime()
    return local.tm_gmtoff, local.tm_zone
