"""The names of tables in main.cf, `type:name`: which are remote, and which are tables of tables.

This module imports nothing of remote tables, so that a command without one starts without asyncio.
"""

from postillion.config import main_cf
from postillion.tables.table import TableTypeError

CONFIGURED = {
    "ldap": "LdapSource",
    "memcache": "MemcacheSource",
    "mysql": "MysqlSource",
    "pgsql": "PgsqlSource",
    "sqlite": "SqliteSource",
}
"""Remote types with a file of parameters. The module of the same name in `tables.remote` has the class."""
REMOTE_TYPES = (*CONFIGURED, "socketmap", "tcp")
ACCOUNTS = {"passwd.byname": "passwd", "group.byname": "group"}
"""Tables of the type unix, and their databases in nsswitch.conf(5)."""
COMBINED = ("pipemap", "unionmap")
DEBUG = "debug"
MEMBERS_MAX = 1000
DEPTH_MAX = 8
"""Maximum depth of tables in the names of tables."""


def flat(name: str) -> str:
    """Return the name without `proxy:`; programs here are not in a chroot jail, so they need no proxy."""
    name = name.strip()
    while name.startswith("proxy:"):
        name = name.partition(":")[2]
    return name


def members(kind: str, rest: str) -> list[str]:
    """Return the names of the members of a table of tables; none for another type, or a malformed list."""
    text = rest.strip()
    if kind == DEBUG:
        return [text]
    if kind not in COMBINED or not (text.startswith("{") and text.endswith("}")):
        return []
    return main_cf.split_list(text[1:-1])


def has_remote(kind: str, rest: str, depth: int = 0) -> bool:
    """Return whether a table is remote, or has a remote member. Raises `TableTypeError` for too many tables in it."""
    if kind in REMOTE_TYPES:
        return bool(rest.strip())
    if kind == "unix":
        return needs_threads(rest)
    if depth > DEPTH_MAX:
        raise TableTypeError(f'"{kind}:{rest}": more than {DEPTH_MAX} tables in each other')
    names = members(kind, rest)
    if len(names) > MEMBERS_MAX:
        raise TableTypeError(f'"{kind}" table with more than {MEMBERS_MAX} members')
    split = (flat(name).partition(":") for name in names)
    return any(has_remote(inner, more, depth + 1) for inner, _, more in split)


def needs_threads(rest: str) -> bool:
    """Return whether the table `unix:rest` may need long, because the name service asks more than files."""
    database = ACCOUNTS.get(rest.strip())
    if database is None:
        return False
    from postillion.tables import nsswitch

    return not nsswitch.answers_at_once(database)
