"""A copy of a site's configuration that the checker can read on this machine.

The files of tables and lists are stubs, paths outside the copy lead into it, and directories, owners and interfaces are
this machine's.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path
from typing import Literal

from postillion._core.tables import Index
from postillion.config import ConfigError, main_cf, parameters
from postillion.config.settings import ORIGIN
from postillion.tables import TableError
from postillion.tables.maps import INDEXED_TYPES

STUBS = {
    "ldap": "server_host = ldap://127.0.0.1\nsearch_base = dc=x\nquery_filter = (mail=%s)\nresult_attribute = m\n",
    "mysql": "hosts = 127.0.0.1\nuser = u\npassword = p\ndbname = d\nquery = SELECT a FROM t WHERE b='%s'\n",
    "pgsql": "hosts = 127.0.0.1\nuser = u\npassword = p\ndbname = d\nquery = SELECT a FROM t WHERE b='%s'\n",
    "sqlite": "dbpath = /dev/null\nquery = SELECT a FROM t WHERE b='%s'\n",
    "memcache": "memcache = inet:127.0.0.1:11211\n",
    **dict.fromkeys(("hash", "btree", "lmdb", "cdb", "dbm", "sdbm", "texthash", "regexp", "pcre", "cidr"), ""),
}
"""Contents of the stub of a table's file, by type."""
TABLE = re.compile(rf"\b({'|'.join(STUBS)}):(/[^\s,{{}}]+)")
HERE = """
queue_directory = {copy}/queue
data_directory = {copy}/data
mail_owner = nobody
setgid_group = nogroup
maillog_file =
maillog_file_prefixes = /var
inet_interfaces = all
alternate_config_directories =
"""
"""Parameters of the copy that concern the machine, not mail."""
REFERENCE = re.compile(r"\$[{(]?(\w+)[)}]?")
PATH = re.compile(r"(?:\w+:)?/[^\s,]+")
DIRECTORIES = dict.fromkeys(("config_directory", "meta_directory"), "/etc/postfix")
"""The values of directories that a site does not set."""
MASTER_CF = """\
smtp      inet  n       -       n       -       -       smtpd
pickup    unix  n       -       n       60      1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
rewrite   unix  -       -       n       1000?   1       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
smtp      unix  -       -       n       -       -       smtp
relay     unix  -       -       n       -       -       smtp
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
discard   unix  -       -       n       -       -       discard
local     unix  -       n       n       -       -       local
lmtp      unix  -       -       n       -       -       lmtp
anvil     unix  -       -       n       -       1       anvil
"""
"""The master.cf of a site that has none."""


def copy_site(site: Path, copy: Path) -> None:
    """Copy a site's files; paths of tables and lists lead to stubs in the copy."""
    known = paths((site / "main.cf").read_text(errors="surrogateescape"))
    for name in ("main.cf", "master.cf"):
        text = (site / name).read_text(errors="surrogateescape") if (site / name).exists() else MASTER_CF
        text = REFERENCE.sub(lambda found: value_there(found, known), text)
        text = TABLE.sub(lambda found: f"{found[1]}:{stub(site, copy, found[2], STUBS[found[1]])}", text)
        if name == "main.cf":
            text = with_lists(site, copy, text) + HERE.format(copy=copy)
        (copy / name).write_text(text, errors="surrogateescape")
    write_indexes(copy)
    for name in ("queue", "data"):
        (copy / name).mkdir()
    # The checker's child must read the copy, whatever the mode of temporary directories.
    copy.chmod(0o755)


def write_indexes(copy: Path) -> None:
    """Write the index of each indexed table, as the site's postmap and postalias would. The check shows a refusal."""
    texts = [(copy / name).read_text(errors="surrogateescape") for name in ("main.cf", "master.cf")]
    settings = readable(texts[0])
    aliases = " ".join(settings.get(name, "") for name in ("alias_maps", "alias_database"))
    for kind, path in dict.fromkeys(table for text in texts for table in TABLE.findall(text)):
        if kind in INDEXED_TYPES:
            form: Literal["alias", "map"] = "alias" if path in re.split(r"[\s,:]+", aliases) else "map"
            with contextlib.suppress(TableError):
                Index(kind, path, form=form).create(Path(path).read_bytes(), path)


def paths(text: str) -> dict[str, str]:
    """Return the values of default_database_type and of the parameters of main.cf that are a path or `type:path`."""
    known = {"default_database_type": "hash", **DIRECTORIES}
    for name, value in readable(text).items():
        value = REFERENCE.sub(lambda found: known.get(found[1], found[0]), value)
        if name == "default_database_type" or PATH.fullmatch(value):
            known[name] = value
    return known


def value_there(found: re.Match[str], known: dict[str, str]) -> str:
    """Return the text in place of `$name`: its value where more of a path follows, else `$name` itself."""
    value = known.get(found[1], "")
    following = found.string[found.end() : found.end() + 1]
    return value if value and (following in ("/", ":") or value.endswith("/")) else found[0]


def with_lists(site: Path, copy: Path, text: str) -> str:
    """Return main.cf with paths into the copy in lists of hosts, domains and networks, and in myorigin."""
    for name, value in readable(text).items():
        row = parameters.row(name)
        if row is None or (row[1].partition(" ")[0] != "match" and name != ORIGIN):
            continue
        content = "example.org\n" if name == ORIGIN else ""
        for word in main_cf.split_list(value):
            path = word.removeprefix("!")
            if path.startswith("/") and not path.startswith(str(copy)):
                text = re.sub(rf"(?<=[\s,!=]){re.escape(path)}(?=[\s,]|$)", stub(site, copy, path, content), text)
    return text


def readable(text: str) -> dict[str, str]:
    """Return the values of main.cf by name, without the malformed lines, which the check refuses."""
    values: dict[str, str] = {}
    for line, logical in main_cf.logical_lines(text):
        with contextlib.suppress(ConfigError):
            name, value = main_cf.split_assignment(logical, "main.cf", line)
            values[name] = value
    return values


def stub(site: Path, copy: Path, path: str, text: str) -> str:
    """Return the path in the copy of a file; the site's own file if its folder has one, else a stub."""
    # Flat: a site may have a file below another one, in the copy of another host.
    there = copy / "root" / path.strip("/").replace("/", "+")
    there.parent.mkdir(exist_ok=True)
    own = site / Path(path).name
    if not there.exists():
        if own.is_file():
            shutil.copyfile(own, there)
        else:
            there.write_text(text)
    return str(there)
