"""Lookup tables, `type:name` in main.cf: opened once, searched by key.

    maps = open_maps("alias_maps", config, warn=log.warning)
    value = maps.lookup("postmaster")       # None: no table has the key; raises TableError: try again later

A lookup in a missing or unreadable file is a temporary failure, never "not found": mail waits until the table is
back. An unknown table type is an error when the table is opened.
"""

from postillion.tables.maps import Maps, Match, open_maps, open_table, open_word, read_tables
from postillion.tables.table import Table, TableError, TableTypeError, WarnedError

__all__ = [
    "Maps",
    "Match",
    "Table",
    "TableError",
    "TableTypeError",
    "WarnedError",
    "open_maps",
    "open_table",
    "open_word",
    "read_tables",
]
