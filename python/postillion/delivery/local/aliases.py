"""Aliases: the targets of a local name, and the account that runs its commands and writes its files."""

import os
import stat
from typing import NamedTuple

from postillion.delivery.account import ROOT, Account, NoAnswerError, acting_as, privileged
from postillion.delivery.accounts import Accounts
from postillion.delivery.local.targets import Target, parse_lines, parse_targets
from postillion.delivery.verdict import Verdict, bounced, deferred
from postillion.tables import Maps, Match, TableError

INCLUDE_MAX_OCTETS = 16 * 1024 * 1024


class AliasError(Exception):
    """An alias whose expansion failed, temporarily or permanently; holds the verdict on its mail."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.text)
        self.verdict = verdict


class Expansion(NamedTuple):
    """The expansion of a name. `table`: the alias table, `uid`: the owner of its file, None without a file.

    `owner`: the address for problem reports, `owner-NAME@domain`; None without one.
    """

    name: str
    targets: list[Target]
    table: str
    uid: int | None
    owner: str | None


class Aliases:
    """The alias tables (`alias_maps`, aliases(5))."""

    def __init__(self, maps: Maps, *, owner_request_special: bool, expand_owner_alias: bool) -> None:
        self._maps = maps
        self._owner_request_special = owner_request_special
        self._expand_owner_alias = expand_owner_alias

    def expand(self, name: str, domain: str) -> Expansion | None:
        """Return the expansion of the alias `name`; None when there is no such alias. Raises `AliasError`."""
        try:
            found = self._find(name)
            if found is None:
                return None
            owner = self._owner(name, domain)
        except TableError as error:
            raise AliasError(deferred("4.3.0", f"alias database unavailable: {error}")) from error
        targets = parse_targets(found.value)
        if not targets:
            raise AliasError(deferred("4.3.0", f"alias {name} of {found.table.name} has no recipient"))
        return Expansion(name, targets, found.table.name, found.table.owner, owner)

    def _find(self, name: str) -> Match | None:
        try:
            found = self._maps.find(name)
            if not self._maps.is_outdated:
                return found
        except TableError:
            pass
        # mail_owner may not be able to read the file; Postfix opens tables as root.
        with privileged():
            for table in self._maps.tables:
                table.refresh()
            return self._maps.find(name)

    def _owner(self, name: str, domain: str) -> str | None:
        """Return the address of the alias `owner-NAME`, which gets the problem reports of a list; None without one."""
        if not self._owner_request_special:
            return None
        owner = f"owner-{name}"
        value = self._maps.lookup(owner)
        if value is None:
            return None
        address = value.strip() if self._expand_owner_alias else owner
        return address if "@" in address else f"{address}@{domain}"


async def rights(expansion: Expansion, accounts: Accounts, default_privs: str) -> Account:
    """Return the account of an alias's commands and files. Raises `AliasError`."""
    if not expansion.uid:
        return await accounts.unprivileged(default_privs)
    problem = f"cannot find alias database owner of {expansion.table}: user number {expansion.uid}"
    return await _owner(expansion.uid, accounts, problem)


async def _owner(uid: int, accounts: Accounts, problem: str) -> Account:
    """Return the user with this number. Raises `AliasError` with `problem`: the mail waits."""
    try:
        account = await accounts.numbered(uid)
    except NoAnswerError as error:
        raise AliasError(deferred("4.3.0", f"{problem}: {error.reason}")) from None
    if account is None:
        raise AliasError(deferred("4.3.0", problem))
    return account


async def read_include(
    path: str, account: Account, accounts: Accounts, default_privs: str
) -> tuple[list[Target], Account]:
    """Return the targets of an :include: file, and the account of its commands and files. Raises `AliasError`.

    The file is opened with the current account. Its owner's account replaces the default account only: a user's list
    must not run commands as another user.
    """
    if not path.startswith("/"):
        raise AliasError(bounced("5.3.5", f"mail system configuration error: :include:{path} is not an absolute path"))
    by_default = account == await accounts.unprivileged(default_privs)
    opener = ROOT if by_default and os.getuid() == 0 else account
    try:
        with acting_as(opener):
            text, status = read_list(path, INCLUDE_MAX_OCTETS)
    except OSError as error:
        raise AliasError(deferred("4.2.0", f"cannot open include file {path}: {error.strerror}")) from error
    if status.st_mode & stat.S_IWOTH:
        raise AliasError(bounced("5.7.1", f"include file {path} is world writable"))
    if by_default and status.st_uid not in (0, account.uid):
        account = await _owner(status.st_uid, accounts, f"cannot find the owner of include file {path}")
    return parse_lines(text), account


def read_list(path: str, limit_octets: int) -> tuple[str, os.stat_result]:
    """Return the text and status of a regular file. Raises `OSError`, also for a longer file and another kind."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "not a regular file", path)
        if status.st_size > limit_octets:
            raise OSError(0, f"more than {limit_octets} octets", path)
        with open(file, "rb", closefd=False) as stream:
            return stream.read(limit_octets).decode("utf-8", "surrogateescape"), status
    finally:
        os.close(file)
