"""smtp: deliver to the network (smtp(8))."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

from postillion import daemon
from postillion.delivery.smtp.agent import SmtpAgent

if TYPE_CHECKING:
    from postillion.daemon import Daemon


async def _main(process: Daemon) -> None:
    capacity = process.session_limit or process.config.number("default_process_limit")
    await SmtpAgent(process, "smtp", capacity=capacity).serve()


def main() -> NoReturn:
    """Run the program as master starts it."""
    daemon.run(daemon.start("smtp", sys.argv[1:]), _main)


if __name__ == "__main__":
    main()
