"""A time limit for many waits at a time, with one timer of the event loop for all of them.

    limit = TimeLimit(10.0)
    with limit.wait():
        answer = await reply          # raises TimeoutError after 10 seconds

`asyncio.timeout` makes a timer for each wait and cancels it, which costs several microseconds. All waits of a limit are
of one length, so they end in the order in which they begin.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Protocol


class Expiring(Protocol):
    """The wait of a task or of a callback, which a limit ends."""

    until: float

    def expire(self) -> None:
        """End: the time is over."""


class TimeLimit:
    """A time limit."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waits: dict[Expiring, None] = {}
        """The waits in progress, the oldest first."""

    def wait(self) -> Wait:
        """Return the context of one wait."""
        return Wait(self)

    def add(self, wait: Expiring, loop: asyncio.AbstractEventLoop) -> None:
        """Begin a wait. `loop`: the running loop."""
        if loop is not self._loop:
            # A timer of a loop that has ended never comes.
            self._loop, self._timer = loop, None
            self._waits.clear()
        wait.until = loop.time() + self._seconds
        self._waits[wait] = None
        if self._timer is None:
            self._timer = loop.call_at(wait.until, self._expire)

    def remove(self, wait: Expiring) -> None:
        """End a wait."""
        self._waits.pop(wait, None)

    def _expire(self) -> None:
        assert self._loop is not None
        self._timer = None
        now = self._loop.time()
        for wait in list(self._waits):
            if wait.until > now:
                self._timer = self._loop.call_at(wait.until, self._expire)
                return
            del self._waits[wait]
            wait.expire()


class Wait:
    """A wait of one task; raises `TimeoutError` at its end when it took too long."""

    __slots__ = ("_limit", "_requests", "_task", "is_expired", "until")

    def __init__(self, limit: TimeLimit) -> None:
        self._limit = limit
        self.until = 0.0
        self.is_expired = False

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        self._task = task
        # Others may have cancelled the task before: that is no timeout.
        self._requests = task.cancelling()
        self._limit.add(self, loop)

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._limit.remove(self)
        if self.is_expired and self._task.uncancel() <= self._requests and kind is asyncio.CancelledError:
            raise TimeoutError

    def expire(self) -> None:
        """Cut the task's wait off."""
        self.is_expired = True
        self._task.cancel()
