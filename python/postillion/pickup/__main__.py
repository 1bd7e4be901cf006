"""pickup(8): moves messages that local programs left in maildrop/ through cleanup into the queue.

    pickup -n service -t type [-u] [-o name=value]... -s N -c config_dir

A byte on its socket (public/pickup) starts a scan of maildrop/, and so does the start of the program, once its
predecessor has ended. Master wakes it up by the wakeup time in master.cf. Log lines: `ID: uid=N from=<sender>`, and a
warning for each file that is not a message.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from postillion._core.cleanup import CleanupSettings, Options
from postillion._core.queue import Journal
from postillion.pickup.maildrop import Maildrop as Directory
from postillion.pickup.report import Reports
from postillion.pickup.service import Pickup, Site
from postillion.program import cleanup
from postillion.program.daemon import Daemon, run, start
from postillion.program.producer import Producer, Tickets

TRIGGER_OCTETS: Final = 256
TRIGGER_WAIT_S: Final = 1.0
"""Timeout of a connection without a trigger byte."""
RECORD_OVERHEAD: Final = 2
"""Maximum ratio of a file's size to its message's: the head of a record is as long as a short line."""
ENVELOPE_MAX_OCTETS: Final = 64 * 1024 * 1024
CLOCK_CHECK_S: Final = 60.0


class Settings(NamedTuple):
    """The settings of pickup. `size_limit_octets`: maximum size of a file in maildrop/; None for no limit."""

    site: Site
    cleanup: CleanupSettings
    reports: Reports
    size_limit_octets: int | None
    in_flow_delay_s: float


def main() -> None:
    """Run the program that master started."""
    run(start("pickup", sys.argv[1:]), prepare, serve)


def prepare(daemon: Daemon) -> Settings:
    """Return the program's settings. Raises `ConfigError`."""
    config = daemon.config
    limit = config.number("message_size_limit")
    return Settings(
        Site(
            config.text("myhostname"),
            config.flag("smtputf8_enable"),
            Options.received(config),
            Options.report(config),
        ),
        cleanup.settings(config),
        Reports(config, daemon.log.warning),
        limit * RECORD_OVERHEAD + ENVELOPE_MAX_OCTETS if limit else None,
        config.seconds("in_flow_delay"),
    )


async def serve(daemon: Daemon, settings: Settings) -> None:
    """Take messages until the daemon stops or drains; return when those in progress are on disk."""
    journal = Journal(".")
    directory = Directory(settings.size_limit_octets)
    pickup = Pickup(
        settings.site,
        directory,
        settings.cleanup,
        journal,
        daemon.log,
        settings.reports.report,
        in_flow_delay_s=settings.in_flow_delay_s,
    )
    producer = Producer(journal, Tickets(journal, pickup.committed), fall_behind=pickup.fall_behind)
    producer.start()
    wanted = asyncio.Event()
    wanted.set()
    listen(daemon, wanted)
    ending = [asyncio.ensure_future(daemon.stopping.wait()), asyncio.ensure_future(daemon.draining.wait())]
    renewing = asyncio.ensure_future(keep_zone(settings.cleanup.set_zone))
    try:
        if not directory.take(wait=False):
            # After a reload the program before this one commits its last messages: their files must not be read again.
            alone = asyncio.ensure_future(asyncio.to_thread(directory.take))
            await asyncio.wait([alone, *ending], return_when=asyncio.FIRST_COMPLETED)
            if alone.done():
                await alone
        while not (daemon.stopping.is_set() or daemon.draining.is_set()):
            asked = asyncio.ensure_future(wanted.wait())
            await asyncio.wait([asked, *ending], return_when=asyncio.FIRST_COMPLETED)
            asked.cancel()
            if not wanted.is_set():
                continue
            wanted.clear()
            scan = asyncio.ensure_future(pickup.scan())
            await asyncio.wait([scan, *ending], return_when=asyncio.FIRST_COMPLETED)
            if not scan.done():
                scan.cancel()
            await asyncio.gather(scan, return_exceptions=False)
    except asyncio.CancelledError:
        if not (daemon.stopping.is_set() or daemon.draining.is_set()):
            raise
    finally:
        renewing.cancel()
        for waiting in ending:
            waiting.cancel()
        while pickup.in_flight:  # noqa: ASYNC110 - the journal's thread finishes them within a sync
            await asyncio.sleep(0.005)
        await producer.close()
        journal.close()
        directory.close()


def listen(daemon: Daemon, wanted: asyncio.Event) -> None:
    """Set `wanted` at each trigger of the service's sockets and fifos."""
    loop = asyncio.get_running_loop()

    def accept(listener: socket.socket) -> None:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        wanted.set()
        peer.setblocking(False)
        try:
            peer.recv(TRIGGER_OCTETS)
        except BlockingIOError:
            # The trigger byte has not arrived; a close now would be an error for the client.
            loop.call_later(TRIGGER_WAIT_S, peer.close)
            return
        except OSError:
            pass
        peer.close()

    def read(fifo: int) -> None:
        try:
            os.read(fifo, TRIGGER_OCTETS)
        except OSError:
            return
        wanted.set()

    for listener in daemon.listeners:
        loop.add_reader(listener, accept, listener)
    for fifo in daemon.fifos:
        loop.add_reader(fifo, read, fifo)


async def keep_zone(set_zone: Callable[[int, str], None]) -> None:
    """Tell cleanup when daylight saving begins or ends."""
    while True:
        await asyncio.sleep(CLOCK_CHECK_S - time.time() % CLOCK_CHECK_S)
        set_zone(*cleanup.zone())


if __name__ == "__main__":
    main()
