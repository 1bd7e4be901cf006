"""The checker as a child process of master or of a command, with the rights and the environment of the programs.

At its start master waits for the checker. At a reload it continues its work: when `descriptor` is readable, it calls
`read`, until that returns True.
"""

import os
import select
import signal
import sys
import time

from postillion.config import Config

CHECK_MAX_S = 60.0
READ_OCTETS = 65_536


class Refusal(Exception):
    """A configuration that cannot be used: one line with the problem, its place and the fix."""


class Checking:
    """One run of the checker. `until`: its deadline on the monotonic clock."""

    def __init__(self, config: Config, environment: dict[str, str]) -> None:
        """Start the checker. Raises `OSError` when the system cannot start a process."""
        ours, theirs = os.pipe()
        try:
            self.pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-m", "postillion.checker", "-c", config.directory],
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
        os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)

    def result(self) -> list[str]:
        """Return the warnings about a usable configuration. Raises `Refusal` for an unusable one."""
        lines = self._said.decode("utf-8", "surrogateescape").splitlines()
        errors = [line.removeprefix("error ") for line in lines if line.startswith("error ")]
        if errors:
            raise Refusal(errors[0])
        if lines[-1:] != ["ok"]:
            raise Refusal("the checker gave no answer: run python -m postillion.checker to see why")
        return [line.removeprefix("warning ") for line in lines if line.startswith("warning ")]

    def wait(self) -> list[str]:
        """Return the warnings when the checker has ended. Raises `Refusal`."""
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
