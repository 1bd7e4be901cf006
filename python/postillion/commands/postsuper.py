"""postsuper: maintain the queue (postsuper(1)).

    postsuper -d queue_id     delete a message
    postsuper -e queue_id     return a message to its sender, at its next attempt
    postsuper -f queue_id     the same, now; releases it from hold
    postsuper -h queue_id     put a message on hold
    postsuper -H queue_id     release a message from hold
    postsuper -r queue_id     try a message anew: its way is found again, its failures so far are forgotten
    postsuper -s -p -S        look for mail that nobody announced, put damaged records aside

A queue_id of `-` reads IDs from standard input; `ALL` is every message in the queues named at the end of the command
line (hold incoming active deferred; with none: all). Options may be repeated and are done in their order.

A running queue manager does it. While the mail system is down it is done here, under the queue manager's lock. Unlike
Postfix, -r keeps a message's ID: there is no file that would have to go through cleanup again. Temporary files and
names that do not fit the file (-p, -s, -S) do not exist in this queue; it is made whole at every start, which is what
these options do.
"""

import getopt
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import islice

from postillion import ipc
from postillion._core import Log, QueueError, QueueManager
from postillion.commands.queue import EX_NOPERM, EX_USAGE, Tool, fatal
from postillion.commands.showq import printable
from postillion.config import ConfigError
from postillion.log import open_log

USAGE = (
    "usage: postsuper [-c config_dir] [-d queue_id (delete)] [-e queue_id (expire)]"
    " [-f queue_id (expire and/or un-hold)] [-h queue_id (hold)] [-H queue_id (un-hold)]"
    " [-p (purge temporary files)] [-r queue_id (requeue)]"
    " [-s (structure fix)] [-S (redundant structure fix)] [-v (verbose)] [queue...]"
)
ACTIONS = {
    "-d": ("delete", "removed", "Deleted"),
    "-e": ("expire", "expired", "Force-expired"),
    "-f": ("force-expire", "expired", "Force-expired"),
    "-h": ("hold", "placed on hold", "Placed on hold"),
    "-H": ("release", "released from hold", "Released from hold"),
    "-r": ("requeue", "requeued", "Requeued"),
}
"""Option: verb, what is said of a message, what is said of all."""
QUEUES = ("maildrop", "incoming", "active", "deferred", "hold")
IDS_A_REQUEST = 10_000
UNLINK_AFTER_S = 2.0
"""The queue clears away what is gone a second after it was opened."""


def main(argv: list[str] | None = None) -> int:
    """Run postsuper; the exit status."""
    try:
        given, queues = getopt.getopt(sys.argv[1:] if argv is None else argv, "c:d:e:f:h:H:pr:sSv")
    except getopt.GetoptError:
        fatal("postsuper", USAGE, EX_USAGE)
    tool = Tool("postsuper", dict(given).get("-c"))
    for name in queues:
        if name not in QUEUES:
            tool.fatal(f"invalid directory name: {printable(name)}", EX_USAGE)
    actions = [(option, value) for option, value in given if option in ACTIONS]
    try:
        log = open_log(tool.config, "postsuper")
    except (ConfigError, OSError):
        log = None  # Whoever may not write the log may still own the queue.
    queue = Queue(tool, queues)
    try:
        if not actions:
            queue.repair()
        for option, value in actions:
            carry_out(queue, log, *ACTIONS[option], value)
    finally:
        queue.close()
        if log is not None:
            log.flush()
    return 0


def carry_out(queue: "Queue", log: Log | None, verb: str, said: str, summary: str, value: str) -> None:
    """Do one thing to the messages that `value` names, and say to how many."""

    def say(text: str) -> None:
        print(f"postsuper: {text}", file=sys.stderr)
        if log is not None:
            log.info(text)

    count = 0
    if value == "ALL":
        count = len(queue.apply(verb, None))
    else:
        for ids in batches(names(value)):
            done = queue.apply(verb, ids)
            count += len(done)
            for name in done:
                say(f"{name}: {said}")
    say(f"{summary}: {count} message{'' if count == 1 else 's'}")


def names(value: str) -> Iterator[str]:
    """Yield the queue IDs that an option names."""
    if value != "-":
        yield checked(value)
        return
    for line in sys.stdin:
        if line.strip():
            yield checked(line.strip())


def checked(name: str) -> str:
    """Return a queue ID; ends the command when no message can have it."""
    if not name.isascii() or not name.isalnum():
        fatal("postsuper", f"invalid mail queue id: {printable(name[:100])}", EX_USAGE)
    return name


def batches(names: Iterable[str]) -> Iterator[list[str]]:
    """Yield the names, some thousands at a time."""
    iterator = iter(names)
    while batch := list(islice(iterator, IDS_A_REQUEST)):
        yield batch


class Queue:
    """The queue: by the queue manager that runs, or opened here."""

    def __init__(self, tool: Tool, queues: list[str]) -> None:
        self._tool = tool
        self._queues = queues
        self._opened: QueueManager | None = None

    def apply(self, verb: str, ids: list[str] | None) -> list[str]:
        """Return the IDs of the messages to which `verb` was done; ids None: of all."""
        if self._opened is None:
            request = {"verb": verb, "ids": ids, "queues": self._queues}
            try:
                done: list[str] = self._tool.do(request)["done"]
                return done
            except ipc.NotRunning:
                self._opened = self._open()
        done = self._opened.apply(verb, ids, self._queues, time.monotonic(), time.time())
        self._settle(self._opened)
        return done

    def repair(self) -> None:
        """Make the queue whole."""
        try:
            self._tool.do({"verb": "rescan"})
        except ipc.NotRunning:
            self._opened = self._open()
            self._settle(self._opened)

    def close(self) -> None:
        """Let go of a queue that was opened here."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _open(self) -> QueueManager:
        """Take the queue as the queue manager does, but deliver nothing: no message may become active."""
        settings: dict[str, object] = {
            "qmgr_message_active_limit": 0,
            "enable_long_queue_ids": self._tool.long_queue_ids,
        }
        log = Log("localhost", "postfix", "postsuper", 0, 0, "memory:")
        try:
            return QueueManager(self._tool.queue_directory, settings, log, time.monotonic(), time.time())
        except QueueError as problem:
            denied = "ermission denied" in str(problem)
            self._tool.fatal(str(problem), EX_NOPERM if denied else 1)

    def _settle(self, core: QueueManager) -> None:
        """Have the facts written, and what is gone cleared away."""
        now, wall_now = time.monotonic() + UNLINK_AFTER_S, time.time()
        while core.next_event(now, wall_now) is not None:
            pass
        core.outputs()
        core.tick(now, wall_now)


if __name__ == "__main__":
    sys.exit(main())
