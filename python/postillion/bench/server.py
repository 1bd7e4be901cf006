"""A server on this machine: its processes, their CPU time and their sync calls (proc(5), strace(1))."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Final

TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
SYNC_CALLS: Final = ("fsync", "fdatasync", "sync_file_range", "syncfs", "sync")
ATTACH_MAX_S: Final = 10.0


def listener_pid(port: int) -> int | None:
    """Return the oldest process that listens on a TCP port of this machine; None when none is visible."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    holders = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if any(os.readlink(link) in inodes for link in (entry / "fd").iterdir()):
                holders.append((_started(int(entry.name)), int(entry.name)))
        except OSError:
            continue
    return min(holders)[1] if holders else None


def _fields(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _started(pid: int) -> int:
    return int(_fields(pid)[19])


def family(master: int) -> dict[int, float]:
    """Return a process and its descendants with the CPU seconds of each, including those of reaped children."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = _fields(int(entry.name))
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
            used[int(entry.name)] = sum(map(int, fields[11:15])) * TICK_S
    tree = {master} & used.keys()
    grown = bool(tree)
    while grown:
        found = {pid for pid, parent in parents.items() if parent in tree} - tree
        tree |= found
        grown = bool(found)
    return {pid: used[pid] for pid in tree}


def cpu_seconds(master: int) -> float:
    """Return the CPU seconds of a process and its descendants so far."""
    return sum(family(master).values())


class SyncCounter:
    """Counts the sync calls of a server's processes inside a `with` block. Raises `OSError` without strace or root.

    strace slows the server down, so rates inside the block are not valid.
    """

    def __init__(self, master: int) -> None:
        self._master = master
        self.calls: dict[str, int] = {}

    def __enter__(self) -> SyncCounter:
        strace = shutil.which("strace")
        if strace is None:
            raise OSError("strace is not installed")
        self._output = tempfile.NamedTemporaryFile(prefix="bench-syncs-")
        pids = [word for pid in family(self._master) for word in ("-p", str(pid))]
        calls = "trace=" + ",".join(f"?{call}" for call in SYNC_CALLS)
        command = [strace, "-f", "-c", "-U", "calls,name", "-e", calls, "-o", self._output.name, *pids]
        self._strace = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        # strace prints a line for each process that it attached to.
        assert self._strace.stderr is not None
        waiting = len(pids) // 2
        while waiting:
            line = self._strace.stderr.readline()
            if not line:
                raise OSError(f"strace could not attach to the server: it needs root, and status {self._strace.wait()}")
            waiting -= "attached" in line
        return self

    def __exit__(self, *_: object) -> None:
        self._strace.send_signal(signal.SIGINT)
        self._strace.communicate()
        for line in Path(self._output.name).read_text().splitlines():
            words = line.split()
            if len(words) == 2 and words[0].isdigit() and words[1] in SYNC_CALLS:
                self.calls[words[1]] = int(words[0])
        self._output.close()


def durability(syncs: int, messages: int) -> str:
    """Return a description of the server's durability, from its number of syncs."""
    if messages == 0:
        return "unknown: no message was accepted"
    if syncs == 0:
        return "no syncs: a power failure may lose accepted messages"
    each = syncs / messages
    if each < 1:
        return f"synced, {1 / each:.1f} messages per sync (group commit)"
    return f"synced, {each:.1f} syncs per message"
