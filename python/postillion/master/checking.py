"""The checker as a child process of master or of a command, with the rights and the environment of the programs.

At its start master waits for the checker. At a reload it continues its work: when `descriptor` is readable, it calls
`read`, until that returns True.
"""

import json
import os
import select
import signal
import sys
import time
from collections.abc import Sequence

from postillion.config import Config, ConfigError
from postillion.master import directories, listeners
from postillion.master.plan import Plan
from postillion.master.service import environment, send

CHECK_MAX_S = 60.0
READ_OCTETS = 65_536


def check(directory: str) -> tuple[list[str], list[str]]:
    """Return the warnings about a configuration directory, and further lines. Raises `ConfigError` for an unusable one.

    A start also creates directories and binds sockets. The causes of an error there are examined without a change.
    """
    config = Config.load(directory)
    checking = Checking(config, environment(config))
    warnings = checking.wait()
    plan = Plan(directory)
    directories.examine(plan.config)
    for entry, addresses in plan.services:
        listeners.examine(entry, addresses)
    return warnings, checking.notes()


class Checking:
    """One run of the checker. `until`: its deadline on the monotonic clock."""

    def __init__(self, config: Config, environment: dict[str, str], words: Sequence[str] = ()) -> None:
        """Start the checker. `words`: another module than the checker's, with its arguments.

        Raises `OSError` when the system cannot start a process.
        """
        ours, theirs = os.pipe()
        words = words or ("postillion.checker", "-c", config.directory)
        try:
            self.pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-m", *words],
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, theirs, 1),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                ],
                setsigmask=(),
                setsigdef=(
                    signal.SIGPIPE,
                    signal.SIGHUP,
                    signal.SIGINT,
                    signal.SIGTERM,
                    signal.SIGQUIT,
                    signal.SIGCHLD,
                ),
            )
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self.directory = config.directory
        self.descriptor = ours
        self.until = time.monotonic() + CHECK_MAX_S
        self._said = b""

    def read(self) -> bool:
        """Read more of the answer; return whether it is complete."""
        octets = os.read(self.descriptor, READ_OCTETS)
        self._said += octets
        return not octets

    def kill(self) -> None:
        """Kill the checker and drop its answer."""
        self._said = b""
        send(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)

    def result(self) -> list[str]:
        """Return the warnings about a usable configuration. Raises `ConfigError` for an unusable one."""
        lines = self._said.decode("utf-8", "surrogateescape").rstrip("\n").split("\n")
        if lines and lines[-1].startswith("error "):
            raise ConfigError(*json.loads(lines[-1].removeprefix("error ")))
        if lines[-1:] != ["ok"]:
            raise ConfigError(self.directory, None, "the checker gave no answer", "run python -m postillion.checker")
        return self._lines("warning ")

    def notes(self) -> list[str]:
        """Return the lines that are neither errors nor warnings."""
        return self._lines("note ")

    def _lines(self, kind: str) -> list[str]:
        lines = self._said.decode("utf-8", "surrogateescape").split("\n")
        return [line.removeprefix(kind) for line in lines if line.startswith(kind)]

    def wait(self) -> list[str]:
        """Return the warnings when the checker has ended. Raises `ConfigError`."""
        done = False
        while not done:
            readable, _, _ = select.select([self.descriptor], [], [], max(0.0, self.until - time.monotonic()))
            if not readable:
                self.kill()
                break
            done = self.read()
        self.close()
        os.waitpid(self.pid, 0)
        return self.result()
