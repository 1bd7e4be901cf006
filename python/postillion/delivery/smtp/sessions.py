"""Connections: one carries one job after the other, and may wait a little for the next job to the same next hop.

A job for which no connection is idle may follow another while that is under way: its commands then go out with the
other's message.

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
FOLLOW_MAX_S = 1.0
"""How long a job waits for the one that it follows; then it has a connection of its own."""
MORE, FINISHED, CLOSED, STALE = SmtpClient.MORE, SmtpClient.FINISHED, SmtpClient.CLOSED, SmtpClient.STALE
SENDING, NEXT = SmtpClient.SENDING, SmtpClient.NEXT


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

    __slots__ = ("active", "busy", "idle", "last_start", "name", "nexthop", "previous_start", "sites", "targets_known")

    def __init__(self, nexthop: str) -> None:
        self.nexthop = nexthop
        self.name = nexthop.lower()
        self.active = 0
        self.idle: deque[Session] = deque()
        self.busy: dict[Session, None] = {}
        """Kept sessions with a job that none follows, the one that began first in front."""
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
        if self.name in settings.destinations:
            return True
        return settings.on_demand and (others > 0 or self.last_start - self.previous_start <= DEMAND_S)

    def keeps(self, session: Session, settings: CacheSettings, now: float) -> bool:
        """Whether a session that has just finished a job waits for the next."""
        if len(self.idle) >= IDLE_MAX_SESSIONS or self.is_spent(session, settings, now):
            return False
        return self.wants(settings, self.active)

    def leader(self, settings: CacheSettings, now: float) -> Session | None:
        """A session whose job another one may follow."""
        for session in self.busy:
            good = session.client.takes_another(now) and not self.is_spent(session, settings, now)
            return session if good else None
        return None

    @staticmethod
    def is_spent(session: Session, settings: CacheSettings, now: float) -> bool:
        """Whether a session has been used for as long, or as often, as it may."""
        limit = settings.reuse_count_limit
        return now - session.opened >= settings.reuse_time_limit or 0 < limit < session.client.transactions

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
        """The job is done with this session, as far as it goes there; NEXT: which now carries the one that follows."""

    @abc.abstractmethod
    def session_left(self, attempt: Attempt) -> None:
        """The session that was to carry the job next will not: as if it had not been there."""

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
        "followed_since",
        "follower",
        "idle_since",
        "last_address",
        "last_session",
        "loop",
        "opened",
        "paused",
        "route",
        "target",
        "transport",
        "unsent",
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
        self.follower: Attempt | None = None
        """The job that comes next."""
        self.followed_since = 0.0
        self.opened = 0.0
        self.idle_since = 0.0
        self.closed = False
        self.paused = False
        self.unsent = 0
        """Octets that waited to be written when last looked, while it is paused."""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the dialogue."""
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
        self.route.busy[self] = None
        self._deliver(attempt, last_session, last_session, True)

    def follow(self, attempt: Attempt, now: float, *, last_session: bool) -> None:
        """Carry another job after the one under way."""
        del self.route.busy[self]
        self.follower, self.followed_since = attempt, now
        try:
            self.client.follow(attempt.job, last_session=last_session)
            output = self.client.take_output()
            if output is not None:
                self.transport.write(output)
        except BaseException as problem:
            self._broken(problem)

    def _leave(self) -> None:
        attempt, self.follower = self.follower, None
        self.route.busy.pop(self, None)
        if attempt is not None:
            self.courier.session_left(attempt)

    def _deliver(self, attempt: Attempt, last_address: bool, last_session: bool, keep: bool) -> None:
        try:
            now = self.loop.time()
            deliver = self.client.deliver
            self._act(deliver(attempt.job, now, last_address=last_address, last_session=last_session, keep=keep))
        except BaseException as problem:
            self._broken(problem)

    def data_received(self, data: bytes) -> None:
        """Give the octets to the dialogue and do what it asks for."""
        try:
            self._act(self.client.receive(data, self.loop.time()))
        except BaseException as problem:
            self._broken(problem)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the session and what it has under way."""
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
        if self.follower is not None and now - self.followed_since >= FOLLOW_MAX_S:
            self.client.withdraw()
            self._leave()
        if self.paused:
            self._progressed(now)
        deadline = self.client.deadline
        if deadline is not None and deadline <= now:
            try:
                self._act(self.client.timeout(now))
            except BaseException as problem:
                self._broken(problem)

    def _progressed(self, now: float) -> None:
        before, self.unsent = self.unsent, self.transport.get_write_buffer_size()
        if self.unsent < before:
            self.client.progressed(before - self.unsent, now)

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
        """Note how much the peer has yet to take."""
        self.paused = True
        self.unsent = self.transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        """Send the next piece of the message."""
        self._progressed(self.loop.time())
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
        self._leave()
        self.courier.session_broken(self, attempt, problem)

    def _act(self, code: int) -> None:
        client = self.client
        output = client.take_output()
        if output is not None and not self.closed:
            self.transport.write(output)
        if code >= NEXT:
            attempt, self.attempt, self.follower = self.attempt, self.follower, None
            self.route.busy[self] = None
            code -= NEXT
            if attempt is not None:
                self.courier.session_ended(self, attempt, NEXT)
        # A large message: as much as the connection takes without waiting.
        while code == SENDING and not self.paused:
            code = client.send_body(self.loop.time())
            output = client.take_output()
            if output is not None:
                self.transport.write(output)
        if code in (MORE, SENDING):
            return
        attempt, self.attempt = self.attempt, None
        self._leave()
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
