"""postmap: create, query and change lookup tables (postmap(1)).

    postmap [type:]file ...                 write the index of a text
    postmap -q key [type:]file ...          print the value; exit status 1 when no table has the key
    postmap -q - [type:]file ...            keys from standard input; print `key TAB value` for those found
    postmap -s [type:]file                  print every key and value
    postmap -i [-r|-w] [type:]file ...      add entries from standard input to the index
    postmap -d key [type:]file ...          remove an entry from the index; `-d -`: keys from standard input

Options: -b and -h (with `-q -`: standard input is a message; keys are body lines, header fields; -m: MIME parsing),
-c config_dir, -F (values are lists of files, stored in base64), -f (keep case), -j (JSON with -q and -s), -n and -N
(null octets at the end, without and with), -o (keep root's rights), -p (mode 0644), -r (replace), -u (no UTF-8),
-U (UTF-8 with -b and -h), -v, -w (ignore duplicates).
"""

from __future__ import annotations

import os
import sys
from itertools import chain

from postillion._core import tables as core
from postillion.commands import getopt
from postillion.commands.json_pair import json_pair
from postillion.commands.owners_rights import OwnersRights
from postillion.config import Config, ConfigError
from postillion.tables import TableError, TableTypeError, open_table
from postillion.tables.maps import INDEXED_TYPES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Runner
    from collections.abc import Iterable, Iterator
    from typing import Literal, NoReturn

    from postillion.tables import Table

TEXT_MAX_OCTETS = 1024 * 1024 * 1024
KEYS_OCTETS = 1024 * 1024
"""Octets of keys that are looked up at once."""
LINE_MAX_OCTETS = 64 * 1024 * 1024
"""Maximum octets of a key on standard input."""
LOADED_MAX_OCTETS = 1024 * 1024 * 1024
"""Maximum octets of an index that is read into memory for many keys."""
MESSAGE_MAX_OCTETS = 512 * 1024 * 1024


class Tool:
    """One of the two commands, postmap and postalias: name, form of the text, options, separator of key and value."""

    def __init__(self, program: str, form: Literal["map", "alias"], letters: str, separator: str) -> None:
        self.program = program
        self.form: Literal["map", "alias"] = form
        self.letters = letters
        self.separator = separator

    def say(self, severity: str, text: str) -> None:
        """Write a line to standard error."""
        print(f"{self.program}: {severity}: {printable(text)}", file=sys.stderr)

    def note(self, text: str) -> None:
        """Write a line that is neither a warning nor an error to standard error."""
        print(f"{self.program}: {printable(text)}", file=sys.stderr)

    def fatal(self, text: str) -> NoReturn:
        """Write the error, and end with exit status 1."""
        self.say("fatal", text)
        sys.exit(1)

    def usage(self) -> NoReturn:
        """Write the options, and end with exit status 1."""
        letters = self.letters
        self.fatal(f"usage: {self.program} [-{letters}] [-c config_dir] [-d key] [-q key] [map_type:]file...")


POSTMAP = Tool("postmap", "map", "bfFhijmnNoprsuUvw", "\t")


class Options:
    """The options of one call."""

    def __init__(self, tool: Tool, argv: list[str]) -> None:
        """Parse the options. Ends the program with Postfix's errors."""
        self.tool = tool
        try:
            given, self.names = getopt.gnu_getopt(argv, tool.letters + "c:d:q:")
        except getopt.GetoptError as error:
            text = "option requires an argument" if "requires" in error.msg else "invalid option"
            print(f"{tool.program}: {text} -- '{error.opt}'", file=sys.stderr)
            tool.usage()
        self.letters = {name[1] for name, _ in given}
        values = dict(given)
        self.config_directory = values.get("-c")
        self.query = values.get("-q")
        self.delete = values.get("-d")
        if len([name for name, _ in given if name in {"-q", "-d", "-s"}]) > 1:
            tool.fatal("specify only one of -s -q or -d")
        if self.letters & set("bhm") and self.query != "-":
            tool.fatal('specify -b -h or -m only with "-q -"')
        if "m" in self.letters and not self.letters & set("bh"):
            tool.say("warning", "ignoring -m option without -b or -h")
        if not self.names:
            tool.usage()
        self.json = "j" in self.letters
        self.fold = "f" not in self.letters
        self.files = "F" in self.letters
        self.keeps_rights = "o" in self.letters
        # As in Postfix: what a message's lines find stays as it is stored.
        self.decodes = self.files and not self.letters & set("bh")

    @property
    def duplicates(self) -> Literal["warn", "ignore", "replace"]:
        """Return what happens to a second value of a key."""
        return "replace" if "r" in self.letters else "ignore" if "w" in self.letters else "warn"

    @property
    def nulls(self) -> bool | None:
        """Return whether keys and values end with a null octet; None: as usual for the type."""
        return True if "N" in self.letters else False if "n" in self.letters else None


