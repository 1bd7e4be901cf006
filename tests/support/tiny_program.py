"""A program for master to start: it greets each client with its identity, then echoes lines.

With the option `-v` in master.cf it exits at once with status 3.
"""

import asyncio
import os
import sys

from postillion.program.daemon import Daemon, run, start

ACCEPTED_S = 0.1
"""Time in which a connection that the loop just accepted gets its session."""


def prepare(daemon: Daemon) -> str:
    return daemon.config.text("myorigin")


async def serve(daemon: Daemon, origin: str) -> None:
    sessions: set[asyncio.Task[None]] = set()

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        sessions.add(task)
        daemon.log.info("session")
        try:
            writer.write(f"{os.getpid()} {os.getuid()} {daemon.service} {daemon.session_limit} {origin}\n".encode())
            while line := await reader.readline():
                writer.write(line)
            writer.close()
        finally:
            sessions.discard(task)

    servers = [await asyncio.start_unix_server(session, sock=sock) for sock in daemon.listeners if sock.family == 1]
    servers += [await asyncio.start_server(session, sock=sock) for sock in daemon.listeners if sock.family != 1]
    daemon.log.info("ready")
    ends = [asyncio.ensure_future(daemon.stopping.wait()), asyncio.ensure_future(daemon.draining.wait())]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for server in servers:
        server.close()
    await asyncio.sleep(ACCEPTED_S)
    if sessions and not daemon.stopping.is_set():
        finished = asyncio.ensure_future(asyncio.wait(sessions))
        await asyncio.wait([finished, ends[0]], return_when=asyncio.FIRST_COMPLETED)


if __name__ == "__main__":
    service = sys.argv[sys.argv.index("-n") + 1]
    this = start("smtpd" if ":" in service else service, sys.argv[1:])
    if this.verbose:
        sys.exit(3)
    run(this, prepare, serve)
