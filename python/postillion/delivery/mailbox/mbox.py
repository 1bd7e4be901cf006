"""Delivery to a file in mbox format: lock, append, sync; a failure truncates the file to its old length.

Locks are tried `deliver_lock_attempts` times, and none is held during the wait. Symbolic links, files with several
hard links and files that are not regular are refused: in a directory that others can write to, such a mailbox could
lead to another file.
"""

import asyncio
import errno
import os
import stat
from contextlib import suppress
from typing import NamedTuple

from postillion.delivery.account import ROOT, Account, acting_as
from postillion.delivery.mailbox.lock import Busy, dotlock, lock
from postillion.delivery.mailbox.maildir import write_all
from postillion.delivery.verdict import Verdict, bounced, deferred, from_errno, sent

MODE_FILE = 0o600
EXECUTABLE = 0o111
NULL_DEVICE = os.makedev(1, 3)


class MboxSettings(NamedTuple):
    """The parameters of mbox files, under their own names."""

    mailbox_delivery_lock: tuple[str, ...]
    deliver_lock_attempts: int
    deliver_lock_delay_s: float
    stale_lock_time_s: float
    mailbox_size_limit: int
    strict_mailbox_ownership: bool


class MailboxFile(NamedTuple):
    """A file to append to, with the accounts that access it.

    `account` writes. `opener`, in the group `opener_gid`, opens, creates and locks: root in a mail spool directory
    where users cannot create files. `user`: the owner of the mailbox; None for a file in an alias or a .forward file.
    """

    path: str
    account: Account
    opener: Account
    opener_gid: int
    user: str | None


class Refused(Exception):
    """A file that does not accept mail; holds the verdict."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.text)
        self.verdict = verdict


async def deliver(mailbox: MailboxFile, message: tuple[bytes, bytes], settings: MboxSettings) -> Verdict:
    """Append the message (From_ line and headers, quoted text) to the file, and return the verdict.

    Waits `deliver_lock_attempts` times `deliver_lock_delay_s` at most.
    """
    problem = deferred("4.2.0", f"{_subject(mailbox)}deliver_lock_attempts allows no attempt")
    for attempt in range(settings.deliver_lock_attempts):
        if attempt:
            await asyncio.sleep(settings.deliver_lock_delay_s)
        try:
            _append(mailbox, message, settings)
        except Busy as busy:
            problem = deferred("4.2.0", f"{_subject(mailbox)}{busy}")
        except Refused as refused:
            return refused.verdict._replace(text=_subject(mailbox) + refused.verdict.text)
        except OSError as error:
            about = f"{error.filename}: " if error.filename not in (None, mailbox.path) else ""
            return from_errno(error, f"{_subject(mailbox)}{about}{error.strerror}")
        else:
            return sent("delivered to mailbox" if mailbox.user else f"delivered to file: {mailbox.path}")
    return problem


def spool_opener(directory: str, account: Account) -> tuple[Account, int]:
    """Return the account and group that open and lock a mailbox of `account` in the spool directory.

    World-writable directory: the user. Group-writable: the user with the directory's group. Otherwise root.
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


def _append(mailbox: MailboxFile, message: tuple[bytes, bytes], settings: MboxSettings) -> None:
    """Open, lock, append and unlock without waiting. Raises `Busy`, `Refused`, `OSError`."""
    styles, stale_s = settings.mailbox_delivery_lock, settings.stale_lock_time_s
    with (
        acting_as(mailbox.opener, mailbox.opener_gid),
        dotlock(mailbox.path, styles, stale_s, optional=mailbox.user is None),
    ):
        file = _open(mailbox)
        try:
            status = os.fstat(file)
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == NULL_DEVICE:
                return
            _check(mailbox, status, settings)
            lock(file, styles)
            # A mail reader may have replaced the file before we got the lock.
            if os.fstat(file).st_nlink != 1:
                raise Busy("target file status changed unexpectedly")
            with acting_as(mailbox.account):
                _write(file, message, settings)
        finally:
            os.close(file)


def _open(mailbox: MailboxFile) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(mailbox.path, flags)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Refused(bounced("5.2.0", f"destination {mailbox.path} is a symbolic link")) from error
        if error.errno == errno.ENXIO or error.errno == errno.EISDIR:
            raise Refused(bounced("5.2.0", f"destination {mailbox.path} is not a regular file")) from error
        raise
    try:
        file = os.open(mailbox.path, flags | os.O_CREAT | os.O_EXCL, MODE_FILE)
    except FileExistsError as error:
        raise Busy("target file status changed unexpectedly") from error
    try:
        if mailbox.opener.uid != mailbox.account.uid:
            os.fchown(file, mailbox.account.uid, mailbox.account.gid)
        holder = os.open(os.path.dirname(mailbox.path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(holder)
        finally:
            os.close(holder)
    except OSError:
        os.close(file)
        raise
    return file


def _check(mailbox: MailboxFile, status: os.stat_result, settings: MboxSettings) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Refused(bounced("5.2.0", f"destination {mailbox.path} is not a regular file"))
    if status.st_nlink != 1:
        raise Refused(bounced("5.2.0", f"destination {mailbox.path} has {status.st_nlink} hard links"))
    if mailbox.user is None:
        if status.st_mode & EXECUTABLE:
            raise Refused(bounced("5.7.1", "file is executable"))
    elif settings.strict_mailbox_ownership and status.st_uid != mailbox.account.uid:
        raise Refused(deferred("4.2.0", f"destination {mailbox.path} is not owned by recipient"))


def _write(file: int, message: tuple[bytes, bytes], settings: MboxSettings) -> None:
    before = os.lseek(file, 0, os.SEEK_END)
    limit = settings.mailbox_size_limit
    if limit and before + sum(map(len, message)) > limit:
        raise Refused(bounced("5.2.2", f"the mailbox would exceed mailbox_size_limit ({limit} octets)"))
    try:
        write_all(file, *message)
        os.fsync(file)
    except OSError:
        # An incomplete message would become part of the previous one.
        with suppress(OSError):
            os.ftruncate(file, before)
            os.fsync(file)
        raise


def _subject(mailbox: MailboxFile) -> str:
    if mailbox.user is None:
        return f"cannot append message to file {mailbox.path}: "
    return f"cannot update mailbox {mailbox.path} for user {mailbox.user}. "
