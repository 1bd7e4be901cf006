"""How long does `postqueue -j` of a full queue take, and what does it cost those who send mail meanwhile?

The queue is filled through the journal; the next hop is down, so that all mail stays. Mail is sent in without a
listing and while one listing follows the other. `correct`: each listing has a line for every message, and every message
that was sent is in the queue.

Needs Debian's postfix package for its smtp-source.
"""

import subprocess
import threading
import time

import harness
import mta
from harness import Result, inject
from restart import known

AIM_S = 2.0
AIM_RATE = 0.9
"""What is left of the rate of acceptance while lists are printed; they take a share of two CPUs."""


def listing(site: mta.Site) -> tuple[float, int]:
    """Return the seconds that a listing took, and its lines."""
    begin = time.monotonic()
    command = harness.command(site, "postillion", "postqueue", "-j")
    lines = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while data := process.stdout.read(1 << 20):
            lines += data.count(b"\n")
    return time.monotonic() - begin, lines if process.returncode == 0 else -1


def main() -> None:
    """Fill a queue, list it, send mail with and without listings, and tell."""
    parser = harness.parser(__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--octets", type=int, default=512)
    parser.add_argument("--sent", type=int, default=5000, help="messages sent in with and without a listing")
    options = parser.parse_args()
    if options.quick:
        options.messages, options.sent = 2000, 100
    flags = f"{options.messages} deferred messages of {options.octets} octets, {options.sent} sent in meanwhile"
    columns = ["while", "listing s", "accepted/s", "correct"]
    result = Result("postqueue -j of a full queue", flags, columns)
    result.begin()
    with harness.site(options, harness.DOWN) as site:
        harness.fill(site, options.messages, options.octets, options.quick)
        with mta.running(site):
            mta.wait_for("all messages", lambda: known(site) >= options.messages, harness.DRAIN_MAX_S)
            quiet_s, lines = listing(site)
            inject(site.port, 20)
            alone = inject(site.port, options.sent)
            result.row("quiet", quiet_s, alone, lines == options.messages)
            stop = threading.Event()
            seen: list[tuple[float, int]] = []

            def lists() -> None:
                while not stop.is_set() or not seen:
                    seen.append(listing(site))

            lister = threading.Thread(target=lists)
            lister.start()
            beside = inject(site.port, options.sent)
            stop.set()
            lister.join()
            most = options.messages + 20 + 2 * options.sent
            mta.wait_for("what was sent", lambda: known(site) == most)
            correct = lines == options.messages and all(options.messages <= count <= most for _, count in seen)
            result.row("lists", max(took_s for took_s, _ in seen), beside, correct)
    result.correct = correct
    result.aim("seconds of a listing", f"{AIM_S:g}", f"{quiet_s:.2f}", quiet_s <= AIM_S)
    left = beside / alone
    result.aim("acceptance beside listings to that without", f"{AIM_RATE:g}", f"{left:.2f}", left >= AIM_RATE)
    result.tell(options)


if __name__ == "__main__":
    main()
