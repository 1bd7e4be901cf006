"""The queue on disk: the journal, stored messages, listing and repair."""

from collections.abc import Callable, Sequence
from typing import Literal, final

__all__ = ["Journal", "QueueError", "StoredMessage", "list_queue", "read_message", "repair_queue"]

class QueueError(OSError):
    """The queue cannot be read or written; the text says what failed and where."""

@final
class Journal:
    """Where a process that receives mail makes it durable (docs/queue.md).

    Messages are committed by the cores that receive them; a thread writes many with one sync. Raises `QueueError` when
    the queue directory cannot be used. Sizes are octets; `minfree_octets` is queue_minfree, 0 for no limit.
    """

    def __new__(
        cls,
        queue_directory: str,
        *,
        minfree_octets: int = 0,
        segment_max_octets: int = 33554432,
        segment_max_age_s: float = 30.0,
        large_message_octets: int = 1048576,
        ahead_octets: int = 65536,
    ) -> Journal: ...
    def fileno(self) -> int:
        """The descriptor that is readable while `completed` has something to say; it belongs to the journal."""

    def completed(self) -> list[tuple[int, str | None]]:
        """Tickets decided since the last call, each with `None` or the reply to give: `452 4.3.1 Insufficient ...`."""

    def wait(self, timeout_s: float) -> list[tuple[int, str | None]]:
        """As `completed`, but waits for the first one, at most `timeout_s` seconds."""

    def announcements(self) -> bytes:
        """Frames for the queue manager about everything durable that was not taken yet."""

    @property
    def unannounced_octets(self) -> int:
        """What `announcements` would give; above 8 MiB the oldest are dropped, the queue manager reads the disk."""

    def hello(self, pid: int) -> bytes:
        """The frame to say first to the queue manager; it covers what was announced before."""

    def close(self) -> None:
        """Write what is pending and end the thread; later commits fail. Announcements can still be taken."""

def list_queue(
    queue_directory: str,
    take: Callable[[bytes], object],
    *,
    long_queue_ids: bool = False,
    text: bool = False,
    waits: bool = False,
    offsets: Sequence[tuple[int, int]] = ...,
) -> None:
    """Print the queue from disk while no queue manager runs; `take` gets some of the output at a time.

    JSON as `postqueue -j`, or as `postqueue -p` with `text`: then `offsets` says how far the reader's time is ahead of
    UTC (from which second since 1970 on, how many seconds), and `waits` what each message waits for. Raises
    `QueueError` when it cannot be read, and what `take` raises. postqueue(1).
    """

def repair_queue(
    queue_directory: str, *, purge: bool, structure: bool, owner: tuple[int, int] | None = None
) -> list[str]:
    """Put a queue directory in order while no queue manager runs; a line for each thing that was done or left alone.

    `purge`: remove what dead processes left. `structure`: names, places, owners, modes. `owner`: user and group whose
    the files are to be. Raises `QueueError`.
    """

@final
class StoredMessage:
    """A message as it stands on disk."""

    @property
    def path(self) -> str:
        """Its segment, relative to the queue directory."""
    @property
    def offset(self) -> int: ...
    @property
    def record_octets(self) -> int: ...
    @property
    def size_octets(self) -> int:
        """Octets of the content as the log counts them."""
    @property
    def sender(self) -> str: ...
    @property
    def arrival(self) -> float:
        """Seconds since 1970."""
    @property
    def envid(self) -> str | None: ...
    @property
    def smtputf8(self) -> bool: ...
    @property
    def body(self) -> Literal["", "7BIT", "8BITMIME"]: ...
    @property
    def ret(self) -> Literal["", "FULL", "HDRS"]: ...
    @property
    def attributes(self) -> list[tuple[str, str]]: ...
    @property
    def recipients(self) -> list[tuple[str, str | None, str | None, int, bool]]:
        """Address, original, ORCPT, NOTIFY bits, and whether it is done."""
    def fields(self, *, long_queue_ids: bool = False) -> list[tuple[int, str, str]]:
        """Each field of the envelope: its place in the segment, its type in Postfix's letters, its text."""
    def text(self) -> bytes:
        """The content, lines ended with LF; raises `QueueError` when it is not what was committed."""

def read_message(queue_directory: str, id: str, place: tuple[str, int, int] | None = None) -> StoredMessage | None:
    """The message of that name; None when it is not in the queue. Nothing is changed.

    `place`: as `QueueManager.place` says it; otherwise every segment may be read. Raises `QueueError`.
    """
