"""Connections: one carries one job at a time, and may wait a little for the next job to the same next hop.

`Session` is the protocol of one connection: what the server sends goes to the Rust client, what the client writes goes
to the server, and nothing else happens per message. `Route` holds what is known of one next hop: its idle sessions and
how much demand there is, which decides whether a session is kept (smtp_connection_cache_on_demand).
"""

from __future__ import annotations

import abc
import asyncio
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, cast

from postillion._core import DeliveryJob, SmtpClient

if TYPE_CHECKING:
    from postillion.config import Config
    from postillion.delivery.smtp.destination import Destination
    from postillion.delivery.smtp.targets import Target

DEMAND_S = 1.0
"""Jobs that follow each other within this time are demand for a connection that stays."""
IDLE_MAX_SESSIONS = 50
"""Idle sessions kept to one next hop."""
MORE, FINISHED, CLOSED, STALE = SmtpClient.MORE, SmtpClient.FINISHED, SmtpClient.CLOSED, SmtpClient.STALE


class CacheSettings(NamedTuple):
    """When a connection is used again; names as in postconf(5), times in seconds."""

    on_demand: bool
    destinations: frozenset[str]
    time_limit: float
    reuse_time_limit: float
    reuse_count_limit: int

    @classmethod
    def of(cls, config: Config, prefix: str) -> CacheSettings:
        """Read them; `prefix`: smtp or lmtp."""
        return cls(
            on_demand=config.flag(f"{prefix}_connection_cache_on_demand"),
            destinations=frozenset(word.lower() for word in config.items(f"{prefix}_connection_cache_destinations")),
            time_limit=config.seconds(f"{prefix}_connection_cache_time_limit"),
            reuse_time_limit=config.seconds(f"{prefix}_connection_reuse_time_limit"),
            reuse_count_limit=config.number(f"{prefix}_connection_reuse_count_limit"),
        )


class Route:
    """One next hop."""

    __slots__ = ("active", "idle", "last_start", "nexthop", "previous_start", "sites", "targets_known")

    def __init__(self, nexthop: str) -> None:
        self.nexthop = nexthop
        self.active = 0
        self.idle: deque[Session] = deque()
        self.last_start = self.previous_start = float("-inf")
        self.sites: list[Destination] | None = None
        """The next hops that it names; None until it was read."""
        self.targets_known = 1
        """How many hosts there were to try when last looked."""

    def started(self, now: float) -> None:
        """A job begins."""
        self.active += 1
        self.previous_start, self.last_start = self.last_start, now

    def wants(self, settings: CacheSettings, others: int) -> bool:
        """Whether a connection should stay; `others`: how many of the jobs under way are not its own."""
        if self.nexthop.lower() in settings.destinations:
            return True
        return settings.on_demand and (others > 0 or self.last_start - self.previous_start <= DEMAND_S)

    def keeps(self, session: Session, settings: CacheSettings, now: float) -> bool:
        """Whether a session that has just finished a job waits for the next."""
        if now - session.opened >= settings.reuse_time_limit or len(self.idle) >= IDLE_MAX_SESSIONS:
            return False
        if settings.reuse_count_limit and session.client.transactions > settings.reuse_count_limit:
            return False
        return self.wants(settings, self.active)

    def take(self, settings: CacheSettings, now: float) -> Session | None:
        """An idle session that is still good: the one used last, so that the others can end."""
        while self.idle:
            session = self.idle.pop()
            if not session.closed and now - session.opened < settings.reuse_time_limit:
                return session
            session.end()
        return None


class Attempt:
    """A job on its way, and which hosts are left to try."""

    __slots__ = ("connect_deadline", "failure", "job", "last_site", "remaining", "route", "sessions", "site", "tried")

    def __init__(self, job: DeliveryJob, route: Route) -> None:
        self.job = job
        self.route = route
        self.site = 0
        """How many of the route's next hops were looked up."""
        self.remaining: deque[Target] = deque()
        self.last_site = True
        self.sessions = 0
        self.tried: Target | None = None
        """The host of the warm connection that left recipients open: not tried again."""
        self.failure: tuple[str, str] | None = None
        """Why the last host could not be reached; None when it could and the job itself knows more."""
        self.connect_deadline: float | None = None
        """Until when the connection must stand, while there is none; 0 once that has passed."""


