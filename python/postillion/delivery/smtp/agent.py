"""The delivery agents smtp and lmtp: they find the server for a job.

All connections are on one descriptor in Rust (`DeliveryService`), which the event loop watches. Rust reuses
connections, moves octets and messages, and gives each recipient its status. Python gets a request for each decision:
which server to try next, and what a remote table says. A job that a connection to its next hop can carry needs no
Python.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Coroutine
from contextlib import suppress
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final

from postillion._core.delivery import DeliveryService, Request
from postillion._core.smtp import SmtpClientSettings
from postillion.delivery.agent import Agent
from postillion.delivery.smtp.nexthop import BadNextHop, NextHop, parse, parse_list, port_number
from postillion.delivery.smtp.refused import Refusal
from postillion.delivery.smtp.sasl import NO_LOGIN, Login, Logins, allowed_mechanisms
from postillion.delivery.smtp.search import Search
from postillion.delivery.smtp.targets import SMTP_PORT, NoTargets, Target, TargetSettings, known_targets, targets
from postillion.delivery.smtp.tls.connector import Connector, Wanted
from postillion.delivery.smtp.tls.policy import NoPolicy
from postillion.delivery.smtp.tls.reports import Reports, open_reports
from postillion.delivery.smtp.tls.tlsrpt import Failure
from postillion.dns import Resolver
from postillion.tables.answers import Answer, Batch, MessageLookups
from postillion.tables.checks import open_client_checks

if TYPE_CHECKING:
    from postillion.config import Config
    from postillion.delivery.smtp.tls.level import Request as TlsRequest
    from postillion.program.daemon import Daemon

SWEEP_S: Final = 0.5
"""Interval of the checks of deadlines; a timeout is at most this much late, and never early."""
LAST_REPORTS_MAX_S: Final = 2.0
"""Longest time at the end of the program for the reports about TLS sessions (RFC 8460)."""
SITES_MAX: Final = 10_000
"""Maximum number of parsed next hops in memory; the least recently used are dropped first."""


class SmtpAgent(Agent):
    """The agent of one service.

    `protocol`: smtp or lmtp. `resolver`: asks the name servers in /etc/resolv.conf by default. Probes end behind RCPT.
    """

    answers_probes = True

    def __init__(self, daemon: Daemon, protocol: str, *, capacity: int, resolver: Resolver | None = None) -> None:
        super().__init__(daemon, capacity=capacity)
        config = self.config
        self.protocol = protocol
        self.resolver = resolver or Resolver(idna2003=config.flag("enable_idna2003_compatibility"))
        self.logins = Logins(config, protocol, self.log.warning)
        self.tls = Connector(config, protocol, self.resolver, self.log.warning)
        checks, mechanisms = open_client_checks(config, protocol), allowed_mechanisms(config, protocol)
        self.client_settings = SmtpClientSettings(config, protocol, checks, mechanisms, self.tls.client)
        self.reports = open_reports(config, protocol, self.resolver, self.log, time.time())
        self.target_settings = TargetSettings.of(config, protocol)
        self.core = DeliveryService(self.client_settings, config, daemon.log)
        self.session_limit = config.number(f"{protocol}_mx_session_limit")
        self.default_port = _default_port(config, f"{protocol}_tcp_port")
        self.fallbacks = config.items("smtp_fallback_relay") if protocol == "smtp" else []
        self.relayhost = config.text("relayhost")
        self.bind = (_source(config, f"{protocol}_bind_address"), _source(config, f"{protocol}_bind_address6"))
        self.searches: dict[int, Search] = {}
        self._finding: set[asyncio.Task[None]] = set()
        self._reporting: set[asyncio.Task[int]] = set()
        self._rounds: dict[int, MessageLookups] = {}
        """The time that is left for the lookups of a job, by its number."""
        self._batches: dict[int, Batch] = {}
        """The lookups in progress of a job, by its number."""
        self._sites = lru_cache(SITES_MAX)(self._parse_sites)
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop

    async def setup(self) -> None:
        """Begin in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.core.fileno(), self._poll)

    async def close(self) -> None:
        """End every search."""
        self._loop.remove_reader(self.core.fileno())
        for task in self._finding:
            task.cancel()
        for batch in self._batches.values():
            batch.cancel()
        await self.tls.close()
        if self.reports is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_REPORTS_MAX_S):
                    await self.reports.write(time.time())
        if self._timer is not None:
            self._timer.cancel()

    def receive(self, data: bytes) -> None:
        """Start the jobs of one read. Raises `ConnectionError`."""
        self._idle.clear()
        try:
            self.core.receive(self.link, data, self._loop.time())
        finally:
            self._act()

    def drain(self) -> None:
        """Keep no connection from now on."""
        self.core.drain()

    def abandon(self) -> None:
        """Close all connections; the queue manager defers the open recipients."""
        self.core.stop(self._loop.time())
        self._act()

    def _poll(self) -> None:
        self.core.poll(self._loop.time())
        self._act()

    def _act(self) -> None:
        """Handle the requests of the connections, and send the results of jobs."""
        while requests := self.core.take_requests():
            for request in requests:
                match request:
                    case Request.Find(ticket, nexthop, tried, completed, tls):
                        self._find(ticket, nexthop, tried, completed, tls)
                    case Request.Ask(key, ticket, lookups, first):
                        self._ask(key, ticket, lookups, first)
                    case Request.Tls(ticket, fault):
                        self._count_tls(ticket, fault)
                    case Request.Login(ticket, dsn, said):
                        self._note_refusal(ticket, Refusal(dsn, said))
                    case Request.Done(ticket):
                        self._forget(ticket)
                    case Request.Sweep():
                        self._watch()
        results = self.core.take_results()
        if results is not None:
            self.send(results)
        if not len(self.core):
            self._idle.set()

    # Servers.

    def _find(
        self, ticket: int, nexthop: str, tried: tuple[str, str, int] | None, completed: bool, request: TlsRequest
    ) -> None:
        search = self.searches.get(ticket)
        if search is None:
            try:
                search = self.searches[ticket] = Search(nexthop, self._sites(nexthop), request)
            except BadNextHop as problem:
                self.log.warning(str(problem))
                self.core.note(ticket, "4.3.5", str(problem))
                self.core.give_up(ticket)
                return
        search.tried = tried
        search.servers += completed
        if self.session_limit and search.servers >= self.session_limit:
            search.remaining.clear()
        self._go_on(ticket, search)

    def _go_on(self, ticket: int, search: Search) -> None:
        """Connect to the next host; without any the job ends. A task waits for lookups."""
        try:
            while True:
                target = search.take()
                if target is None:
                    site = search.next_site()
                    if site is None:
                        self.core.give_up(ticket)
                        return
                    try:
                        found = known_targets(site, self.target_settings)
                    except NoTargets as problem:
                        self._note(ticket, search, site, problem)
                        continue
                    if found is None:
                        self._begin(ticket, search, self._find_hosts(ticket, search, site))
                        return
                    search.found(found)
                    continue
                try:
                    wanted = self.tls.known(search.site, target, search.request)
                except NoPolicy as problem:
                    self.core.note(ticket, problem.dsn, str(problem))
                    continue
                if wanted is None or self.logins.is_enabled:
                    self._begin(ticket, search, self._find_terms(ticket, search, target))
                else:
                    self._connect(ticket, search, target, wanted, NO_LOGIN)
                return
        except Exception as problem:
            self._fail(ticket, problem)

    def _begin(self, ticket: int, search: Search, lookup: Coroutine[None, None, bool]) -> None:
        task = self._loop.create_task(self._wait_for(ticket, search, lookup))
        self._finding.add(task)
        task.add_done_callback(self._finding.discard)

    async def _wait_for(self, ticket: int, search: Search, lookup: Coroutine[None, None, bool]) -> None:
        """Wait for a lookup; go on with the next host if it returns True."""
        try:
            goes_on = await lookup
        except Exception as problem:
            self._fail(ticket, problem)
        else:
            if goes_on and self.searches.get(ticket) is search:
                self._go_on(ticket, search)
        self._act()

    async def _find_hosts(self, ticket: int, search: Search, site: NextHop) -> bool:
        """Find the hosts of a next hop."""
        try:
            search.found(await targets(site, self.target_settings, self.resolver))
        except NoTargets as problem:
            self._note(ticket, search, site, problem)
        return True

    async def _find_terms(self, ticket: int, search: Search, target: Target) -> bool:
        """Find the TLS policy and the login of a host, and connect. True when the next host is to be tried."""
        job = self.core.job(ticket)
        if job is None:
            return False
        try:
            wanted = await self.tls.of(search.site, target, search.request)
        except NoPolicy as problem:
            self.core.note(ticket, problem.dsn, str(problem))
            return True
        login = await self.logins.of(target, search.site, job.sender, job.queue_id, time.time())
        self._connect(ticket, search, target, wanted, login)
        return False

    def _connect(self, ticket: int, search: Search, target: Target, wanted: Wanted, login: Login) -> None:
        search.tls = None if wanted.source is None else (wanted.source, target)
        search.account = login.account
        last_address = not search.remaining and search.is_last_site
        limit_reached = bool(self.session_limit) and search.servers + 1 >= self.session_limit
        self.core.connect(
            ticket,
            target.host,
            target.address,
            target.port,
            self._loop.time(),
            loop_detect=target.loop_detect,
            best=target.best,
            last_address=last_address,
            last_session=last_address or (limit_reached and search.is_last_site),
            source=None if target.port == 0 else self.bind[target.is_ipv6],
            hosts=search.hosts,
            login=login.core,
            tls=wanted.policy,
            requiretls=wanted.requiretls,
            reuses=not self.logins.by_sender,
            reuses_tls=wanted.reuses,
        )

    def _count_tls(self, ticket: int, fault: tuple[str, str] | None) -> None:
        search = self.searches.get(ticket)
        if search is not None and search.tls is not None and self.reports is not None:
            policy, target = search.tls
            self.reports.note(search.site.host, policy, target, None if fault is None else Failure(*fault))

    def _note_refusal(self, ticket: int, refusal: Refusal) -> None:
        search = self.searches.get(ticket)
        if search is not None and search.account is not None:
            self.logins.note_refusal(search.account, refusal, time.time())

    def _note(self, ticket: int, search: Search, site: NextHop, problem: NoTargets) -> None:
        self.core.note(ticket, self._softened(problem.dsn, site, search), str(problem))

    def _fail(self, ticket: int, problem: Exception) -> None:
        self.core.defer(ticket, f"{type(problem).__name__}: {problem}")

    def _parse_sites(self, nexthop: str) -> list[NextHop]:
        sites = parse_list(nexthop, self.default_port, lmtp=self.protocol == "lmtp")
        for fallback in self.fallbacks:
            if all(fallback != site.text for site in sites):
                sites.append(parse(fallback, self.default_port))
        return sites

    def _softened(self, dsn: str, site: NextHop, search: Search) -> str:
        """Return 4.3.5 for a relay host that is not found: the mail waits until the configuration is fixed."""
        name = "relayhost" if search.nexthop == self.relayhost else ""
        if site.text in self.fallbacks:
            name = "smtp_fallback_relay"
        if not name or dsn.startswith("4"):
            return dsn
        self.log.warning(f"{name} configuration problem")
        return "4.3.5"

    # Lookups in remote tables.

    def _ask(self, key: int, ticket: int, lookups: list[tuple[int, bytes]], first: bool) -> None:
        rounds = self._rounds.get(ticket)
        if rounds is None or first:
            rounds = self._rounds[ticket] = MessageLookups()
        self._batches[ticket] = rounds.begin(lookups, partial(self._answer, key, ticket, lookups))

    def _answer(self, key: int, ticket: int, lookups: list[tuple[int, bytes]], found: list[Answer] | Exception) -> None:
        now = self._loop.time()
        if isinstance(found, Exception):
            self.core.fail(key, ticket, f"{type(found).__name__}: {found}", now)
        else:
            self.core.answer(key, ticket, lookups, found, now)
        self._act()

    def _forget(self, ticket: int) -> None:
        self.searches.pop(ticket, None)
        self._rounds.pop(ticket, None)
        batch = self._batches.pop(ticket, None)
        if batch is not None:
            batch.cancel()

    # Deadlines.

    def _watch(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP_S, self._sweep)

    def _begin_reports(self, reports: Reports) -> None:
        task = self._loop.create_task(reports.write(time.time()))
        self._reporting.add(task)
        task.add_done_callback(self._reporting.discard)

    def _sweep(self) -> None:
        self._timer = None
        now = self._loop.time()
        if self.reports is not None and self.reports.is_due(time.time()):
            self._begin_reports(self.reports)
        goes_on = self.core.sweep(now)
        if self.link.close_idle_files(now) or goes_on:
            self._watch()
        self._act()


def _default_port(config: Config, name: str) -> int:
    try:
        return port_number(config.text(name), SMTP_PORT)
    except BadNextHop as bad:
        raise config.error(name, f"{name}: {bad}", "give a port number or a service of /etc/services") from None


def _source(config: Config, name: str) -> str | None:
    """Return the address that connections come from; None for any."""
    text = config.text(name)
    try:
        return str(ipaddress.ip_address(text)) if text else None
    except ValueError:
        raise config.error(name, f'{name}: "{text}" is no IP address', "give an address of this machine") from None
