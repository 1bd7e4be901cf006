"""error, retry: bounce or defer every recipient with the next hop as the reason (error(8)).

The service `retry` defers, every other service bounces. The next hop may begin with an enhanced status code:
`error:5.7.1 no mail today`.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, NoReturn

from postillion._core.delivery import DeliveryJob
from postillion.delivery.agent import Agent, serve
from postillion.program import daemon

if TYPE_CHECKING:
    from postillion.program.daemon import Daemon

CAPACITY = 100
_CODE = re.compile(r"\s*([245]\.\d{1,3}\.\d{1,3})(?:\s+|$)")


def split_status(nexthop: str, default: str) -> tuple[str, str]:
    """Return the enhanced status code at the start of `nexthop`, or `default`, and the text after it."""
    match = _CODE.match(nexthop)
    return (match[1], nexthop[match.end() :]) if match else (default, nexthop.strip())


class ErrorAgent(Agent):
    """The agent of one service, error or retry."""

    answers_probes = True

    def start(self, job: DeliveryJob) -> None:
        """Finish the job at once."""
        defers = self.transport_name == "retry"
        dsn, text = split_status(job.nexthop, "4.0.0" if defers else "5.0.0")
        for recipient in job.recipients:
            if defers:
                job.status(recipient.index, "deferred", f"4{dsn[1:]}", text)
            else:
                job.status(recipient.index, "bounced", f"5{dsn[1:]}", text)
        self.finish(job)


def prepare(process: Daemon) -> ErrorAgent:
    """Return the agent. Raises `ConfigError`."""
    return ErrorAgent(process, capacity=CAPACITY)


def main() -> NoReturn:
    """Run the program as master starts it."""
    daemon.run(daemon.start("error", sys.argv[1:]), prepare, serve)


if __name__ == "__main__":
    main()
