"""Connections: one carries one job after the other, and waits a short time for the next job to the same next hop.

Without an idle connection, a job may follow another job in progress: its commands are then sent with the other job's
message.

`Session` is the protocol of one connection. It passes the octets between the server and its core, the Rust session, and
does nothing else per message. `Route` is the state of one next hop: its idle sessions, and its demand, which decides
whether a session is kept (smtp_connection_cache_on_demand).
"""

from __future__ import annotations

import abc
import asyncio
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, cast

from postillion._core.delivery import DeliveryJob, DeliverySession, Next
from postillion.tables.answers import MessageLookups

if TYPE_CHECKING:
    from postillion.config import Config
    from postillion.delivery.smtp.nexthop import NextHop
    from postillion.delivery.smtp.targets import Target

DEMAND_S = 1.0
"""Two jobs within this time are demand for a cached connection."""
IDLE_MAX_SESSIONS = 50
"""Maximum number of idle sessions to one next hop."""
FOLLOW_MAX_S = 1.0
"""Longest wait of a job for the job that it follows; then it gets its own connection."""
MORE, SENDING, ASKING, FOLLOWED, FINISHED = Next.MORE, Next.SENDING, Next.ASKING, Next.FOLLOWED, Next.FINISHED


class CacheSettings(NamedTuple):
    """The parameters of the connection cache, by their names in postconf(5). Times are seconds."""

    on_demand: bool
    destinations: frozenset[str]
    time_limit: float
    reuse_time_limit: float
    reuse_count_limit: int

    @classmethod
    def of(cls, config: Config, prefix: str) -> CacheSettings:
        """Return the settings of a configuration. `prefix`: smtp or lmtp."""
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
        """Sessions in progress whose job has no follower, the oldest first."""
        self.last_start = self.previous_start = float("-inf")
        self.sites: list[NextHop] | None = None
        """The parsed next hops of the list; None before the first lookup."""
        self.targets_known = 1
        """The number of hosts at the last lookup."""

    def started(self, now: float) -> None:
        """Count a new job."""
        self.active += 1
        self.previous_start, self.last_start = self.last_start, now

    def wants(self, settings: CacheSettings, others: int) -> bool:
        """Return whether to keep a connection. `others`: the number of jobs in progress on other connections."""
        if self.name in settings.destinations:
            return True
        return settings.on_demand and (others > 0 or self.last_start - self.previous_start <= DEMAND_S)

    def keeps(self, session: Session, settings: CacheSettings, now: float) -> bool:
        """Return whether a session waits for the next job after it finished one."""
        if len(self.idle) >= IDLE_MAX_SESSIONS or self.is_spent(session, settings, now):
            return False
        return self.wants(settings, self.active)

    def leader(self, settings: CacheSettings, now: float) -> Session | None:
        """Return a session whose job another job may follow; None when there is none."""
        for session in self.busy:
            good = session.core.may_follow(now) and not self.is_spent(session, settings, now)
            return session if good else None
        return None

    @staticmethod
    def is_spent(session: Session, settings: CacheSettings, now: float) -> bool:
        """Return whether a session has reached a limit of reuse, in time or in number."""
        limit = settings.reuse_count_limit
        return now - session.opened >= settings.reuse_time_limit or 0 < limit < session.core.transactions

    def take(self, settings: CacheSettings, now: float) -> Session | None:
        """Return the most recently used idle session within the limits, so that older ones can expire."""
        while self.idle:
            session = self.idle.pop()
            if not session.closed and now - session.opened < settings.reuse_time_limit:
                return session
            session.end()
        return None