class Courier(abc.ABC):
    """What a session reports to; the smtp agent is one."""

    cache: CacheSettings

    @abc.abstractmethod
    def session_opened(self, session: Session) -> SmtpClient:
        """Return the client for a connection that was just made."""

    @abc.abstractmethod
    def session_ended(self, session: Session, attempt: Attempt, code: int) -> None:
        """The job is done with this session, as far as it goes there."""

    @abc.abstractmethod
    def session_lost(self, session: Session) -> None:
        """An idle session has closed."""

    @abc.abstractmethod
    def session_broken(self, session: Session, attempt: Attempt | None, problem: BaseException) -> None:
        """A mistake of ours has ended the session."""


class Session(asyncio.Protocol):
    """One connection."""

    __slots__ = (
        "attempt",
        "client",
        "closed",
        "courier",
        "idle_since",
        "last_address",
        "last_session",
        "loop",
        "opened",
        "paused",
        "route",
        "target",
        "transport",
    )

    def __init__(
        self,
        courier: Courier,
        loop: asyncio.AbstractEventLoop,
        target: Target,
        attempt: Attempt,
        *,
        last_address: bool,
        last_session: bool,
    ) -> None:
        self.courier = courier
        self.loop = loop
        self.last_address = last_address
        self.last_session = last_session
        self.client: SmtpClient
        self.target = target
        self.route = attempt.route
        self.attempt: Attempt | None = attempt
        self.opened = 0.0
        self.idle_since = 0.0
        self.closed = False
        self.paused = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.opened = self.loop.time()
        self.client = self.courier.session_opened(self)
        if self.attempt is not None:
            self.attempt.connect_deadline = None
            keep = self.route.wants(self.courier.cache, self.route.active - 1)
            self._deliver(self.attempt, self.last_address, self.last_session, keep)

    def carry(self, attempt: Attempt, *, last_session: bool) -> None:
        """Begin another job."""
        self.attempt = attempt
        self._deliver(attempt, last_session, last_session, True)

    def _deliver(self, attempt: Attempt, last_address: bool, last_session: bool, keep: bool) -> None:
        try:
            now = self.loop.time()
            deliver = self.client.deliver
            self._act(deliver(attempt.job, now, last_address=last_address, last_session=last_session, keep=keep))
        except BaseException as problem:
            self._broken(problem)

    def data_received(self, data: bytes) -> None:
        try:
            self._act(self.client.receive(data, self.loop.time()))
        except BaseException as problem:
            self._broken(problem)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self.attempt is None:
            self.courier.session_lost(self)
            return
        try:
            self._act(self.client.lost(self.loop.time()))
        except BaseException as problem:
            self._broken(problem)

    def check(self, now: float) -> None:
        """End what has lasted too long."""
        if self.attempt is None:
            if now - self.idle_since >= self.courier.cache.time_limit:
                self.end()
            return
        deadline = self.client.deadline
        if deadline is not None and deadline <= now:
            try:
                self._act(self.client.timeout(now))
            except BaseException as problem:
                self._broken(problem)

    def end(self) -> None:
        """Say QUIT and close; no answer is waited for (smtp_skip_quit_response)."""
        self.client.quit()
        self._close()

    def abandon(self) -> None:
        """Close at once: the job is given up."""
        self.attempt = None
        self.closed = True
        self.transport.abort()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self.client.sending:
            try:
                self._act(self.client.send_body(self.loop.time()))
            except BaseException as problem:
                self._broken(problem)

    def _broken(self, problem: BaseException) -> None:
        """End this session alone. A panic in Rust is no `Exception`, and must not end the process all the same."""
        if isinstance(problem, (KeyboardInterrupt, SystemExit)):
            raise problem
        attempt = self.attempt
        self.abandon()
        self.courier.session_broken(self, attempt, problem)

    def _act(self, code: int) -> None:
        client = self.client
        output = client.take_output()
        if code == MORE:
            if output is not None:
                self.transport.write(output)
                # A large message: as much as the connection takes without waiting.
                while client.sending and not self.paused and code == MORE:
                    code = client.send_body(self.loop.time())
                    output = client.take_output()
                    if output is not None:
                        self.transport.write(output)
            if code == MORE:
                return
        elif output is not None and not self.closed:
            self.transport.write(output)
        attempt, self.attempt = self.attempt, None
        if code != FINISHED:
            self._close()
        if attempt is None:
            self.courier.session_lost(self)
        else:
            self.courier.session_ended(self, attempt, code)

    def _close(self) -> None:
        if self.closed:
            return
        self.closed = True
        output = self.client.take_output()
        if output is not None:
            self.transport.write(output)
        if self.paused:
            # The server does not read: what waits to be written would keep the connection for ever.
            self.transport.abort()
        else:
            self.transport.close()
