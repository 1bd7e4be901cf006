"""qmgr(8): the program that master starts."""

import sys

from postillion._core.queue import QueueError
from postillion.program.daemon import Daemon, run, start
from postillion.qmgr.settings import Configuration
from postillion.qmgr.shell import Shell


def prepare(daemon: Daemon) -> Configuration:
    """Return the first configuration of the queue manager. Raises `ConfigError`."""
    return Configuration(daemon.config, daemon.log.warning)


async def serve(daemon: Daemon, configuration: Configuration) -> None:
    """Manage the queue until the daemon stops."""
    try:
        shell = Shell(daemon, configuration)
    except (QueueError, ValueError) as problem:
        daemon.fatal(str(problem))
    await shell.serve()


def main() -> None:
    """Run qmgr as master started it."""
    run(start("qmgr", sys.argv[1:]), prepare, serve)


if __name__ == "__main__":
    main()
