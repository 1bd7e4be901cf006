"""The link of a process that commits messages: the journal's completions in, announcements to the queue manager out.

The journal says on its file descriptor that commits are durable. Each goes to whoever waits for it, and one write
tells the queue manager of all of them. The link may be down at any time and nothing is lost by it: when it comes back,
the first frame says how far the segment in use reaches, the next which ones were finished meanwhile, and the queue
manager reads from disk what it was not told.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final, Protocol

QMGR_SOCKET: Final = "private/qmgr"
"""Where the queue manager listens for frames, relative to the queue directory."""
RETRY_FIRST_S: Final = 0.1
RETRY_MAX_S: Final = 2.0
CONNECT_TIMEOUT_S: Final = 5.0
UNSENT_MAX_BYTES: Final = 16 * 1024 * 1024
"""A queue manager that lags by more is left: it reads from disk what it missed when the link is back."""


class JournalLike(Protocol):
    """What the link needs of `postillion._core.Journal`."""

    def fileno(self) -> int: ...
    def completed(self) -> list[tuple[int, str | None]]: ...
    def announcements(self) -> bytes: ...
    def hello(self, pid: int) -> bytes: ...


class Producer:
    """Watches one journal and announces what it made durable.

    `completed(ticket, error)` is called in the event loop for each commit: `error` is None when the message is on
    disk, else the text of the reply that the client is due.
    """

    def __init__(
        self,
        journal: JournalLike,
        completed: Callable[[int, str | None], None],
        *,
        path: str = QMGR_SOCKET,
        pid: int | None = None,
    ) -> None:
        self._journal = journal
        self._completed = completed
        self._path = path
        self._pid = os.getpid() if pid is None else pid
        self._transport: asyncio.Transport | None = None
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def connected(self) -> bool:
        """True while the queue manager hears announcements."""
        return self._transport is not None

    def start(self) -> None:
        """Begin to watch the journal and to keep up the link; call it in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._journal.fileno(), self.poll)
        self._task = self._loop.create_task(self._keep_connected(), name="producer link")

    def poll(self) -> None:
        """Settle every commit that is done, and announce it. Called by the loop; calling it at another time is safe."""
        for ticket, error in self._journal.completed():
            self._completed(ticket, error)
        self._announce()

    async def close(self) -> None:
        """Settle and announce what is done, then end the link."""
        if self._loop is None:
            return
        self._loop.remove_reader(self._journal.fileno())
        self.poll()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def _announce(self) -> None:
        # While nobody listens the announcements stay with the journal, which bounds them: that a segment is finished
        # must be told in the end, for `hello` names only the one in use.
        if self._transport is None or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > UNSENT_MAX_BYTES:
            self._transport.abort()
            self._transport = None
            return
        frames = self._journal.announcements()
        if frames:
            self._transport.write(frames)

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s = RETRY_FIRST_S
        while True:
            self._lost.clear()
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    transport, _ = await loop.create_unix_connection(lambda: _Link(self._lost), self._path)
            except (OSError, TimeoutError):
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_MAX_S)
                continue
            transport.write(self._journal.hello(self._pid))
            self._transport = transport
            self._announce()
            pause_s = RETRY_FIRST_S
            await self._lost.wait()
            self._transport = None
            await asyncio.sleep(RETRY_FIRST_S)


class _Link(asyncio.Protocol):
    """The connection: it is written to; the queue manager sends a producer nothing."""

    def __init__(self, lost: asyncio.Event) -> None:
        self._lost = lost

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()
