"""qmgr(8): the program that master starts."""

import sys

from postillion._core.queue import QueueError
from postillion.program.daemon import Daemon, run, start
from postillion.qmgr.shell import Shell


async def serve(daemon: Daemon) -> None:
    """Manage the queue until the daemon stops."""
    try:
        shell = Shell(daemon)
    except (QueueError, ValueError) as problem:
        daemon.fatal(str(problem))
    await shell.serve()


def main() -> None:
    """Run qmgr as master started it."""
    run(start("qmgr", sys.argv[1:]), serve)


if __name__ == "__main__":
    main()
