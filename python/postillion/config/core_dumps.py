"""Core dumps: a process that has a password or a private key leaves none, so that neither gets into a file that way.

Two marks of the process forbid them, because each one has a gap.

- It is not dumpable (PR_SET_DUMPABLE, prctl(2)): neither a file nor a program that core_pattern names gets a dump
  (core(5)). A change of user or group sets the mark to `fs.suid_dumpable`, which is not 0 on all machines.
- RLIMIT_CORE is 1 octet. No core file is that small. For a program in core_pattern, Linux ignores a limit of 0, and
  takes 1 for "no dump" (fs/coredump.c), but core(5) does not promise this.

A process that is not dumpable can be traced by root alone. Its files in /proc belong to root, but everybody may read
its name, state and limits there. A new program (execve(2)) is dumpable again, and inherits the limit.
"""

from __future__ import annotations

LIMIT_OCTETS = 1
PR_SET_DUMPABLE = 4
"""Number of the operation in linux/prctl.h."""
_forbidden = False


def forbid() -> None:
    """Let this process leave no core dump from now on."""
    global _forbidden
    if not _forbidden:
        _forbidden = True
        _set_limit()
        _set_not_dumpable()


def renew() -> None:
    """Keep a process not dumpable whose user or group has changed, if it may leave no core dump."""
    if _forbidden:
        _set_not_dumpable()


def _set_limit() -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    try:
        # Children may raise their own limit again, up to the hard one.
        resource.setrlimit(resource.RLIMIT_CORE, (LIMIT_OCTETS, LIMIT_OCTETS if hard == 0 else hard))
    except (OSError, ValueError):
        # Only root may raise a hard limit of 0. It stops files; pipes are stopped by the other mark.
        pass


def _set_not_dumpable() -> None:
    import ctypes

    # It cannot fail with these arguments.
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, *(ctypes.c_ulong(0) for _ in range(4)))
