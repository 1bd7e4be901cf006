"""The parameters of local delivery, under their own names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from postillion._core.address import AddressRules
from postillion.delivery.mailbox.lock import STYLES
from postillion.delivery.mailbox.mbox import MboxSettings
from postillion.tables import Maps, open_maps

if TYPE_CHECKING:
    from postillion.config import Config
    from postillion.tables.table import Warn


@dataclass(frozen=True)
class LocalSettings:
    """The parameters of local(8). Sizes are octets, times are seconds."""

    myhostname: str
    myorigin: str
    local_domains: frozenset[str]
    recipient_delimiter: str
    address_rules: AddressRules
    owner_request_special: bool
    expand_owner_alias: bool
    double_bounce_sender: str
    default_privs: str
    allow_mail_to_commands: frozenset[str]
    allow_mail_to_files: frozenset[str]
    propagate_unmatched_extensions: frozenset[str]
    prepend_delivered_header: frozenset[str]
    forward_path: list[str]
    forward_expansion_filter: str
    mailbox_command: str
    mailbox_command_maps: Maps
    home_mailbox: str
    mail_spool_directory: str
    luser_relay: str
    require_home_directory: bool
    frozen_delivered_to: bool
    command_time_limit_s: float
    command_expansion_filter: str
    command_execution_directory: str
    execution_directory_expansion_filter: str
    export_environment: list[str]
    local_command_shell: str
    mbox: MboxSettings
    alias_maps: Maps

    @classmethod
    def load(cls, config: Config, warn: Warn) -> LocalSettings:
        """Return the settings. Raises `ConfigError`; `warn` gets the doubtful values."""
        locks = tuple(style.lower() for style in config.items("mailbox_delivery_lock"))
        for style in locks:
            if style not in STYLES:
                warn(f'mailbox_delivery_lock: "{style}" is not known, use {", ".join(STYLES)}')
        limit = config.number("mailbox_size_limit")
        if 0 < limit < config.number("message_size_limit"):
            warn("mailbox_size_limit is smaller than message_size_limit")
        return cls(
            myhostname=config.text("myhostname"),
            myorigin=config.text("myorigin"),
            local_domains=frozenset(item.lower() for item in config.items("mydestination")),
            recipient_delimiter=config.text("recipient_delimiter"),
            address_rules=AddressRules(config),
            owner_request_special=config.flag("owner_request_special"),
            expand_owner_alias=config.flag("expand_owner_alias"),
            double_bounce_sender=config.text("double_bounce_sender"),
            default_privs=config.text("default_privs"),
            allow_mail_to_commands=frozenset(config.items("allow_mail_to_commands")),
            allow_mail_to_files=frozenset(config.items("allow_mail_to_files")),
            propagate_unmatched_extensions=frozenset(config.items("propagate_unmatched_extensions")),
            prepend_delivered_header=frozenset(config.items("prepend_delivered_header")),
            forward_path=config.text("forward_path").replace(",", " ").split(),
            forward_expansion_filter=config.text("forward_expansion_filter"),
            mailbox_command=config.text("mailbox_command"),
            mailbox_command_maps=open_maps("mailbox_command_maps", config, warn=warn),
            home_mailbox=config.text("home_mailbox"),
            mail_spool_directory=config.text("mail_spool_directory"),
            luser_relay=config.text("luser_relay"),
            require_home_directory=config.flag("require_home_directory"),
            frozen_delivered_to=config.flag("frozen_delivered_to"),
            command_time_limit_s=config.seconds("command_time_limit"),
            command_expansion_filter=config.text("command_expansion_filter"),
            command_execution_directory=config.text("command_execution_directory"),
            execution_directory_expansion_filter=config.text("execution_directory_expansion_filter"),
            export_environment=config.items("export_environment"),
            local_command_shell=config.text("local_command_shell"),
            mbox=MboxSettings(
                mailbox_delivery_lock=locks,
                deliver_lock_attempts=config.number("deliver_lock_attempts"),
                deliver_lock_delay_s=config.seconds("deliver_lock_delay"),
                stale_lock_time_s=config.seconds("stale_lock_time"),
                mailbox_size_limit=limit,
                strict_mailbox_ownership=config.flag("strict_mailbox_ownership"),
            ),
            alias_maps=open_maps("alias_maps", config, warn=warn),
        )
