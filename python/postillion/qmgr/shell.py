"""The event loop of the queue manager: sockets, timers, triggers, the resolver.

Octets from a client go to the core at once. Once per iteration of the event loop, a poll answers the core's questions
and writes the output of each client. No code here runs for a single message.
"""

import asyncio
import contextlib
import errno
import os
import socket
import struct
import time
from collections import deque
from typing import Final, cast

from postillion._core.qmgr import QueueManager, check_settings
from postillion.address.resolve import Unresolved
from postillion.config import Config, ConfigError, effect
from postillion.program.daemon import Daemon
from postillion.qmgr import settings
from postillion.qmgr.control import Control
from postillion.qmgr.settings import Configuration
from postillion.tables import read_tables
from postillion.tables.deferred import at_once, decided
from postillion.tables.remote import RemoteTable, remote_tables

PRIVATE_SOCKET: Final = "private/qmgr"
"""The socket for producers and delivery agents, relative to the queue directory."""
LISTEN_BACKLOG: Final = 1024
TRIGGER_TIMEOUT_S: Final = 10.0
"""trigger_timeout: timeout of a trigger to an agent's socket."""
TRIGGER_BYTE: Final = b"W"
TRIGGER_MAX_OCTETS: Final = 10
"""Maximum length of a trigger. A control request begins with its length, which is no letter."""
BLOCKED_BYTES: Final = 1024 * 1024
"""Maximum number of unread octets of a client; above it, output that can wait is held back."""
TIMER_SLACK_S: Final = 0.001
"""Added to each timer: the loop's timers have a resolution of a millisecond, and an early one would fire twice."""
RESOLVING_MAX: Final = 100
"""Maximum number of addresses whose routes remote tables are asked for at the same time; others wait."""
QUESTIONS_PER_POLL: Final = 1000
"""Maximum number of the core's questions that a poll answers before the loop reads its sockets again."""