class Attempt:
    """A job in progress, and the hosts that are left to try."""

    __slots__ = (
        "connect_deadline",
        "failure",
        "job",
        "last_site",
        "lookups",
        "remaining",
        "route",
        "sessions",
        "site",
        "tried",
    )

    def __init__(self, job: DeliveryJob, route: Route) -> None:
        self.job = job
        self.route = route
        self.site = 0
        """The number of the route's next hops that were looked up."""
        self.remaining: deque[Target] = deque()
        self.last_site = True
        self.sessions = 0
        self.tried: Target | None = None
        """The host of a reused connection that left recipients open; it is not tried again."""
        self.failure: tuple[str, str] | None = None
        """Status code and reason of the last failed connection; None when the job itself has the reason."""
        self.connect_deadline: float | None = None
        """Deadline of the connection attempt in progress; `TIMED_OUT` after it has passed."""
        self.lookups: MessageLookups | None = None
        """The lookups in remote tables that the job waits for; None while it waits for none."""


class SessionOwner(abc.ABC):
    """The owner of sessions, which receives their events: the smtp agent."""

    cache: CacheSettings
    asking: set[asyncio.Task[None]]
    """The lookups in progress."""

    @abc.abstractmethod
    def session_opened(self, session: Session) -> DeliverySession:
        """Return the core for a new connection."""

    @abc.abstractmethod
    def session_ended(self, session: Session, attempt: Attempt, step: Next) -> None:
        """Finish the job on this session, or try the next host. `step` FOLLOWED: the session has the follower now."""

    @abc.abstractmethod
    def session_left(self, attempt: Attempt) -> None:
        """Connect for a job that cannot use the session that it was to follow on."""

    @abc.abstractmethod
    def session_lost(self, session: Session) -> None:
        """Drop an idle session that has closed."""

    @abc.abstractmethod
    def session_broken(self, session: Session, attempt: Attempt | None, problem: BaseException) -> None:
        """Defer the job of a session that ended with an exception."""


