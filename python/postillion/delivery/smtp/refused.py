"""Logins that servers have refused (`smtp_sasl_auth_cache_name`): a wrong password is not tried with each message.

A login counts as refused when a server has said 535. It is not tried again for `smtp_sasl_auth_cache_time`, unless its
password changes. All processes share one file: the path of the parameter's table with `.json` behind it. Of a password,
the file has a salted digest. When two processes write at once, one refusal is lost, and that login is tried again.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

if TYPE_CHECKING:
    from postillion.config import Config

LOGINS_MAX: Final = 1000
"""Maximum number of logins; those refused longest ago are dropped first."""
SAID_MAX_CHARS: Final = 2048
"""Maximum length of a server's reply in the file."""
FILE_MAX_OCTETS: Final = 16 * 1024 * 1024
FORMAT: Final = 1
"""The form of the file; another number is another release's."""
SALT_OCTETS: Final = 16
PROXY: Final = "proxy:"
FIX: Final = "give proxy:TYPE:PATH, such as proxy:btree:/var/lib/postfix/sasl_auth_cache"


class Refusal(NamedTuple):
    """A server's reply to a login: its status code, and its text on one line."""

    dsn: str
    said: str


class Account:
    """A user's name and password at a server. No text of it has the password."""

    __slots__ = ("host", "password", "user")

    def __init__(self, host: str, user: str, password: bytes) -> None:
        self.host = host
        self.user = user
        self.password = password

    def __repr__(self) -> str:
        return f"Account({self.host!r}, {self.user!r})"

    @property
    def key(self) -> str:
        """The account without its password."""
        return f"{self.host.lower()};{self.user}"


class _Login(NamedTuple):
    """A refused login. `at`: seconds since 1970. `salt`, `digest`: of the password, in hexadecimal digits."""

    at: float
    salt: str
    digest: str
    refusal: Refusal


class RefusedLogins:
    """The refused logins in a file. `lasting_s`: how long a refusal holds. `warn`: gets the problems of the file."""

    def __init__(self, path: Path, lasting_s: float, warn: Callable[[str], None]) -> None:
        self._path = path
        self._lasting_s = lasting_s
        self._warn = warn
        self._logins: dict[str, _Login] = {}
        self._version: tuple[int, int, int] | None = None
        """The file that was read last: its inode, time of change and size."""

    @classmethod
    def of(cls, config: Config, protocol: str, warn: Callable[[str], None]) -> RefusedLogins | None:
        """Return the refused logins of a configuration; None if it has no table for them. Raises `ConfigError`."""
        parameter = f"{protocol}_sasl_auth_cache_name"
        name = config.text(parameter)
        if not name:
            return None
        kind, _, path = name.removeprefix(PROXY).partition(":")
        if not (name.startswith(PROXY) and kind and path):
            raise config.error(parameter, f'{parameter}: bad table name "{name}"', FIX)
        lasting_s = config.seconds(f"{protocol}_sasl_auth_cache_time")
        return cls(Path(config.text("queue_directory"), f"{path}.json"), lasting_s, warn)

    def find(self, account: Account, wall_now: float) -> Refusal | None:
        """Return the reply to a login with this password, if the server has refused it not long ago."""
        self._read()
        login = self._logins.get(account.key)
        if login is None or not self._holds(login, wall_now):
            return None
        return login.refusal if hmac.compare_digest(login.digest, _digest(account, login.salt)) else None

    def note(self, account: Account, refusal: Refusal, wall_now: float) -> None:
        """Remember that a server has refused a login."""
        self._read()
        salt = secrets.token_hex(SALT_OCTETS)
        refusal = Refusal(refusal.dsn, refusal.said[:SAID_MAX_CHARS])
        logins = {key: login for key, login in self._logins.items() if self._holds(login, wall_now)}
        logins[account.key] = _Login(wall_now, salt, _digest(account, salt), refusal)
        latest = sorted(logins.items(), key=lambda item: item[1].at)[-LOGINS_MAX:]
        self._logins = dict(latest)
        try:
            self._write()
        except OSError as problem:
            self._warn(f"refused logins cannot be written to {self._path}: {problem.strerror}")

    def _holds(self, login: _Login, wall_now: float) -> bool:
        # A login from the future was refused before the clock was set back.
        return 0 <= wall_now - login.at < self._lasting_s

    def _read(self) -> None:
        """Read the file if another process has written it."""
        try:
            # A pipe in its place must not block.
            with open(os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                version = _version(file)
                if version == self._version:
                    return
                self._version = version
                self._logins = _decoded(file.read(FILE_MAX_OCTETS + 1))
        except FileNotFoundError:
            # An administrator has removed it, so that each login is tried again.
            if self._version is not None:
                self._version, self._logins = None, {}
        except (OSError, ValueError, RecursionError) as problem:
            self._warn(f"refused logins in {self._path}: {problem}")

    def _write(self) -> None:
        new = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(_encoded(self._logins))
                file.flush()
                version = _version(file)
            os.replace(new, self._path)
            self._version = version
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)
            raise


def _version(file: BinaryIO) -> tuple[int, int, int]:
    """Return what differs between the files that processes have written."""
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_mtime_ns, status.st_size


def _digest(account: Account, salt: str) -> str:
    return hmac.digest(bytes.fromhex(salt), account.user.encode() + b"\0" + account.password, "sha256").hex()


def _encoded(logins: dict[str, _Login]) -> bytes:
    rows = [[key, login.at, login.salt, login.digest, *login.refusal] for key, login in logins.items()]
    return json.dumps({"format": FORMAT, "refused": rows}).encode()


def _decoded(octets: bytes) -> dict[str, _Login]:
    """Return the logins in a file. Raises `ValueError` and `RecursionError`."""
    if len(octets) > FILE_MAX_OCTETS:
        raise ValueError(f"the file has more than {FILE_MAX_OCTETS} octets")
    match json.loads(octets):
        case {"format": 1, "refused": list(rows)} if len(rows) <= LOGINS_MAX:
            return dict(map(_login, rows))
        case _:
            raise ValueError("the file has another format")


def _login(row: object) -> tuple[str, _Login]:
    match row:
        case [str(key), int() | float() as at, str(salt), str(digest), str(dsn), str(said)] if 0 <= at < 2**53:
            bytes.fromhex(salt)
            bytes.fromhex(digest)
            return key, _Login(float(at), salt, digest, Refusal(dsn, said))
        case _:
            raise ValueError("a login in the file has another form")