class Shell:
    """The queue manager of the current directory, which is the queue directory.

    Raises `ConfigError` for an unusable main.cf, `QueueError` for an unusable queue.
    """

    def __init__(self, daemon: Daemon, configuration: Configuration) -> None:
        self.daemon = daemon
        self.log = daemon.log
        self.configuration = configuration
        self._transports: set[str] = set()
        self._clients: dict[int, asyncio.Transport] = {}
        self._next_client = 1
        self._servers: list[asyncio.Server] = []
        self._poll_due = False
        self.closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._triggers: set[asyncio.Task[None]] = set()
        self._resolving: set[asyncio.Task[None]] = set()
        self._unresolved: deque[tuple[str, str]] = deque()
        """Addresses that wait for remote tables; the core asks for each of its active recipients once."""
        self._loop = asyncio.get_running_loop()
        self.core = QueueManager(
            ".",
            configuration.config,
            self.log,
            self._loop.time(),
            time.time(),
            routes_by_address=not configuration.by_domain,
            routes_by_sender=configuration.resolver.by_sender,
            piecemeal=True,
        )
        self.control = Control(self)
        self._introduce("")
        self._introduce(configuration.bounce_service_name)

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.configuration.config

    async def serve(self) -> None:
        """Run until the daemon stops. SIGHUP reads main.cf again."""
        try:
            await self._listen()
        except OSError as problem:
            self.daemon.fatal(f"{PRIVATE_SOCKET}: {problem.strerror}: run postfix set-permissions")
        self.poll_soon()
        stopping = asyncio.create_task(self.daemon.stopping.wait())
        try:
            while not stopping.done():
                reloading = asyncio.create_task(self.daemon.draining.wait())
                await asyncio.wait((stopping, reloading), return_when=asyncio.FIRST_COMPLETED)
                reloading.cancel()
                if self.daemon.draining.is_set():
                    self.daemon.draining.clear()
                    self.reload()
        finally:
            stopping.cancel()
            await self._close()

    def reload(self) -> None:
        """Read main.cf again; an error is logged, and the old configuration stays in force."""
        try:
            config = Config.load(self.config.directory, self._overrides(), self.config.in_force)
            config.set_runtime(process_name=self.daemon.program)
            config.warn = self.log.warning
            config.log = self.log.info
            for refusal in effect.refusals(config, [self.daemon.program]):
                raise refusal
            configuration = Configuration(config, self.log.warning)
            # With a table that only root may read, a successor takes the new configuration.
            list(read_tables(config))
            if self.daemon.must_be_replaced(config):
                return
            check_settings(config, [name or settings.DEFAULT for name in self._transports])
            self._configure_core(configuration)
            for name in self._transports:
                self._configure_transport(config, name)
        except (ConfigError, ValueError, OSError) as problem:
            self.log.line("error", f"reload refused, the old configuration stays in force: {problem}")
            return
        self._retire(self.configuration)
        self.configuration = configuration
        self.daemon.config = config
        self.log.info(f"reload -- configuration {config.directory}")
        self.poll_soon()

    def _overrides(self) -> tuple[tuple[str, str], ...]:
        """Return the `-o` parameters of master.cf, which replace those of main.cf at each reload."""
        given = self.daemon.config.settings.items()
        return tuple((name, setting.value) for name, setting in given if setting.path.startswith("-o "))

    # The core.

    def now(self) -> tuple[float, float]:
        """Return the event loop's time and the wall clock's."""
        return self._loop.time(), time.time()

    def poll_soon(self) -> None:
        """Schedule a poll, after all ready sockets have been read."""
        if not (self._poll_due or self.closed):
            self._poll_due = True
            self._loop.call_soon(self._poll)

    def _poll(self) -> None:
        if self.closed:
            return
        self._poll_due = False
        core = self.core
        now, wall_now = self._loop.time(), time.time()
        core.tick(now, wall_now)
        for _ in range(QUESTIONS_PER_POLL):
            event = core.next_event(now, wall_now)
            if event is None:
                break
            if event[0] == "resolve":
                self._resolve(event[1], event[2], now, wall_now)
            elif event[0] == "trigger":
                self._trigger(event[1])
            else:
                self.control.request(event[1], event[2])
        for client, data in core.outputs():
            transport = self._clients.get(client)
            if transport is not None:
                transport.write(data)
        self._wait(core.deadline())

    def _wait(self, deadline: float) -> None:
        if deadline <= self._loop.time():
            self.poll_soon()
            return
        if self._timer is not None:
            if self._timer.when() <= deadline and not self._timer.cancelled():
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline + TIMER_SLACK_S, self._due)

    def _due(self) -> None:
        self._timer = None
        self.poll_soon()

    def _configure_core(self, configuration: Configuration) -> None:
        by_address, by_sender = not configuration.by_domain, configuration.resolver.by_sender
        self.core.configure(configuration.config, routes_by_address=by_address, routes_by_sender=by_sender)

    def _resolve(self, address: str, sender: str, now: float, wall_now: float) -> None:
        try:
            configuration = self.configuration
            if configuration.resolver.by_domain != configuration.by_domain:
                # A table got its first address, or lost its last one.
                configuration.by_domain = not configuration.by_domain
                self._configure_core(configuration)
            route = at_once(lambda: configuration.resolver.resolve(address, sender))
            if route is None:
                self._unresolved.append((address, sender))
                self._resolve_later()
                return
            self._introduce(route.transport)
        except (Unresolved, ConfigError, ValueError) as problem:
            self._not_resolved(address, sender, problem, now, wall_now)
        else:
            way = route.transport, route.nexthop, route.recipient
            self.core.resolved(address, sender, *way, now, wall_now)

    def _not_resolved(self, address: str, sender: str, problem: Exception, now: float, wall_now: float) -> None:
        if isinstance(problem, Unresolved):
            self.core.unresolved(address, sender, problem.dsn, problem.text, now, wall_now)
            return
        self.log.warning(f"resolving {address}: {type(problem).__name__}: {problem}")
        self.core.unresolved(address, sender, "4.3.5", "server configuration error", now, wall_now)

    def _resolve_later(self) -> None:
        """Start tasks for addresses that wait for remote tables. All other addresses go on."""
        while self._unresolved and len(self._resolving) < RESOLVING_MAX:
            task = self._loop.create_task(self._ask_remote(*self._unresolved.popleft()))
            self._resolving.add(task)
            task.add_done_callback(self._resolving.discard)

    async def _ask_remote(self, address: str, sender: str) -> None:
        try:
            route = await decided(lambda: self.configuration.resolver.resolve(address, sender))
            self._introduce(route.transport)
        except Exception as problem:
            # Also a bug: without an answer, the address would wait for ever.
            self._not_resolved(address, sender, problem, *self.now())
        else:
            way = route.transport, route.nexthop, route.recipient
            self.core.resolved(address, sender, *way, *self.now())
        self._loop.call_soon(self._resolve_later)
        self.poll_soon()

    def _retire(self, configuration: Configuration) -> None:
        """Close the remote tables of an earlier configuration, once they have answered."""
        tables = remote_tables(configuration.config)
        if tables:
            task = self._loop.create_task(_close(tables))
            self._triggers.add(task)
            task.add_done_callback(self._triggers.discard)

    def _introduce(self, transport: str) -> None:
        """Give the core a transport's parameters before its first mail; the empty name is the default of all others."""
        if transport not in self._transports:
            self._configure_transport(self.config, transport)
            self._transports.add(transport)

    def _configure_transport(self, config: Config, transport: str) -> None:
        limit = settings.process_limit(config, transport or settings.DEFAULT)
        self.core.configure_transport(transport or None, config, limit)

    # Triggers.

    def _trigger(self, transport: str) -> None:
        task = self._loop.create_task(self._start_agent(transport))
        self._triggers.add(task)
        task.add_done_callback(self._triggers.discard)

    async def _start_agent(self, transport: str) -> None:
        """Trigger a service's socket, so that master starts the agent; the agent then registers."""
        if not transport or "/" in transport or transport in (".", ".."):
            self._not_started(transport, "this is not a valid service name")
            return
        asker = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        asker.setblocking(False)
        try:
            async with asyncio.timeout(TRIGGER_TIMEOUT_S):
                await self._loop.sock_connect(asker, f"private/{transport}")
                with contextlib.suppress(OSError):
                    await self._loop.sock_sendall(asker, TRIGGER_BYTE)
        except BlockingIOError:
            pass  # The backlog of the socket is full of triggers: the agent will start.
        except TimeoutError:
            self._not_started(transport, "timeout")
        except OSError as problem:
            self._not_started(transport, problem.strerror or str(problem))
        finally:
            asker.close()

    def _not_started(self, transport: str, reason: str) -> None:
        if self.closed:
            return
        self.core.trigger_failed(transport, reason, *self.now())
        self.poll_soon()

    # Clients.

    async def _listen(self) -> None:
        searches = self.core.fileno()
        if searches is not None:
            self._loop.add_reader(searches, self.poll_soon)
        listener = _bind_private()
        self._servers.append(
            await self._loop.create_unix_server(lambda: Connection(self), sock=listener, backlog=LISTEN_BACKLOG)
        )
        for public in self.daemon.listeners:
            server = await self._loop.create_unix_server(lambda: PublicConnection(self), sock=public)
            self._servers.append(server)

    async def _close(self) -> None:
        """Stop reading, write the pending output, and close all connections."""
        for server in self._servers:
            server.close()
        if self._timer is not None:
            self._timer.cancel()
        for task in (*self._triggers, *self._resolving):
            task.cancel()
        self.control.close()
        self._poll()
        self.closed = True
        for transport in self._clients.values():
            transport.close()
        self._clients.clear()
        searches = self.core.fileno()
        if searches is not None:
            self._loop.remove_reader(searches)
        self.core.close()

    def connected(self, transport: asyncio.Transport, *, control: bool) -> int:
        """Register a new client and return its number."""
        client = self._next_client
        self._next_client = client % 0xFFFF_FFFF + 1
        while self._next_client in self._clients:
            self._next_client = self._next_client % 0xFFFF_FFFF + 1
        self._clients[client] = transport
        self.core.connected(client, control=control)
        return client

    def hand_over(self, client: int, frame: bytes, descriptor: int) -> None:
        """Send a frame and a descriptor (unix(7)). A client with unread output is disconnected."""
        transport = self._clients[client]
        try:
            if transport.get_write_buffer_size():
                raise BlockingIOError(errno.EAGAIN, "its previous output is unread")
            found = transport.get_extra_info("socket")
            with socket.socket(fileno=os.dup(found.fileno())) as channel:
                socket.send_fds(channel, [frame], [descriptor])
        except OSError as problem:
            self.log.warning(f"a client on public/qmgr is disconnected: {problem.strerror}")
            transport.abort()

    def lost(self, client: int) -> None:
        """Drop a client whose connection is closed."""
        if self._clients.pop(client, None) is not None:
            self.control.lost(client)
            self.core.lost(client, *self.now())
            self.poll_soon()


