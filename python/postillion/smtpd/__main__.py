"""Run as master's program `smtpd`, or with `-S` on standard input for `sendmail -bs`."""

from __future__ import annotations

import asyncio
import sys

from postillion._core.cleanup import CleanupSettings
from postillion._core.queue import Journal, QueueError
from postillion.config import ConfigError
from postillion.program import cleanup
from postillion.program.daemon import STOP_GRACE_S, Daemon, run, start
from postillion.program.producer import Producer
from postillion.smtpd import keys, setup
from postillion.smtpd.counts import Counts
from postillion.smtpd.service import Service
from postillion.smtpd.setup import Parts, prepare, prepare_as_owner

CLOCK_CHECK_S = 60.0
"""Interval at which the time zone of Received and Date headers is read again."""


async def serve(daemon: Daemon, parts: Parts) -> None:
    """Serve clients until the service stops or drains. Raises `ConfigError` for values that cannot work."""
    config, log = daemon.config, daemon.log
    site_handler = prepare_as_owner(daemon)
    try:
        journal = Journal(".", minfree_octets=parts.minfree_octets)
    except QueueError as problem:
        raise ConfigError(
            config.text("queue_directory"), None, str(problem), "see postfix-files for its owner"
        ) from None
    modes = (parts.calm, parts.stressed)
    counts = Counts(daemon.service, log.warning) if any(mode.limits.stages for mode in modes) else None
    settings = parts.cleanup
    calm, stressed = (
        setup.server_config(mode.config, mode.access, log, settings, journal, site_handler, mode.tls) for mode in modes
    )
    service = Service(
        calm,
        parts.calm,
        counts,
        log,
        journal,
        service=daemon.service,
        timeout_s=parts.timeout_s,
        handler=site_handler,
        stressed=(stressed, parts.stressed),
        session_limit=daemon.session_limit,
    )
    producer = Producer(journal, service, fall_behind=service.fall_behind)
    producer.start()
    service.start(daemon.listeners)
    loop = asyncio.get_running_loop()
    clock = loop.create_task(_keep_zone(settings), name="time zone")
    following = loop.create_task(keys.follow(daemon, modes), name="TLS keys")
    stopping = loop.create_task(daemon.stopping.wait())
    draining = loop.create_task(daemon.draining.wait())
    try:
        await asyncio.wait((stopping, draining), return_when=asyncio.FIRST_COMPLETED)
        await _finish(service, stopping)
    finally:
        clock.cancel()
        following.cancel()
        stopping.cancel()
        draining.cancel()
        await producer.close()
        service.close()
        if site_handler is not None:
            site_handler.tell()
        if counts is not None:
            counts.close()
        journal.close()


async def _finish(service: Service, stopping: asyncio.Task[bool]) -> None:
    """Wait for the sessions to end; when the service stops, end those between two messages."""
    service.drain()
    drained = asyncio.get_running_loop().create_task(service.empty.wait())
    try:
        await asyncio.wait((drained, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not drained.done():
            service.stop()
            await asyncio.wait((drained,), timeout=STOP_GRACE_S)
    finally:
        drained.cancel()


async def _keep_zone(settings: CleanupSettings) -> None:
    while True:
        await asyncio.sleep(CLOCK_CHECK_S)
        settings.set_zone(*cleanup.zone())


def main() -> None:
    """Run the program."""
    if "-S" in sys.argv[1:]:
        from postillion.smtpd import standalone

        sys.exit(standalone.main(sys.argv[1:]))
    run(start("smtpd", sys.argv[1:]), prepare, serve)


if __name__ == "__main__":
    main()
