"""The directories of the queue with their modes and owners, as in Postfix's postfix-files(5)."""

import grp
import os
import pwd
import stat

from postillion.config import Config, ConfigError

MAIL_OWNER = "mail_owner"
SETGID_GROUP = "setgid_group"
QUEUE_DIRECTORIES = (
    ("pid", 0o755, None, None),
    ("active", 0o700, MAIL_OWNER, None),
    ("bounce", 0o700, MAIL_OWNER, None),
    ("corrupt", 0o700, MAIL_OWNER, None),
    ("defer", 0o700, MAIL_OWNER, None),
    ("deferred", 0o700, MAIL_OWNER, None),
    ("flush", 0o700, MAIL_OWNER, None),
    ("hold", 0o700, MAIL_OWNER, None),
    ("incoming", 0o700, MAIL_OWNER, None),
    ("maildrop", 0o730, MAIL_OWNER, SETGID_GROUP),
    ("private", 0o700, MAIL_OWNER, None),
    ("public", 0o710, MAIL_OWNER, SETGID_GROUP),
    ("saved", 0o700, MAIL_OWNER, None),
    ("trace", 0o700, MAIL_OWNER, None),
)
"""Name, mode, and the owner and group when master is root (None: root and its group)."""
QUEUE_MODE = 0o755
ELSEWHERE = "start as its owner, or name another directory"
WRITABLE = stat.S_IWGRP | stat.S_IWOTH


def blame(config: Config, name: str, problem: str, fix: str) -> ConfigError:
    """Return the error for a parameter's value, at the line that sets it."""
    return config.error(name, f"{name} {config.text(name)}: {problem}", fix)


def owner(config: Config) -> tuple[int, int]:
    """Return uid and gid of mail_owner; raises `ConfigError` for an unknown account and for root."""
    try:
        account = pwd.getpwnam(config.text("mail_owner"))
    except KeyError:
        raise blame(config, "mail_owner", "there is no such account", "create it, or name another") from None
    if account.pw_uid == 0:
        raise blame(config, "mail_owner", "this is root", "name an account that is used for mail only")
    return account.pw_uid, account.pw_gid


def setgid_group(config: Config) -> int:
    """Return the gid of setgid_group, a name or a number; raises `ConfigError` for an unknown group."""
    name = config.text("setgid_group")
    if name.isascii() and name.isdigit():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise blame(config, "setgid_group", "there is no such group", "create it, or name another") from None


def examine(config: Config) -> None:
    """Raise `ConfigError` for owners, groups and directories that stop a start, as `prepare` does; change nothing.

    Root also compares owners and modes. Another user uses directories of its own, and may check those of others.
    """
    queue, data = _paths(config)
    for name, path in (("queue_directory", queue), ("data_directory", data)):
        _examine_place(config, name, path)
    if os.geteuid() == 0:
        _compare(config, queue)


def _paths(config: Config) -> tuple[str, str]:
    return os.path.abspath(config.text("queue_directory")), os.path.abspath(config.text("data_directory"))


def _examine_place(config: Config, name: str, path: str) -> None:
    """Refuse a path that is no directory and that cannot become one."""
    existing = path
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing):
        raise blame(config, name, f"{existing} is not a directory", ELSEWHERE)
    _examine_room(config, name, existing)


def _examine_room(config: Config, name: str, path: str) -> None:
    """Refuse a file system that takes no files."""
    room = os.statvfs(path)
    if room.f_flag & os.ST_RDONLY:
        raise blame(config, name, f"the file system of {path} is read-only", ELSEWHERE)
    if room.f_blocks == 0:
        raise blame(config, name, f"the file system of {path} stores no files", ELSEWHERE)
    if room.f_bavail == 0 or (room.f_files and room.f_favail == 0):
        raise blame(config, name, "the file system is full", "free some space there")


def _compare(config: Config, queue: str) -> None:
    """Refuse owners and modes with which a program would fail, or that let others into the queue."""
    uid, _ = owner(config)
    group = setgid_group(config)
    for name, mode, owned, grouped in (("", QUEUE_MODE, None, None), *QUEUE_DIRECTORIES):
        path = os.path.join(queue, name) if name else queue
        try:
            found = os.stat(path)
        except FileNotFoundError:
            continue
        if not name and found.st_mode & stat.S_ISVTX:
            # As /tmp, and a new tmpfs: others cannot rename what is in it.
            mode |= found.st_mode & WRITABLE
        problem = _difference(found, (uid,) if owned else (0, uid), group if grouped else None, mode)
        if problem is not None:
            fix = f"run postillion -c {config.directory} set-permissions"
            raise blame(config, "queue_directory", f"{path} {problem}", fix)


