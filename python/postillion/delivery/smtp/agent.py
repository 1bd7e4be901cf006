"""The delivery agents smtp and lmtp: they assign jobs to connections.

A job uses an idle connection to its next hop, or follows another job on a busy connection; neither needs a task.
Otherwise a task finds the hosts and connects; it ends with the first connection, and another task tries the next host
for the recipients that are left open. One timer checks all connections every `SWEEP_S`.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from postillion._core.delivery import DeliveryJob, DeliverySession, Next
from postillion._core.smtp import SmtpClientSettings
from postillion.delivery.agent import Agent
from postillion.delivery.smtp.nexthop import BadNextHop, NextHop, parse, parse_list, port_number
from postillion.delivery.smtp.sessions import Attempt, CacheSettings, Route, Session, SessionOwner
from postillion.delivery.smtp.targets import SMTP_PORT, NoTargets, Target, TargetSettings, targets
from postillion.dns import Resolver
from postillion.tables.checks import open_client_checks

if TYPE_CHECKING:
    from postillion.config import Config
    from postillion.program.daemon import Daemon

SWEEP_S = 0.5
"""Interval of the checks of deadlines; a timeout is at most this much late, and never early."""
TIMED_OUT = 0.0
"""Value of `Attempt.connect_deadline` after the deadline has passed."""
ROUTES_MAX = 10_000
"""Maximum number of cached next hops; those without a connection are dropped first."""


class CannotBind(Exception):
    """The source address is not on this machine, and smtp_bind_address_enforce forbids another one."""


class SmtpAgent(Agent, SessionOwner):
    """The agent of one service.

    `protocol`: smtp or lmtp. `resolver`: asks the name servers in /etc/resolv.conf by default. Probes end behind RCPT.
    """

    answers_probes = True

    def __init__(self, daemon: Daemon, protocol: str, *, capacity: int, resolver: Resolver | None = None) -> None:
        super().__init__(daemon, capacity=capacity)
        config = self.config
        self.protocol = protocol
        self.client_settings = SmtpClientSettings(config, protocol, open_client_checks(config, protocol))
        self.target_settings = TargetSettings.of(config, protocol)
        self.cache = CacheSettings.of(config, protocol)
        self.resolver = resolver or Resolver(idna2003=config.flag("enable_idna2003_compatibility"))
        self.connect_timeout_s = config.seconds(f"{protocol}_connect_timeout")
        self.session_limit = config.number(f"{protocol}_mx_session_limit")
        self.default_port = _default_port(config, f"{protocol}_tcp_port")
        self.fallbacks = config.items("smtp_fallback_relay") if protocol == "smtp" else []
        self.relayhost = config.text("relayhost")
        self.bind = (_source(config, f"{protocol}_bind_address"), _source(config, f"{protocol}_bind_address6"))
        self.bind_enforce = config.flag(f"{protocol}_bind_address_enforce")
        self.routes: OrderedDict[str, Route] = OrderedDict()
        self.sessions: set[Session] = set()
        self.connecting: dict[asyncio.Task[None], Attempt] = {}
        self.asking: set[asyncio.Task[None]] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop

    async def setup(self) -> None:
        """Begin in the running loop."""
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        """End every attempt and session."""
        for task in (*self.connecting, *self.asking):
            task.cancel()
        for session in list(self.sessions):
            if session.attempt is None:
                session.end()
            else:
                session.abandon()
        self.sessions.clear()
        if self._sweep is not None:
            self._sweep.cancel()

    def start(self, job: DeliveryJob) -> None:
        """Assign the job to a connection, or start to connect."""
        now = self._loop.time()
        route = self._route(job.nexthop)
        route.started(now)
        attempt = Attempt(job, route)
        last = route.targets_known <= 1 or self.session_limit == 1
        leader = None if route.idle else route.leader(self.cache, now)
        if leader is not None:
            attempt.tried = leader.target
            leader.follow(attempt, now, last_session=last)
            return
        session = route.take(self.cache, now)
        if session is None:
            self._connect(attempt)
        else:
            attempt.tried = session.target
            session.carry(attempt, last_session=last)

    def session_opened(self, session: Session) -> DeliverySession:
        """Return the core for a new connection."""
        target = session.target
        self.sessions.add(session)
        self._watch()
        return DeliverySession(
            self.client_settings,
            target.host,
            target.address,
            target.port,
            session.route.nexthop,
            session.opened,
            loop_detect=target.loop_detect,
            best=target.best,
        )

    def session_ended(self, session: Session, attempt: Attempt, step: Next) -> None:
        """Finish the job or try the next host; keep the session when there is demand."""
        job, route = attempt.job, attempt.route
        if step is Next.STALE:
            # The server closed the idle connection, so the attempt does not count.
            self.sessions.discard(session)
            self.session_left(attempt)
            return
        done = job.left == 0
        if done:
            self._finished(attempt)
        else:
            attempt.failure = None
            attempt.sessions += session.core.transactions > 0
        if step is Next.FOLLOWED:
            pass
        elif step is Next.FINISHED:
            now = self._loop.time()
            if not self.daemon.draining.is_set() and route.keeps(session, self.cache, now):
                session.idle_since = now
                route.idle.append(session)
            else:
                session.end()
                self.sessions.discard(session)
        else:
            self.sessions.discard(session)
        if not done:
            if self.session_limit and attempt.sessions >= self.session_limit:
                attempt.remaining.clear()
            self._connect(attempt)

    def session_left(self, attempt: Attempt) -> None:
        """Connect for a job that cannot use the session that it was to follow on."""
        attempt.tried = None
        self._connect(attempt)

    def session_lost(self, session: Session) -> None:
        """Drop an idle session that has closed."""
        self.sessions.discard(session)
        try:
            session.route.idle.remove(session)
        except ValueError:
            pass

    def session_broken(self, session: Session, attempt: Attempt | None, problem: BaseException) -> None:
        """Defer the job of a session that ended with an exception."""
        self.session_lost(session)
        if attempt is not None:
            attempt.route.active -= 1
            self._failed(attempt.job, problem)

    def _finished(self, attempt: Attempt) -> None:
        attempt.route.active -= 1
        self.finish(attempt.job)

    def _route(self, nexthop: str) -> Route:
        route = self.routes.get(nexthop)
        if route is None:
            route = self.routes[nexthop] = Route(nexthop)
            if len(self.routes) > ROUTES_MAX:
                for name, known in self.routes.items():
                    if not known.active and not known.idle:
                        del self.routes[name]
                        break
        return route

    def _connect(self, attempt: Attempt) -> None:
        task = self._loop.create_task(self._open(attempt))
        self.connecting[task] = attempt
        task.add_done_callback(self._connected)
        self._watch()

    def _connected(self, task: asyncio.Task[None]) -> None:
        del self.connecting[task]

    async def _open(self, attempt: Attempt) -> None:
        """Open a connection to the next host that accepts one; without any, finish the job."""
        job = attempt.job
        try:
            while job in self.in_flight:
                target = await self._next_target(attempt)
                if target is None:
                    self._given_up(attempt)
                    return
                if await self._open_to(target, attempt):
                    return
        except Exception as problem:
            attempt.route.active -= 1
            self._failed(job, problem)

    async def _open_to(self, target: Target, attempt: Attempt) -> bool:
        last_address = not attempt.remaining and attempt.last_site
        limit_reached = bool(self.session_limit) and attempt.sessions + 1 >= self.session_limit
        last_session = last_address or (limit_reached and attempt.last_site)
        loop = self._loop

        def protocol() -> Session:
            return Session(self, loop, target, attempt, last_address=last_address, last_session=last_session)

        where = f"{target.host}[{target.address}]" + (f":{target.port}" if target.port else "")
        attempt.connect_deadline = loop.time() + (self.connect_timeout_s or float("inf"))
        try:
            if target.port == 0:
                await loop.create_unix_connection(protocol, target.address)
            else:
                await self._connect_from(self.bind[target.is_ipv6], target, protocol)
        except CannotBind as problem:
            attempt.connect_deadline = None
            attempt.failure = ("4.4.0", str(problem))
            self.log.warning(str(problem))
            return False
        except (OSError, asyncio.CancelledError) as problem:
            if isinstance(problem, OSError):
                number = problem.errno or errno.ETIMEDOUT
            elif attempt.connect_deadline == TIMED_OUT:
                number = errno.ETIMEDOUT
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()
            else:
                raise
            attempt.connect_deadline = None
            attempt.failure = ("4.4.1", f"connect to {where}: {os.strerror(number)}")
            self.log.info(attempt.failure[1])
            return False
        return True

    async def _connect_from(self, source: str, target: Target, protocol: Callable[[], Session]) -> None:
        """Connect from the address `source` if it is given; from another address only if `bind_enforce` allows it."""
        if not source:
            await self._loop.create_connection(protocol, target.address, target.port)
            return
        connection = socket.socket(socket.AF_INET6 if target.is_ipv6 else socket.AF_INET, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            try:
                connection.bind((source, 0))
            except OSError as problem:
                reason = os.strerror(problem.errno) if problem.errno else str(problem)
                text = f"cannot connect from {source}: {reason}"
                if self.bind_enforce:
                    raise CannotBind(text) from None
                self.log.warning(text)
            await self._loop.sock_connect(connection, (target.address, target.port))
            await self._loop.create_connection(protocol, sock=connection)
        except BaseException:
            connection.close()
            raise

    async def _next_target(self, attempt: Attempt) -> Target | None:
        route = attempt.route
        while True:
            while attempt.remaining:
                target = attempt.remaining.popleft()
                if target != attempt.tried:
                    return target
            if route.sites is None:
                try:
                    route.sites = self._sites(route.nexthop)
                except BadNextHop as problem:
                    self.log.warning(str(problem))
                    attempt.failure = ("4.3.5", str(problem))
                    return None
            if attempt.site == len(route.sites):
                return None
            site = route.sites[attempt.site]
            attempt.site += 1
            attempt.last_site = attempt.site == len(route.sites)
            if attempt.site > 1 or attempt.tried is None:
                attempt.sessions = 0
            try:
                found = await targets(site, self.target_settings, self.resolver)
            except NoTargets as problem:
                attempt.failure = (self._softened(problem.dsn, site, route), str(problem))
                continue
            route.targets_known = max(len(found), len(route.sites))
            attempt.remaining = deque(found)

    def _sites(self, nexthop: str) -> list[NextHop]:
        sites = parse_list(nexthop, self.default_port, lmtp=self.protocol == "lmtp")
        for fallback in self.fallbacks:
            if all(fallback != site.text for site in sites):
                sites.append(parse(fallback, self.default_port))
        return sites

    def _softened(self, dsn: str, site: NextHop, route: Route) -> str:
        """Return 4.3.5 for a relay host that is not found: the mail waits until the configuration is fixed."""
        name = "relayhost" if route.nexthop == self.relayhost else ""
        if site.text in self.fallbacks:
            name = "smtp_fallback_relay"
        if not name or dsn.startswith("4"):
            return dsn
        self.log.warning(f"{name} configuration problem")
        return "4.3.5"

    def _given_up(self, attempt: Attempt) -> None:
        if attempt.failure is not None:
            attempt.job.fail(*attempt.failure)
        else:
            attempt.job.fail_as_heard("4.3.0", "server unavailable or unable to receive mail")
        self._finished(attempt)

    def _watch(self) -> None:
        if self._sweep is None:
            self._sweep = self._loop.call_later(SWEEP_S, self._check_all)

    def _check_all(self) -> None:
        now = self._loop.time()
        for task, attempt in list(self.connecting.items()):
            if attempt.connect_deadline is not None and attempt.connect_deadline <= now:
                attempt.connect_deadline = TIMED_OUT
                task.cancel()
        for session in list(self.sessions):
            session.check(now)
            if session.closed:
                self.sessions.discard(session)
        self._sweep = None
        if self.link.close_idle_files(now) or self.sessions or self.connecting:
            self._watch()


def _default_port(config: Config, name: str) -> int:
    try:
        return port_number(config.text(name), SMTP_PORT)
    except BadNextHop as bad:
        raise config.error(name, f"{name}: {bad}", "give a port number or a service of /etc/services") from None


def _source(config: Config, name: str) -> str:
    """Return the address that connections come from; empty for any."""
    text = config.text(name)
    try:
        return str(ipaddress.ip_address(text)) if text else ""
    except ValueError:
        raise config.error(name, f'{name}: "{text}" is no IP address', "give an address of this machine") from None
