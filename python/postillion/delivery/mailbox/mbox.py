"""Delivery to a file in mbox form: locked, appended, synced; cut back to its old length when anything fails.

Locks are tried until `deliver_lock_attempts` is used up, with nothing held while waiting. A name that is a symbolic
link, a file with a second name, and anything but a regular file is refused: a mailbox in a directory that others can
write to must lead nowhere else.
"""

import asyncio
import errno
import os
import stat
from contextlib import suppress
from typing import NamedTuple

from postillion.delivery.account import ROOT, Account, acting_as
from postillion.delivery.local.verdict import Verdict, bounced, deferred, from_errno, sent
from postillion.delivery.mailbox.lock import Busy, dotlock, lock
from postillion.delivery.mailbox.maildir import write_all

MODE_FILE = 0o600
EXECUTABLE = 0o111
NULL_DEVICE = os.makedev(1, 3)


class MboxSettings(NamedTuple):
    """The parameters that bear on files in mbox form, under their own names."""

    mailbox_delivery_lock: tuple[str, ...]
    deliver_lock_attempts: int
    deliver_lock_delay_s: float
    stale_lock_time_s: float
    mailbox_size_limit: int
    strict_mailbox_ownership: bool


class Place(NamedTuple):
    """Where to append, and with whose rights.

    `account` writes. `opener`, in the group `opener_gid`, opens, makes and locks: root in a mail spool directory where
    users can make no files. `user`: whose mailbox it is; None for a file that an alias or a .forward file names.
    """

    path: str
    account: Account
    opener: Account
    opener_gid: int
    user: str | None


class Refused(Exception):
    """The file is nothing to append mail to; holds the verdict."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.text)
        self.verdict = verdict


async def deliver(place: Place, message: tuple[bytes, bytes], settings: MboxSettings) -> Verdict:
    """Return what became of the message (From_ line and headers, quoted text) in the file.

    Waits at most `deliver_lock_attempts` times `deliver_lock_delay_s`.
    """
    problem = deferred("4.2.0", f"{_subject(place)}no attempt to lock it was allowed")
    for attempt in range(settings.deliver_lock_attempts):
        if attempt:
            await asyncio.sleep(settings.deliver_lock_delay_s)
        try:
            _append(place, message, settings)
        except Busy as busy:
            problem = deferred("4.2.0", f"{_subject(place)}{busy}")
        except Refused as refused:
            return refused.verdict._replace(text=_subject(place) + refused.verdict.text)
        except OSError as error:
            about = f"{error.filename}: " if error.filename not in (None, place.path) else ""
            return from_errno(error, f"{_subject(place)}{about}{error.strerror}")
        else:
            return sent("delivered to mailbox" if place.user else f"delivered to file: {place.path}")
    return problem


def spool_opener(directory: str, account: Account) -> tuple[Account, int]:
    """Return with whose rights a mailbox of `account` in the spool directory is opened and locked.

    World-writable: the user's. Group-writable: the user's in the directory's group. Otherwise root's.
    """
    try:
        status = os.stat(directory)
    except OSError:
        return account, account.gid
    if os.getuid() != 0 or status.st_mode & stat.S_IWOTH:
        return account, account.gid
    if status.st_mode & stat.S_IWGRP:
        return account, status.st_gid
    return ROOT, 0


def _append(place: Place, message: tuple[bytes, bytes], settings: MboxSettings) -> None:
    """Open, lock, append and unlock without a pause. Raises `Busy`, `Refused`, `OSError`."""
    styles, stale_s = settings.mailbox_delivery_lock, settings.stale_lock_time_s
    with (
        acting_as(place.opener, place.opener_gid),
        dotlock(place.path, styles, stale_s, optional=place.user is None),
    ):
        file = _open(place)
        try:
            status = os.fstat(file)
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == NULL_DEVICE:
                return
            _check(place, status, settings)
            lock(file, styles)
            # A reader that replaces mailboxes may have done so before the lock was ours.
            if os.fstat(file).st_nlink != 1:
                raise Busy("target file status changed unexpectedly")
            with acting_as(place.account):
                _write(file, message, settings)
        finally:
            os.close(file)


def _open(place: Place) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(place.path, flags)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Refused(bounced("5.2.0", f"destination {place.path} is a symbolic link")) from error
        if error.errno == errno.ENXIO or error.errno == errno.EISDIR:
            raise Refused(bounced("5.2.0", f"destination {place.path} is not a regular file")) from error
        raise
    try:
        file = os.open(place.path, flags | os.O_CREAT | os.O_EXCL, MODE_FILE)
    except FileExistsError as error:
        raise Busy("target file status changed unexpectedly") from error
    try:
        if place.opener.uid != place.account.uid:
            os.fchown(file, place.account.uid, place.account.gid)
        holder = os.open(os.path.dirname(place.path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(holder)
        finally:
            os.close(holder)
    except OSError:
        os.close(file)
        raise
    return file


def _check(place: Place, status: os.stat_result, settings: MboxSettings) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Refused(bounced("5.2.0", f"destination {place.path} is not a regular file"))
    if status.st_nlink != 1:
        raise Refused(bounced("5.2.0", f"destination {place.path} has {status.st_nlink} hard links"))
    if place.user is None:
        if status.st_mode & EXECUTABLE:
            raise Refused(bounced("5.7.1", "file is executable"))
    elif settings.strict_mailbox_ownership and status.st_uid != place.account.uid:
        raise Refused(deferred("4.2.0", f"destination {place.path} is not owned by recipient"))


def _write(file: int, message: tuple[bytes, bytes], settings: MboxSettings) -> None:
    before = os.lseek(file, 0, os.SEEK_END)
    limit = settings.mailbox_size_limit
    if limit and before + sum(map(len, message)) > limit:
        raise Refused(bounced("5.2.2", f"the mailbox would exceed mailbox_size_limit ({limit} octets)"))
    try:
        write_all(file, *message)
        os.fsync(file)
    except OSError:
        # Half a message would become part of the one before it.
        with suppress(OSError):
            os.ftruncate(file, before)
            os.fsync(file)
        raise


def _subject(place: Place) -> str:
    if place.user is None:
        return f"cannot append message to file {place.path}: "
    return f"cannot update mailbox {place.path} for user {place.user}. "