class Connection(asyncio.Protocol):
    """The connection of a producer or a delivery agent: frames in both directions."""

    public = False

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.client = 0
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the client."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=BLOCKED_BYTES)
        self.client = self.shell.connected(self.transport, control=self.public)

    def data_received(self, data: bytes) -> None:
        """Give the octets to the core."""
        shell = self.shell
        if shell.closed:
            return
        try:
            shell.core.receive(self.client, data, shell._loop.time(), time.time())
        except ConnectionError as problem:
            shell.log.warning(f"a client on {'public' if self.public else 'private'}/qmgr is disconnected: {problem}")
            self.transport.abort()
        shell.poll_soon()

    def pause_writing(self) -> None:
        """Tell the core that the client reads too slowly."""
        if not self.shell.closed:
            self.shell.core.blocked(self.client, True)

    def resume_writing(self) -> None:
        """Tell the core that the client reads again."""
        if not self.shell.closed:
            self.shell.core.blocked(self.client, False)
            self.shell.poll_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        self.shell.lost(self.client)


class PublicConnection(Connection):
    """The connection of a command, or of a trigger: a few letters (postkick(1))."""

    public = True

    def __init__(self, shell: Shell) -> None:
        super().__init__(shell)
        self._known = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the client, with its user."""
        super().connection_made(transport)
        self.shell.control.connected(self.client, _client_uid(transport))

    def data_received(self, data: bytes) -> None:
        """Look at the queue directory for a trigger; give all else to the core."""
        letters = data.rstrip(b"\0")
        if not (self._known or self.shell.closed) and len(data) <= TRIGGER_MAX_OCTETS and letters.isalpha():
            self.shell.control.trigger(self.client, letters)
            self.shell.poll_soon()
            self.transport.close()
            return
        self._known = True
        super().data_received(data)


async def _close(tables: list[RemoteTable]) -> None:
    for table in tables:
        await table.close()


def _client_uid(transport: asyncio.BaseTransport) -> int:
    """Return the user at the other end (SO_PEERCRED, unix(7))."""
    client = transport.get_extra_info("socket")
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return cast(int, struct.unpack("3i", credentials)[1])


def _bind_private() -> socket.socket:
    """Bind `private/qmgr` with mode 0600, and remove the socket of an earlier process: the queue's lock is ours."""
    try:
        os.unlink(PRIVATE_SOCKET)
    except OSError as problem:
        if problem.errno != errno.ENOENT:
            raise
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.setblocking(False)
    before = os.umask(0o177)
    try:
        listener.bind(PRIVATE_SOCKET)
    finally:
        os.umask(before)
    listener.listen(LISTEN_BACKLOG)
    return listener
