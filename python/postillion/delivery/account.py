"""Whose rights a delivery is made with.

Started by root, the program rests as mail_owner, whose queue it reads. The effective user and group change for each
stretch of file work and come back after it; commands change for good in the child. Started by an ordinary user, the
program has one account, its own, and delivers with no other.
"""

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class NotPermittedError(Exception):
    """The program isn't root and can't become the account's user; the text says so."""


class Account(NamedTuple):
    """A user of this system, as far as delivery is concerned."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str


ROOT = Account("root", 0, 0, "/", "/bin/sh")


def find_account(name: str) -> Account | None:
    """Return the user with this name, None when there is none."""
    if not name or "\0" in name:
        return None
    try:
        user = pwd.getpwnam(name)
    except (KeyError, UnicodeEncodeError):
        return None
    return Account(user.pw_name, user.pw_uid, user.pw_gid, user.pw_dir, user.pw_shell)


def account_of(uid: int) -> Account | None:
    """Return the user with this number, None when there is none."""
    try:
        user = pwd.getpwuid(uid)
    except (KeyError, OverflowError):
        return None
    return Account(user.pw_name, user.pw_uid, user.pw_gid, user.pw_dir, user.pw_shell)


def unprivileged(default_privs: str) -> Account:
    """Return the account for commands and files that no user answers for (`default_privs`).

    When the program isn't root, that is the program's own account. Raises `NotPermittedError` for a name that doesn't
    exist or is root's.
    """
    own = os.getuid()
    if own != 0:
        return account_of(own) or Account(str(own), own, os.getgid(), "/", "/bin/sh")
    account = find_account(default_privs)
    if account is None or account.uid == 0 or account.gid == 0:
        raise NotPermittedError(f'default_privs names no ordinary user: "{default_privs}"')
    return account


@contextmanager
def acting_as(account: Account, gid: int | None = None) -> Iterator[None]:
    """Do the work of the `with` block as the account's user, in its group alone (or in `gid`). Blocks may nest.

    Nothing may be awaited inside: the whole process has these rights meanwhile. Raises `NotPermittedError`.
    """
    if os.getuid() != 0:
        check_permitted(account)
        yield
        return
    uid_before, gid_before, groups_before = os.geteuid(), os.getegid(), os.getgroups()
    _become(account.uid, account.gid if gid is None else gid, None)
    try:
        yield
    finally:
        _become(uid_before, gid_before, groups_before)


@contextmanager
def privileged() -> Iterator[None]:
    """Do the work of the `with` block as root, where root started the program; as ever, where it didn't."""
    if os.getuid() != 0:
        yield
        return
    with acting_as(ROOT):
        yield


def rest_as(name: str) -> None:
    """Become the user `name` (mail_owner) whenever nothing else is asked for. Does nothing unless root started us.

    Raises `NotPermittedError` when there is no such user.
    """
    if os.getuid() != 0:
        return
    account = find_account(name)
    if account is None:
        raise NotPermittedError(f'mail_owner names no user: "{name}"')
    _become(account.uid, account.gid, None)


def _become(uid: int, gid: int, groups: list[int] | None) -> None:
    os.seteuid(0)
    os.setgroups([gid] if groups is None else groups)
    os.setegid(gid)
    os.seteuid(uid)


def check_permitted(account: Account) -> None:
    """Raises `NotPermittedError` when the program is not root and not the account's user either."""
    if os.getuid() not in (0, account.uid):
        raise NotPermittedError(f"cannot deliver as user {account.name}: the mail system is not run by root")
