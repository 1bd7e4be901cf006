"""postsuper: maintain the queue (postsuper(1)). For root and the owner of the queue.

    postsuper -d queue_id     delete a message
    postsuper -e queue_id     return a message to its sender
    postsuper -f queue_id     the same; releases it from hold
    postsuper -h queue_id     put a message on hold
    postsuper -H queue_id     release a message from hold
    postsuper -r queue_id     have a message go through cleanup again, by way of maildrop/; it gets a new ID
    postsuper -p              remove files that processes left behind when they died
    postsuper -s -S           repair the queue directory, for instance a copy from another machine

A queue_id of `-` reads IDs from standard input; `ALL` is every message in the queues named at the end of the command
line (maildrop hold incoming active deferred; with none: all). Options may be repeated and are done in their order, but
-p, -s and -S come first; without any option, -p and -s are done. A message in maildrop/ can only be deleted.

A running queue manager does it. While the mail system is down it is done here, under the queue manager's lock. A
message that is being delivered cannot be requeued; a repair wants the mail system to be down.
"""

from __future__ import annotations

import os
import pwd
import sys
import time
from itertools import islice

from postillion._core.log import Log
from postillion._core.qmgr import QueueManager
from postillion._core.queue import QueueError, repair_queue
from postillion.commands import getopt
from postillion.commands.queue import Tool, fatal
from postillion.commands.requeue import Mover, Place
from postillion.config import ConfigError
from postillion.master import directories
from postillion.pickup.submit import trigger
from postillion.program import ipc
from postillion.program.log import open_log
from postillion.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, Final

USAGE = (
    "usage: postsuper [-c config_dir] [-d queue_id (delete)] [-e queue_id (expire)]"
    " [-f queue_id (expire and/or un-hold)] [-h queue_id (hold)] [-H queue_id (un-hold)]"
    " [-p (purge temporary files)] [-r queue_id (requeue)]"
    " [-s (structure fix)] [-S (redundant structure fix)][-v (verbose)] [queue...]"
)
SAID: Final = {
    "delete": "removed",
    "expire": "expired",
    "hold": "placed on hold",
    "release": "released from hold",
    "requeue": "requeued",
}
"""Result lines about one message."""
ACTIONS: Final = {
    "-d": ("delete",),
    "-e": ("expire",),
    "-f": ("expire", "release"),
    "-h": ("hold",),
    "-H": ("release",),
    "-r": ("requeue",),
}
SUMMARIES: Final = {
    "requeue": "Requeued",
    "delete": "Deleted",
    "expire": "Force-expired",
    "hold": "Placed on hold",
    "release": "Released from hold",
}
"""Result lines about all messages, in this order."""
MAILDROP: Final = "maildrop"
QUEUES: Final = (MAILDROP, "incoming", "active", "deferred", "hold")
LOG_QUEUES: Final = ("bounce", "defer", "trace", "flush")
"""Postfix keeps log files in these; here they are empty."""
ALL: Final = "ALL"
IDS_A_REQUEST: Final = 10_000
UNLINK_AFTER_S: Final = 2.0
"""The queue clears away what is gone a second after it was opened."""
HERE: Final = 1
"""The number of this command where it is its own queue manager."""


def main(argv: list[str] | None = None) -> int:
    """Run postsuper; the exit status."""
    try:
        given, queues = getopt.getopt(sys.argv[1:] if argv is None else argv, "c:d:e:f:h:H:pr:sSv")
    except getopt.GetoptError:
        fatal("postsuper", USAGE)
    tool = Tool("postsuper", dict(given).get("-c"))
    if not may_use(tool):
        tool.fatal("use of this command is reserved for the superuser")
    for name in queues:
        if name not in QUEUES + LOG_QUEUES:
            tool.fatal(f"invalid directory name: {printable(name)}")
    try:
        log = open_log(tool.config, "postsuper")
    except (ConfigError, OSError):
        log = None  # A user without access to the log may still own the queue.
    command = Command(tool, queues, log)
    try:
        command.run(given)
    finally:
        command.close()
        if log is not None:
            log.flush()
    return 0


def may_use(tool: Tool) -> bool:
    """Return whether the user is root, mail_owner, or the owner of the queue directory."""
    uid = os.geteuid()
    if uid == 0:
        return True
    try:
        if pwd.getpwuid(uid).pw_name == tool.config.text("mail_owner"):
            return True
        return os.stat(tool.queue_directory).st_uid == uid
    except (KeyError, OSError):
        return False


