"""The queue manager."""

import builtins
from collections.abc import Sequence
from typing import Literal, final

from postillion._core.log import Log

__all__ = ["QueueManager"]

@final
class QueueManager:
    """The queue manager: scheduler, queue on disk, and the frames of its peers.

    Takes the queue directory over; raises `QueueError` when it cannot, as when another queue manager has it, and
    `ValueError` for a setting that it does not know. `settings`: Postfix's names; times in seconds.

    A turn of the loop is: `receive` for what came, `tick`, `next_event` until it is None, `outputs`; the next turn is
    due at `deadline`, or when bytes come. Peers are numbers that the caller gives. `piecemeal`: what stands in the
    queue is taken in over the next turns, so that peers are heard and mail goes out meanwhile; else before it returns.
    """

    def __new__(
        cls,
        queue_directory: str,
        settings: dict[str, object],
        log: Log,
        now: float,
        wall_now: float,
        *,
        piecemeal: bool = False,
    ) -> QueueManager: ...
    def close(self) -> None:
        """Let go of the queue directory; every other method raises `ValueError` afterwards."""

    def configure(self, settings: dict[str, object]) -> None:
        """Go by these settings from now on; raises `ValueError` and goes by the old ones when one is not known."""

    def configure_transport(self, name: str | None, settings: dict[str, object]) -> None:
        """Go by these settings for a transport; None: for all that have none of their own."""

    def connected(self, peer: int, *, control: bool = False) -> None:
        """A peer connected. `control`: by the public socket, where only control requests are heard."""

    def receive(self, peer: int, data: bytes, now: float, wall_now: float) -> None:
        """Hear bytes of a peer, in any split; raises `ConnectionError` when the connection is to be closed."""

    def blocked(self, peer: int, blocked: bool) -> None:
        """A peer does not read, or reads again."""

    def lost(self, peer: int, now: float, wall_now: float) -> None:
        """A peer's connection is closed."""

    def tick(self, now: float, wall_now: float) -> None:
        """Let what is due happen."""

    def rescan(self, now: float, wall_now: float) -> None:
        """Look through the queue directory for messages that nobody announced."""

    def next_event(
        self, now: float, wall_now: float
    ) -> tuple[Literal["resolve", "trigger"], str] | tuple[Literal["control"], int, bytes] | None:
        """What is to be decided or done: a route, an agent, a control request; None until the next turn."""

    def resolved(
        self, address: str, transport: str, nexthop: str, recipient: str | None, now: float, wall_now: float
    ) -> None:
        """Answer `("resolve", address)`. `recipient`: what the address becomes, None when it stays."""

    def unresolved(self, address: str, dsn: str, text: str, now: float, wall_now: float) -> None:
        """Answer `("resolve", address)`: it goes nowhere, for good when `dsn` is 5.x.x."""

    def trigger_failed(self, transport: str, reason: str, now: float, wall_now: float) -> None:
        """Answer `("trigger", transport)`: no agent can be started."""

    def outputs(self) -> list[tuple[int, bytes]]:
        """What is to be written, a batch a peer. Facts are on their way to disk before."""

    def deadline(self) -> float:
        """When the next turn is due, on the clock of `now`; 0 is at once."""

    def reply(self, peer: int, json: bytes, *, last: bool = True) -> None:
        """Answer a control request with JSON lines."""

    def list(
        self,
        peer: int,
        now: float,
        wall_now: float,
        *,
        text: bool = False,
        waits: bool = False,
        offsets: Sequence[tuple[int, int]] = ...,
        privileged: bool = False,
    ) -> int:
        """List the queue in a thread: the descriptor of a pipe that gives the listing, for the caller to close.

        Its form is that of `list_queue`. At its end the peer is told `{"listed": n}`. `privileged`: the user owns the
        queue. Raises `OSError` when there are too many listings at a time.
        """

    def flush_site(self, site: str, now: float, wall_now: float) -> None:
        """Try every deferred message for a domain now, as a thread finds them; raises `OSError` as `list` does."""

    def fileno(self) -> int | None:
        """A descriptor that is readable when a thread found something: then a turn is due. None: no threads."""

    def apply(
        self, verb: str, ids: Sequence[str] | None, queues: Sequence[str], now: float, wall_now: float
    ) -> builtins.list[str]:
        """Flush, hold, release, delete or expire; the IDs to which it was done.

        `ids` None: all messages. `queues`: only messages in these queues, by Postfix's names; empty: in any.
        """

    def leave(
        self, peer: int, ids: Sequence[str] | None, queues: Sequence[str], after: str
    ) -> tuple[builtins.list[tuple[str, str, int, int]], builtins.list[str], str | None]:
        """Take messages out of the queue for `peer` to move them; ID, segment file, offset, octets of each.

        At most 10,000, in the order of their IDs, such as come after the ID `after` (empty: all). Then those that are
        being delivered or moved at the moment, and the ID after which there may be more, if so. Until `left` or `lost`
        nothing is done to them.
        """

    def left(self, peer: int, ids: Sequence[str]) -> builtins.list[str]:
        """What `peer` moved is gone from the queue; returns the IDs that it had asked for."""

    def place(self, id: str) -> tuple[str, int, int] | None:
        """The segment file of a message (relative to the queue directory), offset and octets of its record."""

    def counts(self) -> dict[str, int]:
        """How much there is of what."""
