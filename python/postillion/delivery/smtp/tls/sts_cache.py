"""Policies of MTA-STS on disk, so that they outlast a restart (RFC 8461 §5.1).

One file for each domain, named by a digest of the domain's name, and replaced as a whole. A file that cannot be read
counts as missing: the policy is fetched again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from postillion.delivery.smtp.tls.sts_policy import POLICY_MAX_OCTETS, StsPolicy, parse

ENTRIES_MAX: Final = 10_000
"""Maximum number of policies on disk; those fetched longest ago are dropped first."""
FILE_MAX_OCTETS: Final = 6 * POLICY_MAX_OCTETS + 4096
"""Maximum size of a file: JSON writes an octet of a policy with at most six."""
FORMAT: Final = 1
"""The form of the files; another number is another release's."""
SUFFIX: Final = ".json"


@dataclass(frozen=True, slots=True)
class Cached:
    """A policy, the id of its record, and when it was fetched (seconds since 1970)."""

    policy: StsPolicy
    id: str
    fetched: float

    def left_s(self, wall_now: float) -> float:
        """Return how many seconds the policy still holds; negative behind its end."""
        # A policy from the future was fetched before the clock was set back.
        return self.policy.max_age_s - max(0.0, wall_now - self.fetched)


class StsCache:
    """The cache in a directory, which is made at the first write. `warn`: gets the problems of the disk.

    `entries_max`: with 0 nothing is written.
    """

    def __init__(self, directory: Path, warn: Callable[[str], None], entries_max: int = ENTRIES_MAX) -> None:
        self._directory = directory
        self._warn = warn
        self._entries_max = entries_max

    def load(self, domain: str, wall_now: float) -> Cached | None:
        """Return the policy of a domain; None without one that holds."""
        try:
            with self._file(domain).open("rb") as file:
                cached = _decoded(file.read(FILE_MAX_OCTETS + 1), domain)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as problem:
            self._warn(f"MTA-STS policy of {domain} in {self._directory}: {problem}")
            return None
        return cached if cached.left_s(wall_now) > 0 else None

    def store(self, domain: str, cached: Cached) -> None:
        """Replace the policy of a domain. A problem of the disk is a warning: memory still has the policy."""
        if not self._entries_max:
            return
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            self._make_room()
            handle, name = tempfile.mkstemp(prefix=".new-", dir=self._directory)
            try:
                with open(handle, "wb") as file:
                    file.write(_encoded(domain, cached))
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(name, self._file(domain))
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name)
                raise
        except OSError as problem:
            self._warn(f"MTA-STS policy of {domain} cannot be written in {self._directory}: {problem.strerror}")

    def _file(self, domain: str) -> Path:
        return self._directory / (hashlib.sha256(domain.encode()).hexdigest() + SUFFIX)

    def _make_room(self) -> None:
        """Drop the oldest files when there is no place for one more."""
        files: list[tuple[float, str]] = []
        with os.scandir(self._directory) as entries:
            for entry in entries:
                # Another process may drop a file at the same time.
                with contextlib.suppress(FileNotFoundError):
                    files.append((entry.stat(follow_symlinks=False).st_mtime, entry.path))
        surplus = len(files) - self._entries_max + 1
        if surplus > 0:
            for _, path in sorted(files)[: surplus + self._entries_max // 100]:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)


def _encoded(domain: str, cached: Cached) -> bytes:
    lines = list(cached.policy.lines)
    entry = {"format": FORMAT, "domain": domain, "id": cached.id, "fetched": cached.fetched, "policy": lines}
    return json.dumps(entry).encode()


def _decoded(octets: bytes, domain: str) -> Cached:
    """Return the policy in a file. Raises `ValueError` and `RecursionError`."""
    if len(octets) > FILE_MAX_OCTETS:
        raise ValueError(f"the file has more than {FILE_MAX_OCTETS} octets")
    entry = json.loads(octets)
    match entry:
        case {"format": 1, "domain": str(name), "id": str(identifier), "fetched": int() | float() as fetched}:
            lines = entry.get("policy")
            if name != domain or not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
                raise ValueError("the file belongs to no policy of this domain")
            if not 0 <= fetched < 2**53:
                raise ValueError("the time of the policy is out of range")
            return Cached(parse("\n".join(lines).encode()), identifier, float(fetched))
        case _:
            raise ValueError("the file has another format")
