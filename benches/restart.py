"""How soon after a start does a server with a full queue greet clients, and when has it read every message?

The bench fills the queue through the journal with deferred messages, and starts the server. From then on one client
waits for its greeting, and another asks the queue manager for its number of messages. `cold` drops the page cache first
(root only), so that the start reads the disk. `accepted`: a message sent meanwhile is in the queue. `correct`: the
queue manager has every message, including the new one.
"""

import argparse
import contextlib
import os
import subprocess
import threading
import time
from pathlib import Path

import harness
from harness import Result
from postillion.program import ipc
from support import mta

AIM_GREETING_S = 1.0
AIM_LOADED_S = 15.0
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


def resident_octets(site: mta.Site) -> int:
    """Return the resident memory of the queue manager."""
    (pid,) = mta.processes(site, "qmgr")
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def known(site: mta.Site) -> int:
    """Return the number of messages of the queue manager; 0 while it does not reply."""
    with contextlib.suppress(ipc.NotRunning, ipc.Refused):
        return int(ipc.do(str(site.queue / "public" / "qmgr"), {"verb": "status"})["messages"])
    return 0


def start(site: mta.Site, cold: bool, options: argparse.Namespace, result: Result) -> tuple[float, float]:
    """Start the server once; return the seconds to the greeting and to the last message."""
    if cold:
        os.sync()
        DROP_CACHES.write_text("3\n")
    greeted: list[float] = []
    client = threading.Thread(target=lambda: greeted.append(harness.greeting_s(site.port)))
    begin = time.monotonic()
    client.start()
    starting = subprocess.Popen([*site.command("postillion"), "start"], stdout=subprocess.DEVNULL)
    try:
        client.join()
        accepted_per_s = harness.inject(site.port, 1)
        accepted = time.monotonic() - begin
        mta.wait_for("all messages", lambda: known(site) >= options.messages + 1, harness.DRAIN_MAX_S)
        loaded = time.monotonic() - begin
        each = resident_octets(site) / options.messages
        correct = starting.wait() == 0 and accepted_per_s > 0 and known(site) == options.messages + 1
        subprocess.run(harness.command(site, "postillion", "postsuper", "-d", newest(site)), check=True)
    finally:
        mta.stop(site, "postillion")
    result.correct &= correct
    result.row("cold" if cold else "warm", *greeted, accepted, loaded, each, correct)
    return greeted[0], loaded


def newest(site: mta.Site) -> str:
    """Return the queue ID of the last message over SMTP."""
    line = next(line for line in reversed(site.log_text().splitlines()) if "smtpd[" in line and ": client=" in line)
    return line.split(": ")[1]


def main() -> None:
    """Fill a queue, start with it twice, and report."""
    parser = harness.parser(__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--octets", type=int, default=4096)
    options = parser.parse_args()
    if options.quick:
        options.messages, options.octets = 2000, 512
    columns = ["cache", "greeting s", "a message accepted s", "all known s", "octets of memory a message", "correct"]
    question = "A start with a full queue"
    result = Result(question, f"{options.messages} deferred messages of {options.octets} octets", columns)
    result.begin()
    with harness.site(options, harness.DOWN) as site:
        harness.fill(site, options.messages, options.octets, options.quick)
        greeting, loaded = start(site, False, options, result)
        if not options.quick and os.access(DROP_CACHES, os.W_OK):
            start(site, True, options, result)
    result.aim("seconds to the greeting", f"{AIM_GREETING_S:g}", f"{greeting:.2f}", greeting <= AIM_GREETING_S)
    result.aim("seconds until all are known", f"{AIM_LOADED_S:g}", f"{loaded:.1f}", loaded <= AIM_LOADED_S)
    result.report(options)


if __name__ == "__main__":
    main()
