"""The tables of tls_server_sni_maps: keys and certificate chains by the name that a client asks for (TLS_README)."""

from __future__ import annotations

from typing import Final

from postillion._core.tables import Table
from postillion.config import Config
from postillion.tables import open_word

NAME: Final = "tls_server_sni_maps"


def tables(config: Config) -> list[Table]:
    """Return the tables, opened. Values are base64, or lists of files in tables without an index.

    Raises `ConfigError`, also for a table that a handshake would have to wait for.
    """
    found = []
    for word in config.items(NAME):
        table = open_word(NAME, word, config, files=True)
        if not isinstance(table, Table):
            problem = f'{NAME}: "{word}": a handshake cannot wait for a remote table'
            raise config.error(NAME, problem, "use a local table, such as hash, written with postmap -F")
        found.append(table)
    return found
