"""Connections to the servers of a remote table, with their limits.

A lookup takes an idle connection, or makes a new one to the first server that is up. A server that fails is left alone
for a second, then two, four and so on up to a minute; then one lookup tries it, and the others fail at once until it
answers. A connection whose lookup was cut off is closed: an answer that comes later must not reach another lookup.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from postillion.tables.remote.limit import TimeLimit
from postillion.tables.table import TableError

LINKS_MAX: Final = 8
"""Maximum number of connections of one table in one process."""
ATTEMPT_MAX_S: Final = 10.0
"""Longest time of one attempt: to connect, or to get an answer."""
IDLE_S: Final = 60.0
"""Time after which an idle connection is closed (idle_interval)."""
RETRY_MIN_S: Final = 1.0
"""Time for which a server is left alone after its first failure; each further failure doubles it."""
RETRY_MAX_S: Final = 60.0
"""Longest time for which a failing server is left alone (retry_interval)."""

T = TypeVar("T")


class LinkLost(Exception):
    """The server cannot be reached, or its connection failed. Another one may answer."""


class BadReply(TableError):
    """The server's reply breaks the protocol or a limit. The connection ends; the server is not left alone for it."""


class Link(Protocol):
    """One connection."""

    async def close(self) -> None:
        """Close the connection, without waiting for the server."""


L = TypeVar("L", bound=Link)


class Server(Generic[L]):
    """One server: its idle connections and its failures."""

    def __init__(self, name: str, connect: Callable[[], Awaitable[L]]) -> None:
        """`connect`: makes a connection; raises `LinkLost`, `OSError`, and `TableError` for a refused login."""
        self.name = name
        self.connect = connect
        self.failures = 0
        self.retry_at = 0.0
        self.problem = ""
        self.connecting = 0
        """Connections that are being made."""
        self.busy = 0
        """Connections that lookups use now."""
        self.waiting: deque[asyncio.Future[L | None]] = deque()
        """Lookups that wait for one of these: no further connection can be made."""


class Loan(NamedTuple, Generic[L]):
    """A connection that is lent."""

    server: Server[L]
    link: L


