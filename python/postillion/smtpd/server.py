"""The server's protocol class and its sessions.

`Connection` is an `aiosmtpd.smtp.SMTP` whose byte path is in Rust: a read becomes one call, one decision a recipient,
and one write. aiosmtpd's constructor, which looks its own methods up anew for every connection, is not run; nor is a
task started, a stream reader filled, or a timer armed. Time is kept by one sweep over all sessions.
"""

from __future__ import annotations

import asyncio
import socket
import traceback
from collections import defaultdict
from collections.abc import Callable
from typing import Any, AnyStr, Final, cast

import aiosmtpd.smtp

from postillion._core import Log, SmtpdConfig, SmtpdSession
from postillion.smtpd.access import Access, Reply
from postillion.smtpd.clients import Client, Clients
from postillion.smtpd.counts import Counts
from postillion.smtpd.handler import Handler
from postillion.smtpd.policy import Policy

IDLE: Final = 0
ENDED: Final = -1
SLEEPING: Final = -2
FULL: Final = -3
HELO: Final = 1
MAIL: Final = 2
RCPT: Final = 3
VRFY: Final = 4
DATA: Final = 5
EARLY_MAX_BYTES: Final = 64 * 1024
"""What a client may say before its greeting is ready; then it is not read any further."""
SWEEP_S: Final = 1.0
"""How exact timeouts are."""
CLOSING_MAX_S: Final = 30.0
"""A client that does not take its last reply is cut off after so long."""
STRESS_S: Final = 1000.0
"""Stress lasts so long after all places were taken last, as for Postfix's master."""
BACKLOG: Final = 1024
"""Clients that wait for room, as far as the system lets them (net.core.somaxconn)."""


class Limits:
    """smtpd's limits per client; 0: none."""

    __slots__ = ("connections", "connections_rate", "mail_rate", "rcpt_rate")

    def __init__(
        self, *, connections: int = 0, connections_rate: int = 0, mail_rate: int = 0, rcpt_rate: int = 0
    ) -> None:
        self.connections = connections
        self.connections_rate = connections_rate
        self.mail_rate = mail_rate
        self.rcpt_rate = rcpt_rate

    @property
    def any(self) -> bool:
        """Is there anything to count?"""
        return bool(self.connections or self.connections_rate or self.mail_rate or self.rcpt_rate)


class Service:
    """What the sessions of a process share, and all of its sessions.

    `completed` is what `postillion.producer.Producer` calls for each commit.
    """

    def __init__(
        self,
        config: SmtpdConfig,
        access: Access,
        clients: Clients,
        counts: Counts | None,
        log: Log,
        *,
        limits: Limits | None = None,
        service: str = "smtp",
        timeout_s: float = 300.0,
        handler: Handler | None = None,
        stressed: SmtpdConfig | None = None,
    ) -> None:
        """`stressed`: what new sessions get while all places are taken."""
        self.config = config
        self.handler = handler
        self._stressed = stressed
        self._stress_until = 0.0
        self.access = access
        self.clients = clients
        self.counts = counts
        self.log = log
        self.limits = limits or Limits()
        self.name = service
        self.loop = asyncio.get_running_loop()
        self.sessions: dict[int, Connection] = {}
        self.changed: Callable[[], None] = _nothing
        self._sweep_every_s = min(SWEEP_S, max(timeout_s / 4, 0.05))
        self._ticket = 0
        self._sweep_handle: asyncio.TimerHandle | None = None
        self._stopping = False

    def stress(self) -> None:
        """All places are taken: clients that come from now on get less patience (STRESS_README)."""
        now = self.loop.time()
        if now >= self._stress_until:
            number = len(self.sessions)
            self.log.warning(f'service "{self.name}" has reached its process limit "{number}": stress mode is on')
        self._stress_until = now + STRESS_S

    def fall_behind(self, behind: bool) -> None:
        """Let each new message wait for in_flow_delay, or no longer."""
        self.config.fall_behind(behind)
        if self._stressed is not None:
            self._stressed.fall_behind(behind)

    def current(self) -> SmtpdConfig:
        """The parameters of a session that begins now."""
        if self._stressed is not None and self.loop.time() < self._stress_until:
            return self._stressed
        return self.config

    def protocol(self) -> Connection:
        """Return the protocol of a connection that comes in: the factory of `loop.create_server`."""
        return Connection(self)

    def admit(self, session: Connection) -> int:
        """Count a session in; return its ticket."""
        self._ticket += 1
        self.sessions[self._ticket] = session
        if self._sweep_handle is None:
            self._sweep_handle = self.loop.call_later(self._sweep_every_s, self._sweep)
        self.changed()
        return self._ticket

    def dismiss(self, ticket: int) -> None:
        """Count a session out."""
        self.sessions.pop(ticket, None)
        self.changed()

    def completed(self, ticket: int, error: str | None) -> None:
        """Tell the session whose commit is settled. One that is gone needs no answer: its mail goes its way."""
        session = self.sessions.get(ticket)
        if session is not None:
            session.committed(error)

    def stop(self) -> None:
        """End every session as soon as no message of it is on its way."""
        self._stopping = True
        for session in list(self.sessions.values()):
            session.stop()

    def _sweep(self) -> None:
        self._sweep_handle = None
        now = self.loop.time()
        for session in list(self.sessions.values()):
            session.tick(now)
            if self._stopping:
                session.stop()
        if self.sessions:
            self._sweep_handle = self.loop.call_later(self._sweep_every_s, self._sweep)


