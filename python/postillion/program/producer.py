"""The connection from a process that commits messages to the queue manager.

The journal's file descriptor becomes readable when commits are durable. One write announces all of them to the queue
manager. Then the owner of each commit is called, and answers `250`. So a command that follows a `250`, such as
`postsuper -H ALL`, finds the message. The connection may be down at any time without loss of mail: after a reconnect
the first frame names the end of the current segment, the next ones the segments that were finished in the meantime, and
the queue manager reads the messages from disk.

Flow control (in_flow_delay) begins here. The queue manager is behind when its Flow frame says that fresh mail waits for
room in the active queue, or when it does not read announcements: it is stopped, busy or not running. Unread
announcements stay with the journal, which has a limit for their octets and drops the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Final, Protocol, cast

from postillion.program import ipc

QMGR_SOCKET: Final = "private/qmgr"
"""The queue manager's socket for frames, relative to the queue directory."""
RETRY_FIRST_S: Final = 0.1
RETRY_MAX_S: Final = 2.0
CONNECT_TIMEOUT_S: Final = 5.0
BEHIND_OCTETS: Final = 1024 * 1024
"""Maximum number of unread octets, some thousand messages; above it the queue manager is behind and gets no more
announcements. The journal limits the octets of one write."""


class JournalLike(Protocol):
    """The part of `postillion._core.queue.Journal` that announces commits."""

    @property
    def unannounced_octets(self) -> int:
        """Octets of frames that `announcements` has not returned yet."""

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when a commit is done."""

    def announcements(self) -> bytes:
        """Take the frames that announce what was committed."""

    def hello(self, pid: int) -> bytes:
        """Return the frames that begin a link."""


class CommitsLike(Protocol):
    """The part of `postillion._core.queue.Journal` that reports commits."""

    def completed(self) -> list[tuple[int, str | None]]:
        """Take the commits that are done or have failed: ticket, and the reply for an error."""


class Commits(Protocol):
    """The commits of a journal, and the calls that tell their owners.

    Two steps, because the announcement comes between them.
    """

    def collect(self) -> None:
        """Take the commits that are done or have failed from the journal."""

    def finish(self) -> None:
        """Tell the owners of the collected commits."""


class Tickets:
    """Commits that are known by their tickets: one function is called for each."""

    def __init__(self, journal: CommitsLike, completed: Callable[[int, str | None], None]) -> None:
        """`completed(ticket, error)`: `error` is None when the message is on disk, else the reply for the client."""
        self._journal = journal
        self._completed = completed
        self._done: list[tuple[int, str | None]] = []

    def collect(self) -> None:
        """Take the commits that are done or have failed from the journal."""
        self._done += self._journal.completed()

    def finish(self) -> None:
        """Call `completed` for each collected commit."""
        done, self._done = self._done, []
        for ticket, error in done:
            self._completed(ticket, error)


class Producer:
    """Watches one journal and announces its durable commits.

    The event loop calls `commits` when commits are durable. `fall_behind(behind)` is called when the queue
    manager falls behind, and when it has caught up.
    """

    def __init__(
        self,
        journal: JournalLike,
        commits: Commits,
        *,
        fall_behind: Callable[[bool], None] | None = None,
        path: str = QMGR_SOCKET,
        pid: int | None = None,
    ) -> None:
        self._journal = journal
        self._commits = commits
        self._fall_behind = fall_behind
        self._behind = False
        self._path = path
        self._pid = os.getpid() if pid is None else pid
        self._link: _Link | None = None
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def connected(self) -> bool:
        """Whether the queue manager receives announcements."""
        return self._link is not None

    @property
    def behind(self) -> bool:
        """Whether the queue manager takes mail more slowly than it arrives."""
        return self._behind

    def start(self) -> None:
        """Start to watch the journal and to hold the connection; requires a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._journal.fileno(), self.poll)
        self._task = self._loop.create_task(self._keep_connected(), name="producer link")

    def poll(self) -> None:
        """Announce and finish every durable commit. The loop calls it; a further call does no harm."""
        # A message that becomes durable after `collect` may be announced here; the next call tells its owner.
        self._commits.collect()
        self._announce()
        self._commits.finish()

    async def close(self) -> None:
        """Announce and finish the durable commits, then close the connection."""
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
        # Without a reader the announcements stay with the journal, which limits them. The end of a segment must be
        # announced after a reconnect, because `hello` names the current segment only.
        link = self._link
        if link is not None and not link.full and not link.transport.is_closing():
            frames = self._journal.announcements()
            if frames:
                link.send(frames)
        self._judge()

    def _judge(self) -> None:
        """Call `fall_behind` when the queue manager falls behind, and when it has caught up."""
        link = self._link
        unannounced = self._journal.unannounced_octets > BEHIND_OCTETS
        behind = unannounced if link is None else unannounced or link.full or link.behind
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
    """The connection. `changed` is called when it accepts octets again, and after each Flow frame."""

    transport: asyncio.Transport

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._received = b""
        self.lost = asyncio.Event()
        self.full = False
        self.behind = False

    async def connect(self, path: str) -> None:
        """Connect to the socket; raises `OSError`."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self, path)

    def send(self, frames: bytes) -> None:
        """Write frames to the socket at once, and leave the rest to the transport: some event loops write later."""
        if not self.transport.get_write_buffer_size():
            # The transport reports an error.
            with contextlib.suppress(OSError):
                frames = frames[os.write(self.transport.get_extra_info("socket").fileno(), frames) :]
        if frames:
            self.transport.write(frames)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=BEHIND_OCTETS, low=0)

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            behind, self._received = ipc.flow_frames(self._received)
        except ValueError:
            # The peer is not a queue manager; the next one finds the messages on disk.
            self.transport.abort()
            return
        if behind is not None:
            self.behind = behind
            self._changed()

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        self._changed()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
