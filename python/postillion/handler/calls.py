"""Calls into a site's code, away from the event loop that serves clients.

A function runs in one of `THREADS_MAX` threads, a coroutine on an event loop in a thread of its own. So a call that
blocks holds up neither clients nor, after its deadline, the session that made it. A blocked thread is left behind and
serves again when its call returns; an event loop that a coroutine blocks is replaced, `LOOPS_MAX` times at most.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Final

THREADS_MAX: Final = 32
"""Calls of plain functions at a time. While all of them hang, further calls wait until their deadline."""
LOOPS_MAX: Final = 8
"""Event loops for coroutines in the life of a process: each but the last may be blocked for good."""

Job = tuple["Future[object]", Callable[..., object], tuple[object, ...]]


class Blocked(Exception):
    """Nothing is left that could run a call: each loop is blocked by one."""


class Fault(Exception):
    """A call ended by an exception, `__cause__`."""


class Calls:
    """Runs a site's code under a deadline."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._threads = 0
        self._busy = 0
        self._lock = threading.Lock()
        self._loops = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._suspect = False

    async def run(self, function: Callable[..., object], arguments: tuple[object, ...], timeout_s: float) -> object:
        """Return what a function or coroutine function returns.

        Raises `TimeoutError` when it takes longer, `Fault` when it raises, `Blocked` when nothing can run it.
        """
        is_coroutine = asyncio.iscoroutinefunction(function)
        future = self.start(function, arguments) if is_coroutine else self._in_thread(function, arguments)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), timeout_s)
        except TimeoutError:
            if is_coroutine:
                self.suspect()
            raise

    def _in_thread(self, function: Callable[..., object], arguments: tuple[object, ...]) -> Future[object]:
        future: Future[object] = Future()
        with self._lock:
            is_short = self._busy + self._jobs.qsize() >= self._threads
            if is_short and self._threads < THREADS_MAX:
                self._threads += 1
                # A daemon: a call that hangs must not keep the process from ending.
                threading.Thread(target=self._work, name=f"handler {self._threads}", daemon=True).start()
        self._jobs.put((future, function, arguments))
        return future

    def _work(self) -> None:
        while True:
            future, function, arguments = self._jobs.get()
            if not future.set_running_or_notify_cancel():
                # Its deadline passed while every thread was busy.
                continue
            with self._lock:
                self._busy += 1
            try:
                result, fault = function(*arguments), None
            except BaseException as problem:
                result, fault = None, _fault(problem)
            with self._lock:
                self._busy -= 1
            if fault is None:
                future.set_result(result)
            else:
                future.set_exception(fault)

    def start(self, function: Callable[..., object], arguments: tuple[object, ...]) -> Future[object]:
        """Run a coroutine function on an event loop. The future may have a `Fault`; raises `Blocked`."""
        if self._loop is None or self._suspect:
            self._start_loop()
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(_guarded(function, arguments), self._loop)

    def _start_loop(self) -> None:
        if self._loops >= LOOPS_MAX:
            raise Blocked(f"{LOOPS_MAX} event loops are blocked by coroutines that do not wait")
        if self._loops:
            self._warn("a coroutine blocks the event loop of smtpd_python_handler: another one is started")
        self._loops += 1
        self._suspect = False
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=_serve, args=(self._loop,), name=f"handler loop {self._loops}", daemon=True).start()

    def suspect(self) -> None:
        """A coroutine is late: find out whether it waits or blocks its loop."""
        loop = self._loop
        assert loop is not None
        self._suspect = True

        def runs() -> None:
            if self._loop is loop:
                self._suspect = False

        loop.call_soon_threadsafe(runs)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()


async def _guarded(function: Callable[..., object], arguments: tuple[object, ...]) -> object:
    try:
        pending = function(*arguments)
        assert isinstance(pending, Awaitable)
        return await pending
    except (asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException as problem:
        # SystemExit and its like would end the loop, and all other calls with it.
        raise _fault(problem) from problem


def _fault(problem: BaseException) -> Fault:
    fault = Fault(f"{type(problem).__name__}: {problem}")
    fault.__cause__ = problem
    return fault