class Session(asyncio.Protocol):
    """One connection."""

    __slots__ = (
        "attempt",
        "closed",
        "core",
        "followed_since",
        "follower",
        "idle_since",
        "last_address",
        "last_session",
        "loop",
        "opened",
        "owner",
        "paused",
        "route",
        "target",
        "transport",
        "unsent",
    )

    def __init__(
        self,
        owner: SessionOwner,
        loop: asyncio.AbstractEventLoop,
        target: Target,
        attempt: Attempt,
        *,
        last_address: bool,
        last_session: bool,
    ) -> None:
        self.owner = owner
        self.loop = loop
        self.last_address = last_address
        self.last_session = last_session
        self.core: DeliverySession
        self.target = target
        self.route = attempt.route
        self.attempt: Attempt | None = attempt
        self.follower: Attempt | None = None
        """The next job."""
        self.followed_since = 0.0
        self.opened = 0.0
        self.idle_since = 0.0
        self.closed = False
        self.paused = False
        self.unsent = 0
        """Octets in the write buffer at the last check, while writing is paused."""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the dialogue."""
        self.transport = cast(asyncio.Transport, transport)
        self.opened = self.loop.time()
        self.core = self.owner.session_opened(self)
        if self.attempt is not None:
            self.attempt.connect_deadline = None
            keep = self.route.wants(self.owner.cache, self.route.active - 1)
            self._deliver(self.attempt, self.last_address, self.last_session, keep)

    def carry(self, attempt: Attempt, *, last_session: bool) -> None:
        """Start another job on an idle session."""
        self.attempt = attempt
        self.route.busy[self] = None
        self._deliver(attempt, last_session, last_session, True)

    def follow(self, attempt: Attempt, now: float, *, last_session: bool) -> None:
        """Queue another job behind the job in progress."""
        del self.route.busy[self]
        self.follower, self.followed_since = attempt, now
        try:
            self.core.follow(attempt.job, last_session=last_session)
            output = self.core.take_output()
            if output is not None:
                self.transport.write(output)
        except BaseException as problem:
            self._broken(problem)

    def _leave(self) -> None:
        attempt, self.follower = self.follower, None
        self.route.busy.pop(self, None)
        if attempt is not None:
            self.owner.session_left(attempt)

    def _deliver(self, attempt: Attempt, last_address: bool, last_session: bool, keep: bool) -> None:
        try:
            now = self.loop.time()
            deliver = self.core.deliver
            self._act(deliver(attempt.job, now, last_address=last_address, last_session=last_session, keep=keep))
        except BaseException as problem:
            self._broken(problem)

    def data_received(self, data: bytes) -> None:
        """Give the octets to the dialogue and do what it asks for."""
        try:
            self._act(self.core.receive(data, self.loop.time()))
        except BaseException as problem:
            self._broken(problem)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the session and what it has under way."""
        self.closed = True
        if self.attempt is None:
            self.owner.session_lost(self)
            return
        try:
            self._act(self.core.lost(self.loop.time()))
        except BaseException as problem:
            self._broken(problem)

    def check(self, now: float) -> None:
        """Apply the timeouts: of an idle session, of a follower, and of the dialogue."""
        if self.attempt is None:
            if now - self.idle_since >= self.owner.cache.time_limit:
                self.end()
            return
        if self.follower is not None and now - self.followed_since >= FOLLOW_MAX_S:
            self.core.withdraw()
            self._leave()
        if self.paused:
            self._progressed(now)
        deadline = self.core.deadline
        if deadline is not None and deadline <= now:
            try:
                self._act(self.core.timeout(now))
            except BaseException as problem:
                self._broken(problem)

    def _progressed(self, now: float) -> None:
        before, self.unsent = self.unsent, self.transport.get_write_buffer_size()
        if self.unsent < before:
            self.core.progressed(before - self.unsent, now)

    def end(self) -> None:
        """Send QUIT and close without waiting for the reply (smtp_skip_quit_response)."""
        self.core.quit()
        self._close()

    def abandon(self) -> None:
        """Close at once and drop the job."""
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
        if self.core.sending:
            try:
                self._act(self.core.send_body(self.loop.time()))
            except BaseException as problem:
                self._broken(problem)

    def _broken(self, problem: BaseException) -> None:
        """End this session only. A Rust panic is not an `Exception`, and must not end the process either."""
        if isinstance(problem, (KeyboardInterrupt, SystemExit)):
            raise problem
        attempt = self.attempt
        self.abandon()
        self._leave()
        self.owner.session_broken(self, attempt, problem)

    def _act(self, step: Next) -> None:
        if step is not ASKING and self.attempt is not None:
            # Each piece of a message, and each host, has the whole time for its lookups.
            self.attempt.lookups = None
        core = self.core
        while True:
            output = core.take_output()
            if output is not None and not self.closed:
                self.transport.write(output)
            if step is SENDING and not self.paused:
                step = core.send_body(self.loop.time())
            elif step is FOLLOWED:
                attempt, self.attempt, self.follower = self.attempt, self.follower, None
                self.route.busy[self] = None
                if attempt is not None:
                    self.owner.session_ended(self, attempt, step)
                step = core.next(self.loop.time())
            else:
                break
        if step is MORE or step is SENDING:
            return
        if step is ASKING:
            self._ask()
            return
        attempt, self.attempt = self.attempt, None
        self._leave()
        if step is not FINISHED:
            self._close()
        if attempt is None:
            self.owner.session_lost(self)
        else:
            self.owner.session_ended(self, attempt, step)

    def _ask(self) -> None:
        asked = self.core.asks()
        if asked and self.attempt is not None:
            task = self.loop.create_task(self._answer(self.attempt, asked))
            self.owner.asking.add(task)
            task.add_done_callback(self.owner.asking.discard)

    async def _answer(self, attempt: Attempt, asked: list[tuple[int, bytes]]) -> None:
        if attempt.lookups is None:
            attempt.lookups = MessageLookups()
        try:
            given = await attempt.lookups.answers(asked)
            # The server may have left.
            if self.attempt is attempt:
                self._act(self.core.answer(asked, given, self.loop.time()))
        except asyncio.CancelledError:
            raise
        except BaseException as problem:
            self._broken(problem)

    def _close(self) -> None:
        if self.closed:
            return
        self.closed = True
        output = self.core.take_output()
        if output is not None:
            self.transport.write(output)
        if self.paused:
            # The server does not read, so unsent output would keep the connection open forever.
            self.transport.abort()
        else:
            self.transport.close()
