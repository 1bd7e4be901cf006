"""Remote tables: LDAP, SQL, memcache, socketmap, tcp, and a name service that asks servers; none blocks the event loop.

    table = open_table("pgsql:/etc/postfix/aliases.cf", config, warn=warn)     # of `postillion.tables.maps`
    value = await table.ask("alice@example.com")     # None: no value; raises TableError: try again later

`RemoteTable.lookup` has the interface of other tables: it gives the answers of the current decision (`deferred`).
"""

from postillion.tables.remote.open import open_accounts, open_combined, open_remote, remote_tables
from postillion.tables.remote.table import RemoteTable

__all__ = ["RemoteTable", "open_accounts", "open_combined", "open_remote", "remote_tables"]
