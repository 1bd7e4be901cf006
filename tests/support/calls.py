"""Killing a process at each system call of its own choice, one run a call, by strace's injection.

strace counts calls by thread, so each thread is watched by itself: the run is repeated for every thread, every system
call that changes files, and every K, and the process gets SIGKILL as it enters the K-th such call of that thread.
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
from support.queue_acts import Said, Stage, perform

Act = Callable[[Path, Stage], None]
CALLS = (
    *("open", "openat", "creat", "write", "writev", "pwrite64", "pwritev", "pwritev2", "fdatasync", "fsync"),
    *("sync_file_range", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink"),
    *("unlinkat", "truncate", "ftruncate", "fallocate", "mkdir", "mkdirat", "rmdir", "flock", "chmod", "fchmod"),
    *("fchmodat", "chown", "fchown", "fchownat", "utimensat"),
)
"""System calls that change the queue directory, or lock a part of it."""
TRACE = ",".join(f"?{call}" for call in CALLS)
"""The same for strace; a question mark: no error on machines that lack the call."""
RUN_MAX_S = 60.0
TRACED = re.compile(r"^(\d+) +(\w+)\(", re.MULTILINE)


class Place(NamedTuple):
    """Where a process is killed: as the thread of this name enters its K-th call."""

    thread: str
    call: str
    k: int


def threads(pid: int) -> dict[str, int]:
    """Return the threads of a process by name; the first one is `main`."""
    found: dict[str, int] = {}

    def named() -> bool:
        names = {int(task.name): (task / "comm").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir()}
        # A thread that has just begun is still called as its process is.
        first = names.pop(pid)
        found.clear()
        found.update({name: tid for tid, name in names.items()}, main=pid)
        return first not in names.values()

    wait_for("every thread to have its name", named)
    return found


@contextlib.contextmanager
def strace(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run strace on what `arguments` name while the block lasts; the block begins when it is attached."""
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


class Theatre:
    """Runs acts, each in a fresh process that a clean server forks."""

    def __init__(self) -> None:
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(["support.queue_acts"])
        os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
        try:
            multiprocessing.forkserver.ensure_running()
        finally:
            del os.environ["PYTHONPATH"]

    def rehearse(self, act: Act, directory: Path) -> Counter[tuple[str, str]]:
        """Run an act to its end; return how often each thread that it begins with makes each call."""
        trace = directory.with_name(directory.name + ".trace")
        names: dict[int, str] = {}

        def watch(pid: int) -> contextlib.AbstractContextManager[object]:
            names.update((tid, name) for name, tid in threads(pid).items())
            return strace("-f", "-p", str(pid), "-o", str(trace), "-e", f"trace={TRACE}")

        ended, _ = self._run(act, directory, watch)
        assert ended == 0
        calls = TRACED.findall(trace.read_text())
        return Counter((names[int(tid)], call) for tid, call in calls if int(tid) in names)

    def kill(self, act: Act, directory: Path, place: Place) -> list[Said] | None:
        """Run an act, killed at `place`; return what it had said, None when it came to its end."""

        def watch(pid: int) -> contextlib.AbstractContextManager[object]:
            inject = f"inject={place.call}:signal=KILL:when={place.k}"
            return strace("-p", str(threads(pid)[place.thread]), "-e", f"trace={place.call}", "-e", inject)

        ended, said = self._run(act, directory, watch)
        if ended == 0:
            return None
        assert ended == -signal.SIGKILL, f"exit status {ended} at {place}"
        return said

    def _run(
        self, act: Act, directory: Path, watch: Callable[[int], contextlib.AbstractContextManager[object]]
    ) -> tuple[int, list[Said]]:
        ours, theirs = self._processes.Pipe()
        process = self._processes.Process(target=perform, args=(act, directory, theirs), daemon=True)
        process.start()
        theirs.close()
        assert ours.recv() is None
        assert process.pid is not None
        said = []
        with watch(process.pid):
            ours.send(None)
            with contextlib.suppress(EOFError, ConnectionResetError):
                while True:
                    said.append(ours.recv())
            process.join(RUN_MAX_S)
        assert process.exitcode is not None, f"still running after {RUN_MAX_S} s"
        return process.exitcode, said
