"""A run: source and sink at work in threads of their own, looked at every second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from postillion._core import BenchSink, BenchSource
from postillion.bench import server
from postillion.bench.options import Options

if TYPE_CHECKING:
    from postillion._core import _Counts

LOOK_S: Final = 0.2
"""How often counts are looked at."""
DELIVERED_LOOK_S: Final = 0.02
"""How often the sink's count is looked at for the last delivery."""
SLICE_S: Final = 0.1
"""How long a thread works before it sees that it is to end."""
SETTLED_S: Final = 2.0
"""Without a new delivery for so long after the load, and nothing missing, the run is over."""
SYNC_MESSAGES: Final = 200
"""Messages of the load during which syncs are counted."""
FINISH_MAX_S: Final = 60.0
"""Messages that are under way when the time is over have so long to be answered."""


@dataclass
class Point:
    """Counts at a moment (seconds since the start)."""

    at_s: float
    accepted: int
    delivered: int


@dataclass
class Result:
    """What a run has measured: rates a second, times in seconds."""

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
        """Everything promised was delivered, once. Without a sink: nothing was refused or left unanswered."""
        source = self.source
        if self.sink is not None and not self.options.faults:
            promised = source["messages"] <= self.sink["messages"] <= source["messages"] + source["unanswered"]
            return promised and self.sink["duplicates"] == 0 and source["refused"] == 0
        return source["refused"] == 0 and source["unanswered"] == 0


class Worker(threading.Thread):
    """Runs a source or a sink until it is done, or told to stop."""

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
        """End after the slice of work that is under way; raises what went wrong."""
        self._ending.set()
        self.join()
        if self.problem is not None:
            raise self.problem


def source(options: Options, *, messages: int | None) -> BenchSource:
    """Return a source as the options want it."""
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
    )


def run(options: Options, progress: Callable[[Point], None]) -> Result:
    """Measure. Raises `OSError` without a server or a port for the sink, `ValueError` for faults that are none."""
    sink = None if options.sink is None else BenchSink(*options.sink, faults=options.faults)
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

    def look() -> Point:
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
        worker.join(LOOK_S)
        look()
        if deadline is not None and time.monotonic() >= deadline:
            load.stop()
            if time.monotonic() >= deadline + FINISH_MAX_S:
                break
    worker.stop()
    end = look()
    start, cpu_before = warm or (points[0], 0.0)
    elapsed = max(end.at_s - start.at_s, 1e-9)
    last = _drained(options, load, drain, look)
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


def _drained(options: Options, load: BenchSource, drain: Worker | None, look: Callable[[], Point]) -> Point:
    """Wait for the deliveries that are missing, while the sink works; return the moment of the last one."""
    last = look()
    if drain is None:
        return last
    promised = load.counts()["messages"]
    begin = quiet = time.monotonic()
    while last.delivered < promised and drain.is_alive() and time.monotonic() - begin < options.drain:
        drain.join(DELIVERED_LOOK_S)
        point = look()
        if point.delivered > last.delivered:
            last, quiet = point, time.monotonic()
        elif options.faults and time.monotonic() - quiet > SETTLED_S:
            break
    return last


def _local_server(options: Options) -> int | None:
    if not (options.address.startswith("127.") or options.address == "::1"):
        return None
    return server.listener_pid(options.port)


def _count_syncs(options: Options, result: Result) -> None:
    master = options.server_pid or _local_server(options)
    if master is None:
        raise OSError("--syncs: the server's processes cannot be seen; name its master with --server-pid")
    load = source(options, messages=SYNC_MESSAGES)
    with server.SyncCounter(master) as counter:
        while not load.run(SLICE_S):
            pass
    result.syncs = counter.calls
    result.durability = server.durability(sum(counter.calls.values()), load.counts()["messages"])
