"""What the commands on the queue share: configuration, the socket, errors as Postfix's commands report them."""

import os
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import msgspec

from postillion import ipc
from postillion._core import QueueError, read_queue
from postillion.config import Config, ConfigError

EX_UNAVAILABLE = 69
"""What postqueue ends with when it cannot do its work, whatever the reason; the others end with 1."""
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
        """Write why the command cannot go on, and end it."""
        fatal(self.program, text)

    def do(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the queue manager's answer to a command. Raises `ipc.NotRunning`; a refusal ends the command."""
        try:
            return ipc.do(self.socket, request)
        except ipc.Refused as problem:
            self.fatal(str(problem))

    def rows(self) -> Iterator[bytes]:
        """Yield a line of JSON for every message: from the queue manager, or from disk while there is none."""
        try:
            for line in ipc.ask_lines(self.socket, {"verb": "list"}):
                if line.startswith(b'{"error"'):
                    self.fatal(msgspec.json.decode(line)["error"])
                yield line
        except ipc.NotRunning as problem:
            yield from self._rows_on_disk(problem)

    def _rows_on_disk(self, problem: ipc.NotRunning) -> Iterator[bytes]:
        why = f"Connect to the {self.config.text('mail_name')} queue manager: {problem}"
        try:
            lines = read_queue(self.queue_directory, long_queue_ids=self.long_queue_ids)
        except QueueError as unreadable:
            self.fatal(f"Queue report unavailable - mail system is down ({why}; {unreadable})")
        self.warn(f"Mail system is down -- accessing queue directly ({why})")
        yield from lines


def fatal(program: str, text: str) -> NoReturn:
    """Write why a command cannot go on, and end it."""
    print(f"{program}: fatal: {text}", file=sys.stderr)
    sys.exit(EX_UNAVAILABLE if program == "postqueue" else 1)
