"""The link of a process that commits messages: the journal's completions in, announcements to the queue manager out.

The journal says on its file descriptor that commits are durable. Each goes to whoever waits for it, and one write
tells the queue manager of all of them. The link may be down at any time and nothing is lost by it: when it comes back,
the first frame says how far the segment in use reaches, the next which ones were finished meanwhile, and the queue
manager reads from disk what it was not told.

Flow control (in_flow_delay) begins here. A queue manager falls behind when it says so, because fresh mail waits beyond
the room in its active queue, or when it doesn't take what it is told: it is stopped, busy or not there. Announcements
that it doesn't take stay with the journal, which keeps so many octets of them and drops the others.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final, Protocol, cast

from postillion.program import ipc

QMGR_SOCKET: Final = "private/qmgr"
"""Where the queue manager listens for frames, relative to the queue directory."""
RETRY_FIRST_S: Final = 0.1
RETRY_MAX_S: Final = 2.0
CONNECT_TIMEOUT_S: Final = 5.0
BEHIND_OCTETS: Final = 1024 * 1024
"""A queue manager that leaves so much unread, some thousand messages, has fallen behind, and gets no more until it has
read. What is written at a time is bounded by the journal."""


class JournalLike(Protocol):
    """What the link needs of `postillion._core.Journal`."""

    @property
    def unannounced_octets(self) -> int:
        """Octets of frames that were not taken yet."""

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when a commit is done."""

    def announcements(self) -> bytes:
        """Take the frames that announce what was committed."""

    def hello(self, pid: int) -> bytes:
        """Return the frames that begin a link."""


class CommitsLike(Protocol):
    """What tells of commits: `postillion._core.Journal`."""

    def completed(self) -> list[tuple[int, str | None]]:
        """Take the commits that are done: ticket, and the reply for an error."""


def settling(journal: CommitsLike, completed: Callable[[int, str | None], None]) -> Callable[[], None]:
    """Return what a `Producer` calls to have `completed(ticket, error)` called for each commit.

    `error` is None when the message is on disk, else the text of the reply that the client is due.
    """

    def settle() -> None:
        for ticket, error in journal.completed():
            completed(ticket, error)

    return settle


class Producer:
    """Watches one journal and announces what it made durable.

    `settle` is called in the event loop when commits are done: it takes them from the journal (`settling` makes one)
    and tells whoever waits for them. `fall_behind(behind)` is called when the queue manager
    falls behind, and when it has caught up.
    """

    def __init__(
        self,
        journal: JournalLike,
        settle: Callable[[], None],
        *,
        fall_behind: Callable[[bool], None] | None = None,
        path: str = QMGR_SOCKET,
        pid: int | None = None,
    ) -> None:
        self._journal = journal
        self._settle = settle
        self._fall_behind = fall_behind
        self._behind = False
        self._path = path
        self._pid = os.getpid() if pid is None else pid
        self._link: _Link | None = None
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def connected(self) -> bool:
        """True while the queue manager hears announcements."""
        return self._link is not None

    @property
    def behind(self) -> bool:
        """True while the queue manager does not take mail in as fast as it comes."""
        return self._behind

    def start(self) -> None:
        """Begin to watch the journal and to keep up the link; call it in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._journal.fileno(), self.poll)
        self._task = self._loop.create_task(self._keep_connected(), name="producer link")

    def poll(self) -> None:
        """Settle every commit that is done, and announce it. Called by the loop; calling it at another time is safe."""
        self._settle()
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
        if self._link is not None:
            self._link.transport.close()
            self._link = None

    def _announce(self) -> None:
        # While nobody reads the announcements stay with the journal, which bounds them: that a segment is finished
        # must be told in the end, for `hello` names only the one in use.
        link = self._link
        if link is not None and not link.full and not link.transport.is_closing():
            frames = self._journal.announcements()
            if frames:
                link.transport.write(frames)
        self._judge()

    def _judge(self) -> None:
        """Say when the queue manager falls behind, and when it has caught up."""
        link = self._link
        untold = self._journal.unannounced_octets > BEHIND_OCTETS
        behind = untold if link is None else untold or link.full or link.behind
        if behind != self._behind:
            self._behind = behind
            if self._fall_behind is not None:
                self._fall_behind(behind)

    async def _keep_connected(self) -> None:
        pause_s = RETRY_FIRST_S
        while True:
            link = _Link(self._announce)
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await link.connect(self._path)
            except (OSError, TimeoutError):
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_MAX_S)
                continue
            link.transport.write(self._journal.hello(self._pid))
            self._link = link
            self._announce()
            pause_s = RETRY_FIRST_S
            await link.lost.wait()
            self._link = None
            self._judge()
            await asyncio.sleep(RETRY_FIRST_S)


class _Link(asyncio.Protocol):
    """The connection. `changed` is called when it takes octets again, and when the queue manager says how it fares."""

    transport: asyncio.Transport

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._received = b""
        self.lost = asyncio.Event()
        self.full = False
        self.behind = False

    async def connect(self, path: str) -> None:
        """Raises `OSError`."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self, path)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=BEHIND_OCTETS, low=0)

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            said, self._received = ipc.flow_frames(self._received)
        except ValueError:
            # No queue manager of ours: what is on disk is found by one that is.
            self.transport.abort()
            return
        if said is not None:
            self.behind = said
            self._changed()

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        self._changed()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