def _difference(found: os.stat_result, users: tuple[int, ...], group: int | None, mode: int) -> str | None:
    """Return how a directory differs from what its programs need; None when it serves. More rights to read do."""
    rights = stat.S_IMODE(found.st_mode)
    if not stat.S_ISDIR(found.st_mode):
        return "is not a directory"
    if found.st_uid not in users:
        return f"belongs to uid {found.st_uid} in place of {users[0]}"
    if group is not None and found.st_gid != group:
        return f"belongs to group {found.st_gid} in place of {group}"
    if mode & ~rights or rights & ~mode & WRITABLE:
        return f"has mode {rights:o} in place of {mode:o}"
    return None


def prepare(config: Config) -> str:
    """Create the missing parts of the queue directory and return its path; raises `ConfigError` when it is unusable.

    A wrong owner and a full file system are refused here, where the administrator reads the error.
    """
    examine(config)
    return create(config)


def create(config: Config) -> str:
    """Create the missing parts of the queue directory and return its path; raises `ConfigError`.

    Root creates directories with Postfix's owners, another user with its own.
    """
    queue, _ = _paths(config)
    root = os.geteuid() == 0
    uid, gid = owner(config) if root else (-1, -1)
    group = setgid_group(config) if root else -1
    try:
        os.makedirs(queue, QUEUE_MODE, exist_ok=True)
        for name, mode, owned, grouped in QUEUE_DIRECTORIES:
            path = os.path.join(queue, name)
            if os.path.isdir(path):
                continue
            os.mkdir(path, 0o700)
            if root and owned is not None:
                os.chown(path, uid, gid if grouped is None else group)
            os.chmod(path, mode)
    except OSError as error:
        raise _unusable(config, "queue_directory", error) from None
    for name in ("pid", "private", "public"):
        if not os.access(os.path.join(queue, name), os.W_OK | os.X_OK):
            problem = f"{name} is not writable by uid {os.geteuid()}"
            raise blame(config, "queue_directory", problem, ELSEWHERE)
    _examine_room(config, "queue_directory", queue)
    return queue


def set_permissions(config: Config) -> list[str]:
    """Give data_directory and the queue their owners and modes, as root; return the paths that were changed."""
    _, data = _paths(config)
    changed = [data] if _set(data, *owner(config), 0o700) else []
    return changed + set_queue_permissions(config)


def set_queue_permissions(config: Config) -> list[str]:
    """Give the queue's directories that exist their owners and modes, as root; return the paths that were changed.

    Messages in mail_owner's directories become mail_owner's too, but not in maildrop/: whoever may submit mail writes
    there, so nothing in it is touched as root. Links are never followed.
    """
    queue, _ = _paths(config)
    uid, gid = owner(config)
    group = setgid_group(config)
    changed = [queue] if _set(queue, 0, 0, QUEUE_MODE) else []
    for name, mode, owned, grouped in QUEUE_DIRECTORIES:
        path = os.path.join(queue, name)
        user = 0 if owned is None else uid
        if _set(path, user, group if grouped is not None else gid if user else 0, mode):
            changed.append(path)
        if user and grouped is None and name != "private" and os.path.isdir(path):
            changed += _give(path, uid, gid)
    return changed


def _give(path: str, uid: int, gid: int) -> list[str]:
    """Give all that is in a directory to a user; return what was not theirs. No path is looked up twice."""
    given = []
    for parent, names, files, descriptor in os.fwalk(path):
        for name in (*names, *files):
            if os.lstat(name, dir_fd=descriptor).st_uid != uid:
                os.chown(name, uid, gid, dir_fd=descriptor, follow_symlinks=False)
                given.append(os.path.join(parent, name))
    return given


def _set(path: str, user: int, group: int, mode: int) -> bool:
    """Set owner and mode of a directory; say whether they were others. A name that is no directory stays as it is."""
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        found = os.fstat(directory)
        if (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (user, group, mode):
            return False
        os.fchown(directory, user, group)
        os.fchmod(directory, mode)
        return True
    finally:
        os.close(directory)


def prepare_data(config: Config) -> str:
    """Create data_directory when it is missing and return its path; raises `ConfigError` when it is unusable."""
    _, data = _paths(config)
    try:
        if not os.path.isdir(data):
            os.makedirs(data, 0o755)
            if os.geteuid() == 0:
                os.chown(data, *owner(config))
            os.chmod(data, 0o700)
    except OSError as error:
        raise _unusable(config, "data_directory", error) from None
    return data


def _unusable(config: Config, name: str, error: OSError) -> ConfigError:
    fix = ELSEWHERE
    if error.errno in (28, 122):
        fix = "free some space there"
    return blame(config, name, f"{error.filename}: {error.strerror}", fix)
