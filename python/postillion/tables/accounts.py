"""The system's accounts as tables: `unix:passwd.byname` and `unix:group.byname` (passwd(5), group(5))."""

import grp
import pwd

from postillion.tables.table import TableTypeError

NAMES = ("passwd.byname", "group.byname")


class AccountsTable:
    """Users or groups by name; each lookup asks the system's name service."""

    owner: int | None = 0

    def __init__(self, name: str, which: str) -> None:
        """Open the table; raises `TableTypeError` for a name that is not in `NAMES`."""
        if which not in NAMES:
            raise TableTypeError(f'"{name}": unknown name; known are unix:{" and unix:".join(NAMES)}')
        self.name = name
        self._users = which == "passwd.byname"

    def refresh(self) -> None:
        """Do nothing: each lookup asks the name service."""

    def values(self) -> list[str]:
        """Return an empty list: the name service may not list its accounts."""
        return []

    def lookup(self, key: str) -> str | None:
        """Return the account's line with fields separated by colons; None without an account."""
        key = key.lower()
        if not key or "\0" in key:
            return None
        try:
            key.encode()
            if self._users:
                user = pwd.getpwnam(key)
                numbers = (str(user.pw_uid), str(user.pw_gid))
                return ":".join((user.pw_name, user.pw_passwd, *numbers, user.pw_gecos, user.pw_dir, user.pw_shell))
            group = grp.getgrnam(key)
            return ":".join((group.gr_name, group.gr_passwd or "", str(group.gr_gid), ",".join(group.gr_mem)))
        except (KeyError, UnicodeEncodeError):
            return None
