"""Lookup tables: what a site writes as `type:name` in main.cf, opened once and asked by key.

    maps = open_maps(config.items("alias_maps"), config, warn=log.warning)
    value = maps.lookup("postmaster")       # None: no table has it; raises TableError: ask again later

A table that can't be asked now (a file that is missing or unreadable) is a soft failure at the time of the question,
never "not found": mail waits until the table is back. A type that nobody knows is an error at once.
"""

from postillion.tables.maps import Maps, Match, open_maps, open_table
from postillion.tables.table import Table, TableError, TableTypeError

__all__ = ["Maps", "Match", "Table", "TableError", "TableTypeError", "open_maps", "open_table"]
