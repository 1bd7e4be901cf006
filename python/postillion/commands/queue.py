"""Shared by the commands on the queue: configuration, the socket, errors as Postfix's commands report them."""

from __future__ import annotations

import os
import sys
import time

from postillion._core.queue import QueueError, list_queue
from postillion.config import Config, ConfigError
from postillion.program import ipc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

EX_UNAVAILABLE = 69
"""Exit status of postqueue for every error; that of the other commands is 1."""
HOUR_S = 3600
ZONE_BEFORE_S = 100 * 24 * HOUR_S
ZONE_AFTER_S = 10 * 24 * HOUR_S
"""Times that a listing shows in local time; older ones are as far ahead of UTC as the oldest of these."""
PUBLIC_SOCKET = "public/{service}"


class Tool:
    """A command: its name and the configuration that it works on."""

    def __init__(self, program: str, directory: str | None = None) -> None:
        """Raises `SystemExit` when main.cf cannot be used."""
        self.program = program
        try:
            self.config = Config.load(directory)
            self.queue_directory = self.config.text("queue_directory")
            self.long_queue_ids = self.config.flag("enable_long_queue_ids")
            service = self.config.text("queue_service_name")
        except ConfigError as problem:
            self.fatal(str(problem))
        self.socket = os.path.join(self.queue_directory, PUBLIC_SOCKET.format(service=service))

    def warn(self, text: str) -> None:
        """Write a warning to standard error."""
        print(f"{self.program}: warning: {text}", file=sys.stderr)

    def fatal(self, text: str) -> NoReturn:
        """Write the error, and end the command."""
        fatal(self.program, text)

    def do(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the queue manager's answer to a command. Raises `ipc.NotRunning`; a refusal ends the command."""
        try:
            return ipc.do(self.socket, request)
        except ipc.Refused as problem:
            self.fatal(str(problem))

    def print(self, take: Callable[[bytes], object], *, text: bool = False, waits: bool = False) -> None:
        """Give the queue to `take`, some at a time: from the queue manager, or from disk while there is none."""
        zone = offsets(time.time()) if text else []
        try:
            session = ipc.Session(self.socket)
        except ipc.NotRunning as problem:
            self._list_from_disk(take, problem, text=text, waits=waits, zone=zone)
            return
        with session:
            try:
                for chunk in session.chunks({"verb": "list", "text": text, "waits": waits, "offsets": zone}):
                    if chunk.startswith(b'{"error"'):
                        import json

                        self.fatal(json.loads(chunk)["error"])
                    take(chunk)
            except ipc.NotRunning as problem:
                self.fatal(f"Queue report is cut short: {problem}")

    def _list_from_disk(
        self,
        take: Callable[[bytes], object],
        problem: ipc.NotRunning,
        *,
        text: bool,
        waits: bool,
        zone: list[tuple[int, int]],
    ) -> None:
        names = (self.config.text("mail_name"), self.config.text("showq_service_name"))
        why = f"Connect to the {names[0]} {names[1]} service: {problem}"
        warned = False

        def first(data: bytes) -> None:
            nonlocal warned
            if not warned:
                self.warn(f"Mail system is down -- accessing queue directly ({why})")
                warned = True
            take(data)

        try:
            list_queue(
                self.queue_directory,
                first,
                long_queue_ids=self.long_queue_ids,
                text=text,
                waits=waits,
                offsets=zone,
            )
        except QueueError as unreadable:
            self.fatal(f"Queue report unavailable - mail system is down ({why}; {unreadable})")


def offsets(now: float) -> list[tuple[int, int]]:
    """Return how far local time is ahead of UTC: from which second on, how many seconds; for all that a queue holds."""
    found: list[tuple[int, int]] = []
    hours = range(int(now) - ZONE_BEFORE_S, int(now) + ZONE_AFTER_S, HOUR_S)
    for second in hours:
        whole = second - second % HOUR_S
        ahead_s = time.localtime(whole).tm_gmtoff
        if not found or found[-1][1] != ahead_s:
            found.append((whole, ahead_s))
    return found


def fatal(program: str, text: str) -> NoReturn:
    """Write the error of a command, and end it."""
    print(f"{program}: fatal: {text}", file=sys.stderr)
    sys.exit(EX_UNAVAILABLE if program == "postqueue" else 1)
