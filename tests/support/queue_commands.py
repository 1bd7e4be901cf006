"""Shared code of the tests of the queue commands."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from support.queue_files import MAIN_CF, Message, write_segment

USEC = (int(time.time()) - 60) * 1_000_000 + 123_456
"""Arrival time: a minute ago. Much older mail would bounce (maximal_queue_lifetime)."""
CONTENT = b"Subject: x\r\nX-A: b\r\n\r\n..dot\r\nbody\r\n"


def run(module: Any, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command on the queue and configuration in the current directory."""
    command = [sys.executable, "-m", module.__name__, "-c", ".", *argv]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)


async def command(module: Any, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command in a thread, while the event loop runs."""
    return await asyncio.to_thread(run, module, *argv, stdin=stdin)


def queue_of_three(directory: Path, version: int = 2) -> list[Message]:
    """Write a configuration and a queue of three messages, without a queue manager, into `directory`."""
    (directory / "main.cf").write_text(MAIN_CF.format(directory=directory))
    messages = [
        Message(USEC + n, [f"r{n}@example.net", "other@example.edu"], content=CONTENT, attributes={"client_name": "h"})
        for n in range(3)
    ]
    write_segment(directory, 1, messages, version)
    return messages


def digest(directory: Path) -> str:
    """Return a hash of everything below a directory: names, modes, times, content."""
    found = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        stat = path.lstat()
        found.update(f"{path} {stat.st_mode:o} {stat.st_mtime_ns} {stat.st_size}\n".encode())
        if path.is_file():
            found.update(path.read_bytes())
    return found.hexdigest()
