"""The user and group that a delivery runs as.

A program that root started runs as mail_owner, the owner of the queue. Its effective user and group change for file
operations and change back afterwards; a command changes them permanently in the child process. A program of an
ordinary user delivers with that user's account only.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from postillion._core import accounts


class NoAnswerError(Exception):
    """The name service failed, so nobody knows whether there is such a user. `reason`: the system's text."""

    def __init__(self, user: str, reason: str) -> None:
        super().__init__(f"error looking up passwd info for {user}: {reason}")
        self.reason = reason


class NotPermittedError(Exception):
    """The program has no permission to become the account's user; the text gives the reason."""


class Account(NamedTuple):
    """A user of this system, with the fields that deliveries need."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str


ROOT = Account("root", 0, 0, "/", "/bin/sh")


def find_account(name: str) -> Account | None:
    """Return the user with this name; None when there is none. Raises `NoAnswerError`."""
    try:
        user = accounts.user(name)
    except UnicodeEncodeError:
        return None
    except OSError as problem:
        raise NoAnswerError(name, problem.strerror or str(problem)) from None
    return None if user is None else Account(*user)


def account_of(uid: int) -> Account | None:
    """Return the user with this uid; None when there is none. Raises `NoAnswerError`."""
    try:
        user = accounts.user_of(uid)
    except OverflowError:
        return None
    except OSError as problem:
        raise NoAnswerError(f"uid {uid}", problem.strerror or str(problem)) from None
    return None if user is None else Account(*user)


def unprivileged(default_privs: str) -> Account:
    """Return the account for commands and files without an owner (`default_privs`).

    Without root it is the program's own account. Raises `NotPermittedError` for an unknown name and for root, and
    `NoAnswerError`.
    """
    own = os.getuid()
    if own != 0:
        return account_of(own) or Account(str(own), own, os.getgid(), "/", "/bin/sh")
    account = find_account(default_privs)
    if account is None or account.uid == 0 or account.gid == 0:
        raise NotPermittedError(f'default_privs is not an ordinary user: "{default_privs}"')
    return account


@contextmanager
def acting_as(account: Account, gid: int | None = None) -> Iterator[None]:
    """Run the `with` block as the account's user, with its group or `gid` only. Blocks may nest.

    The block must not await: the rights apply to the whole process. Raises `NotPermittedError`.
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
    """Run the `with` block as root if root started the program; otherwise change nothing."""
    if os.getuid() != 0:
        yield
        return
    with acting_as(ROOT):
        yield


def rest_as(name: str) -> None:
    """Become the user `name` (mail_owner) outside of `acting_as` blocks; without root, change nothing.

    Raises `NotPermittedError` for an unknown user, and `NoAnswerError`.
    """
    if os.getuid() != 0:
        return
    account = find_account(name)
    if account is None:
        raise NotPermittedError(f'mail_owner is not a user: "{name}"')
    _become(account.uid, account.gid, None)


def _become(uid: int, gid: int, groups: list[int] | None) -> None:
    os.seteuid(0)
    os.setgroups([gid] if groups is None else groups)
    os.setegid(gid)
    os.seteuid(uid)


def check_permitted(account: Account) -> None:
    """Raise `NotPermittedError` unless the program is root or the account's user."""
    if os.getuid() not in (0, account.uid):
        raise NotPermittedError(f"cannot deliver as user {account.name}: the mail system is not run by root")
