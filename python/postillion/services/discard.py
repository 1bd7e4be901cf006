"""discard: settle every recipient as sent and throw the message away (discard(8)).

The next hop is the reason that the log gives; it may begin with an enhanced status code.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

from postillion._core import DeliveryJob
from postillion.delivery.agent import Agent
from postillion.program import daemon
from postillion.services.error import CAPACITY, split_status

if TYPE_CHECKING:
    from postillion.program.daemon import Daemon


class DiscardAgent(Agent):
    """The agent of one service."""

    def start(self, job: DeliveryJob) -> None:
        """Settle the job at once."""
        dsn, text = split_status(job.nexthop, "2.0.0")
        for recipient in job.recipients:
            job.status(recipient.index, "sent", f"2{dsn[1:]}", text)
        self.finish(job)


async def _main(process: Daemon) -> None:
    await DiscardAgent(process, capacity=CAPACITY).serve()


def main() -> NoReturn:
    """Run the program as master starts it."""
    daemon.run(daemon.start("discard", sys.argv[1:]), _main)


if __name__ == "__main__":
    main()
