"""A client about which something is to be decided.

`Connection` is an `aiosmtpd.smtp.SMTP` whose dialogue is the Rust core's. aiosmtpd's constructor, which looks its own
methods up anew for every connection, is not run; nor is a task started, a stream reader filled, or a timer armed.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, AnyStr, Final

from postillion._core.smtpd import SmtpdSession
from postillion.aiosmtpd import SMTP
from postillion.handler.auth import CHALLENGE, SUCCESS, Exchange
from postillion.handler.policy import Policy
from postillion.restrictions.access import Reply
from postillion.smtpd.clients import Client
from postillion.smtpd.names import Name

if TYPE_CHECKING:
    from postillion.smtpd.service import Service

IDLE, HELO, MAIL, RCPT = SmtpdSession.IDLE, SmtpdSession.HELO, SmtpdSession.MAIL, SmtpdSession.RCPT
VRFY, DATA, AUTH = SmtpdSession.VRFY, SmtpdSession.DATA, SmtpdSession.AUTH
KNOWN_FOR_S: Final = 10.0
"""What was found out about a client, and what it may send to, is not asked again for so long."""


class Wire(asyncio.Transport):
    """A connection's socket, as far as a site's hooks may ask for it."""

    def __init__(self, service: Service, key: int) -> None:
        super().__init__()
        self._service = service
        self._key = key
        self._peer = service.core.peer(key)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return `peername`: address and port."""
        return self._peer if name == "peername" and self._peer is not None else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Say something out of turn."""
        # A hook runs in a thread of its own.
        self._service.loop.call_soon_threadsafe(self._write, bytes(data))

    def is_closing(self) -> bool:
        """Is the client gone?"""
        return self._service.core.peer(self._key) is None

    def abort(self) -> None:
        """Close at once."""
        self._service.loop.call_soon_threadsafe(self._abort)

    close = abort

    def _write(self, octets: bytes) -> None:
        self._service.attend(self._service.core.write(self._key, octets, self._service.loop.time()))

    def _abort(self) -> None:
        self._service.attend(self._service.core.abort(self._key, self._service.loop.time()))


class Silence:
    """What a dialogue knows before it begins."""

    helo = sender = recipient = None
    recipient_count = 0
    talked_early = authenticated = False


class Connection(SMTP):
    """A client about which something is decided: its dialogue is the Rust core's, its messages go to the queue."""

    _client: Client | None = None
    _task: asyncio.Task[None] | None = None
    _wake_handle: asyncio.TimerHandle | None = None
    _counted: bool = False
    _policy: Policy | None = None
    # What aiosmtpd's `smtp_AUTH` asks its server.
    _auth_require_tls: bool = False
    _tls_protocol: None = None
    _reader: Any = None
    _gone: bool = False

    def __init__(self, service: Service, key: int) -> None:
        # aiosmtpd's own constructor is left out on purpose: see the head of this file.
        self.service = service
        self.loop = service.loop
        self.event_handler = None
        self.session = None
        self.envelope = None
        self.transport = Wire(service, key)
        self._key = key
        self._core: SmtpdSession | None = service.core.session(key)
        if self._core is not None:
            address, name, reverse_name = self._core.client
            self._client = Client(service.clients.facts(address, name), Name(name, reverse_name))

    def welcome(self) -> None:
        """Greet the client, at once if everything about it is known."""
        peer = self.service.core.peer(self._key)
        assert peer is not None
        address, _ = peer
        client = self.service.clients.known(address)
        if client is not None and not self.service.must_count(client):
            self._begin(client)
        else:
            self._begin_task(self._welcome(address), f"welcome {address}")

    def settle(self, turn: int) -> None:
        """Answer what the session asks, and go on."""
        if turn > 0:
            turn = self._decide(turn)
        self.service.attend(self.service.core.proceed(self._key, turn, self.loop.time()))

    def sleep(self, until: float) -> None:
        """The session sleeps, for an error or for flow control."""
        if self._wake_handle is not None:
            self._wake_handle.cancel()
        self._wake_handle = self.loop.call_at(until, self._wake)

    def gone(self) -> None:
        """The connection is closed. A commit that runs is finished and announced without it."""
        self._gone = True
        for handle in (self._task, self._wake_handle):
            if handle is not None:
                handle.cancel()
        if self._policy is not None:
            self._policy.cancel()
        if self._counted and self._client is not None and self.service.counts is not None:
            self.service.counts.ended(self._client.facts.bucket)
        self.transport = None

    async def push(self, status: AnyStr) -> None:
        """Say a line in place of a hook's answer, or before it; aiosmtpd's hooks may."""
        line = status.encode("utf-8") if isinstance(status, str) else status
        if self._reader is not None:
            self._reader.push(line.decode("utf-8", "replace"))
            return
        if isinstance(self.transport, Wire):
            self.transport.write(line + b"\r\n")

    def carry(self, exchange: Exchange | None) -> None:
        """From now on lines that are pushed, and those that are read, are an exchange's."""
        self._reader = exchange

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
        self._begin(client, turn_away=bool(refusal))

    def _begin(self, client: Client, *, turn_away: bool = False) -> None:
        service, facts, now = self.service, client.facts, self.loop.time()
        self._client = client
        refusal = service.access.connect(client, Silence()) if service.access.asks_connect else None
        group = service.group(client)
        if not service.access.asks_connect and not service.must_count(client):
            service.core.know(
                facts.address,
                client.name,
                client.reverse_name,
                now + KNOWN_FOR_S,
                group=group,
                rewrites_headers=facts.rewrites_headers,
                bare_newline_spared=facts.spared,
            )
        wishes = service.core.begin(
            self._key,
            facts.address,
            client.name,
            client.reverse_name,
            now,
            group=group,
            rewrites_headers=facts.rewrites_headers,
            bare_newline_spared=facts.spared,
            refusal=refusal,
            turn_away=f"Error: too many connections from {facts.address}" if turn_away else None,
        )
        self._core = service.core.session(self._key)
        service.attend(wishes)

    def _decide(self, turn: int) -> int:
        """Answer questions until there is none; the core's next turn."""
        client = self._client
        assert client is not None
        while turn > 0:
            hook = self._hook(turn)
            if turn == AUTH:
                self._begin_task(self._answer_auth(client), "an authentication")
                return IDLE
            if hook or self._must_count(turn, client):
                self._begin_task(self._decide_slowly(turn, client, hook), "a question")
                return IDLE
            turn = self._answer(turn, self._verdict(turn))
        return turn

    def _answer(self, turn: int, reply: Reply | None) -> int:
        core = self._core
        assert core is not None
        now = self.loop.time()
        if reply is not None:
            return core.reply(*reply, now)
        if turn == RCPT and core.group is not None:
            scope = self.service.access.scope(core.recipient or "")
            if scope:
                self.service.core.remember(core.group, scope, now + KNOWN_FOR_S)
        return core.accept(now)

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
            self.service.log_fault(traceback.format_exc())
            return Reply(451, "4.3.0", "Error: internal error")

    def _begin_task(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._task = self.loop.create_task(work, name=name)
        self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        """A fault of ours while the client waits ends its session: nothing else would ever answer it."""
        problem = None if task.cancelled() else task.exception()
        if problem is not None:
            self.service.log_fault("".join(traceback.format_exception(problem)))
            self.service.attend(self.service.core.abort(self._key, self.loop.time()))

    def _must_count(self, turn: int, client: Client) -> bool:
        limits = self.service.limits
        wanted = (turn == MAIL and limits.mail_rate) or (turn == RCPT and limits.rcpt_rate)
        return bool(wanted) and self.service.must_count(client)

    async def _decide_slowly(self, turn: int, client: Client, hook: str) -> None:
        """As `_decide`, for one question whose client is counted, or that the site's handler has a hook for."""
        reply = await self._counted_verdict(turn, client) if self._must_count(turn, client) else self._verdict(turn)
        if reply is None and hook and self._policy is not None and not self._gone:
            reply = await self._policy.verdict(turn, hook)
        self._task = None
        if not self._gone:
            self.settle(self._answer(turn, reply))

    async def _answer_auth(self, client: Client) -> None:
        """Answer AUTH, or the client's answer to a challenge."""
        core, policy = self._core, self._policy
        assert core is not None
        assert policy is not None
        reply = await policy.authenticate()
        if reply.code not in (CHALLENGE, SUCCESS):
            host = f"{client.name}[{client.address}]"
            self.service.log.warning(f"{host}: SASL {policy.mechanism} authentication failed: {reply.text}")
        self._task = None
        if not self._gone:
            self.settle(core.reply(*reply, self.loop.time()))

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

    def _wake(self) -> None:
        self._wake_handle = None
        self.service.attend(self.service.core.wake(self._key, self.loop.time()))
