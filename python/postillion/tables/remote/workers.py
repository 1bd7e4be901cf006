"""Threads for libraries that block: each table has its own, and a limit of them.

The threads are daemons: a server that never answers cannot delay the end of the program.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
Work = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class Workers:
    """The threads of one table; they start when they are needed."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._started = 0
        self._busy = 0
        self._is_closed = False
        self._work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()

    async def run(self, work: Callable[[], T]) -> T:
        """Return the result of `work`, which a thread calls. Work that is cancelled is still done, or never begun."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._busy += 1
        if self._busy > self._started < self._limit:
            self._started += 1
            threading.Thread(target=self._serve, name=self._name, daemon=True).start()
        self._work.put((loop, future, work))
        if self._is_closed:
            # A connection that failed is closed after its table: by a thread that ends then.
            self._end()
        return await future

    def close(self) -> None:
        """Let the threads end after their work."""
        self._is_closed = True
        self._end()

    def _end(self) -> None:
        for _ in range(self._started):
            self._work.put(None)
        self._started = 0

    def _serve(self) -> None:
        while (item := self._work.get()) is not None:
            loop, future, work = item
            if future.cancelled():
                found: tuple[Any, BaseException | None] = None, None
            else:
                try:
                    found = work(), None
                except BaseException as problem:
                    found = None, problem
            # The loop may be closed: the program ends.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._finish, future, *found)

    def _finish(self, future: asyncio.Future[Any], result: Any, problem: BaseException | None) -> None:
        self._busy -= 1
        if future.done():
            return
        if problem is None:
            future.set_result(result)
        else:
            future.set_exception(problem)
