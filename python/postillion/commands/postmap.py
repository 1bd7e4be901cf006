"""postmap: check, ask and change lookup tables (postmap(1)).

    postmap [type:]file ...                 check the source; exit status 1 and file, line, problem when it is bad
    postmap -q key [type:]file ...          print the value; 1 when no table has the key
    postmap -q - [type:]file ...            keys from standard input; print `key TAB value` for those found
    postmap -s [type:]file ...              print every key and value
    postmap -i [-r] [type:]file             add entries from standard input (`-r`: also in place of those there)
    postmap -d key [type:]file ...          take an entry out; `-d -`: keys from standard input

Postillion reads the text itself where Postfix reads an index made of it. So there is nothing to build: a source that
is good is in force, and nothing is written for it. Further options: `-c config_dir`, `-j` (JSON with `-q` and `-s`),
`-v`. Options that only say how an index is written (-f -n -N -o -p -u -U -w) change nothing here.
"""

import asyncio
import getopt
import json
import os
import sys
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple, NoReturn

from postillion.config import Config, ConfigError
from postillion.tables import Table, TableError, TableTypeError, open_table
from postillion.tables.deferred import completed
from postillion.tables.edit import add_entries, remove_entry
from postillion.tables.maps import INDEXED_TYPES
from postillion.tables.source import Entry, Problem
from postillion.tables.text import PARSERS, TextTable, read_entries

OPTIONS = "Nbc:d:fFhijmnopq:rsuUvw"
EDITABLE_TYPES = ("texthash", *INDEXED_TYPES)
QUERIES_MAX_CHARS = 64 * 1024


class Tool(NamedTuple):
    """The command, postmap or postalias: its name, and the form of its source (`map` or `alias`)."""

    program: str
    form: str

    def say(self, severity: str, text: str) -> None:
        """Write a line to standard error."""
        print(f"{self.program}: {severity}: {text}", file=sys.stderr)

    def fatal(self, text: str) -> NoReturn:
        """Write the error, and end with exit status 1."""
        self.say("fatal", text)
        sys.exit(1)


def main(argv: list[str] | None = None) -> int:
    """Run postmap; the exit status."""
    return run(Tool("postmap", "map"), sys.argv[1:] if argv is None else argv)


def run(tool: Tool, argv: list[str]) -> int:
    """Run either command; the exit status."""
    usage = f"usage: {tool.program} [-{OPTIONS.replace(':', '')}] [-c config_dir] [-d key] [-q key] [map_type:]file..."
    try:
        given, names = getopt.gnu_getopt(argv, OPTIONS)
    except getopt.GetoptError as error:
        tool.fatal(f"{error.msg}; {usage}")
    options = dict(given)
    if not names:
        tool.fatal(usage)
    if {"-b", "-h", "-m", "-F"} & options.keys():
        tool.fatal("-b, -h, -m and -F are not supported: there are no header_checks, body_checks or file values yet")
    try:
        config = Config.load(options.get("-c"))
        default_type = config.text("default_database_type")
    except ConfigError as error:
        tool.fatal(str(error))
    names = [name if ":" in name else f"{default_type}:{name}" for name in names]
    try:
        if "-q" in options:
            return query(tool, [_open(tool, name, config) for name in names], options["-q"], as_json="-j" in options)
        if "-d" in options:
            keys = sys.stdin.read().split("\n") if options["-d"] == "-" else [options["-d"]]
            return remove(tool, names, [key for key in keys if key])
        if "-s" in options:
            return show(tool, [_open(tool, name, config) for name in names], as_json="-j" in options)
        if "-i" in options:
            return add(tool, names, replace="-r" in options)
        # A list, not a generator: every file is looked at.
        return max([check(tool, name, verbose="-v" in options) for name in names])
    except TableError as error:
        tool.fatal(str(error))
    except OSError as error:
        tool.fatal(f"{error.filename}: {error.strerror}")


def check(tool: Tool, name: str, *, verbose: bool = False) -> int:
    """Say what is wrong with a table's source; the exit status."""
    path = _editable(tool, name)
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        entries, problems = read_entries(file, PARSERS[tool.form])
    for problem in problems:
        tool.say("error" if problem.lost else "warning", f"{path}, line {problem.number}: {problem.text}")
    if verbose:
        tool.say("info", f"{path}: {len(entries)} entries, read in place: no index is needed")
    return int(any(problem.lost for problem in problems))


def query(tool: Tool, tables: list[Table], key: str, *, as_json: bool) -> int:
    """Print what the tables have for a key, or for each key on standard input; the exit status."""
    with asyncio.Runner() as runner:
        if key != "-":
            value = completed(lambda: _first(tables, key), runner)
            if value is None:
                return 1
            print(json.dumps({key: value}) if as_json else value)
            return 0
        found = False
        for line in iter(lambda: sys.stdin.readline(QUERIES_MAX_CHARS), ""):
            each = line.rstrip("\r\n")
            value = completed(partial(_first, tables, each), runner)
            if value is not None:
                found = True
                print(json.dumps({each: value}) if as_json else f"{each}\t{value}")
        return 0 if found else 1


def show(tool: Tool, tables: list[Table], *, as_json: bool) -> int:
    """Print every entry; the exit status."""
    for table in tables:
        if not isinstance(table, TextTable):
            tool.fatal(f"{table.name}: this type of table can't be listed")
        for key, value in table.items():
            print(json.dumps({key: value}) if as_json else f"{key}\t{value}")
    return 0


def add(tool: Tool, names: list[str], *, replace: bool) -> int:
    """Add the entries on standard input to the one table named; the exit status."""
    if len(names) != 1:
        tool.fatal("-i takes one table")
    path = _editable(tool, names[0])
    entries: list[Entry] = []
    for item in PARSERS[tool.form](sys.stdin):
        if isinstance(item, Problem):
            tool.fatal(f"standard input, line {item.number}: {item.text}; nothing was changed")
        entries.append(item)
    for key in add_entries(path, tool.form, entries, replace=replace):
        tool.say("warning", f'{path}: duplicate entry: "{key}"; the old value holds')
    return 0


def remove(tool: Tool, names: list[str], keys: Iterable[str]) -> int:
    """Take keys out of the tables; the exit status is 1 when none of them was there."""
    paths = [_editable(tool, name) for name in names]
    removed = [remove_entry(path, tool.form, key) for key in keys for path in paths]
    return 0 if any(removed) else 1


def _editable(tool: Tool, name: str) -> str:
    """The file behind a table that is plain text."""
    kind, _, path = name.partition(":")
    if kind not in EDITABLE_TYPES:
        tool.fatal(f"{name}: tables of type {kind} are neither built nor changed; types: {' '.join(EDITABLE_TYPES)}")
    return path


def _open(tool: Tool, name: str, config: Config) -> Table:
    try:
        table = open_table(name, config, warn=lambda text: tool.say("warning", text), form=tool.form)
    except TableTypeError as error:
        tool.fatal(str(error))
    if isinstance(table, TextTable) and not os.path.exists(table.path):
        tool.fatal(f"open {table.path}: No such file or directory")
    return table


def _first(tables: list[Table], key: str) -> str | None:
    for table in tables:
        value = table.lookup(key)
        if value is not None:
            return value
    return None


if __name__ == "__main__":
    raise SystemExit(main())
