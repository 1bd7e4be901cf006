"""Load and sink for measurements."""

from collections.abc import Sequence
from typing import TypedDict, final, type_check_only

__all__ = ["BenchSink", "BenchSource"]

@type_check_only
class _Times(TypedDict):
    """How long something took, in seconds; percentiles are exact to 3 %."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    longest: float

@type_check_only
class _Counts(TypedDict):
    """What a bench has counted. `replies` by what was waited for: greeting, EHLO, MAIL ... end of data, QUIT.

    `message`: to the 250 to the final dot, from when the message was to begin; with a rate that is the clock's time,
    whether a session was free or not. `delivery`: from a message's first octet sent to the sink's taking it; the two
    clocks must be one.
    """

    connections: int
    broken: int
    messages: int
    recipients: int
    octets: int
    refused: int
    refusals: int
    unanswered: int
    duplicates: int
    replies: dict[str, _Times]
    message: _Times
    delivery: _Times
    complaints: list[str]

@final
class BenchSource:
    """Clients that load a server: `sessions` at a time, times in seconds, sizes in octets.

    `messages` None: until `stop`. `reuse`: messages of a connection, 0 for no limit. `octets` of the messages and
    `domains` of the recipients: in turn. `rate`: messages a second that begin by the clock, at most `sessions` at a
    time; over `ramp_s` the clients begin one by one, or the rate grows. Raises `ValueError` for what no load can be,
    `OSError` when the server cannot be reached.
    """

    def __new__(
        cls,
        address: str,
        port: int,
        *,
        sessions: int = 20,
        messages: int | None = None,
        octets: Sequence[int] = ...,
        recipients: int = 1,
        domains: Sequence[str] = ...,
        sender: str = "bench@source.example",
        reuse: int = 1,
        think_s: float = 0.0,
        ramp_s: float = 0.0,
        rate: float | None = None,
        pipelining: bool = False,
        helo: str = "source.example",
    ) -> BenchSource: ...
    def run(self, time_s: float) -> bool:
        """Work for at most so long; True when all is sent and answered. Other threads run meanwhile."""

    def stop(self) -> None:
        """Begin no more messages."""

    def counts(self) -> _Counts:
        """What was counted so far."""

@final
class BenchSink:
    """The other end of a load: it takes all mail but for its faults, and knows second copies of a source's messages.

    A fault is `domain=action[@rcpt|@dot][*share]`: the action is a code of 400 to 599, a time (`2s`, `150ms`) or
    `disconnect`. Raises `ValueError` for other faults, `OSError` when it cannot listen.
    """

    def __new__(
        cls, address: str, port: int, *, name: str = "sink.example", faults: Sequence[str] = ..., seed: int = 1
    ) -> BenchSink: ...
    @property
    def port(self) -> int:
        """Where it listens; asked for with port 0 it is one that was free."""

    def run(self, time_s: float) -> None:
        """Work for so long. Other threads run meanwhile."""

    def counts(self) -> _Counts:
        """What was counted so far."""
