"""The queue manager."""

import builtins
from collections.abc import Sequence
from typing import Literal, final

from postillion._core.log import Log
from postillion.config import Config

__all__ = ["QueueManager", "check_settings"]

def check_settings(config: Config, transports: Sequence[str]) -> None:
    """Read every parameter of the queue manager and of these transports; raises `ConfigError` for a bad one."""

@final
class QueueManager:
    """The queue manager: scheduler, queue on disk, and the frames of its clients.

    Locks the queue directory. Raises `QueueError` when that fails, for example while another queue manager has it, and
    `ConfigError` for a bad parameter. `config` None: Postfix's defaults. `routes_by_address`: the addresses of a domain
    may have different routes. `routes_by_sender`: so may senders. `offline`: for a tool that changes the queue and
    delivers nothing.

    A poll is: `receive` for new bytes, `tick`, `next_event` until it is None, `outputs`. The next poll is due at
    `deadline`, or when bytes come. The caller numbers the clients. `piecemeal`: the queue is read during the next
    polls, so that clients are served and mail goes out meanwhile; otherwise before the constructor returns.
    """

    def __new__(
        cls,
        queue_directory: str,
        config: Config | None,
        log: Log,
        now: float,
        wall_now: float,
        *,
        routes_by_address: bool = False,
        routes_by_sender: bool = False,
        piecemeal: bool = False,
        offline: bool = False,
    ) -> QueueManager: ...
    def close(self) -> None:
        """Release the queue directory; every other method raises `ValueError` afterwards."""

    def configure(self, config: Config, *, routes_by_address: bool, routes_by_sender: bool) -> None:
        """Apply the parameters of all transports; raises `ConfigError` and keeps the old ones."""

    def configure_transport(self, name: str | None, config: Config, process_limit: int) -> None:
        """Apply the parameters of a transport; None: of all transports without their own.

        `process_limit`: maxproc of its service, 0 for no limit. Raises `ConfigError` and keeps the old ones.
        """

    def connected(self, client: int, *, control: bool = False) -> None:
        """Add a client. `control`: it uses the public socket, which takes only control requests."""

    def receive(self, client: int, data: bytes, now: float, wall_now: float) -> None:
        """Take bytes of a client, in any split; raises `ConnectionError` when the connection is to be closed."""

    def blocked(self, client: int, blocked: bool) -> None:
        """Note that a client does not read its output, or reads again."""

    def lost(self, client: int, now: float, wall_now: float) -> None:
        """Remove a client whose connection is closed."""

    def tick(self, now: float, wall_now: float) -> None:
        """Do what is due."""

    def rescan(self, now: float, wall_now: float) -> None:
        """Search the queue directory for messages without an announcement."""

    def next_event(
        self, now: float, wall_now: float
    ) -> (
        tuple[Literal["resolve"], str, str]
        | tuple[Literal["trigger"], str]
        | tuple[Literal["control"], int, bytes]
        | None
    ):
        """Return the next task: a route, an agent or a control request; None until the next poll."""

    def resolved(
        self,
        address: str,
        sender: str,
        transport: str,
        nexthop: str,
        recipient: str | None,
        now: float,
        wall_now: float,
    ) -> None:
        """Answer `("resolve", address, sender)`. `recipient`: the new address, None when it stays."""

    def unresolved(self, address: str, sender: str, dsn: str, text: str, now: float, wall_now: float) -> None:
        """Answer `("resolve", address, sender)`: there is no route, permanently when `dsn` is 5.x.x."""

    def trigger_failed(self, transport: str, reason: str, now: float, wall_now: float) -> None:
        """Answer `("trigger", transport)`: no agent can be started."""

    def outputs(self) -> list[tuple[int, bytes]]:
        """Return the output of each client, after the facts went to the disk."""

    def deadline(self) -> float:
        """Return the time of the next poll, on the clock of `now`; 0 is at once."""

    def reply(self, client: int, json: bytes, *, last: bool = True) -> None:
        """Answer a control request with JSON lines."""

    def list(
        self,
        client: int,
        now: float,
        wall_now: float,
        *,
        text: bool = False,
        waits: bool = False,
        offsets: Sequence[tuple[int, int]] = ...,
        privileged: bool = False,
    ) -> int:
        """List the queue in a thread, and return the descriptor of a pipe with the listing, for the caller to close.

        Its form is that of `list_queue`. At its end the client gets the reply `{"listed": n}`. `privileged`: the user
        owns the queue. Raises `OSError` when there are too many listings at a time.
        """

    def flush_site(self, site: str, now: float, wall_now: float) -> None:
        """Try every deferred message for a domain now, as a thread finds them; raises `OSError` as `list` does."""

    def fileno(self) -> int | None:
        """Return a descriptor that is readable when a thread has a report: a poll is due then. None: no threads."""

    def apply(
        self, verb: str, ids: Sequence[str] | None, queues: Sequence[str], now: float, wall_now: float
    ) -> builtins.list[str]:
        """Flush, hold, release, delete or expire messages; return the IDs of the changed ones.

        `ids` None: all messages. `queues`: only messages in these queues, by Postfix's names; empty: in any.
        """

    def leave(
        self, client: int, ids: Sequence[str] | None, queues: Sequence[str], after: str
    ) -> tuple[builtins.list[tuple[str, str, int, int]], builtins.list[str], str | None]:
        """Take messages out of the queue for `client` to move them; return ID, segment file, offset, octets of each.

        At most 10,000, in the order of their IDs, with IDs after `after` (empty: all). Then the IDs of messages under
        delivery or in another move, and the ID after which there may be more. Nothing is done to the messages until
        `left` or `lost`.
        """

    def left(self, client: int, ids: Sequence[str]) -> builtins.list[str]:
        """Forget the messages that `client` moved; return the IDs of those that it had asked for."""

    def place(self, id: str) -> tuple[str, int, int] | None:
        """Return the segment file of a message (relative to the queue directory), offset and octets of its record."""

    def counts(self) -> dict[str, int]:
        """Return counts by name."""
