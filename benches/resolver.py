"""How many new names a second does the resolver look up, and how much memory does each cached name need?

    stub        postillion.dns.Resolver: the stub resolver in Rust, with its cache
    dnspython   dnspython's asynchronous resolver, with its LRUCache

Both ask BIND on this machine for the MX records of names that they have not seen, then for the same names again, with a
bounded number of questions at a time. Each run is a process of its own. `us a new name` is its own CPU time (user and
system, without BIND's), so `new names/s` is the rate of one core for it alone. `octets a name` is the growth of its
resident memory, after a first part has warmed it up. `correct`: each answer is the record of the zone, and the second
time none came from BIND.
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import harness
from harness import Result

from support.named import named  # isort: skip  (harness extends sys.path)

AIM_PER_S = 10_000
AIM_OCTETS = 2500
IN_FLIGHT = 100
"""Number of questions at a time."""
WARM_UP = 200
ZONE = "*.bench MX 10 mail.bench\n"
WAYS = ("dnspython", "stub")
PAGE_OCTETS = os.sysconf("SC_PAGE_SIZE")

Lookup = Callable[[str], Awaitable[bool]]
"""Looks up a name; returns whether the answer is that of the zone."""
Cached = Callable[[], bool]
"""Returns whether the cache has answered the second time."""


def stub(port: int, names: int) -> tuple[Lookup, Cached]:
    """Return our resolver."""
    from postillion.dns import Records, Resolver

    resolver = Resolver(["127.0.0.1"], port, answers_max=names)

    async def lookup(name: str) -> bool:
        answer = await resolver.mx(name)
        return isinstance(answer, Records) and answer.list == ((10, "mail.bench.test"),)

    return lookup, lambda: resolver._stub.cached_answers == names


def dnspython(port: int, names: int) -> tuple[Lookup, Cached]:
    """Return dnspython's resolver."""
    import dns.asyncresolver
    import dns.resolver

    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], port
    resolver.cache = cache = dns.resolver.LRUCache(names)

    async def lookup(name: str) -> bool:
        answer = await resolver.resolve(name, "MX", search=False)
        return [str(record) for record in answer] == ["10 mail.bench.test."]

    return lookup, lambda: cache.hits() == names - WARM_UP


def resident_octets() -> int:
    """Return the resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_OCTETS


async def ask(lookup: Lookup, names: list[str]) -> tuple[float, float, int]:
    """Look up all names; return the time, the CPU time, and the number of right answers."""
    left = iter(names)
    right = 0

    async def worker() -> None:
        nonlocal right
        for name in left:
            is_right = await lookup(name)
            right += is_right

    begin, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return time.perf_counter() - begin, time.process_time() - cpu, right


async def measure(way: str, port: int, count: int) -> dict[str, float]:
    """Measure one way in this process."""
    lookup, cached = {"stub": stub, "dnspython": dnspython}[way](port, count + WARM_UP)
    await ask(lookup, [f"warm{number}.bench.test" for number in range(WARM_UP)])
    names = [f"name{number}.bench.test" for number in range(count)]
    before = resident_octets()
    new_s, new_cpu_s, first = await ask(lookup, names)
    octets = resident_octets() - before
    _, again_cpu_s, second = await ask(lookup, names)
    return {
        "new_s": new_s,
        "new_cpu_s": new_cpu_s,
        "again_cpu_s": again_cpu_s,
        "octets": octets / count,
        "right": first + second,
        "cached": cached(),
    }


def run(way: str, port: int, count: int) -> dict[str, float]:
    """Measure one way in a process of its own."""
    line = [sys.executable, __file__, "--way", way, "--port", str(port), "--names", str(count)]
    return harness.figures(line)


def main() -> None:
    """Measure and report."""
    parser = harness.parser(__doc__)
    parser.add_argument("--names", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(asyncio.run(measure(options.way, options.port, options.names))))
        return
    if options.quick:
        options.names, options.runs = 500, 1
    columns = [
        "way      ",
        "new names/s",
        "us a new name",
        "us a cached name",
        "octets a name",
        "wall new/s",
        "correct",
    ]
    flags = f"{options.names} names, {IN_FLIGHT} at a time, best of {options.runs} runs"
    result = Result("New names a second on one core, and memory of a cached name", flags, columns)
    if not shutil.which("named", path="/usr/sbin:/usr/bin"):
        sys.exit("named is not installed (Debian package bind9)")
    result.begin()
    best: dict[str, dict[str, float]] = {}
    with (
        tempfile.TemporaryDirectory(dir=options.directory) as directory,
        named(Path(directory), {"test": ZONE}) as port,
    ):
        for _ in range(options.runs):
            for way in WAYS:
                found = run(way, port, options.names)
                correct = found["right"] == 2 * options.names and bool(found["cached"])
                result.correct &= correct
                if way not in best or found["new_cpu_s"] < best[way]["new_cpu_s"]:
                    best[way] = found | {"correct": correct}
    for way, found in best.items():
        new_us, again_us = (found[name] / options.names * 1e6 for name in ("new_cpu_s", "again_cpu_s"))
        rates = 1e6 / new_us, options.names / found["new_s"]
        result.row(way, rates[0], new_us, again_us, found["octets"], rates[1], found["correct"])
    rate, octets = options.names / best["stub"]["new_cpu_s"], best["stub"]["octets"]
    result.aim("new names a second on one core", f"{AIM_PER_S:,}", f"{rate:,.0f}", rate >= AIM_PER_S)
    result.aim("octets of memory a cached name", f"{AIM_OCTETS:,}", f"{octets:,.0f}", octets <= AIM_OCTETS)
    result.report(options)


if __name__ == "__main__":
    main()
