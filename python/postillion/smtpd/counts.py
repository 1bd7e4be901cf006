"""The link to anvil, which counts what clients do.

One connection carries all questions; the answers come in the same order. When anvil cannot be asked, clients are
accepted with a warning, as in Postfix: a counter that is down must not stop mail.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from typing import Final, cast

ANVIL_SOCKET: Final = "private/anvil"
ANSWER_MAX_S: Final = 2.0
RETRY_S: Final = 5.0
"""Time without a request to anvil after a failure."""
QUESTIONS_MAX: Final = 10_000
LINE_MAX_BYTES: Final = 64


class Counts:
    """The link to anvil. `service`: its name in master.cf; anvil counts for each service."""

    def __init__(self, service: str, warn: Callable[[str], None], *, path: str = ANVIL_SOCKET) -> None:
        self._service = service
        self._warn = warn
        self._path = path
        self._link: _Link | None = None
        self._opening: asyncio.Task[_Link] | None = None
        self._retry_at = 0.0
        self._held: Counter[str] = Counter()

    async def connected(self, client: str) -> tuple[int, int]:
        """Count a connection; return the client's connections now, and those that began in this time unit.

        Count its end with `ended`, whatever this returned. (0, 0) when anvil cannot be asked.
        """
        numbers = await self._ask("connect", client)
        self._held[client] += 1
        return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)

    def ended(self, client: str) -> None:
        """Count a connection that ended."""
        self._held[client] -= 1
        if self._held[client] <= 0:
            del self._held[client]
        if self._link is not None and not self._link.closed:
            self._link.tell(f"disconnect {self._service}:{client}")

    async def requested(self, verb: str, client: str) -> int:
        """Count a request (`mail` or `rcpt`); return how many there were in this time unit, 0 when unknown."""
        numbers = await self._ask(verb, client)
        return numbers[0] if numbers else 0

    def close(self) -> None:
        """End the link."""
        if self._opening is not None:
            self._opening.cancel()
        if self._link is not None:
            self._link.close()

    async def _ask(self, verb: str, client: str) -> list[int]:
        loop = asyncio.get_running_loop()
        if loop.time() < self._retry_at:
            return []
        try:
            async with asyncio.timeout(ANSWER_MAX_S):
                link = await self._open()
                answer = await link.ask(f"{verb} {self._service}:{client}")
                return [int(word) for word in answer.split()]
        except (OSError, TimeoutError, ValueError) as problem:
            self._retry_at = loop.time() + RETRY_S
            if self._link is not None:
                self._link.close()
                self._link = None
            self._warn(f"problem talking to service anvil: {problem or 'no answer in time'}; clients are not counted")
            return []

    async def _open(self) -> _Link:
        if self._link is not None and not self._link.closed:
            return self._link
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._connect(), name="link to anvil")
            self._opening.add_done_callback(self._opened)
        return await asyncio.shield(self._opening)

    async def _connect(self) -> _Link:
        _, link = await asyncio.get_running_loop().create_unix_connection(_Link, self._path)
        for client, connections in self._held.items():
            for _ in range(connections):
                link.tell(f"hold {self._service}:{client}")
        self._link = link
        return link

    def _opened(self, task: asyncio.Task[_Link]) -> None:
        self._opening = None
        if not task.cancelled():
            # Without this, asyncio reports a failure that came after the last waiter gave up.
            task.exception()


class _Link(asyncio.Protocol):
    """The connection to anvil."""

    def __init__(self) -> None:
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self._questions: deque[asyncio.Future[str]] = deque()
        self._buffer = b""

    def tell(self, line: str) -> None:
        assert self._transport is not None
        self._transport.write(line.encode("ascii") + b"\n")

    async def ask(self, line: str) -> str:
        if self.closed or len(self._questions) >= QUESTIONS_MAX:
            raise OSError("the link is down")
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._questions.append(answer)
        self.tell(line)
        return await answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            if not self._questions:
                return self.close()
            answer = self._questions.popleft()
            if not answer.done():
                answer.set_result(line.decode("ascii", "replace"))
        if len(self._buffer) > LINE_MAX_BYTES:
            self.close()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        while self._questions:
            answer = self._questions.popleft()
            if not answer.done():
                answer.set_exception(ConnectionResetError("anvil closed the connection"))