class SMTP(aiosmtpd.smtp.SMTP):
    """A connection of a handler alone, without a queue: what `aiosmtpd.controller.Controller` makes in `factory`.

    It takes the arguments of `aiosmtpd.smtp.SMTP` and speaks its dialogue, AUTH and STARTTLS included; see
    docs/aiosmtpd.md.
    """

    def __init__(self, handler: object, **arguments: Any) -> None:
        # aiosmtpd keeps these in one dictionary for all connections: one client's EHLO would change another's limits.
        self.command_size_limits = defaultdict(lambda: self.command_size_limit)
        super().__init__(handler, **arguments)


class Connection(SMTP):
    """A connection of smtpd: its dialogue is the Rust core's, its messages go to the queue."""

    _core: SmtpdSession | None = None
    _client: Client | None = None
    _early: bytes = b""
    _task: asyncio.Task[None] | None = None
    _wake_handle: asyncio.TimerHandle | None = None
    _counted: bool = False
    _reading: bool = True
    _write_blocked: bool = False
    _full: bool = False
    _closing_at: float = 0.0
    _policy: Policy | None = None

    def __init__(self, service: Service) -> None:
        # aiosmtpd's own constructor is left out on purpose: see the head of this file.
        self.service = service
        self.loop = service.loop
        self.event_handler = None
        self.session = None
        self.envelope = None
        self.transport = None
        self._wire: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the client, at once if everything about it is known."""
        self.transport = transport
        self._wire = cast(asyncio.Transport, transport)
        service = self.service
        peer = transport.get_extra_info("peername")
        address, port = (peer[0], peer[1]) if isinstance(peer, tuple) and len(peer) >= 2 else ("127.0.0.1", 0)
        if ":" in address:
            address = address.partition("%")[0].removeprefix("::ffff:")
        self._port: int = port
        # Before it takes the last place: who does is not under stress yet.
        self._parameters = service.current()
        self._ticket: int = service.admit(self)
        client = service.clients.known(address)
        if client is not None and (client.facts.exempt or service.counts is None):
            self._begin(client)
        else:
            self._task = self.loop.create_task(self._welcome(address), name=f"welcome {address}")
            self._task.add_done_callback(self._done)

    def data_received(self, data: bytes) -> None:
        """Pass the bytes on, and do what the core then wants."""
        core, wire = self._core, self._wire
        if core is None or wire is None:
            self._early += data
            if len(self._early) >= EARLY_MAX_BYTES:
                self._pause()
            return
        turn = core.receive(data, self.loop.time())
        if turn > 0:
            turn = self._decide(turn)
        output = core.take_output()
        if output is not None:
            wire.write(output)
        if turn < 0:
            self._unusual(turn)

    def eof_received(self) -> bool:
        """What the client said before it closed its side is still answered."""
        if self._core is None:
            return False
        self._settle(self._core.eof(self.loop.time()))
        return not self._closing_at

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the session. A commit that runs is finished and announced without it."""
        for handle in (self._task, self._wake_handle):
            if handle is not None:
                handle.cancel()
        if self._core is not None:
            self._core.lost()
        if self._counted and self._client is not None and self.service.counts is not None:
            self.service.counts.ended(self._client.facts.bucket)
        self.service.dismiss(self._ticket)
        self.transport = self._wire = None

    def pause_writing(self) -> None:
        """The client does not take our replies: read no more from it."""
        self._write_blocked = True
        self._pause()

    def resume_writing(self) -> None:
        """The client takes replies again."""
        self._write_blocked = False
        self._resume()

    async def push(self, status: AnyStr) -> None:
        """Say a line in place of a hook's answer, or before it; aiosmtpd's hooks may."""
        line = status.encode("utf-8") if isinstance(status, str) else status
        # A hook runs in a thread of its own.
        self.loop.call_soon_threadsafe(self._write, line + b"\r\n")

    def _write(self, octets: bytes) -> None:
        if self._wire is not None:
            self._wire.write(octets)

    def committed(self, error: str | None) -> None:
        """The message is durable (`error` is None), or it is not queued: say so."""
        if self._core is not None and self._wire is not None:
            self._settle(self._core.committed(error, self.loop.time()))

    def tick(self, now: float) -> None:
        """Time has passed."""
        if self._closing_at:
            if self._wire is not None and now - self._closing_at > CLOSING_MAX_S:
                self._wire.abort()
        elif self._core is not None and self._wake_handle is None and now >= self._core.deadline:
            self._settle(self._core.timeout(now))

    def stop(self) -> None:
        """Say 421 and close, unless a message is on its way."""
        if self._closing_at or self._wire is None:
            return
        if self._core is None:
            self._wire.abort()
        elif self._core.shut_down(self.loop.time()):
            self._settle(ENDED)

    async def _welcome(self, address: str) -> None:
        """Find out the client's name and how many connections it has, then greet it."""
        service = self.service
        client = service.clients.known(address) or await service.clients.identify(address)
        refusal = ""
        if service.counts is not None and not client.facts.exempt:
            self._client, self._counted = client, True
            limits = service.limits
            connections, rate = await service.counts.connected(client.facts.bucket)
            if limits.connections and connections > limits.connections:
                refusal = f"Connection concurrency limit exceeded: {connections}"
            elif limits.connections_rate and rate > limits.connections_rate:
                refusal = f"Connection rate limit exceeded: {rate}"
        self._task = None
        if refusal:
            service.log.warning(f"{refusal} from {client.name}[{address}] for service {service.name}")
        if self._wire is not None:
            self._begin(client, turn_away=bool(refusal))

    def _begin(self, client: Client, *, turn_away: bool = False) -> None:
        facts = client.facts
        now = self.loop.time()
        self._client = client
        core = self._core = SmtpdSession(
            self._parameters,
            client.name,
            facts.address,
            self._port,
            self._ticket,
            now,
            reverse_name=client.reverse_name,
            rewrites_headers=facts.rewrites_headers,
            bare_newline_spared=facts.spared,
        )
        if turn_away:
            return self._settle(core.turn_away(f"Error: too many connections from {facts.address}", now))
        early, self._early = self._early, b""
        if early:
            core.receive(early, now)
        refusal = self.service.access.connect(client, core) if self.service.access.asks_connect else None
        self._settle(core.greet(now) if refusal is None else core.refuse(*refusal, now))
        self._resume()
        return None

    def _settle(self, turn: int) -> None:
        """Do what the core wants, off the path that every read takes."""
        core, wire = self._core, self._wire
        if core is None or wire is None:
            return
        if turn > 0:
            turn = self._decide(turn)
        output = core.take_output()
        if output is not None:
            wire.write(output)
        if turn < 0:
            self._unusual(turn)
        elif self._full:
            self._full = False
            self._resume()

    def _decide(self, turn: int) -> int:
        """Answer questions until there is none; the core's next turn."""
        core, client = self._core, self._client
        assert core is not None
        assert client is not None
        while turn > 0:
            hook = self._hook(turn)
            if hook or self._must_count(turn, client):
                self._task = self.loop.create_task(self._decide_slowly(turn, client, hook), name="a question")
                self._task.add_done_callback(self._done)
                return IDLE
            turn = self._answer(turn, self._verdict(turn))
        return turn

    def _answer(self, turn: int, reply: Reply | None) -> int:
        core = self._core
        assert core is not None
        now = self.loop.time()
        return core.accept(now) if reply is None else core.reply(*reply, now)

    def _hook(self, turn: int) -> str:
        handler = self.service.handler
        if handler is None:
            return ""
        if self._policy is None:
            assert self._core is not None
            self._policy = Policy(self, handler, self._core, self.service.config.ehlo_text)
        return self._policy.name(turn)

    def _verdict(self, turn: int) -> Reply | None:
        core, client, access = self._core, self._client, self.service.access
        assert core is not None
        assert client is not None
        try:
            if turn in (RCPT, VRFY):
                return access.rcpt(client, core, core.recipient or "")
            if turn == MAIL:
                return access.mail(client, core) if access.asks_mail else None
            if turn == HELO:
                return access.helo(client, core)
            return access.data(client, core) if turn == DATA else None
        except Exception:
            # A fault of ours in one decision is no reason to lose the other sessions, nor to let mail in.
            self._log_fault(traceback.format_exc())
            return Reply(451, "4.3.0", "Error: internal error")

    def _done(self, task: asyncio.Task[None]) -> None:
        """A fault of ours while the client waits ends its session: nothing else would ever answer it."""
        problem = None if task.cancelled() else task.exception()
        if problem is not None:
            self._log_fault("".join(traceback.format_exception(problem)))
            if self._wire is not None:
                self._wire.abort()

    def _log_fault(self, text: str) -> None:
        for line in text.splitlines():
            self.service.log.line("error", line)

    def _must_count(self, turn: int, client: Client) -> bool:
        limits = self.service.limits
        wanted = (turn == MAIL and limits.mail_rate) or (turn == RCPT and limits.rcpt_rate)
        return bool(wanted) and self.service.counts is not None and not client.facts.exempt

    async def _decide_slowly(self, turn: int, client: Client, hook: str) -> None:
        """As `_decide`, for one question whose client is counted, or that the site's handler has a hook for."""
        reply = await self._counted_verdict(turn, client) if self._must_count(turn, client) else self._verdict(turn)
        if reply is None and hook and self._policy is not None and self._wire is not None:
            reply = await self._policy.verdict(turn, hook)
        self._task = None
        if self._core is not None and self._wire is not None:
            self._settle(self._answer(turn, reply))

    async def _counted_verdict(self, turn: int, client: Client) -> Reply | None:
        service, limits = self.service, self.service.limits
        assert service.counts is not None
        verb, limit = ("mail", limits.mail_rate) if turn == MAIL else ("rcpt", limits.rcpt_rate)
        rate = await service.counts.requested(verb, client.facts.bucket)
        refusal = self._verdict(turn)
        if rate > limit:
            what = "Message delivery request" if turn == MAIL else "Recipient address"
            host = f"{client.name}[{client.address}]"
            service.log.warning(f"{what} rate limit exceeded: {rate} from {host} for service {service.name}")
            noun = "mail" if turn == MAIL else "recipients"
            refusal = Reply(
                450, "4.7.1", f"Error: too {'much' if turn == MAIL else 'many'} {noun} from {client.address}"
            )
        return refusal

    def _unusual(self, turn: int) -> None:
        """The session has ended, sleeps for an error, or has more input than it can take."""
        if turn == ENDED:
            if not self._closing_at and self._wire is not None:
                self._closing_at = self.loop.time()
                self._wire.close()
        elif turn == SLEEPING:
            self._full = True
            self._pause()
            if self._wake_handle is None and self._core is not None:
                self._wake_handle = self.loop.call_at(self._core.deadline, self._wake)
        elif turn == FULL:
            self._full = True
            self._pause()

    def _wake(self) -> None:
        self._wake_handle = None
        if self._core is not None and self._wire is not None:
            self._settle(self._core.timeout(self.loop.time()))

    def _pause(self) -> None:
        if self._reading and self._wire is not None and not self._wire.is_closing():
            self._reading = False
            self._wire.pause_reading()

    def _resume(self) -> None:
        if self._reading or self._full or self._write_blocked or self._wire is None:
            return
        if not self._wire.is_closing():
            self._reading = True
            self._wire.resume_reading()


