"""Remote tables against Debian's postmap: the same file and the same keys give the same values."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.peers import peer, postfix_home
from support.ports import free_port
from support.remote_lookups import FAILS, compare, ours, theirs
from support.table_servers import PASSWORD, ROWS, MariaDb, Memcached, Postgres, PostSrsd, Slapd, TableServer, end
from support.tcp_table import TcpTable

KEYS = [
    *(key for key in ROWS if key.isascii() and ROWS[key]),
    "ALICE@Example.ORG",
    "missing@example.org",
    "many@example.org",
    "null@example.org",
    "a b@example.org",
    "*",
    "*@example.org",
    "(mail=*)",
    "x' OR '1'='1",
    'x" OR "1"="1',
    "x\\",
    "@example.org",
    "user@",
    "a@b@example.org",
    ".example.com",
    "x" * 2000,
    "alice@mail.example.org",
    "alice@a.b.c.d.e.f.g.h.i.j",
]
Q = "SELECT v FROM aliases WHERE k='{}'"
SQL = [
    Q.format("%s"),
    Q.format("%S"),
    Q.format("%u@%d"),
    Q.format("%U@%D"),
    Q.format("%u@%2.%1"),
    Q.format("%u@%3.%2.%1"),
    Q.format("%d"),
    Q.format("%u"),
    Q.format("@%d"),
    Q.format("100%%@example.org"),
    "SELECT v, c2 FROM aliases WHERE k='%s'",
    "SELECT v FROM aliases WHERE k='%s' AND '%9'='i'",
    "SELECT '%s%%'",
]
EXTRA = [
    "result_format = <%s>",
    "result_format = %u at %d for %S",
    "result_format = %S:%1:%2",
    "result_format = %%",
    "expansion_limit = 2",
    "expansion_limit = 3",
    "domain = example.org",
    "domain = !other.example, EXAMPLE.org",
    "domain = !example.org, example.org",
    "domain = inline:{example.org=x}",
]
LDAP = [
    "result_filter = [%s]",
    "",
    "query_filter = (|(mail=%s)(uid=%u))",
    "query_filter = mail=%s",
    "query_filter = (&(mail=%u@%d)(objectClass=inetOrgPerson))",
    "search_base = dc=%2,dc=%1",
    "search_base = uid=u0,dc=example,dc=org\nscope = base",
    "search_base = dc=missing,dc=example,dc=org",
    "search_base = dc=example,dc=org\nscope = one",
    "result_attribute = mail, givenName",
    "result_attribute = uid",
    "result_attribute =",
    "query_filter = (mail=*@example.org)\nexpansion_limit = 2",
    "query_filter = (mail=*@example.org)\nsize_limit = 2",
    "query_filter = (cn=team)\nspecial_result_attribute = member",
    "query_filter = (cn=team)\nspecial_result_attribute = member\nresult_attribute = mail",
    "query_filter = (cn=team)\nspecial_result_attribute = member\nresult_attribute =\nleaf_result_attribute = mail",
    "query_filter = (cn=team)\nspecial_result_attribute = member\nterminal_result_attribute = mail",
    "query_filter = (cn=urls)\nspecial_result_attribute = labeledURI",
    "query_filter = (cn=urls)\nspecial_result_attribute = labeledURI\nresult_attribute = mail",
    "query_filter = (cn=team)\nspecial_result_attribute = cn",
    "query_filter = (cn=loop)\nspecial_result_attribute = member\nrecursion_limit = 10",
    "bind = no",
    "version = 2\nbind = no",
    "dereference = 3\nchase_referrals = yes\ntimeout = 5",
    *EXTRA,
]
MEMCACHE = ["", "key_format = t:%u@%d", "key_format = nothing:%s", "data_size_limit = 5", *EXTRA[6:10]]


@pytest.fixture(scope="module")
def etc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    peer("postmap")
    postfix_home()
    path = tmp_path_factory.mktemp("etc")
    (path / "main.cf").write_text("compatibility_level = 3.6\nmyhostname = mail.example.org\n")
    (path / "master.cf").write_text("")
    return path


def started(server: TableServer) -> Iterator[TableServer]:
    try:
        server.begin()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module")
def postgres() -> Iterator[TableServer]:
    yield from started(Postgres())


@pytest.fixture(scope="module")
def mariadb() -> Iterator[TableServer]:
    yield from started(MariaDb())


@pytest.fixture(scope="module")
def slapd() -> Iterator[TableServer]:
    yield from started(Slapd())


@pytest.fixture(scope="module")
def memcached() -> Iterator[TableServer]:
    yield from started(Memcached())


@pytest.mark.parametrize("query", SQL)
async def test_queries_of_pgsql(etc: Path, postgres: Postgres, query: str) -> None:
    await compare(etc, "pgsql", postgres.file(query), KEYS)


@pytest.mark.parametrize("extra", EXTRA)
async def test_parameters_of_pgsql(etc: Path, postgres: Postgres, extra: str) -> None:
    await compare(etc, "pgsql", postgres.file(extra=extra), KEYS)


async def test_older_parameters_of_pgsql(etc: Path, postgres: Postgres) -> None:
    old = "select_field = v\ntable = aliases\nwhere_field = k\nadditional_conditions = and v <> 'percent'\n"
    await compare(etc, "pgsql", postgres.file("", old), KEYS)
    postgres.sql("CREATE OR REPLACE FUNCTION f(x TEXT) RETURNS TEXT LANGUAGE sql AS $$SELECT '<' || x || '>'$$;")
    await compare(etc, "pgsql", postgres.file("", f"{old}select_function = f\n"), KEYS)


@pytest.mark.parametrize("query", [*SQL, "CALL lookup('%s')", 'SELECT v FROM aliases WHERE k="%s"'])
async def test_queries_of_mysql(etc: Path, mariadb: MariaDb, query: str) -> None:
    mariadb.sql(
        "USE mail; CREATE OR REPLACE PROCEDURE lookup(IN x VARCHAR(255)) READS SQL DATA "
        "SELECT v FROM aliases WHERE k=x;"
    )
    await compare(etc, "mysql", mariadb.file(query), KEYS)


@pytest.mark.parametrize("extra", EXTRA)
async def test_parameters_of_mysql(etc: Path, mariadb: MariaDb, extra: str) -> None:
    await compare(etc, "mysql", mariadb.file(extra=extra), KEYS)


@pytest.mark.parametrize("needed", ["yes", "no"])
async def test_statements_without_a_result_set(etc: Path, mariadb: MariaDb, needed: str) -> None:
    await compare(etc, "mysql", mariadb.file("DO 1 -- %s", f"require_result_set = {needed}\n"), KEYS[:2])


async def test_older_parameters_of_mysql(etc: Path, mariadb: MariaDb) -> None:
    old = "select_field = v\ntable = aliases\nwhere_field = k\nadditional_conditions = and v <> 'percent'\n"
    await compare(etc, "mysql", mariadb.file("", old), KEYS)


async def test_mysql_over_its_socket(etc: Path, mariadb: MariaDb) -> None:
    await compare(etc, "mysql", mariadb.file().replace("127.0.0.1:", f"unix:{mariadb.socket} 127.0.0.1:"), KEYS)
    options = etc / "my.cnf"
    options.write_text(f"[other]\nsocket={mariadb.socket}\n")
    text = mariadb.file(extra=f"option_file = {options}\noption_group = other\n")
    await compare(etc, "mysql", "\n".join(line for line in text.splitlines() if not line.startswith("hosts")), KEYS)


@pytest.mark.parametrize("query", SQL)
async def test_queries_of_sqlite(etc: Path, query: str) -> None:
    await compare(etc, "sqlite", sqlite_file(etc, query), KEYS)


@pytest.mark.parametrize("extra", EXTRA)
async def test_parameters_of_sqlite(etc: Path, extra: str) -> None:
    await compare(etc, "sqlite", sqlite_file(etc, extra=extra), KEYS)


@pytest.mark.parametrize("extra", LDAP)
async def test_parameters_of_ldap(etc: Path, slapd: Slapd, extra: str) -> None:
    await compare(etc, "ldap", slapd.file(extra), KEYS)


@pytest.mark.parametrize(
    "extra", ["bind_pw = wrong", "bind_dn = cn=nobody,dc=example,dc=org", "query_filter = ((mail=%s", "server_port = 1"]
)
async def test_failures_of_ldap(etc: Path, slapd: Slapd, extra: str) -> None:
    text = slapd.file(extra)
    if "server_port" in extra:
        text = text.replace(slapd.url, "127.0.0.1")
    await compare(etc, "ldap", text, KEYS[:1])


@pytest.mark.parametrize("extra", MEMCACHE)
async def test_parameters_of_memcache(etc: Path, memcached: Memcached, extra: str) -> None:
    await compare(etc, "memcache", memcached.file(extra), [*KEYS, "a\tb", "a\x01b", "a\x7fb", "x" * 250, "x" * 251])


async def test_the_backup_of_memcache_fills_it(etc: Path, memcached: Memcached) -> None:
    extra = "backup = inline:{ alice@example.org=backup, new@example.org=backup }\n"
    await compare(etc, "memcache", memcached.file(extra), ["alice@example.org", "gone@example.org"])
    assert await ours(etc, f"memcache:{etc / 'memcache.cf'}", ["new@example.org"]) == {"new@example.org": "backup"}
    assert memcached.fetch("t:new@example.org").startswith(b"VALUE t:new@example.org 0 6\r\nbackup")


async def test_the_backup_has_keys_that_memcached_cannot_have(etc: Path, memcached: Memcached) -> None:
    long = "x" * 251
    keys = [long, "a b", "a\x01b"]
    await compare(etc, "memcache", memcached.file("backup = static:backup\n"), keys)
    assert list((await ours(etc, f"memcache:{etc / 'memcache.cf'}", keys)).values()) == ["backup", None, "backup"]


async def test_long_keys_reach_the_server_of_a_tcp_table(etc: Path) -> None:
    port = free_port()
    keys = ["x" * 4090, "x" * 4092, "x" * 20_000, "é" * 2_000, "y" * 5_000]
    with TcpTable(port, {key: f"{len(key)}-octets" for key in ("x" * 4092, "x" * 20_000)} | {"y" * 5_000: ""}):
        name = f"tcp:127.0.0.1:{port}"
        found = await ours(etc, name, keys)
        assert found == await asyncio.to_thread(theirs, etc, name, keys)
        assert found["x" * 20_000] == "20000-octets"
        assert found["y" * 5_000] == FAILS


async def test_parameters_in_main_cf(etc: Path, postgres: Postgres, tmp_path: Path) -> None:
    lines = "".join(f"source_{line}\n" for line in postgres.file().splitlines())
    (tmp_path / "main.cf").write_text((etc / "main.cf").read_text() + lines)
    (tmp_path / "master.cf").write_text("")
    found = await ours(tmp_path, "proxy:pgsql:source", KEYS)
    assert found["alice@example.org"] == "alice"
    assert found == await asyncio.to_thread(theirs, tmp_path, "pgsql:source", KEYS)


def test_a_password_in_main_cf_is_in_no_listing(etc: Path, tmp_path: Path) -> None:
    lines = f"virtual_alias_maps = pgsql:source\nsource_password = {PASSWORD}\nsource_password = {PASSWORD}x\n"
    (tmp_path / "main.cf").write_text((etc / "main.cf").read_text() + lines + f"other_bind_pw = {PASSWORD}\n")
    (tmp_path / "master.cf").write_text("")
    for options in (["-n"], ["-nj"], ["-P"], ["source_password"], ["-h", "source_password"], ["-nx"]):
        command = [sys.executable, "-m", "postillion.commands.postconf", "-c", str(tmp_path), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert PASSWORD not in done.stdout + done.stderr
        assert "[password]" in done.stdout + done.stderr


COMBINED = [
    "unionmap:{{sqlite:{file}, inline:{{alice@example.org=more}}}}",
    "unionmap:{{inline:{{alice@example.org=first}},sqlite:{file},static:last}}",
    "pipemap:{{inline:{{alice@example.org=plain, x=nothing}}, sqlite:{file}}}",
    "pipemap:{{sqlite:{file}, inline:{{alice=found}}}}",
    "pipemap:{{unionmap:{{sqlite:{file}}}, regexp:{{{{/(.)/ <$1>}}}}}}",
    "unionmap:{{pipemap:{{sqlite:{file},sqlite:{file}}},pipemap:{{sqlite:{file},static:all}}}}",
    "unionmap:{{sqlite:{file},fail:x}}",
    "pipemap:{{sqlite:{file},fail:x}}",
    "unionmap:{{static:here,sqlite:{broken}}}",
    "pipemap:{{sqlite:{file},unionmap:{{static:here,sqlite:{broken}}}}}",
]


@pytest.mark.parametrize("form", COMBINED)
async def test_tables_of_remote_tables(etc: Path, form: str) -> None:
    file, broken = etc / "combined.cf", etc / "broken.cf"
    file.write_text(sqlite_file(etc))
    broken.write_text(sqlite_file(etc).replace("SELECT", "SELCT"))
    name = form.format(file=file, broken=broken)
    keys = [*KEYS[:6], "plain", "x"]
    found = await ours(etc, name, keys)
    assert found == await asyncio.to_thread(theirs, etc, name, keys)
    assert any(value is not None for value in found.values())


async def test_postsrsd(etc: Path) -> None:
    server = PostSrsd()
    try:
        server.begin()
        keys = ["alice@example.com", "alice@srs.example.org", "a b%@example.com", "é@example.com"]
        found = await ours(etc, f"tcp:127.0.0.1:{server.port}", keys)
        assert found == theirs(etc, f"tcp:127.0.0.1:{server.port}", keys)
        rewritten = found[keys[0]] or ""
        assert rewritten.startswith("SRS0=")
        back = [rewritten, "alice@example.com", "SRS0=xxxx=JS=example.com=a@srs.example.org"]
        reverse = f"tcp:127.0.0.1:{server.reverse}"
        assert (await ours(etc, reverse, back))[rewritten] == keys[0]
        assert await ours(etc, reverse, back) == theirs(etc, reverse, back)
    finally:
        end([server])


def sqlite_file(etc: Path, query: str = Q.format("%s"), extra: str = "") -> str:
    """Make the database if it is missing; return a file of parameters."""
    import sqlite3

    from support.table_servers import inserts

    path = etc / "aliases.sqlite"
    if not path.exists():
        database = sqlite3.connect(path)
        database.executescript("CREATE TABLE aliases (k TEXT, v TEXT, c2 TEXT);" + inserts("''"))
        database.commit()
        database.close()
    return f"dbpath = {path}\nquery = {query}\n{extra}"
