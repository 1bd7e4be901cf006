"""A run: the load source and the sink in threads of their own, with counts over time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from postillion._core.bench import BenchSink, BenchSource
from postillion.bench import server, tls
from postillion.bench.options import Options

if TYPE_CHECKING:
    from postillion._core.bench import _Counts

POLL_S: Final = 0.2
"""Interval of the counts during the load."""
DRAIN_POLL_S: Final = 0.02
"""Interval of the sink's counts after the load, for the time of the last delivery."""
SLICE_S: Final = 0.1
"""Longest time before a thread checks whether it must stop."""
IDLE_MAX_S: Final = 2.0
"""Time without a delivery that ends a run with faults."""
SYNC_MESSAGES: Final = 200
"""Number of messages of the load for counting syncs."""
FINISH_MAX_S: Final = 60.0
"""Longest wait for the replies to open messages after the load's time is over."""


@dataclass
class Point:
    """The counts at a time (seconds since the start)."""

    at_s: float
    accepted: int
    delivered: int


@dataclass
class Result:
    """The results of a run: rates per second, times in seconds."""

    options: Options
    source: _Counts
    sink: _Counts | None
    load_s: float
    accepted_per_s: float
    delivered_per_s: float | None
    cpu_ms: float | None
    syncs: dict[str, int] | None
    durability: str | None
    points: list[Point] = field(default_factory=list)

    @property
    def correct(self) -> bool:
        """Whether every accepted message was delivered once; without a sink, whether every message was accepted.

        With TLS, every handshake of the source was of the wanted kind as well.
        """
        source = self.source
        if source["mismatched"]:
            return False
        if self.sink is not None and not self.options.faults:
            complete = source["messages"] <= self.sink["messages"] <= source["messages"] + source["unanswered"]
            return complete and self.sink["duplicates"] == 0 and source["refused"] == 0
        return source["refused"] == 0 and source["unanswered"] == 0


class Worker(threading.Thread):
    """Runs a source or a sink until it is finished or `stop` is called."""

    def __init__(self, work: Callable[[float], Any]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._ending = threading.Event()
        self.problem: Exception | None = None
        self.start()

    def run(self) -> None:
        """Work in slices until told to stop; keep an exception for `stop`."""
        try:
            while not self._ending.is_set() and not self._work(SLICE_S):
                pass
        except Exception as problem:
            self.problem = problem

    def stop(self) -> None:
        """End after the current slice of work; raises the error of the thread."""
        self._ending.set()
        self.join()
        if self.problem is not None:
            raise self.problem


def source(options: Options, *, messages: int | None) -> BenchSource:
    """Return a load source with these options."""
    return BenchSource(
        options.address,
        options.port,
        sessions=options.sessions,
        messages=messages,
        octets=options.octets,
        recipients=options.recipients,
        domains=options.domains,
        sender=options.sender,
        reuse=options.reuse,
        think_s=options.think,
        ramp_s=options.ramp,
        rate=options.rate,
        pipelining=options.pipelining,
        tls=None if options.tls is None else tls.client(options.tls),
        wrapper=options.tls_wrapper,
    )


def run(options: Options, progress: Callable[[Point], None]) -> Result:
    """Run the load and return the results.

    Raises `OSError` without a server or a port for the sink, `ValueError` for an unknown fault.
    """
    sink = None
    if options.sink is not None:
        secure = None if options.sink_tls is None else tls.server(wrapper=options.sink_tls == "wrapper")
        sink = BenchSink(*options.sink, faults=options.faults, tls=secure)
    drain = None if sink is None else Worker(sink.run)
    try:
        result = _measure(options, sink, drain, progress)
        if options.syncs:
            _count_syncs(options, result)
        return result
    finally:
        if drain is not None:
            drain.stop()


def _measure(
    options: Options, sink: BenchSink | None, drain: Worker | None, progress: Callable[[Point], None]
) -> Result:
    master = options.server_pid or _local_server(options)
    load = source(options, messages=options.messages)
    begin = time.monotonic()
    points = [Point(0.0, 0, 0)]
    warm: tuple[Point, float] | None = None

    def count() -> Point:
        nonlocal warm
        delivered = sink.counts()["messages"] if sink is not None else 0
        point = Point(time.monotonic() - begin, load.counts()["messages"], delivered)
        points.append(point)
        if warm is None and point.at_s >= options.warm_up:
            warm = point, server.cpu_seconds(master) if master else 0.0
        progress(point)
        return point

    if options.warm_up == 0:
        warm = points[0], server.cpu_seconds(master) if master else 0.0
    worker = Worker(load.run)
    deadline = None if options.duration is None else begin + options.duration
    while worker.is_alive():
        worker.join(POLL_S)
        count()
        if deadline is not None and time.monotonic() >= deadline:
            load.stop()
            if time.monotonic() >= deadline + FINISH_MAX_S:
                break
    worker.stop()
    end = count()
    start, cpu_before = warm or (points[0], 0.0)
    elapsed = max(end.at_s - start.at_s, 1e-9)
    last = _drained(options, load, drain, count)
    counts = load.counts()
    cpu = server.cpu_seconds(master) - cpu_before if master else None
    counted = max(counts["messages"] - start.accepted, 1)
    return Result(
        options=options,
        source=counts,
        sink=None if sink is None else sink.counts(),
        load_s=end.at_s,
        accepted_per_s=(end.accepted - start.accepted) / elapsed,
        delivered_per_s=None
        if sink is None
        else (last.delivered - start.delivered) / max(last.at_s - start.at_s, 1e-9),
        cpu_ms=None if cpu is None else cpu / counted * 1000,
        syncs=None,
        durability=None,
        points=points,
    )


def _drained(options: Options, load: BenchSource, drain: Worker | None, count: Callable[[], Point]) -> Point:
    """Wait for the missing deliveries while the sink runs; return the counts at the last one."""
    last = count()
    if drain is None:
        return last
    accepted = load.counts()["messages"]
    begin = quiet = time.monotonic()
    while last.delivered < accepted and drain.is_alive() and time.monotonic() - begin < options.drain:
        drain.join(DRAIN_POLL_S)
        point = count()
        if point.delivered > last.delivered:
            last, quiet = point, time.monotonic()
        elif options.faults and time.monotonic() - quiet > IDLE_MAX_S:
            break
    return last


def _local_server(options: Options) -> int | None:
    if not (options.address.startswith("127.") or options.address == "::1"):
        return None
    return server.listener_pid(options.port)


def _count_syncs(options: Options, result: Result) -> None:
    master = options.server_pid or _local_server(options)
    if master is None:
        raise OSError("--syncs: the server's processes are not visible; give its master with --server-pid")
    load = source(options, messages=SYNC_MESSAGES)
    with server.SyncCounter(master) as counter:
        while not load.run(SLICE_S):
            pass
    result.syncs = counter.calls
    result.durability = server.durability(sum(counter.calls.values()), load.counts()["messages"])
