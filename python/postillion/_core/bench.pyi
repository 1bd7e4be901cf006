"""Load and sink for measurements."""

from collections.abc import Sequence
from typing import TypedDict, final, type_check_only

__all__ = ["BenchSink", "BenchSource"]

@type_check_only
class _Times(TypedDict):
    """Times in seconds; percentiles are exact to 3 %."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    longest: float

@type_check_only
class _Counts(TypedDict):
    """Counts of a bench. `replies` by command: greeting, EHLO, MAIL ... end of data, QUIT.

    `message`: time until the 250 to the final dot. With a rate it begins by the clock, also while no session is free.
    `delivery`: time from the first octet sent until the sink accepts the message; both ends must have the same clock.
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
    `domains` of the recipients are used in turn. `rate`: messages per second that begin by the clock, at most
    `sessions` at a time. Over `ramp_s` the clients begin one by one, or the rate grows. Raises `ValueError` for an
    impossible load, `OSError` when the server cannot be reached.
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
        """Work for at most `time_s`; return True when all is sent and answered. Other threads run meanwhile."""

    def stop(self) -> None:
        """Begin no more messages."""

    def counts(self) -> _Counts:
        """Return the counts so far."""

@final
class BenchSink:
    """The other end of a load: it accepts all mail except for its faults, and notices second copies of messages.

    A fault is `domain=action[@rcpt|@dot][*share]`: the action is a code of 400 to 599, a time (`2s`, `150ms`) or
    `disconnect`. Raises `ValueError` for other faults, `OSError` when it cannot listen.
    """

    def __new__(
        cls, address: str, port: int, *, name: str = "sink.example", faults: Sequence[str] = ..., seed: int = 1
    ) -> BenchSink: ...
    @property
    def port(self) -> int:
        """The port; with port 0 the system chooses a free one."""

    def run(self, time_s: float) -> None:
        """Work for `time_s`. Other threads run meanwhile."""

    def counts(self) -> _Counts:
        """Return the counts so far."""
