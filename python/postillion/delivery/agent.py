"""The base of every delivery agent: jobs come from the queue manager, results go back.

An agent connects to `private/qmgr`, registers its maximum number of concurrent jobs, and answers each job with one
result. When the connection breaks, the queue manager gives the jobs without a result to another agent; unsent results
wait for the next connection. A subclass delivers a job in one of three ways:

- `async def deliver(self, job)`: many concurrent jobs, a task each.
- `def deliver(self, job)`: one job at a time, in the thread of the loop (agents that change their user id).
- override `receive`, `drain` and `abandon`: the jobs are not in Python (smtp).

A job of the kind `probe` must not deliver: its status says what a delivery would do. The core gives no agent the text
of its message, and only an agent with `answers_probes` gets such jobs; for the others the recipients are undeliverable.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Awaitable
from typing import TYPE_CHECKING, ClassVar, cast

from postillion._core.delivery import AgentLink, DeliveryJob

if TYPE_CHECKING:
    from postillion.program.daemon import Daemon

QMGR_SOCKET = "private/qmgr"
PROBE = "probe"
"""The kind of a job that delivers nothing (`sendmail -bv`)."""
STOP_GRACE_S = 4.5
"""Timeout of the jobs in progress after SIGTERM; then they are deferred. It is below the timeout of `daemon.run`."""
DRAIN_MAX_S = 600.0
"""Timeout of the jobs in progress after SIGHUP; then `STOP_GRACE_S` applies."""
RECONNECT_FIRST_S = 0.1
RECONNECT_MAX_S = 2.0
RESULTS_MAX_OCTETS = 16 * 1024 * 1024
"""Maximum size of the results that wait for the queue manager; then the oldest are dropped, and their mail is sent
again."""
TRIGGER_TIMEOUT_S = 1.0


class Agent:
    """A delivery agent; `await agent.serve()` runs until the daemon stops.

    `capacity`: maximum number of concurrent jobs. A job that ends in an exception is logged, and its open recipients
    are deferred.
    """

    answers_probes: ClassVar[bool] = False
    """Whether it knows jobs of the kind `probe`."""

    def __init__(self, daemon: Daemon, *, capacity: int) -> None:
        config = daemon.config
        self.daemon = daemon
        self.config = config
        self.log = daemon.log
        self.transport_name = daemon.service
        self.capacity = capacity
        self.link = AgentLink(
            daemon.log,
            ".",
            long_queue_ids=config.flag("enable_long_queue_ids"),
            delay_resolution_digits=config.number("delay_logging_resolution_limit"),
            soft_bounce=config.flag("soft_bounce"),
        )
        self.in_flight: dict[DeliveryJob, asyncio.Task[None] | None] = {}
        self._results: deque[bytes] = deque()
        self._results_octets = 0
        self._flushing = False
        self._connection: _Connection | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._waiting: deque[DeliveryJob] = deque()
        self._one_at_a_time = not asyncio.iscoroutinefunction(self.deliver)

    def deliver(self, job: DeliveryJob) -> Awaitable[None] | None:
        """Finish every recipient of the job with `job.status`; a plain function or a coroutine.

        An agent overrides this method or `receive`.
        """
        raise TypeError(f"{type(self).__name__} has neither deliver nor receive")

    async def setup(self) -> None:
        """Prepare for the first job."""

    async def close(self) -> None:
        """Clean up after the last job."""

    def start(self, job: DeliveryJob) -> None:
        """Start a job; `finish(job)` follows."""
        if self._one_at_a_time:
            self._waiting.append(job)
            if len(self._waiting) == 1:
                asyncio.get_running_loop().call_soon(self._deliver_next)
        else:
            self.in_flight[job] = asyncio.get_running_loop().create_task(self._deliver(job))

    def finish(self, job: DeliveryJob) -> None:
        """Send the job's result."""
        if self.in_flight.pop(job, job) is job:
            return  # The job has ended already: a cancelled delivery may report late.
        if not self.in_flight:
            self._idle.set()
        self.send(job.result())

    def send(self, result: bytes) -> None:
        """Send frames to the queue manager, in one write with the others of the same iteration of the event loop."""
        self._results.append(result)
        self._results_octets += len(result)
        while self._results_octets > RESULTS_MAX_OCTETS:
            self._results_octets -= len(self._results.popleft())
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    async def serve(self) -> None:
        """Run until the daemon stops or drains, then finish the jobs in progress."""
        await self.setup()
        connecting = asyncio.create_task(self._stay_connected())
        triggers = [asyncio.create_task(_swallow_triggers(listener)) for listener in self.daemon.listeners]
        stopping = asyncio.create_task(self.daemon.stopping.wait())
        draining = asyncio.create_task(self.daemon.draining.wait())
        await asyncio.wait((stopping, draining), return_when=asyncio.FIRST_COMPLETED)
        for task in triggers:
            task.cancel()
        self.drain()
        if self._connection is not None:
            # A capacity of 0: the jobs that the queue manager has sent are finished, and no new ones come.
            self._connection.write(self.link.register(self.transport_name, os.getpid(), 0))
        connecting.cancel()
        idle = asyncio.create_task(self._end_in_flight())
        if not stopping.done():
            await asyncio.wait((stopping, idle), timeout=DRAIN_MAX_S, return_when=asyncio.FIRST_COMPLETED)
        if not idle.done():
            await asyncio.wait((idle,), timeout=STOP_GRACE_S)
        stopping.cancel()
        draining.cancel()
        idle.cancel()
        self.abandon()
        self._flush()
        await self.close()
        if self._connection is not None:
            await self._connection.end()

    def drain(self) -> None:
        """Prepare for the end: the queue manager sends no new jobs."""

    def abandon(self) -> None:
        """Report the jobs in progress; the queue manager defers their open recipients."""
        for job, running in list(self.in_flight.items()):
            if running is not None:
                running.cancel()
            self.finish(job)

    async def _end_in_flight(self) -> None:
        await self._idle.wait()

    def receive(self, data: bytes) -> None:
        """Start the jobs of one read. Raises `ConnectionError`."""
        self.begin(self.link.receive(data))

    def begin(self, jobs: list[DeliveryJob]) -> None:
        """Start the jobs of one read."""
        for job in jobs:
            self.in_flight[job] = None
            self._idle.clear()
            if job.kind == PROBE and not self.answers_probes:
                self._refuse_probe(job)
                continue
            try:
                self.start(job)
            except Exception as problem:
                self._failed(job, problem)

    def _refuse_probe(self, job: DeliveryJob) -> None:
        for recipient in job.recipients:
            job.status(recipient.index, "deferred", "4.3.5", f"{self.transport_name} does not answer address probes")
        self.finish(job)

    async def _deliver(self, job: DeliveryJob) -> None:
        try:
            done = self.deliver(job)
            if done is not None:
                await done
        except Exception as problem:
            self._failed(job, problem)
        else:
            self.finish(job)

    def _deliver_next(self) -> None:
        job = self._waiting.popleft()
        try:
            self.deliver(job)
        except Exception as problem:
            self._failed(job, problem)
        else:
            self.finish(job)
        if self._waiting:
            # Return to the event loop between two jobs, for signals and new jobs.
            asyncio.get_running_loop().call_soon(self._deliver_next)

    def _failed(self, job: DeliveryJob, problem: BaseException) -> None:
        self.log.warning(f"{job.queue_id}: delivery failed, deferring: {type(problem).__name__}: {problem}")
        for recipient in job.recipients:
            job.status(recipient.index, "deferred", "4.3.0", "unexpected failure of the delivery agent")
        self.finish(job)

    def _flush(self) -> None:
        self._flushing = False
        if self._connection is None or not self._results:
            return
        self._connection.write(b"".join(self._results))
        self._results.clear()
        self._results_octets = 0

    async def _stay_connected(self) -> None:
        loop = asyncio.get_running_loop()
        delay_s = RECONNECT_FIRST_S
        while True:
            try:
                _, connection = await loop.create_unix_connection(lambda: _Connection(self), QMGR_SOCKET)
            except OSError:
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, RECONNECT_MAX_S)
                continue
            delay_s = RECONNECT_FIRST_S
            connection.write(self.link.register(self.transport_name, os.getpid(), self.capacity))
            self._connection = connection
            self._flush()
            await connection.lost.wait()
            self._connection = None
            await asyncio.sleep(delay_s)


async def serve(daemon: Daemon, agent: Agent) -> None:
    """Run an agent until the daemon stops, as the `serve` of `daemon.run`."""
    await agent.serve()


class _Connection(asyncio.Protocol):
    """The connection to the queue manager."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.lost = asyncio.Event()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self.agent.receive(data)
        except ConnectionError as problem:
            self.agent.log.warning(str(problem))
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    def write(self, data: bytes) -> None:
        if not self.lost.is_set():
            self.transport.write(data)

    async def end(self) -> None:
        """Close the connection after the pending output is sent."""
        self.transport.close()
        try:
            await asyncio.wait_for(self.lost.wait(), TRIGGER_TIMEOUT_S)
        except TimeoutError:
            self.transport.abort()


async def _swallow_triggers(listener: socket.socket) -> None:
    """Accept and close the connections to the service's socket; they only start the agent."""
    loop = asyncio.get_running_loop()
    listener.setblocking(False)
    while True:
        try:
            connection, _ = await loop.sock_accept(listener)
        except OSError:
            await asyncio.sleep(TRIGGER_TIMEOUT_S)
            continue
        connection.close()
