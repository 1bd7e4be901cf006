"""Load and sink for measurements."""

from collections.abc import Sequence
from typing import TypedDict, final, type_check_only

from postillion._core.tls import TlsClient, TlsPolicy, TlsServer

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
    `handshakes` of TLS, those `resumed`, and those `mismatched`: of another kind than the source's policy wants.
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
    handshakes: int
    resumed: int
    mismatched: int
    replies: dict[str, _Times]
    message: _Times
    delivery: _Times
    complaints: list[str]

@final
class BenchSource:
    """Clients that load a server: `sessions` at a time, times in seconds, sizes in octets.

    `messages` None: until `stop`. `reuse`: messages of a connection, 0 for no limit. `octets` of the messages and
    `domains` of the recipients are used in turn. `rate`: messages per second that begin by the clock, at most
    `sessions` at a time. Over `ramp_s` the clients begin one by one, or the rate grows. `tls`: the policy of all
    connections; with a `session_key`, each one resumes the TLS session of an earlier one, and the first one of the run
    sends no mail. `wrapper`: TLS begins with the connection, not by STARTTLS. Raises `ValueError` for an impossible
    load, `OSError` when the server cannot be reached, or never completes a handshake.
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
        tls: tuple[TlsClient, TlsPolicy] | None = None,
        wrapper: bool = False,
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
    `disconnect`. With `tls` it offers STARTTLS, or begins with TLS in wrapper mode.

    Raises `ValueError` for other faults, `OSError` when it cannot listen.
    """

    def __new__(
        cls,
        address: str,
        port: int,
        *,
        name: str = "sink.example",
        faults: Sequence[str] = ...,
        seed: int = 1,
        tls: TlsServer | None = None,
    ) -> BenchSink: ...
    @property
    def port(self) -> int:
        """The port; with port 0 the system chooses a free one."""

    def run(self, time_s: float) -> None:
        """Work for `time_s`. Other threads run meanwhile."""

    def counts(self) -> _Counts:
        """Return the counts so far."""
