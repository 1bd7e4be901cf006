"""The queue on disk: the journal, stored messages, listing, repair and conversion."""

from collections.abc import Callable, Sequence
from typing import Literal, final

__all__ = ["Journal", "QueueError", "StoredMessage", "convert_queue", "list_queue", "read_message", "repair_queue"]

class QueueError(OSError):
    """The queue cannot be read or written; the text has the operation and the path."""

@final
class Journal:
    """The journal of a process that receives mail: it makes messages durable (docs/queue.md).

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
        """Return the journal's descriptor, readable while `completed` has results. Do not close it."""

    def completed(self) -> list[tuple[int, str | None]]:
        """Return the tickets finished since the last call, with `None` or a reply: `452 4.3.1 Insufficient ...`."""

    def wait(self, timeout_s: float) -> list[tuple[int, str | None]]:
        """Like `completed`, but wait for the first ticket, at most `timeout_s` seconds."""

    def announcements(self) -> bytes:
        """Return frames for the queue manager about the durable messages that were not taken yet."""

    @property
    def unannounced_octets(self) -> int:
        """Octets of `announcements`; above 8 MiB the oldest are dropped: the queue manager reads the disk instead."""

    def hello(self, pid: int) -> bytes:
        """Return the first frame for the queue manager; it covers all earlier announcements."""

    def close(self) -> None:
        """Write all pending messages and end the threads; later commits fail. Announcements can still be taken."""

def list_queue(
    queue_directory: str,
    take: Callable[[bytes], object],
    *,
    long_queue_ids: bool = False,
    text: bool = False,
    waits: bool = False,
    offsets: Sequence[tuple[int, int]] = ...,
) -> None:
    """Print the queue from disk while no queue manager runs; `take` gets the output in parts.

    JSON like `postqueue -j`, or with `text` like `postqueue -p`: then `offsets` is how far the reader's time is ahead
    of UTC (the second since 1970 at which it starts, seconds ahead), and `waits` adds the reason to wait. Raises
    `QueueError` when it cannot be read, and exceptions of `take`. postqueue(1).
    """

def convert_queue(queue_directory: str) -> tuple[int, int]:
    """Write the queue in version 1 for an older release, while no program uses it.

    Return the numbers of segments and records that changed. Raises `QueueError`; the queue is readable then, too.
    """

def repair_queue(
    queue_directory: str, *, purge: bool, structure: bool, owner: tuple[int, int] | None = None
) -> list[str]:
    """Repair a queue directory while no queue manager runs; return a line for each change and each skipped file.

    `purge`: remove leftovers of dead processes. `structure`: fix names, places, owners, modes. `owner`: user and group
    of the files. Raises `QueueError`.
    """

@final
class StoredMessage:
    """A message on disk."""

    @property
    def path(self) -> str:
        """Its segment, relative to the queue directory."""
    @property
    def offset(self) -> int: ...
    @property
    def record_octets(self) -> int: ...
    @property
    def head_octets(self) -> int:
        """Octets of the header fields and the empty line, on disk behind the body; 0 in version 1."""
    @property
    def size_octets(self) -> int:
        """Octets of the content, as in the log's `size=`."""
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
    def requiretls(self) -> bool: ...
    @property
    def trace(self) -> Literal["", "record", "probe"]:
        """The report that the sender wants of the first attempt. A probe is never mail."""
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
        """Return each field of the envelope: its offset in the segment, its type in Postfix's letters, its text."""
    def text(self) -> bytes:
        """Return the content, lines ended with LF; raises `QueueError` when it differs from the committed one."""

def read_message(queue_directory: str, id: str, place: tuple[str, int, int] | None = None) -> StoredMessage | None:
    """Return the message with this ID; None when it is not in the queue. Changes nothing.

    `place`: from `QueueManager.place`; without it, every segment may be read. Raises `QueueError`.
    """
