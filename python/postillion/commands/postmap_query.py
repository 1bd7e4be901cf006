"""The queries of postmap and postalias: `-q key`, `-q -` and `-s`."""

from __future__ import annotations

import sys
from itertools import chain

from postillion._core import tables as core
from postillion.commands.json_pair import json_pair
from postillion.commands.postmap_request import encoded
from postillion.tables import TableError, open_table
from postillion.tables.maps import INDEXED_TYPES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Runner
    from collections.abc import Iterable, Iterator

    from postillion.commands.postmap_request import Options
    from postillion.config import Config
    from postillion.tables import Table

KEYS_OCTETS = 1024 * 1024
"""Octets of keys that are looked up at once."""
LINE_MAX_OCTETS = 64 * 1024 * 1024
"""Maximum octets of a key on standard input."""
LOADED_MAX_OCTETS = 1024 * 1024 * 1024
"""Maximum octets of an index that is read into memory for many keys."""
MESSAGE_MAX_OCTETS = 512 * 1024 * 1024
"""Maximum octets that are read of a message on standard input (-b, -h)."""


def query(options: Options, names: list[str], config: Config) -> int:
    """Print what the tables have for a key, or for each key on standard input; return the exit status.

    A table is opened when the tables before it lack a key.
    """
    key = options.query
    tables = Tables(options, names, config)
    if key is not None and key != "-":
        with Lookups(tables) as lookups:
            value = lookups.first(key)
        if value is None:
            return 1
        _write(_entry(options, key, value) if options.json else _decoded(options, value))
        return 0
    if options.letters & set("bh"):
        from postillion.commands.message_keys import message_keys

        message = options.tool.stdin(MESSAGE_MAX_OCTETS)
        keys = message_keys(
            message, headers="h" in options.letters, body="b" in options.letters, mime="m" in options.letters
        )
        return _answer_each(options, tables, keys)
    if len(names) > 1 or options.json or options.files:
        return _answer_each(options, tables, _keys(_input(options)))
    found = False
    separator = options.tool.separator.encode()
    given = _input(options)
    for lines in given:
        [table] = tables
        if not isinstance(table, core.Table):
            return _answer_each(options, tables, _keys(chain([lines], given)))
        try:
            answers = core.answer_lines([table], lines, separator)
        except TableError as error:
            if len(error.args) > 1:
                _write_octets(error.args[1])
            raise
        found = found or bool(answers)
        _write_octets(answers)
    return 0 if found else 1


def show(options: Options, name: str, config: Config) -> int:
    """Print every entry of a table; return the exit status."""
    table = _open(options, name, config)
    if not isinstance(table, core.Table):
        options.tool.fatal(f"table {table.name}: sequence operation is not supported")
    if options.json or options.files:
        for key, value in table.items():
            try:
                _write(_entry(options, key, value))
            except TableError as problem:
                options.tool.say("warning", f"table {table.name}: key {key}: {problem}")
    else:
        _write_octets(table.lines(options.tool.separator.encode()))
    return 0


def _input(options: Options) -> Iterator[bytes]:
    """Yield whole lines of standard input as they arrive: a program may wait for an answer before it writes more."""
    parts: list[bytes] = []
    waiting = 0
    while octets := sys.stdin.buffer.read1(KEYS_OCTETS):  # type: ignore[union-attr]  # a BufferedReader
        end = octets.rfind(b"\n") + 1
        if end:
            yield b"".join([*parts, octets[:end]])
            parts, waiting = [octets[end:]], len(octets) - end
        else:
            parts.append(octets)
            waiting += len(octets)
            if waiting > LINE_MAX_OCTETS:
                options.tool.fatal(f"a key of more than {LINE_MAX_OCTETS} octets")
    if waiting:
        yield b"".join(parts)


def _keys(given: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the keys in the lines of standard input."""
    return (line.rstrip(b"\r\n") for lines in given for line in lines.removesuffix(b"\n").split(b"\n"))


class Tables:
    """The tables of a query, each opened when it is first needed."""

    def __init__(self, options: Options, names: list[str], config: Config) -> None:
        self._options = options
        self._names = names
        self._config = config
        self._open: list[Table] = []

    def __iter__(self) -> Iterator[Table]:
        for at, name in enumerate(self._names):
            if at == len(self._open):
                self._open.append(_open(self._options, name, self._config))
            yield self._open[at]


class Lookups:
    """Lookups in tables. Remote lookups share an event loop, which the first of them starts."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._runner: Runner | None = None

    def __enter__(self) -> Lookups:
        return self

    def __exit__(self, *_: object) -> None:
        if self._runner is not None:
            self._runner.close()

    def first(self, key: str) -> str | None:
        """Return the first value for a key; None when no table has one. Raises `TableError`."""
        for table in self._tables:
            if not isinstance(table, core.Table):
                return self._asked(key)
            value = table.lookup(key)
            if value is not None:
                return value
        return None

    def _asked(self, key: str) -> str | None:
        import asyncio

        from postillion.tables.deferred import completed

        if self._runner is None:
            self._runner = asyncio.Runner()
        return completed(lambda: self._first(key), self._runner)

    def _first(self, key: str) -> str | None:
        for table in self._tables:
            value = table.lookup(key)
            if value is not None:
                return value
        return None


def _answer_each(options: Options, tables: Tables, keys: Iterable[bytes]) -> int:
    found = False
    with Lookups(tables) as lookups:
        for octets in keys:
            key = octets.decode("utf-8", "surrogateescape")
            value = lookups.first(key)
            if value is not None:
                found = True
                _write(_entry(options, key, value))
    return 0 if found else 1


def _open(options: Options, name: str, config: Config) -> Table:
    table = open_table(
        name,
        config,
        warn=lambda text: options.tool.say("warning", text),
        log=options.tool.note,
        form=options.tool.form,
        fold=options.fold,
        utf8=options.utf8(config),
        files=options.files and name.partition(":")[0] not in INDEXED_TYPES,
        loaded_max_octets=LOADED_MAX_OCTETS if options.query == "-" else 0,
    )
    table.refresh()
    return table


def _decoded(options: Options, value: str) -> str:
    """Return a value without base64, under -F. Raises `TableError`."""
    if not options.decodes:
        return value
    import base64
    import binascii

    try:
        return base64.b64decode(value, validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        raise TableError(f"malformed BASE64 value: {value:.30}") from None


def _entry(options: Options, key: str, value: str) -> str:
    """Return the line of an entry, JSON under -j. Raises `TableError`."""
    value = _decoded(options, value)
    return json_pair(key, value) if options.json else f"{key}{options.tool.separator}{value}"


def _write(text: str) -> None:
    _write_octets(encoded(text + "\n"))


def _write_octets(octets: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(octets)
    sys.stdout.buffer.flush()
