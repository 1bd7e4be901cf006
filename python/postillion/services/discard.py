"""discard: marks every recipient as sent and drops the message (discard(8)).

The next hop is the reason in the log; it may begin with an enhanced status code.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

from postillion._core.delivery import DeliveryJob
from postillion.delivery.agent import Agent, serve
from postillion.program import daemon
from postillion.services.error import CAPACITY, split_status

if TYPE_CHECKING:
    from postillion.program.daemon import Daemon


class DiscardAgent(Agent):
    """The agent of one service."""

    answers_probes = True

    def start(self, job: DeliveryJob) -> None:
        """Finish the job at once."""
        dsn, text = split_status(job.nexthop, "2.0.0")
        for recipient in job.recipients:
            job.status(recipient.index, "sent", f"2{dsn[1:]}", text)
        self.finish(job)


def prepare(process: Daemon) -> DiscardAgent:
    """Return the agent. Raises `ConfigError`."""
    return DiscardAgent(process, capacity=CAPACITY)


def main() -> NoReturn:
    """Run the program as master starts it."""
    daemon.run(daemon.start("discard", sys.argv[1:]), prepare, serve)


if __name__ == "__main__":
    main()
