"""A pytest plugin for aiosmtpd's own tests: it replaces `aiosmtpd.smtp.SMTP` with `postillion.aiosmtpd.SMTP`.

pytest loads it before aiosmtpd's test modules. These then import our class under aiosmtpd's name.
"""

from typing import Any

import aiosmtpd.controller
import aiosmtpd.handlers
import aiosmtpd.main
import aiosmtpd.smtp

from postillion.aiosmtpd import SMTP

MADE = "connections of our class: "


class Count:
    """Number of connections that use our class."""

    made = 0


_init = SMTP.__init__


def _counted(self: SMTP, *arguments: Any, **keywords: Any) -> None:
    Count.made += 1
    _init(self, *arguments, **keywords)


def pytest_configure() -> None:
    """Replace aiosmtpd's class with ours."""
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
    """Print the number of connections."""
    terminalreporter.write_line(f"{MADE}{Count.made}")
