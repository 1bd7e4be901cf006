"""Remote tables by their types."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from postillion.config import Config
from postillion.tables.names import CONFIGURED, DEBUG
from postillion.tables.remote.accounts import AccountSource
from postillion.tables.remote.combined import CombinedSource
from postillion.tables.remote.debug import DebugSource
from postillion.tables.remote.mapping import OpenTable
from postillion.tables.remote.parameters import Parameters
from postillion.tables.remote.secret import Secrets
from postillion.tables.remote.table import NOBODY, RemoteTable, Source
from postillion.tables.table import Table, TableError, TableTypeError, Warn


class Unreadable:
    """A source whose file cannot be read: each lookup fails for now."""

    def __init__(self, problem: str) -> None:
        self._problem = problem

    async def ask(self, key: str) -> str | None:
        """Raise `TableError`."""
        raise TableError(self._problem)

    async def reach(self) -> None:
        """Do nothing: `prepare` tells the problem."""

    async def close(self) -> None:
        """Do nothing."""

    def prepare(self) -> None:
        """Raise `TableError`."""
        raise TableError(self._problem)


def open_remote(kind: str, rest: str, name: str, config: Config, warn: Warn, open_table: OpenTable) -> RemoteTable:
    """Return the table `kind:rest`, which main.cf names `name`; `open_table` opens the tables that it names itself.

    Raises `ConfigError` for the parameters in its file, and `TableTypeError` for its name.
    """
    secrets = Secrets()
    source: Source
    if kind in CONFIGURED:
        try:
            parameters = Parameters.open(rest, config)
        except TableError as problem:
            return RemoteTable(name, Unreadable(str(problem)), warn, secrets, owner=NOBODY)
        source = _class(kind)(name, parameters, warn, open_table)
        for text in parameters.unread():
            warn(text)
        owner = NOBODY if kind == "memcache" else parameters.owner
        return RemoteTable(name, source, warn, parameters.secrets, owner=owner)
    source = _served(kind, rest, name, config)
    return RemoteTable(name, source, warn, secrets, owner=NOBODY, takes_parts=False, folds=False)


def open_accounts(rest: str, name: str, warn: Warn) -> RemoteTable:
    """Return the table `unix:rest`, whose lookups wait in threads."""
    return RemoteTable(name, AccountSource(name, rest), warn, Secrets(), owner=0, folds=False)


def open_combined(kind: str, name: str, tables: Sequence[Table], warn: Warn, log: Warn) -> RemoteTable:
    """Return the unionmap, pipemap or debug table of these tables, at least one of them remote."""
    source = DebugSource(tables, log) if kind == DEBUG else CombinedSource(kind, tables)
    owner, takes_parts = source.owner(), source.takes_parts()
    return RemoteTable(name, source, warn, Secrets(), owner=owner, takes_parts=takes_parts, folds=False)


def remote_tables(config: Config) -> list[RemoteTable]:
    """Return the remote tables that a configuration has opened, each once: parameters may share one."""
    return list(dict.fromkeys(table for _, table in config.opened if isinstance(table, RemoteTable)))


def _class(kind: str) -> type:
    found: type = getattr(importlib.import_module(f"postillion.tables.remote.{kind}"), CONFIGURED[kind])
    return found


def _served(kind: str, rest: str, name: str, config: Config) -> Source:
    from postillion.tables.remote import socketmap, tcp

    if kind == "tcp":
        return tcp.TcpSource(name, rest)
    if kind != "socketmap":
        raise TableTypeError(f'"{name}": unknown table type "{kind}"')
    return socketmap.SocketmapSource(
        name,
        rest,
        query_max_octets=config.number("socketmap_max_query_size"),
        reply_max_octets=config.number("socketmap_max_reply_size"),
    )
