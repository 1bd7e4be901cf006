"""A pytest plugin for aiosmtpd's own tests: `postillion.aiosmtpd.SMTP` stands where `aiosmtpd.smtp.SMTP` does.

Loaded before aiosmtpd's test modules, which then import our class by aiosmtpd's name.
"""

from typing import Any

import aiosmtpd.controller
import aiosmtpd.handlers
import aiosmtpd.main
import aiosmtpd.smtp

from postillion.aiosmtpd import SMTP

MADE = "connections of our class: "


class Count:
    """How many connections were made of our class."""

    made = 0


_init = SMTP.__init__


def _counted(self: SMTP, *arguments: Any, **keywords: Any) -> None:
    Count.made += 1
    _init(self, *arguments, **keywords)


def pytest_configure() -> None:
    """Put our class in the place of theirs."""
    SMTP.__init__ = _counted  # type: ignore[method-assign]
    for module, name in (
        (aiosmtpd.smtp, "SMTP"),
        (aiosmtpd.controller, "SMTP"),
        (aiosmtpd.main, "SMTP"),
        (aiosmtpd.handlers, "SMTPServer"),
    ):
        assert issubclass(SMTP, getattr(module, name))
        setattr(module, name, SMTP)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many connections there were."""
    terminalreporter.write_line(f"{MADE}{Count.made}")
