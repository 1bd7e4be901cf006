"""All sessions of a process.

Their sockets are on one descriptor in Rust (`SmtpdService`), which the event loop watches: clients that are known are
greeted, heard and answered there, and their messages go from the socket into the journal. Python hears of a connection
when something is to be decided about it, as a wish; then it has a `Connection`.
"""

from __future__ import annotations

import asyncio
import socket
import traceback
from collections import deque
from collections.abc import Iterable
from typing import Final

from postillion._core.log import Log
from postillion._core.queue import Journal
from postillion._core.smtpd import SmtpdConfig, SmtpdService, SmtpdSession
from postillion.handler.handler import Handler
from postillion.restrictions.access import Access
from postillion.smtpd.clients import Client, Clients
from postillion.smtpd.connection import Connection
from postillion.smtpd.counts import Counts
from postillion.smtpd.setup import Limits

SWEEP_S: Final = 1.0
"""How exact timeouts are."""
ACCEPT_AGAIN_S: Final = 1.0
"""After a client could not be accepted, none is for so long."""

Wish = tuple[int, int, float, str | None]
"""Of `SmtpdService`: the connection's number, what is wished for, a time, a text."""


class Service:
    """What the sessions of a process share, and all of its sessions.

    `settle` is what `postillion.program.producer.Producer` calls when commits are settled. `empty` is set when the last
    session has ended, after `drain`.
    """

    def __init__(
        self,
        config: SmtpdConfig,
        access: Access,
        clients: Clients,
        counts: Counts | None,
        log: Log,
        journal: Journal,
        *,
        limits: Limits | None = None,
        service: str = "smtp",
        timeout_s: float = 300.0,
        handler: Handler | None = None,
        stressed: SmtpdConfig | None = None,
        session_limit: int = 0,
    ) -> None:
        """`stressed`: what new sessions get while all places are taken. `session_limit`: places, 0 for no limit.

        Clients above the limit wait in the sockets' queues, as they do for a free smtpd process of Postfix.
        """
        self.config = config
        self.handler = handler
        self.access = access
        self.clients = clients
        self.counts = counts
        self.log = log
        self.limits = limits or Limits()
        self.name = service
        self.loop = asyncio.get_running_loop()
        self.empty = asyncio.Event()
        self.core = SmtpdService(service, config, stressed, journal, limit=session_limit)
        self.attended: dict[int, Connection] = {}
        self._stressed = stressed
        self._sweep_every_s = min(SWEEP_S, max(timeout_s / 4, 0.05))
        self._wishes: deque[Wish] = deque()
        self._attending = False
        self._stopping = False
        self._remembers = access.remembers and not (handler is not None and handler.has("RCPT"))

    def start(self, listeners: Iterable[socket.socket]) -> None:
        """Accept clients from these sockets, or copies of them: other processes may share them."""
        for listener in listeners:
            self.core.listen(listener)
        self.loop.add_reader(self.core.fileno(), self.turn)
        self.core.accept(True)

    def turn(self) -> None:
        """Serve all clients that have said something. Called by the loop; calling it at another time is safe."""
        wishes = self.core.turn(self.loop.time())
        if wishes is not None:
            self.attend(wishes)

    def settle(self) -> None:
        """Tell the clients whose messages are on disk, or are not."""
        self.attend(self.core.settle(self.loop.time()))

    def fall_behind(self, behind: bool) -> None:
        """Let each new message wait for in_flow_delay, or no longer."""
        self.config.fall_behind(behind)
        if self._stressed is not None:
            self._stressed.fall_behind(behind)

    def drain(self) -> None:
        """Accept no client any more, and set `empty` when the last one has left."""
        self.attend(self.core.drain())

    def stop(self) -> None:
        """End every session as soon as no message of it is on its way."""
        self._stopping = True
        self.attend(self.core.stop(self.loop.time()))

    def close(self) -> None:
        """Let go of the loop."""
        self.loop.remove_reader(self.core.fileno())

    def group(self, client: Client) -> int | None:
        """Return the group whose recipients are remembered for a client; None when each of them is a question."""
        counts = bool(self.limits.rcpt_rate) and self.must_count(client)
        return client.group if self._remembers and not counts else None

    def must_count(self, client: Client) -> bool:
        """Does anvil count what this client does?"""
        return self.counts is not None and not client.facts.exempt

    def attend(self, wishes: list[Wish] | None) -> None:
        """Grant what the sessions wish for; what comes of it, too."""
        if wishes is None:
            return
        self._wishes.extend(wishes)
        if self._attending:
            return
        self._attending = True
        try:
            while self._wishes:
                key, what, at, text = self._wishes.popleft()
                try:
                    self._grant(key, what, at, text)
                except Exception:
                    # A fault of ours about one client is no reason to lose the others.
                    self.log_fault(traceback.format_exc())
                    if key:
                        self._wishes.extend(self.core.abort(key, self.loop.time()) or ())
        finally:
            self._attending = False

    def log_fault(self, text: str) -> None:
        """Log where our own code went wrong."""
        for line in text.splitlines():
            self.log.line("error", line)

    def _grant(self, key: int, what: int, at: float, text: str | None) -> None:
        if what == SmtpdService.GONE:
            connection = self.attended.pop(key, None)
            if connection is not None:
                connection.gone()
        elif what == SmtpdService.SWEEP:
            self.loop.call_later(self._sweep_every_s, self._sweep)
        elif what == SmtpdService.EMPTY:
            self.empty.set()
        elif what == SmtpdService.ACCEPT_FAILED:
            self.log.warning(f"accept connection: {text}")
            self.loop.call_later(ACCEPT_AGAIN_S, self.core.accept, True)
        elif self.core.peer(key) is not None:
            connection = self.attended.get(key)
            if connection is None:
                connection = self.attended[key] = Connection(self, key)
            if what == SmtpdService.WELCOME:
                connection.welcome()
            elif what == SmtpdSession.SLEEPING:
                connection.sleep(at)
            else:
                connection.settle(what)

    def _sweep(self) -> None:
        goes_on, wishes = self.core.sweep(self.loop.time())
        self.attend(wishes)
        if self._stopping:
            self.attend(self.core.stop(self.loop.time()))
        if goes_on:
            self.loop.call_later(self._sweep_every_s, self._sweep)