def main(argv: list[str] | None = None) -> int:
    """Run postmap; the exit status."""
    return run(POSTMAP, sys.argv[1:] if argv is None else argv)


def run(tool: Tool, argv: list[str]) -> int:
    """Run either command; the exit status."""
    options = Options(tool, argv)
    try:
        config = Config.load(options.config_directory)
        default_type = config.text("default_database_type")
        names = [name if ":" in name else f"{default_type}:{name}" for name in options.names]
        if options.query is not None:
            return query(options, names, config)
        if "s" in options.letters:
            return show(options, _open(options, names[0], config))
        if options.delete is not None:
            return remove(options, names, config)
        if "i" in options.letters:
            text = sys.stdin.buffer.read(TEXT_MAX_OCTETS)
            for name in names:
                path = name.partition(":")[2]
                with OwnersRights(path, *(path + end for end in (".db", ".lmdb")), keeps=options.keeps_rights):
                    index(options, name, config).update(text, "stdin")
            return 0
        for name in names:
            create(options, name, config)
    except (ConfigError, TableTypeError) as error:
        tool.fatal(str(error))
    except TableError as error:
        tool.fatal(str(error.args[0]))
    except BrokenPipeError:
        # The reader has seen enough, as with `postmap -s hash:aliases | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:
        tool.fatal(f"open {error.filename}: {error.strerror}")
    return 0


def create(options: Options, name: str, config: Config) -> None:
    """Write the index of a table's text. Raises `TableError` and `OSError`."""
    kind, _, path = name.partition(":")
    if kind not in {*INDEXED_TYPES, "fail"}:
        known = kind in core.table_types()
        options.tool.fatal(
            f"unsupported dictionary type: {kind}" + (" does not support bulk-mode creation." if known else "")
        )
    # O_NONBLOCK: opening a FIFO in place of the file must not wait for a writer.
    with open(path, "rb", opener=lambda file, flags: os.open(file, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if status.st_size > TEXT_MAX_OCTETS:
            raise TableError(f"{path} has more than {TEXT_MAX_OCTETS} octets")
        text = file.read(TEXT_MAX_OCTETS)
    mode = 0o644 if "p" in options.letters else 0o600 | (status.st_mode & 0o044)
    with OwnersRights(path, keeps=options.keeps_rights):
        index(options, name, config, mode).create(text, path)


def index(options: Options, name: str, config: Config, mode: int = 0o644) -> core.Index:
    """Return the index of a table."""
    kind, _, path = name.partition(":")
    return core.Index(
        kind,
        path,
        form=options.tool.form,
        warn=lambda text: options.tool.say("warning", text),
        fold=options.fold,
        utf8=_utf8(options, config),
        files=options.files,
        duplicates=options.duplicates,
        nulls=options.nulls,
        mode=mode,
        map_octets=config.number("lmdb_map_size"),
    )


def query(options: Options, names: list[str], config: Config) -> int:
    """Print what the tables have for a key, or for each key on standard input; the exit status.

    A table is opened when a key is not in the tables before it.
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

        message = sys.stdin.buffer.read(MESSAGE_MAX_OCTETS)
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


def _input(options: Options) -> Iterator[bytes]:
    """Yield whole lines of standard input, as many as are there: a program that waits for answers gets them."""
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
    """Lookups in tables. Remote ones share an event loop, which begins with the first of them."""

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


def show(options: Options, table: Table) -> int:
    """Print every entry; the exit status."""
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


def remove(options: Options, names: list[str], config: Config) -> int:
    """Remove keys from the indexes; the exit status is 1 when none of them was there."""
    given = sys.stdin.buffer.read(TEXT_MAX_OCTETS).split(b"\n") if options.delete == "-" else [_octets(options.delete)]
    keys = [key for key in given if key]
    removed = 0
    for name in names:
        path = name.partition(":")[2]
        with OwnersRights(path, *(path + end for end in (".db", ".lmdb")), keeps=options.keeps_rights):
            removed += index(options, name, config).remove(keys)
    return 0 if removed else 1


def printable(text: str) -> str:
    """Return a text for a message, with `?` for control characters and for octets that are not UTF-8."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _utf8(options: Options, config: Config) -> bool:
    """Return whether keys and values must be UTF-8: -u says no, -b and -h say no without -U."""
    if "u" in options.letters or (options.letters & set("bh") and "U" not in options.letters):
        return False
    return config.flag("smtputf8_enable")


def _open(options: Options, name: str, config: Config) -> Table:
    table = open_table(
        name,
        config,
        warn=lambda text: options.tool.say("warning", text),
        log=options.tool.note,
        form=options.tool.form,
        fold=options.fold,
        utf8=_utf8(options, config),
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


def _octets(text: str | None) -> bytes:
    return (text or "").encode("utf-8", "surrogateescape")


def _write(text: str) -> None:
    _write_octets(_octets(text + "\n"))


def _write_octets(octets: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(octets)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    raise SystemExit(main())
