"""Answers to `reload`: whether master took the new files, or why it refused them.

A command that asks makes a fifo `pid/reload.PID` in the queue, then signals master. Master lists the fifos before it
reads the files, and writes its answer into each of them afterwards. A fifo that nobody reads is removed. Only master's
user can make one.
"""

import contextlib
import os
import select
import stat

PREFIX = "reload."
DIRECTORY = "pid"
OK = "ok"
ASKED_MAX = 100
"""Maximum number of commands that get an answer to one reload."""
ANSWER_MAX_OCTETS = 4000
"""Less than PIPE_BUF: an answer is written at once or not at all."""


class Question:
    """A command's fifo. Its directory must exist."""

    def __init__(self, queue: str) -> None:
        """Make the fifo. Raises `OSError`."""
        self._path = os.path.join(queue, DIRECTORY, f"{PREFIX}{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        os.mkfifo(self._path, 0o600)
        self._fifo = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def wait(self, master: int, timeout_s: float) -> str | None:
        """Return the answer, `ok` or the reason of a refusal; None when master ended or the timeout passed."""
        process = os.pidfd_open(master)
        try:
            poll = select.poll()
            poll.register(self._fifo, select.POLLIN)
            poll.register(process, select.POLLIN)
            ready = {descriptor for descriptor, _ in poll.poll(int(timeout_s * 1000))}
        finally:
            os.close(process)
        if self._fifo not in ready:
            return None
        return os.read(self._fifo, ANSWER_MAX_OCTETS).decode("utf-8", "surrogateescape").rstrip("\n") or None

    def close(self) -> None:
        """Remove the fifo."""
        os.close(self._fifo)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)


def asked(queue: str) -> list[str]:
    """Return the fifos of the commands that wait for the next answer."""
    directory = os.path.join(queue, DIRECTORY)
    names = sorted(name for name in os.listdir(directory) if name.startswith(PREFIX))
    return [os.path.join(directory, name) for name in names[:ASKED_MAX]]


def answer(fifos: list[str], text: str) -> None:
    """Write an answer into each fifo; one that nobody reads is removed."""
    octets = text.encode("utf-8", "surrogateescape")[: ANSWER_MAX_OCTETS - 1] + b"\n"
    for path in fifos:
        try:
            fifo = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(path)
            continue
        try:
            if stat.S_ISFIFO(os.fstat(fifo).st_mode):
                with contextlib.suppress(OSError):
                    os.write(fifo, octets)
        finally:
            os.close(fifo)
