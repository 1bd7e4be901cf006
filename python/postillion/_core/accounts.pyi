"""The system's accounts, by its name service (nsswitch.conf(5)).

A name service that asks servers may need long: a call blocks its thread, and other threads of Python go on.
"""

__all__ = ["line", "user", "user_of"]

def user(name: str) -> tuple[str, int, int, str, str] | None:
    """Return name, uid, gid, home directory and shell of the user with this name; None when there is none.

    Raises `OSError` when the name service fails.
    """

def user_of(uid: int) -> tuple[str, int, int, str, str] | None:
    """Return the user with this number, as `user`. Raises `OSError`, and `OverflowError` for a number without users."""

def line(table: str, key: str) -> str | None:
    """Return an account's line of passwd(5) or group(5); None when there is none. Raises `OSError`.

    `table`: passwd.byname or group.byname; raises `ValueError` for another.
    """
