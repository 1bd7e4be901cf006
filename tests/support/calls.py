"""Kill a process at each of its system calls, one call a run, by strace's fault injection.

strace counts calls by thread, so it traces one thread at a time. The run is repeated for every thread, every system
call that changes files, and every K: the process gets SIGKILL as it enters the K-th such call of that thread.
"""

from __future__ import annotations

import contextlib
import multiprocessing.forkserver
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from support.mta import wait_for
from support.peers import absent, peer
from support.queue_operations import Observer, Promise, run_operation

Operation = Callable[[Path, Observer], None]
CALLS = (
    *("open", "openat", "creat", "write", "writev", "pwrite64", "pwritev", "pwritev2", "fdatasync", "fsync"),
    *("sync_file_range", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink"),
    *("unlinkat", "truncate", "ftruncate", "fallocate", "mkdir", "mkdirat", "rmdir", "flock", "chmod", "fchmod"),
    *("fchmodat", "chown", "fchown", "fchownat", "utimensat"),
)
"""System calls that change or lock files of the queue directory."""
TRACE = ",".join(f"?{call}" for call in CALLS)
"""The same for strace. The question mark suppresses the error on machines without the call."""
RUN_MAX_S = 60.0
TRACED = re.compile(r"^(\d+) +(\w+)\(", re.MULTILINE)


class KillPoint(NamedTuple):
    """The moment of the kill: the thread with this name enters its K-th call."""

    thread: str
    call: str
    k: int


def threads(pid: int) -> dict[str, int]:
    """Return the thread IDs of a process by thread name. The first thread is `main`."""
    found: dict[str, int] = {}

    def named() -> bool:
        names = {int(task.name): (task / "comm").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir()}
        # A new thread still has the name of its process.
        first = names.pop(pid)
        found.clear()
        found.update({name: tid for tid, name in names.items()}, main=pid)
        return first not in names.values()

    wait_for("every thread to have its name", named)
    return found


@contextlib.contextmanager
def strace(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run strace with `arguments` during the block. The block begins once strace is attached."""
    command = [peer("strace"), "-o", "/dev/null", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        line = tracer.stderr.readline()
        if "attached" not in line:
            tracer.wait(RUN_MAX_S)
            absent(f"strace cannot attach here: {line.strip()}")
        try:
            yield tracer
        finally:
            if tracer.poll() is None:
                tracer.send_signal(signal.SIGINT)


class Runner:
    """Runs operations, each in a new process that a clean server forks."""

    def __init__(self) -> None:
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(["support.queue_operations"])
        os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
        try:
            multiprocessing.forkserver.ensure_running()
        finally:
            del os.environ["PYTHONPATH"]

    def count_calls(self, operation: Operation, directory: Path) -> Counter[tuple[str, str]]:
        """Run an operation to its end; return the number of calls by thread and call, for its initial threads."""
        trace = directory.with_name(directory.name + ".trace")
        names: dict[int, str] = {}

        def trace_process(pid: int) -> contextlib.AbstractContextManager[object]:
            names.update((tid, name) for name, tid in threads(pid).items())
            return strace("-f", "-p", str(pid), "-o", str(trace), "-e", f"trace={TRACE}")

        ended, _ = self._run(operation, directory, trace_process)
        assert ended == 0
        calls = TRACED.findall(trace.read_text())
        return Counter((names[int(tid)], call) for tid, call in calls if int(tid) in names)

    def kill(self, operation: Operation, directory: Path, point: KillPoint) -> list[Promise] | None:
        """Run an operation, killed at `point`; return its promises so far. Return None when it ended before `point`."""

        def trace_process(pid: int) -> contextlib.AbstractContextManager[object]:
            inject = f"inject={point.call}:signal=KILL:when={point.k}"
            return strace("-p", str(threads(pid)[point.thread]), "-e", f"trace={point.call}", "-e", inject)

        ended, promises = self._run(operation, directory, trace_process)
        if ended == 0:
            return None
        assert ended == -signal.SIGKILL, f"exit status {ended} at {point}"
        return promises

    def _run(
        self,
        operation: Operation,
        directory: Path,
        trace_process: Callable[[int], contextlib.AbstractContextManager[object]],
    ) -> tuple[int, list[Promise]]:
        ours, theirs = self._processes.Pipe()
        process = self._processes.Process(target=run_operation, args=(operation, directory, theirs), daemon=True)
        process.start()
        theirs.close()
        assert ours.recv() is None
        assert process.pid is not None
        promises = []
        with trace_process(process.pid):
            ours.send(None)
            with contextlib.suppress(EOFError, ConnectionResetError):
                while True:
                    promises.append(ours.recv())
            process.join(RUN_MAX_S)
        assert process.exitcode is not None, f"still running after {RUN_MAX_S} s"
        return process.exitcode, promises