class Pool(Generic[L]):
    """The connections of one table."""

    def __init__(
        self,
        servers: Sequence[Server[L]],
        *,
        in_order: bool = False,
        links_max: int = LINKS_MAX,
        attempt_max_s: float = ATTEMPT_MAX_S,
        idle_s: float = IDLE_S,
        retry_max_s: float = RETRY_MAX_S,
    ) -> None:
        """`in_order`: the first server that is up, otherwise any, with UNIX-domain sockets first."""
        self._servers = list(servers)
        self._in_order = in_order
        self._slots = asyncio.Semaphore(links_max)
        self._attempt_max_s = attempt_max_s
        self._attempt = TimeLimit(attempt_max_s)
        self._idle_s = idle_s
        self._retry_max_s = retry_max_s
        self._idle: list[tuple[float, Server[L], L]] = []
        """Idle connections, each with the time since when it is idle; the last used one is the last."""
        self._expiry: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def run(self, work: Callable[[L], Awaitable[T]]) -> T:
        """Return the result of `work` with a connection. Raises `TableError` when no server answers."""
        async with self._slots:
            while self._idle:
                _, server, link = self._idle.pop()
                try:
                    return await self._use(server, link, work)
                except LinkLost:
                    # The server may have closed the connection long ago: a new one tells.
                    continue
            return await self._run_anew(work)

    def borrow(self) -> Loan[L] | None:
        """Return an idle connection; None without one. `give_back` ends the loan."""
        if not self._idle or self._slots.locked():
            return None
        with suppress(StopIteration):
            # One is free, so this does not wait.
            self._slots.acquire().send(None)
        _, server, link = self._idle.pop()
        server.busy += 1
        return Loan(server, link)

    def give_back(self, loan: Loan[L], *, usable: bool) -> None:
        """Take a connection back; close it if it is not `usable`."""
        self._release(loan.server, loan.link, usable=usable)
        self._slots.release()

    async def close(self) -> None:
        """Close the idle connections."""
        if self._expiry is not None:
            self._expiry.cancel()
        idle, self._idle = self._idle, []
        for _, _, link in idle:
            await link.close()

    async def _run_anew(self, work: Callable[[L], Awaitable[T]]) -> T:
        loop = asyncio.get_running_loop()
        for server in self._order():
            now = loop.time()
            is_tried = now >= server.retry_at
            if not (is_tried or server.busy):
                continue
            failures = server.failures
            if failures and is_tried:
                # This lookup tries the server for all the others.
                server.retry_at = now + self._attempt_max_s
            try:
                link = await self._connect_or_wait(server) if is_tried else await self._passed_on(server)
                return await self._use(server, link, work)
            except LinkLost as problem:
                self._failed(server, str(problem), failures)
            except BaseException:
                if failures and is_tried and server.failures == failures:
                    # The attempt was cut off, or says nothing about the server: the next lookup tries it.
                    server.retry_at = now
                raise
        problems = "; ".join(f"{server.name}: {server.problem}" for server in self._servers if server.problem)
        raise TableError(problems or "no server")

    def _order(self) -> Iterator[Server[L]]:
        if self._in_order or len(self._servers) == 1:
            return iter(list(self._servers))
        shuffled = random.sample(self._servers, len(self._servers))
        return iter(sorted(shuffled, key=lambda server: not server.name.startswith("unix:")))

    async def _connect_or_wait(self, server: Server[L]) -> L:
        """Return a new connection; if none can be made, one that another lookup uses now: the server may be full."""
        server.connecting += 1
        try:
            link = await self._connect(server)
        except BaseException as problem:
            server.connecting -= 1
            if not (server.busy or server.connecting):
                self._pass_on(server, None)
            if not isinstance(problem, LinkLost):
                raise
            server.problem = str(problem)
        else:
            server.connecting -= 1
            return link
        return await self._passed_on(server)

    async def _passed_on(self, server: Server[L]) -> L:
        """Return a connection that another lookup has finished with. Raises `LinkLost` when no lookup has one."""
        for idle in self._idle:
            if idle[1] is server:
                self._idle.remove(idle)
                return idle[2]
        if not (server.busy or server.connecting):
            raise LinkLost(server.problem)
        waiting: asyncio.Future[L | None] = asyncio.get_running_loop().create_future()
        server.waiting.append(waiting)
        try:
            link = await waiting
        except asyncio.CancelledError:
            link = waiting.result() if waiting.done() and not waiting.cancelled() else None
            if link is not None:
                server.busy -= 1
                self._keep(server, link)
            raise
        if link is None:
            raise LinkLost(server.problem)
        server.busy -= 1
        return link

    async def _connect(self, server: Server[L]) -> L:
        try:
            async with asyncio.timeout(self._attempt_max_s):
                return await server.connect()
        except TimeoutError:
            raise LinkLost(f"no connection within {self._attempt_max_s:g} seconds") from None
        except OSError as problem:
            raise LinkLost(_reason(problem)) from None
        except (LinkLost, TableError):
            raise
        except Exception as problem:
            # A library's error about a reply that it does not understand: another server may answer.
            raise LinkLost(f"{type(problem).__name__}: {problem}") from None

    async def _use(self, server: Server[L], link: L, work: Callable[[L], Awaitable[T]]) -> T:
        reusable, failures = False, server.failures
        server.busy += 1
        try:
            with self._attempt.wait():
                result = await work(link)
            reusable = True
        except TimeoutError:
            reason = f"no answer within {self._attempt_max_s:g} seconds"
            self._failed(server, reason, failures)
            raise LinkLost(reason) from None
        except OSError as problem:
            raise LinkLost(_reason(problem)) from None
        except BadReply:
            raise
        except TableError:
            # The server has answered: the query failed, not the connection.
            reusable = True
            raise
        finally:
            self._release(server, link, usable=reusable)
        return result

    def _release(self, server: Server[L], link: L, *, usable: bool) -> None:
        """End the use of a connection."""
        server.busy -= 1
        if usable:
            self._keep(server, link)
            return
        self._discard(link)
        if not (server.busy or server.connecting):
            self._pass_on(server, None)

    def _keep(self, server: Server[L], link: L) -> None:
        loop = asyncio.get_running_loop()
        server.failures, server.retry_at, server.problem = 0, 0.0, ""
        if self._pass_on(server, link):
            return
        self._idle.append((loop.time(), server, link))
        if self._expiry is None:
            self._expiry = loop.call_later(self._idle_s, self._expire)

    def _pass_on(self, server: Server[L], link: L | None) -> bool:
        """Give a connection to the lookup that waits longest; `None` to all: no lookup has one. False: none waits."""
        while server.waiting:
            waiting = server.waiting.popleft()
            if not waiting.done():
                waiting.set_result(link)
                if link is not None:
                    # Until the lookup runs and uses it.
                    server.busy += 1
                    return True
        return False

    def _expire(self) -> None:
        """Close the connections that were idle for too long."""
        loop = asyncio.get_running_loop()
        self._expiry = None
        oldest = loop.time() - self._idle_s
        while self._idle and self._idle[0][0] <= oldest:
            self._discard(self._idle.pop(0)[2])
        if self._idle:
            self._expiry = loop.call_at(self._idle[0][0] + self._idle_s, self._expire)

    def _failed(self, server: Server[L], problem: str, failures: int) -> None:
        """Leave the server alone for a while, and close its idle connections.

        `failures`: those at the start of the attempt. Attempts that fail together are one failure.
        """
        server.problem = problem
        if server.failures != failures:
            return
        wait_s = min(RETRY_MIN_S * 2 ** min(server.failures, 10), self._retry_max_s)
        server.failures += 1
        server.retry_at = asyncio.get_running_loop().time() + wait_s
        for idle in [idle for idle in self._idle if idle[1] is server]:
            self._idle.remove(idle)
            self._discard(idle[2])

    def _discard(self, link: L) -> None:
        task = asyncio.get_running_loop().create_task(link.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class PooledSource:
    """A source of lookups whose connections are in a pool."""

    _pool: Pool[Any]

    async def reach(self) -> None:
        """Connect to a server. Raises `TableError`."""
        await self._pool.run(connected)

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.close()

    def prepare(self) -> None:
        """Do nothing: connections are made when they are needed."""


async def connected(_link: Link) -> None:
    """Do nothing with a connection: `Pool.run` makes one."""


def _reason(problem: OSError) -> str:
    """Return the system's text: asyncio puts addresses in its place."""
    if problem.errno is not None and problem.errno > 0:
        return os.strerror(problem.errno)
    return problem.strerror or str(problem) or type(problem).__name__