class Command:
    """The requests of one command line."""

    def __init__(self, tool: Tool, queues: list[str], log: Log | None) -> None:
        self._tool = tool
        self._log = log
        self._queues = queues
        self._queue = Queue(tool)
        self._counts: dict[str, int] = {}

    def close(self) -> None:
        """Let go of the queue."""
        self._queue.close()

    def run(self, given: list[tuple[str, str]]) -> None:
        """Do what the options say, and say how much it was."""
        letters = {option for option, _ in given}
        actions = [(option, value) for option, value in given if option in ACTIONS]
        if not actions or letters & {"-p", "-s", "-S"}:
            whole = not letters & {"-p", "-s", "-S"}
            structure = whole or bool(letters & {"-s", "-S"})
            for line in self._queue.repair(purge=whole or "-p" in letters, structure=structure):
                self._say(line)
        for option, value in actions:
            for verb in ACTIONS[option]:
                self._counts.setdefault(verb, 0)
            if value == ALL:
                for verb in ACTIONS[option]:
                    self._counts[verb] += sum(len(done) for done in self._do(verb, None))
            else:
                for ids in batches(self._names(value)):
                    self._named(ACTIONS[option], ids)
        for verb, summary in SUMMARIES.items():
            if verb in self._counts:
                count = self._counts[verb]
                self._say(f"{summary}: {count} message{'' if count == 1 else 's'}")

    def _named(self, verbs: tuple[str, ...], ids: list[str]) -> None:
        for verb in verbs:
            for done in self._do(verb, ids):
                self._counts[verb] += len(done)
                for name in done:
                    self._say(f"{name}: {SAID[verb]}")

    def _do(self, verb: str, ids: list[str] | None) -> Iterator[list[str]]:
        """Do one thing to messages; yield the IDs of those to which it was done."""
        if verb == "delete" and (not self._queues or MAILDROP in self._queues):
            yield self._delete_maildrop(ids)
        queues = [name for name in self._queues if name not in LOG_QUEUES]
        if self._queues and not [name for name in queues if name != MAILDROP]:
            return
        if verb == "requeue":
            yield from self._requeue(ids, queues)
        else:
            yield self._queue.apply(verb, ids, queues)

    def _requeue(self, ids: list[str] | None, queues: list[str]) -> Iterator[list[str]]:
        try:
            mover = Mover(self._tool.queue_directory, self._warn)
            for moved, busy in self._queue.move(mover, ids, queues):
                for name in busy if ids is not None else ():
                    self._warn(f"{name}: not requeued: it is being delivered")
                yield moved
        except OSError as problem:
            self._tool.fatal(f"{MAILDROP}: {problem.strerror}")
        finally:
            trigger(os.path.join(self._tool.queue_directory, "public/pickup"))

    def _delete_maildrop(self, ids: list[str] | None) -> list[str]:
        """Remove files from maildrop/; the names of those that were there."""
        directory = os.path.join(self._tool.queue_directory, MAILDROP)
        deleted = []
        try:
            for name in os.listdir(directory) if ids is None else ids:
                try:
                    os.unlink(os.path.join(directory, name))
                except FileNotFoundError:
                    continue
                deleted.append(name)
        except FileNotFoundError:
            pass
        except OSError as problem:
            self._warn(f"{MAILDROP}: {problem.strerror}")
        return deleted

    def _names(self, value: str) -> Iterator[str]:
        """Yield the queue IDs that an option names; what can be none is passed over with a warning."""
        for line in (value,) if value != "-" else sys.stdin:
            name = line.removesuffix("\n")
            if name.isascii() and name.isalnum():
                yield name
            else:
                self._warn(f"invalid mail queue id: {printable(name[:100])}")

    def _say(self, text: str) -> None:
        print(f"postsuper: {text}", file=sys.stderr)
        if self._log is not None:
            self._log.info(text)

    def _warn(self, text: str) -> None:
        self._tool.warn(text)
        if self._log is not None:
            self._log.warning(text)


def batches(names: Iterable[str]) -> Iterator[list[str]]:
    """Yield the names, some thousands at a time."""
    iterator = iter(names)
    while batch := list(islice(iterator, IDS_A_REQUEST)):
        yield batch


