"""smtp: delivers mail to other hosts (smtp(8))."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

from postillion.delivery.agent import serve
from postillion.delivery.smtp.agent import SmtpAgent
from postillion.program import daemon

if TYPE_CHECKING:
    from postillion.program.daemon import Daemon


def prepare(process: Daemon) -> SmtpAgent:
    """Return the agent; the program's name is its protocol. Raises `ConfigError`."""
    capacity = process.session_limit or process.config.number("default_process_limit")
    return SmtpAgent(process, process.program, capacity=capacity)


def main(protocol: str = "smtp") -> NoReturn:
    """Run the program as master starts it. `protocol`: smtp or lmtp, also the name of the program."""
    daemon.run(daemon.start(protocol, sys.argv[1:]), prepare, serve)


if __name__ == "__main__":
    main()
