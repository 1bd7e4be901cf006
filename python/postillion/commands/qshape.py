"""qshape(1): how many recipients of each domain wait in the queue, by the age of their messages.

    qshape [-s] [-p] [-m min_subdomains] [-b bucket_count] [-t bucket_time] [-l] [-w terminal_width]
           [-n batch_top_domains] [-c config_directory] [queue_name ...]

    -s      count messages by their sender's domain
    -p      a row for each parent domain too, as `.example.com`, unless it is a top level domain
    -m N    show a parent domain with at least N subdomains (5)
    -b N    number of columns for ages (10); each is for ages up to twice those of the one before, the last has no limit
    -t N    minutes of the first column (5)
    -l      each column has the same number of minutes
    -w N    columns of the terminal, when more than 80
    -n N    on a terminal, show the first N domains (20); 0 shows all

Queue names: maildrop, hold, incoming, active, deferred; incoming and active by default. A path stands for its last
part. `T` is the total. Exit status 0; 255 for a bad command line. `-N` is accepted: the result comes at once.
"""

import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

import msgspec

from postillion.commands import getopt
from postillion.commands.queue import Tool

USAGE = "usage: " + (__doc__ or "").partition("\n\n")[2].partition("\n\n")[0].strip()
EX_USAGE = 255
"""Exit status of the Perl program of Postfix for a bad command line."""
QUEUES = ("maildrop", "hold", "incoming", "active", "deferred")
DEFAULT_QUEUES = ("incoming", "active")
WIDTH = 80
DOMAIN_WIDTH_MIN = 18
"""Columns for a domain, whatever the terminal's width."""
TOP_DOMAINS = 20
TOTAL = "TOTAL"
NULL_SENDER = "MAILER-DAEMON"


class Address(msgspec.Struct):
    """A recipient of a row."""

    address: str


class Row(msgspec.Struct):
    """The members of a line of `postqueue -j` that count here."""

    queue_name: str
    arrival_time: int
    sender: str
    recipients: list[Address]


class Shape:
    """Counts by domain and age.

    `buckets`: number of columns. `tick_min`: minutes of the first. `linear`: all columns have as many.
    """

    def __init__(self, now: float, *, buckets: int = 10, tick_min: int = 5, linear: bool = False) -> None:
        self._now = now
        self._buckets = buckets
        self._tick_min = tick_min
        self._linear = linear
        self._counts: dict[str, Counter[int]] = defaultdict(Counter)
        self._subdomains: Counter[str] = Counter()

    def add(self, arrival: float, addresses: Iterable[str], *, parents: bool = False) -> None:
        """Count a message's addresses. `parents`: for their parent domains as well."""
        bucket = self._bucket(arrival)
        for address in addresses:
            self._count(TOTAL, bucket)
            child_is_new = False
            for name in _names(domain(address), parents):
                self._subdomains[name] += child_is_new
                child_is_new = name not in self._counts
                self._count(name, bucket)

    def lines(self, *, width: int = WIDTH, subdomains_min: int = 5, top: int = 0) -> Iterator[str]:
        """Yield the table. `top`: rows at most; 0 for all."""
        heads = ["T", *self._limits()]
        totals = self._counts[TOTAL]
        widths = [max(2, len(head), len(str(totals[column]))) + 1 for column, head in enumerate(heads)]
        room = max(width - sum(widths), DOMAIN_WIDTH_MIN)
        yield _line("", heads, widths, room)
        shown = [
            (name, counts)
            for name, counts in self._counts.items()
            if not name.startswith(".") or self._subdomains[name] >= subdomains_min
        ]
        shown.sort(key=lambda row: (-row[1][0], len(row[0]), row[0]))
        for name, counts in shown[: top or None]:
            yield _line(name, [str(counts[column]) for column in range(len(heads))], widths, room)

    def _count(self, name: str, bucket: int) -> None:
        counts = self._counts[name]
        counts[0] += 1
        counts[bucket] += 1

    def _bucket(self, arrival: float) -> int:
        """The column of an age: 1 up to the tick, then doubling (or one more) with each."""
        ticks = max(0, int((self._now - arrival) // (60 * self._tick_min)))
        column = ticks + 1 if self._linear else ticks.bit_length() + 1
        return min(column, self._buckets)

    def _limits(self) -> list[str]:
        """The heads of the columns for ages: minutes that each ends with."""
        if self._linear:
            limits = [self._tick_min * column for column in range(1, self._buckets)]
        else:
            limits = [self._tick_min << column for column in range(self._buckets - 1)]
        return [*map(str, limits), f"{limits[-1] if limits else 0}+"]


def domain(address: str) -> str:
    """Return the domain that an address counts for; an address without one counts for itself."""
    if address == NULL_SENDER:
        return address
    name = address.lower().rpartition("@")[2].replace("..", ".")
    return name.strip(".") or name


def _names(name: str, parents: bool) -> Iterator[str]:
    """Yield a domain and its parents, which begin with a dot, but no top level domain."""
    yield name
    while parents and (name := name.lstrip(".").partition(".")[2]) and "." in name:
        yield f".{name}"


def _line(name: str, cells: list[str], widths: list[int], room: int) -> str:
    if len(name) > room:
        mark = ".+" if name.startswith(".") else "+"
        name = mark + name[len(mark) - room :]
    return name.rjust(room) + "".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))


def main(argv: list[str] | None = None) -> int:
    """Print the table; return the exit status."""
    try:
        given, names = getopt.getopt(sys.argv[1:] if argv is None else argv, "lhc:psw:b:t:m:n:N:")
        options = dict(given)
        numbers = {letter: int(options.get(letter, "0")) for letter in ("-w", "-b", "-t", "-m", "-n", "-N")}
    except (getopt.GetoptError, ValueError) as error:
        print(f"qshape: {error}\n{USAGE}", file=sys.stderr)
        return EX_USAGE
    if "-h" in options:
        print(USAGE, file=sys.stderr)
        return EX_USAGE
    queues = {os.path.basename(name.rstrip("/")) for name in names} or set(DEFAULT_QUEUES)
    for name in sorted(queues - set(QUEUES)):
        print(f"qshape: warning: there is no queue {name}; the queues are {' '.join(QUEUES)}", file=sys.stderr)
    shape = Shape(
        time.time(), buckets=max(0, numbers["-b"]) or 10, tick_min=max(0, numbers["-t"]) or 5, linear="-l" in options
    )
    for row in rows(Tool("qshape", options.get("-c"))):
        if row.queue_name in queues:
            addresses = [row.sender] if "-s" in options else [each.address for each in row.recipients]
            shape.add(row.arrival_time, addresses, parents="-p" in options)
    top = 0 if not sys.stdout.isatty() else numbers["-n"] if "-n" in options else TOP_DOMAINS
    width, subdomains_min = max(numbers["-w"], WIDTH), max(0, numbers["-m"]) or 5
    for line in shape.lines(width=width, subdomains_min=subdomains_min, top=top):
        print(line)
    return 0


def rows(tool: Tool) -> list[Row]:
    """Return the rows of the queue, from the queue manager or from disk."""
    decoder = msgspec.json.Decoder(Row)
    found: list[Row] = []
    rest = b""

    def take(chunk: bytes) -> None:
        nonlocal rest
        *lines, rest = (rest + chunk).split(b"\n")
        found.extend(decoder.decode(line) for line in lines)

    tool.print(take)
    return found


if __name__ == "__main__":
    sys.exit(main())