class Queue:
    """The queue: by the queue manager that runs, or opened here."""

    def __init__(self, tool: Tool) -> None:
        self._tool = tool
        self._side: Running | Opened | None = None

    def apply(self, verb: str, ids: list[str] | None, queues: list[str]) -> list[str]:
        """Return the IDs of the messages to which `verb` was done; ids None: of all."""
        done: list[str] = self._do({"verb": verb, "ids": ids, "queues": queues})["done"]
        return done

    def move(self, mover: Mover, ids: list[str] | None, queues: list[str]) -> Iterator[tuple[list[str], list[str]]]:
        """Move messages to maildrop/; yield the IDs of some, and of those that are being delivered."""
        after: str | None = ""
        while after is not None:
            answer = self._do({"verb": "leave", "ids": ids, "queues": queues, "after": after})
            yield [], answer["busy"]
            moving: list[Place] = [tuple(message) for message in answer["messages"]]
            for moved in mover.move(moving):
                self._do({"verb": "left", "ids": moved})
                yield moved, []
            # An unreadable message stays in the queue.
            self.close()
            after = answer["next"]

    def repair(self, *, purge: bool, structure: bool) -> list[str]:
        """Repair what can be; return what was done, a line each."""
        try:
            self._side = self._side or Running(self._tool)
        except ipc.NotRunning:
            owner = ids_of(self._tool.config.text("mail_owner"))
            try:
                done = repair_queue(self._tool.queue_directory, purge=purge, structure=structure, owner=owner)
                return done + (self._rights() if structure and owner is not None else [])
            except (QueueError, ConfigError) as problem:
                self._tool.fatal(str(problem))
        # The queue manager knows every message there except those without an announcement.
        self._side.do({"verb": "rescan"})
        return []

    def _rights(self) -> list[str]:
        """Set owners and modes of all directories of the queue, as `set-permissions` does; return what was done."""
        queue = os.path.abspath(self._tool.queue_directory)
        changed = directories.set_queue_permissions(self._tool.config)
        return [f"{path.removeprefix(f'{queue}/')}: owner and mode set" for path in changed]

    def close(self) -> None:
        """Let go of the queue."""
        if self._side is not None:
            self._side.close()
            self._side = None

    def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            if self._side is None:
                try:
                    self._side = Running(self._tool)
                except ipc.NotRunning:
                    self._side = Opened(self._tool)
            return self._side.do(request)
        except ipc.NotRunning as problem:
            self._tool.fatal(f"the queue manager is gone: {problem}")
        except ipc.Refused as problem:
            self._tool.fatal(str(problem))


class Running:
    """A queue manager that runs. Raises `ipc.NotRunning`."""

    def __init__(self, tool: Tool) -> None:
        self._session = ipc.Session(tool.socket)

    def do(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return its answer. Raises `ipc.Refused` and `ipc.NotRunning`."""
        return self._session.do(request)

    def close(self) -> None:
        """Hang up: what it gave away and was not taken stays in the queue."""
        self._session.close()


class Opened:
    """The queue, opened here as the queue manager does it, but nothing is delivered: no message may become active."""

    def __init__(self, tool: Tool) -> None:
        log = Log("localhost", "postfix", "postsuper", 0, 0, "memory:")
        become_owner(os.path.join(tool.queue_directory, "active"))
        try:
            now, wall_now = time.monotonic(), time.time()
            self._core = QueueManager(tool.queue_directory, tool.config, log, now, wall_now, offline=True)
        except QueueError as problem:
            tool.fatal(str(problem))

    def do(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer that a queue manager would give."""
        core, verb, ids = self._core, request["verb"], request["ids"]
        answer: dict[str, Any]
        if verb == "leave":
            messages, busy, more = core.leave(HERE, ids, request["queues"], request["after"])
            answer = {"messages": messages, "busy": busy, "next": more}
        elif verb == "left":
            answer = {"done": core.left(HERE, ids)}
        else:
            answer = {"done": core.apply(verb, ids, request["queues"], time.monotonic(), time.time())}
        self._finish()
        return answer

    def close(self) -> None:
        """Let go of the queue directory."""
        self._core.close()

    def _finish(self) -> None:
        """Write the facts to disk, and remove finished segments."""
        now, wall_now = time.monotonic() + UNLINK_AFTER_S, time.time()
        while self._core.next_event(now, wall_now) is not None:
            pass
        self._core.outputs()
        self._core.tick(now, wall_now)


def become_owner(directory: str) -> None:
    """Take the user and group of a directory's owner, if root runs the command: the owner reads the new queue files."""
    if os.geteuid() == 0:
        try:
            found = os.stat(directory)
        except FileNotFoundError:
            return
        os.setegid(found.st_gid)
        os.seteuid(found.st_uid)


def ids_of(user: str) -> tuple[int, int] | None:
    """Return the user and group ID that queue files get. None without root or this user: then they keep theirs."""
    if os.geteuid() != 0:
        return None
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return None
    return account.pw_uid, account.pw_gid


if __name__ == "__main__":
    sys.exit(main())
