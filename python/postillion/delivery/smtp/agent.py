"""The delivery agent smtp, and lmtp: jobs to connections.

A job takes a warm connection to its next hop when there is one, without a task. Otherwise a task finds the hosts and
connects; it ends when a connection stands, and a new one goes on with the next host if recipients are left open. One
timer looks at all connections every `SWEEP_S`.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from postillion._core import DeliveryJob, SmtpClient, SmtpClientSettings
from postillion.config import Config
from postillion.delivery.agent import Agent
from postillion.delivery.smtp.destination import BadDestination, parse, parse_list, port_number
from postillion.delivery.smtp.resolver import Resolver
from postillion.delivery.smtp.sessions import FINISHED, STALE, Attempt, CacheSettings, Courier, Route, Session
from postillion.delivery.smtp.targets import SMTP_PORT, NoTargets, Target, TargetSettings, targets

if TYPE_CHECKING:
    from postillion.daemon import Daemon

SWEEP_S = 0.5
"""How often deadlines are looked at: no timeout comes earlier than asked for, and none this much later."""
ROUTES_MAX = 10_000
"""Next hops remembered; those without a connection go first."""
STAGES = ("helo", "mail", "rcpt", "data_init", "data_xfer", "data_done", "rset")


def client_settings(config: Config, prefix: str) -> SmtpClientSettings:
    """Read what a client does; `prefix`: smtp or lmtp."""
    helo_name = config.text("smtp_helo_name") if prefix == "smtp" else config.text("lmtp_lhlo_name")
    times = {f"{stage}_timeout": config.seconds(f"{prefix}_{_stage_name(prefix, stage)}_timeout") for stage in STAGES}
    return SmtpClientSettings(
        protocol=prefix,
        helo_name=helo_name,
        myhostname=config.text("myhostname"),
        always_send_ehlo=prefix == "lmtp" or config.flag("smtp_always_send_ehlo"),
        never_send_ehlo=prefix == "smtp" and config.flag("smtp_never_send_ehlo"),
        skip_5xx_greeting=prefix == "lmtp" or config.flag("smtp_skip_5xx_greeting"),
        discard_ehlo_keywords=config.items(f"{prefix}_discard_{_hello(prefix)}_keywords"),
        **times,
    )


def _stage_name(prefix: str, stage: str) -> str:
    return "lhlo" if prefix == "lmtp" and stage == "helo" else stage


def _hello(prefix: str) -> str:
    return "lhlo" if prefix == "lmtp" else "ehlo"


class SmtpAgent(Agent, Courier):
    """The agent of one service.

    `protocol`: smtp or lmtp. `resolver`: asks the name servers of /etc/resolv.conf unless another one is given.
    """

    def __init__(self, daemon: Daemon, protocol: str, *, capacity: int, resolver: Resolver | None = None) -> None:
        super().__init__(daemon, capacity=capacity)
        config = self.config
        self.protocol = protocol
        self.client_settings = client_settings(config, protocol)
        self.target_settings = TargetSettings.of(config, protocol)
        self.cache = CacheSettings.of(config, protocol)
        self.resolver = resolver or Resolver()
        self.connect_timeout_s = config.seconds(f"{protocol}_connect_timeout")
        self.session_limit = config.number(f"{protocol}_mx_session_limit")
        self.default_port = port_number(config.text(f"{protocol}_tcp_port"), SMTP_PORT)
        self.fallbacks = config.items("smtp_fallback_relay") if protocol == "smtp" else []
        self.relayhost = config.text("relayhost")
        self.bind = (config.text(f"{protocol}_bind_address"), config.text(f"{protocol}_bind_address6"))
        self.routes: OrderedDict[str, Route] = OrderedDict()
        self.sessions: set[Session] = set()
        self.connecting: set[asyncio.Task[None]] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop

    async def setup(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        for task in self.connecting:
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
        """Put the job on a warm connection, or begin to connect."""
        now = self._loop.time()
        route = self._route(job.nexthop)
        route.started(now)
        attempt = Attempt(job, route)
        session = route.take(self.cache, now)
        if session is None:
            self._connect(attempt)
        else:
            attempt.tried = session.target
            last = route.targets_known <= 1 or self.session_limit == 1
            session.carry(attempt, last_session=last)

    def session_opened(self, session: Session) -> SmtpClient:
        """Return the client for a connection that was just made."""
        target = session.target
        self.sessions.add(session)
        if self._sweep is None:
            self._sweep = self._loop.call_later(SWEEP_S, self._look_around)
        return SmtpClient(
            self.client_settings,
            target.host,
            target.address,
            target.port,
            session.route.nexthop,
            session.opened,
            loop_detect=target.loop_detect,
            best=target.best,
        )

    def session_ended(self, session: Session, attempt: Attempt, code: int) -> None:
        """Give the job back or try the next host; keep the session when there is demand."""
        job, route = attempt.job, attempt.route
        if code == STALE:
            # Nothing was said about this job: as if the connection had not been there.
            self.sessions.discard(session)
            attempt.tried = None
            self._connect(attempt)
            return
        if session.client.transactions:
            attempt.sessions += 1
        attempt.failure = None
        done = job.left == 0
        if done:
            self._settled(attempt)
        if code == FINISHED:
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

    def session_lost(self, session: Session) -> None:
        """Forget an idle session that has closed."""
        self.sessions.discard(session)
        try:
            session.route.idle.remove(session)
        except ValueError:
            pass

    def _settled(self, attempt: Attempt) -> None:
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
        self.connecting.add(task)
        task.add_done_callback(self.connecting.discard)

    async def _open(self, attempt: Attempt) -> None:
        """Open a connection to the next host that takes one; without any, the job ends."""
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

        def protocol() -> Session:
            loop = self._loop
            return Session(self, loop, target, attempt, last_address=last_address, last_session=last_session)

        where = f"{target.host}[{target.address}]"
        try:
            async with asyncio.timeout(self.connect_timeout_s or None):
                if target.port == 0:
                    await self._loop.create_unix_connection(protocol, target.address)
                else:
                    where = f"{where}:{target.port}"
                    source = self.bind[target.is_ipv6]
                    local = (source, 0) if source else None
                    await self._loop.create_connection(protocol, target.address, target.port, local_addr=local)
        except (OSError, TimeoutError) as problem:
            number = problem.errno if isinstance(problem, OSError) and problem.errno else errno.ETIMEDOUT
            attempt.failure = ("4.4.1", f"connect to {where}: {os.strerror(number)}")
            self.log.info(attempt.failure[1])
            return False
        return True

    async def _next_target(self, attempt: Attempt) -> Target | None:
        while True:
            while attempt.remaining:
                target = attempt.remaining.popleft()
                if target != attempt.tried:
                    return target
            if attempt.sites is None:
                if not self._read_sites(attempt):
                    return None
                attempt.last_site = False
            elif not attempt.sites:
                return None
            assert attempt.sites is not None
            site = attempt.sites.pop(0)
            attempt.last_site = not attempt.sites
            attempt.sessions = 0 if attempt.tried is None else attempt.sessions
            try:
                destination = parse(site, self.default_port, lmtp=self.protocol == "lmtp")
                found = await targets(destination, self.target_settings, self.resolver)
            except NoTargets as problem:
                attempt.failure = (self._softened(problem.dsn, site, attempt), str(problem))
                continue
            attempt.route.targets_known = max(len(found), 1 + bool(attempt.sites))
            attempt.remaining = deque(found)

    def _read_sites(self, attempt: Attempt) -> bool:
        nexthop = attempt.route.nexthop
        lmtp = self.protocol == "lmtp"
        try:
            parse_list(nexthop, self.default_port, lmtp=lmtp)
            for fallback in self.fallbacks:
                parse(fallback, self.default_port)
        except BadDestination as problem:
            self.log.warning(str(problem))
            attempt.failure = ("4.3.5", str(problem))
            return False
        words = [nexthop] if lmtp and nexthop.startswith("unix:") else nexthop.replace(",", " ").split()
        attempt.sites = words + [word for word in self.fallbacks if word not in words]
        return True

    def _softened(self, dsn: str, site: str, attempt: Attempt) -> str:
        """A relay host that cannot be found is a mistake of ours: the mail waits until it is mended."""
        name = "relayhost" if attempt.route.nexthop == self.relayhost else ""
        if site in self.fallbacks:
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
        self._settled(attempt)

    def _look_around(self) -> None:
        now = self._loop.time()
        for session in list(self.sessions):
            session.check(now)
            if session.closed:
                self.sessions.discard(session)
        self._sweep = self._loop.call_later(SWEEP_S, self._look_around) if self.sessions else None
