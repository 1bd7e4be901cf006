"""How long does `postqueue -j` of a full queue take, and how much does it slow down senders?

The bench fills the queue through the journal. The next hop is down, so all mail stays. It sends mail without a listing,
and during a sequence of listings. Both cases alternate, so that other load of the machine affects both; the rows are
medians. `correct`: each listing has a line for every message, and every sent message is in the queue.

Needs Debian's postfix package for its smtp-source.
"""

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator
from statistics import median

import harness
from harness import Result, inject
from restart import known
from support import mta

AIM_S = 2.0
WARM_UP = 20
AIM_RATE = 0.9
"""Minimum share of the acceptance rate during listings, which use a part of two CPUs."""


def listing(site: mta.Site) -> tuple[float, int]:
    """Run a listing; return its seconds and its number of lines."""
    begin = time.monotonic()
    command = harness.command(site, "postillion", "postqueue", "-j")
    lines = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while data := process.stdout.read(1 << 20):
            lines += data.count(b"\n")
    return time.monotonic() - begin, lines if process.returncode == 0 else -1


@contextlib.contextmanager
def listings(site: mta.Site) -> Iterator[list[tuple[float, int]]]:
    """Run listings one after the other during the block; yield (seconds, lines) of each."""
    ended = threading.Event()
    seen: list[tuple[float, int]] = []

    def work() -> None:
        while not ended.is_set() or not seen:
            seen.append(listing(site))

    lister = threading.Thread(target=work)
    lister.start()
    try:
        yield seen
    finally:
        ended.set()
        lister.join()


def main() -> None:
    """Fill a queue, list it, send mail with and without listings, and report."""
    parser = harness.parser(__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--octets", type=int, default=512)
    parser.add_argument(
        "--sent", type=int, default=2500, help="messages sent with and without a listing, in each round"
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.quick:
        options.messages, options.sent, options.rounds = 2000, 100, 2
    flags = f"{options.messages} deferred messages of {options.octets} octets; {options.rounds} x {options.sent} sent"
    columns = ["while", "listing s", "accepted/s", "correct"]
    result = Result("postqueue -j of a full queue", flags, columns)
    result.begin()
    with harness.site(options, harness.DOWN) as site:
        harness.fill(site, options.messages, options.octets, options.quick)
        with mta.running(site):
            mta.wait_for("all messages", lambda: known(site) >= options.messages, harness.DRAIN_MAX_S)
            took: dict[str, list[float]] = {"quiet": [], "lists": []}
            rates: dict[str, list[float]] = {"quiet": [], "lists": []}
            seen: list[int] = []
            inject(site.port, WARM_UP)
            maximum = options.messages + WARM_UP
            for _ in range(options.rounds):
                quiet_s, lines = listing(site)
                took["quiet"].append(quiet_s)
                rates["quiet"].append(inject(site.port, options.sent))
                with listings(site) as during:
                    rates["lists"].append(inject(site.port, options.sent))
                took["lists"] += (took_s for took_s, _ in during)
                maximum += 2 * options.sent
                seen += (lines, *(count for _, count in during))
            mta.wait_for("the sent messages", lambda: known(site) == maximum)
            correct = all(options.messages <= count <= maximum for count in seen)
            medians = {name: (median(took[name]), median(rates[name])) for name in took}
            for name, (took_s, rate) in medians.items():
                result.row(name, took_s, rate, correct)
    result.correct = correct
    (quiet_s, alone), (_, rate_during) = medians["quiet"], medians["lists"]
    result.aim("seconds of a listing", f"{AIM_S:g}", f"{quiet_s:.2f}", quiet_s <= AIM_S)
    left = rate_during / alone
    result.aim("acceptance rate during listings to the rate without", f"{AIM_RATE:g}", f"{left:.2f}", left >= AIM_RATE)
    result.report(options)


if __name__ == "__main__":
    main()
