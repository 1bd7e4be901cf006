"""Directories on disk: a new name is durable when its directory is synced (fsync(2))."""

from __future__ import annotations

import os


def sync_directory(path: str) -> None:
    """Write the entries of a directory to disk. Raises `OSError`."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
