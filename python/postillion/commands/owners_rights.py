"""The rights of a command that root starts, on files of another user."""

from __future__ import annotations

import os
import stat


class OwnersRights:
    """Give root the rights of the first file's owner for a while, so that the owner's links reach no other files.

    `keeps`: root keeps its rights.
    """

    def __init__(self, *paths: str, keeps: bool = False) -> None:
        statuses = (os.stat(path) for path in paths if os.path.exists(path))
        status = next((status for status in statuses if stat.S_ISREG(status.st_mode)), None)
        keeps = keeps or os.geteuid() != 0 or status is None or status.st_uid == 0
        self._owner = None if keeps else status

    def __enter__(self) -> None:
        if self._owner is not None:
            self._own = os.getgroups(), os.getegid()
            os.setgroups([self._owner.st_gid])
            os.setegid(self._owner.st_gid)
            os.seteuid(self._owner.st_uid)

    def __exit__(self, *_: object) -> None:
        if self._owner is not None:
            groups, gid = self._own
            os.seteuid(0)
            os.setegid(gid)
            os.setgroups(groups)