class Listeners:
    """Accepts clients while there is room for them: default_process_limit, or the service's maxproc.

    Clients above the limit wait in the sockets' queues, as they do for a free smtpd process of Postfix. Those that
    were already being accepted when the limit was reached are served too.
    """

    def __init__(self, service: Service, sockets: list[socket.socket], limit: int) -> None:
        """`limit`: sessions at a time, 0 for no limit."""
        self._service = service
        self._sockets = sockets
        self._limit = limit
        self._servers: list[asyncio.Server] = []
        self._full = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        service.changed = self._changed

    async def accept(self) -> None:
        """Accept clients until cancelled. The sockets themselves stay open: other processes share them."""
        loop = asyncio.get_running_loop()
        while True:
            await self._room.wait()
            try:
                for listener in self._sockets:
                    # A server closes its socket with itself: it gets a copy.
                    self._servers.append(await self._serve(loop, listener.dup()))
                await self._full.wait()
            finally:
                self._pause()

    def _pause(self) -> None:
        while self._servers:
            self._servers.pop().close()

    async def _serve(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> asyncio.Server:
        factory = self._service.protocol
        if listener.family == socket.AF_UNIX:
            return await loop.create_unix_server(factory, sock=listener)
        return await loop.create_server(factory, sock=listener, backlog=BACKLOG)

    def _changed(self) -> None:
        is_full = bool(self._limit) and len(self._service.sessions) >= self._limit
        if is_full and not self._full.is_set():
            # At once, before the client that fills the last place hears from us.
            self._pause()
            self._service.stress()
            self._full.set()
            self._room.clear()
        elif not is_full and self._full.is_set():
            self._full.clear()
            self._room.set()


def _nothing() -> None:
    return None
