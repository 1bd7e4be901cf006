"""All sessions of a process.

Their sockets are on one descriptor in Rust (`SmtpdService`), which the event loop watches. Rust greets known clients,
answers their commands, and writes their messages to the journal. Python gets a request for each decision; the client
has a `Connection` then.
"""

from __future__ import annotations

import asyncio
import socket
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from postillion._core.log import Log
from postillion._core.queue import Journal
from postillion._core.smtpd import Next, Request, SmtpdConfig, SmtpdService
from postillion.checks.check import Check
from postillion.smtpd.clients import Client
from postillion.smtpd.connection import STAGES, AnyRequest, Connection, Requests
from postillion.smtpd.counts import Counts
from postillion.smtpd.limits import RateCheck
from postillion.smtpd.mode import Mode

if TYPE_CHECKING:
    from postillion.handler.handler import Handler

SWEEP_S: Final = 1.0
"""Interval of the searches for sessions whose timeout has passed."""
ACCEPT_AGAIN_S: Final = 1.0
"""Pause after accept(2) fails."""


class Service:
    """All sessions of a process, and the objects that they share.

    `postillion.program.producer.Producer` calls `finish` when commits are done. `empty` is set when the last session
    has ended, after `drain`.
    """

    def __init__(
        self,
        config: SmtpdConfig,
        mode: Mode,
        counts: Counts | None,
        log: Log,
        journal: Journal,
        *,
        service: str = "smtp",
        timeout_s: float = 300.0,
        handler: Handler | None = None,
        stressed: tuple[SmtpdConfig, Mode] | None = None,
        session_limit: int = 0,
    ) -> None:
        """`stressed`: for new sessions while the limit is reached. `session_limit`: 0 for no limit.

        Clients above the limit wait in the sockets' queues, as they wait for a free smtpd process of Postfix.
        """
        self.config = config
        self.handler = handler
        self.counts = counts
        self.log = log
        self.name = service
        self.loop = asyncio.get_running_loop()
        self.empty = asyncio.Event()
        self._configs, self._modes = [config], [mode]
        if stressed is not None:
            self._configs.append(stressed[0])
            self._modes.append(stressed[1])
        under_stress = None if stressed is None else stressed[0]
        self.core = SmtpdService(service, config, under_stress, journal, limit=session_limit)
        self.connections: dict[int, Connection] = {}
        self._hooks = [] if handler is None else [_hooks_of(handler, own.hostname) for own in self._configs]
        self._sweep_every_s = min(SWEEP_S, max(timeout_s / 4, 0.05))
        self._requests: deque[AnyRequest] = deque()
        self._handling = False
        self._stopping = False

    def start(self, listeners: Iterable[socket.socket]) -> None:
        """Accept clients from these sockets, or from copies of them: other processes may share them."""
        for listener in listeners:
            self.core.listen(listener)
        self.loop.add_reader(self.core.fileno(), self.poll)
        self.core.accept(True)

    def poll(self) -> None:
        """Serve all clients that have sent something. The loop calls this; a call at another time is safe."""
        requests = self.core.poll(self.loop.time())
        if requests is not None:
            self.handle(requests)

    def collect(self) -> None:
        """Take the commits that are done or have failed from the journal."""
        self.core.collect()

    def finish(self) -> None:
        """Answer the clients of the collected commits."""
        self.handle(self.core.finish(self.loop.time()))

    def fall_behind(self, behind: bool) -> None:
        """Delay each new message by in_flow_delay, or delay none."""
        for config in self._configs:
            config.fall_behind(behind)

    def drain(self) -> None:
        """Accept no more clients; set `empty` when the last session has ended."""
        self.handle(self.core.drain())

    def stop(self) -> None:
        """End every session as soon as the journal holds no message of it."""
        self._stopping = True
        self.handle(self.core.stop(self.loop.time()))

    def close(self) -> None:
        """Stop watching the sockets, and end the open decisions."""
        self.loop.remove_reader(self.core.fileno())
        for connection in self.connections.values():
            connection.gone()

    def mode(self, *, stressed: bool) -> Mode:
        """Return the settings of sessions that begin under stress, or of the others."""
        return self._modes[stressed]

    def checks(self, client: Client, connection: Connection) -> tuple[Check, ...]:
        """Return the checks of a client, in the order in which they are asked."""
        found: list[Check] = []
        limits = connection.mode.limits
        if self.counts is not None and limits.stages and not client.facts.exempt:
            found.append(RateCheck(limits, self.counts, client.facts.bucket, self.name, self.log.warning))
        found.append(connection.mode.access)
        if connection.mode.rewriters.stages:
            found.append(connection.mode.rewriters)
        if self._hooks:
            found.append(self._hooks[connection.stressed](connection))
        return tuple(found)

    def handle(self, requests: Requests) -> None:
        """Handle the requests of the sessions, and those that come meanwhile."""
        if requests is None:
            return
        self._requests.extend(requests)
        if self._handling:
            return
        self._handling = True
        try:
            while self._requests:
                request = self._requests.popleft()
                try:
                    self._handle(request)
                except Exception:
                    # A bug with one client must not end the sessions of the others.
                    self.fail(getattr(request, "key", 0), traceback.format_exc())
        finally:
            self._handling = False

    def log_bug(self, text: str) -> None:
        """Log a traceback of our own code."""
        for line in text.splitlines():
            self.log.line("error", line)

    def fail(self, key: int, text: str) -> None:
        """Log a bug about a client, and close its connection: nothing would ever answer it."""
        self.log_bug(text)
        if key:
            self.handle(self.core.abort(key, self.loop.time()))

    def _handle(self, request: AnyRequest) -> None:
        match request:
            case Request.Decide(key, Next.LOOKUP):
                if connection := self._connection(key):
                    connection.look_up()
            case Request.Decide(key, next):
                if connection := self._connection(key):
                    connection.decide(STAGES[next])
            case Request.Welcome(key):
                if connection := self._connection(key):
                    connection.welcome()
            case Request.WakeUp(key, at):
                if connection := self._connection(key):
                    connection.sleep(at)
            case Request.Gone(key):
                if connection := self.connections.pop(key, None):
                    connection.gone()
            case Request.Sweep():
                self.loop.call_later(self._sweep_every_s, self._sweep)
            case Request.Empty():
                self.empty.set()
            case Request.AcceptFailed(error):
                self.log.warning(f"accept connection: {error}")
                self.loop.call_later(ACCEPT_AGAIN_S, self.core.accept, True)

    def _connection(self, key: int) -> Connection | None:
        """Return a client's connection, None when the client is gone."""
        if self.core.peer(key) is None:
            return None
        connection = self.connections.get(key)
        if connection is None:
            connection = self.connections[key] = Connection(self, key)
        return connection

    def _sweep(self) -> None:
        goes_on, requests = self.core.sweep(self.loop.time())
        self.handle(requests)
        if self._stopping:
            self.handle(self.core.stop(self.loop.time()))
        if goes_on:
            self.loop.call_later(self._sweep_every_s, self._sweep)


def _hooks_of(handler: Handler, hostname: str) -> Callable[[Connection], Check]:
    """Return the function that makes the check of one session from a site's handler."""
    # Importing aiosmtpd takes as long as importing everything else, and most sites have no handler.
    from postillion.handler.policy import Policy

    return lambda connection: Policy(handler, connection, hostname)
