"""The rules of `postillion._core.address` with the values of main.cf."""

from postillion._core.address import AddressRules
from postillion.config import Config


def address_rules(config: Config) -> AddressRules:
    """Return the site's rules for addresses. Raises `ConfigError`."""
    return AddressRules(
        recipient_delimiter=config.text("recipient_delimiter"),
        owner_request_special=config.flag("owner_request_special"),
        double_bounce_sender=config.text("double_bounce_sender"),
        allow_min_user=config.flag("allow_min_user"),
        resolve_numeric_domain=config.flag("resolve_numeric_domain"),
        swap_bangpath=config.flag("swap_bangpath"),
        allow_percent_hack=config.flag("allow_percent_hack"),
    )
