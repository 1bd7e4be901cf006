"""AUTH by a site's handler: aiosmtpd's own `smtp_AUTH`, its LOGIN and PLAIN, and the handler's mechanisms.

aiosmtpd's code reads a line from a stream and pushes a reply; the Rust core has the dialogue. An `Exchange` connects
the two: a pushed line becomes the reply to the open question, and the client's next line, the next question, is the
line that is read. The code runs on the handler's event loop, with the handler's timeout each time a client waits.

A handler takes part with `authenticator`, a callable as `aiosmtpd.smtp.SMTP` takes it (server, session, envelope,
mechanism, auth_data -> AuthResult), with methods `auth_MECHANISM(server, args)`, or with `handle_AUTH`.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Final, NamedTuple

import aiosmtpd.smtp

from postillion.checks.reply import Reply, parse
from postillion.handler.calls import Blocked, Calls, Fault
from postillion.handler.facade import ServerFacade

FAILED: Final = Reply(454, "4.7.0", "Temporary authentication failure")
"""The reply when the site's code gives no answer (RFC 4954 §6)."""
SUCCESS: Final = 235
CHALLENGE: Final = 334

Method = Callable[..., Awaitable[object]]


class Mechanism(NamedTuple):
    """A mechanism, as aiosmtpd keeps it."""

    method: Method
    is_builtin: bool


class Mechanisms:
    """The authentication of a handler. `names`: its mechanisms, as EHLO announces them."""

    def __init__(self, handler: object) -> None:
        self._handler = handler
        self.authenticator: Callable[..., object] | None = getattr(handler, "authenticator", None)
        self._methods: dict[str, Method] = {}
        for name, member in inspect.getmembers(handler):
            if name.startswith("auth_") and callable(member):
                said = name.removeprefix("auth_").replace("__", "-")
                self._methods[getattr(member, "__auth_mechanism_name__", said)] = awaitable(member)
        self._hook = getattr(handler, "handle_AUTH", None)
        builtin = {"LOGIN", "PLAIN"} if callable(self.authenticator) or callable(self._hook) else set()
        self.names = sorted(builtin | self._methods.keys())

    def prepare(self, server: ServerFacade) -> None:
        """Give a server the attributes that aiosmtpd's `smtp_AUTH` needs."""
        server._authenticator = self.authenticator
        server._auth_callback = _nobody
        builtin = {name: Mechanism(getattr(server, f"auth_{name}"), True) for name in ("LOGIN", "PLAIN")}
        own = {name: Mechanism(method, False) for name, method in self._methods.items()}
        server._auth_methods = {name: mechanism for name, mechanism in (builtin | own).items() if name in self.names}
        server._handle_hooks = {"AUTH": awaitable(self._hook)} if callable(self._hook) else {}


class Exchange:
    """One AUTH command and the lines that follow it."""

    def __init__(self, server: ServerFacade, calls: Calls, timeout_s: float) -> None:
        """`timeout_s`: the longest time that the site's code may take for each answer."""
        self._loop = asyncio.get_running_loop()
        self._calls = calls
        self._server = server
        self._timeout_s = timeout_s
        self._said: asyncio.Queue[str | None] = asyncio.Queue()
        self._work: Future[object] | None = None
        # Two threads: the client's answer may come before or after the site's code reads it.
        self._lock = threading.Lock()
        self._answer: bytes | None = None
        self._reading: Future[bytes] | None = None
        self.problem = ""
        """Why the site's code gave no answer."""
        self.fault: Fault | None = None
        """The exception that ended it."""

    async def reply(self, words: str) -> Reply:
        """Return the reply to AUTH (`words`: its arguments) or to a line of the client; 334 is a challenge."""
        try:
            async with asyncio.timeout(self._timeout_s):
                if self._work is None:
                    mechanism, *rest = words.split()
                    arguments = (self._server, " ".join([mechanism.upper(), *rest]))
                    self._work = self._calls.start(ServerFacade.smtp_AUTH, arguments)
                    self._work.add_done_callback(self._ended)
                else:
                    self._hand_over(words.encode("utf-8", "replace") + b"\r\n")
                said = await self._said.get()
                if said is not None and said.startswith("334"):
                    return Reply(CHALLENGE, "", said[4:])
                while said is not None and (more := await self._said.get()) is not None:
                    said = more
                return self._last(said)
        except TimeoutError:
            self.problem = f"no answer within {self._timeout_s:g} s"
            self._calls.suspect()
            self.cancel()
        except Blocked as problem:
            self.problem = str(problem)
        return FAILED

    def cancel(self) -> None:
        """Stop the site's code: the client is gone, or has waited too long."""
        if self._work is not None:
            self._work.cancel()

    # aiosmtpd's code calls the next two, on the handler's loop.

    def push(self, line: str) -> None:
        """Take a line for the client."""
        self._loop.call_soon_threadsafe(self._said.put_nowait, line)

    async def readline(self) -> bytes:
        """Return the client's answer to the challenge that was pushed."""
        with self._lock:
            answer, self._answer = self._answer, None
            if answer is not None:
                return answer
            reading = self._reading = Future()
        return await asyncio.wrap_future(reading)

    def _hand_over(self, answer: bytes) -> None:
        with self._lock:
            reading, self._reading = self._reading, None
            if reading is None:
                self._answer = answer
        if reading is not None and reading.set_running_or_notify_cancel():
            reading.set_result(answer)

    def _ended(self, work: Future[object]) -> None:
        fault = None if work.cancelled() else work.exception()
        if isinstance(fault, Fault):
            self.problem, self.fault = str(fault), fault
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._said.put_nowait, None)

    def _last(self, said: str | None) -> Reply:
        reply = None if said is None or self.problem else parse(said)
        if reply is None and not self.problem:
            self.problem = f"{str(said)[:100]!r} is no reply"
        return reply or FAILED


def user(session: aiosmtpd.smtp.Session) -> str:
    """Return the name of the user, `unknown` if the handler has not told it."""
    data = session.auth_data
    name = getattr(data, "login", data) if data is not None else session.login_data
    if isinstance(name, bytes):
        name = name.decode("utf-8", "replace")
    return name if isinstance(name, str) and name else "unknown"


def awaitable(function: Callable[..., object]) -> Method:
    """Return a function as a coroutine function; a coroutine function is returned unchanged."""
    if inspect.iscoroutinefunction(function):
        return function

    async def call(*arguments: object) -> object:
        found = function(*arguments)
        return await found if inspect.isawaitable(found) else found

    return call


def _nobody(*_: object) -> bool:
    return False
