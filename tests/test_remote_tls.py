"""TLS, SASL and connection URIs of remote tables: what Debian's postmap finds, never in the clear."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest

from postillion.config import Config, ConfigError
from postillion.tables import TableError, open_table
from postillion.tables.remote import RemoteTable
from postillion.tables.remote.ldap import KEEPALIVE_IDLE_S
from support.certificates import Authority, Certificate
from support.mta import until
from support.peers import absent, peer, postfix_home
from support.proxy import Proxy
from support.remote_lookups import FAILS, compare, compare_rows, ours
from support.table_servers import PASSWORD, MariaDb, Postgres, Slapd, TableServer

KEY = "alice@example.org"
CIPHER = "SELECT VARIABLE_VALUE FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME='Ssl_cipher'"
MYSQL = f"SELECT IF(({CIPHER}) = '', 'clear', 'TLS') FROM aliases WHERE k='%s'"
PGSQL = (
    "SELECT CASE WHEN ssl THEN 'TLS' ELSE 'clear' END || coalesce(' ' || client_dn, '') || ' ' || current_user"
    " FROM pg_stat_ssl, aliases WHERE pid = pg_backend_pid() AND k='%s'"
)
SASL_LINES = (
    "password-hash {CLEARTEXT}\nsasl-secprops none\nsasl-host localhost\nauthz-policy to\n"
    "authz-regexp uid=([^,]*),(cn=[^,]*,)?cn=[^,]*,cn=auth uid=$1,dc=example,dc=org\n"
    "authz-regexp cn=client uid=u0,dc=example,dc=org\n"
)
SASL_MODULES = Path("/usr/lib")
SERVER = ("/CN=server.example", "IP:127.0.0.1,DNS:localhost")
DATES = {
    "expired": ("20000101000000Z", "20010101000000Z"),
    "not yet valid": ("20990101000000Z", "21000101000000Z"),
}


class Certificates(NamedTuple):
    """`right` has signed the server's and the client's, `other` a stranger's. `etc`: a directory with a main.cf."""

    etc: Path
    right: Authority
    other: Authority
    server: Certificate
    client: Certificate
    stranger: Certificate

    def fill(self, text: str) -> str:
        """Return a text with the files that its braces name."""
        return text.format(
            right=self.right.cert,
            right_dir=self.right.path,
            other=self.other.cert,
            other_dir=self.other.path,
            client=self.client.cert,
            client_key=self.client.key,
            stranger=self.stranger.cert,
            stranger_key=self.stranger.key,
            missing=self.etc / "missing",
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    peer("postmap")
    postfix_home()
    directory = tmp_path_factory.mktemp("tls")
    etc = directory / "etc"
    etc.mkdir()
    (etc / "main.cf").write_text("compatibility_level = 3.6\nmyhostname = mail.example.org\n")
    (etc / "master.cf").write_text("")
    right, other = Authority(directory, "right"), Authority(directory, "other")
    server = right.sign(*SERVER)
    return Certificates(etc, right, other, server, right.sign("/CN=client"), other.sign("/CN=stranger"))


@pytest.fixture(scope="module")
def mariadb(made: Certificates) -> Iterator[MariaDb]:
    server = MariaDb()
    try:
        server.secure(made.server, made.right.cert)
        server.begin()
        for host in ("%", "localhost"):
            user = f"card@'{host}'"
            server.sql(f"CREATE USER {user} IDENTIFIED BY '{PASSWORD}' REQUIRE X509; GRANT ALL ON mail.* TO {user};")
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module")
def postgres(made: Certificates) -> Iterator[Postgres]:
    server = Postgres()
    try:
        server.secure(made.server, made.right.cert)
        server.begin()
        server.sql("CREATE USER other SUPERUSER PASSWORD 'x';")
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module")
def slapd(made: Certificates) -> Iterator[Slapd]:
    pytest.importorskip("ldap", reason="python-ldap is not installed (it needs libldap2-dev and libsasl2-dev)")
    if not list(SASL_MODULES.glob("*/sasl2/libscram.so")):
        absent("the mechanisms of SASL are not installed (Debian package libsasl2-modules)")
    server = Slapd()
    try:
        server.secure(made.server, made.right.cert)
        server.lines = SASL_LINES
        server.begin()
        server.modify(
            f"dn: uid=u0,dc=example,dc=org\nchangetype: modify\nadd: userPassword\nuserPassword: {PASSWORD}\n"
        )
        yield server
    finally:
        server.remove()


CARD = "user = card\n"
CLIENT = "tls_cert_file = {client}\ntls_key_file = {client_key}\n"
MYSQL_ROWS: dict[str, str] = {
    "": "clear",
    "tls_verify_cert = no": "clear",
    "tls_CAfile = {right}": "TLS",
    "tls_CAfile = {other}": FAILS,
    "tls_CApath = {right_dir}": "TLS",
    "tls_CApath = {other_dir}": FAILS,
    "tls_CApath = {missing}": FAILS,
    "tls_CAfile = {other}\ntls_CApath = {right_dir}": "TLS",
    "tls_CAfile = {right}\ntls_verify_cert = yes": "TLS",
    "tls_verify_cert = yes": FAILS,
    "tls_ciphers = ECDHE-ECDSA-AES128-GCM-SHA256": "TLS",
    CLIENT: "TLS",
    CLIENT + CARD: "TLS",
    "tls_cert_file = {stranger}\ntls_key_file = {stranger_key}\n" + CARD: FAILS,
    "tls_CAfile = {right}\n" + CARD: FAILS,
    CARD: FAILS,
}
MYSQL_REFUSED: list[tuple[str, str]] = [
    ("tls_CAfile = {missing}", "tls_CAfile"),
    ("tls_cert_file = {missing}", "tls_cert_file"),
    ("tls_key_file = {client_key}", "tls_key_file"),
    ("tls_cert_file = {client}", "tls_cert_file"),
    ("tls_cert_file = {client}\ntls_key_file = {stranger_key}", "tls_cert_file"),
    ("tls_ciphers = nonsense", "tls_ciphers"),
]


def mysql_file(made: Certificates, server: MariaDb, extra: str, host: str = "") -> str:
    """Return a file of parameters. `host`: another than the server's."""
    own = f"127.0.0.1:{server.port}"
    text = server.file(MYSQL, made.fill(extra) + "\n").replace(own, host or own)
    return text.replace("user = mail\n", "") if CARD in extra else text


MYSQL_NAMES: dict[str, str] = {
    "tls_CAfile = {right}": "TLS",
    "tls_CAfile = {right}\ntls_verify_cert = yes": FAILS,
    "tls_verify_cert = yes": FAILS,
}
MYSQL_SOCKET: dict[str, str] = {
    "": "clear",
    "tls_CAfile = {right}\ntls_verify_cert = yes": "TLS",
    "tls_CAfile = {other}": FAILS,
    CLIENT + CARD: "TLS",
}


async def test_tls_of_mysql(made: Certificates, mariadb: MariaDb) -> None:
    texts = {extra: mysql_file(made, mariadb, extra) for extra in MYSQL_ROWS}
    assert await compare_rows(made.etc, "mysql", texts, KEY) == MYSQL_ROWS


async def test_the_name_of_a_mysql_server(made: Certificates, mariadb: MariaDb) -> None:
    with Proxy(mariadb.port, "127.0.0.2") as proxy:
        host = f"127.0.0.2:{proxy.port}"
        texts = {extra: mysql_file(made, mariadb, extra, host) for extra in MYSQL_NAMES}
        assert await compare_rows(made.etc, "mysql", texts, KEY) == MYSQL_NAMES
        assert b"SELECT" not in proxy.sent


async def test_tls_of_mysql_over_its_socket(made: Certificates, mariadb: MariaDb) -> None:
    texts = {extra: mysql_file(made, mariadb, extra, f"unix:{mariadb.socket}") for extra in MYSQL_SOCKET}
    assert await compare_rows(made.etc, "mysql", texts, KEY) == MYSQL_SOCKET


@pytest.mark.parametrize(("extra", "name"), MYSQL_REFUSED)
def test_a_bad_tls_file_of_mysql_is_an_error_with_its_line(made: Certificates, extra: str, name: str) -> None:
    file = made.etc / "refused.cf"
    file.write_text(f"dbname = x\nquery = x\n{made.fill(extra)}\n")
    line = 3 + [text.partition(" ")[0] for text in extra.split("\n")].index(name)
    with pytest.raises(ConfigError, match=f"line {line}: {name}: .* cannot be used"):
        open_table(f"mysql:{file}", Config.load(str(made.etc)))


def without_tls(greeting: bytes) -> bytes:
    """Return MariaDB's greeting of a server without TLS."""
    # Length, number and version; the server's version; thread, salt and a filler; then the capabilities.
    at = greeting.index(b"\0", 5) + 1 + 4 + 8 + 1
    capabilities = int.from_bytes(greeting[at : at + 2], "little") & ~0x800
    return greeting[:at] + capabilities.to_bytes(2, "little") + greeting[at + 2 :]


async def test_mysql_never_goes_on_in_the_clear(made: Certificates, mariadb: MariaDb) -> None:
    # Debian's library does, unless tls_verify_cert is set.
    with Proxy(mariadb.port, change=without_tls) as proxy:
        file = made.etc / "mysql.cf"
        for extra in ("tls_CAfile = {right}", "tls_verify_cert = yes", CLIENT, CLIENT + CARD):
            file.write_text(mysql_file(made, mariadb, extra, f"127.0.0.1:{proxy.port}"))
            await ours(made.etc, f"mysql:{file}", [KEY])
        assert proxy.sent
        assert b"SELECT" not in proxy.sent
        assert b"card" not in proxy.sent


TLS_CLIENT = "tls_cert = {client}\ntls_key = {client_key}\n"
YES = "tls_require_cert = yes\n"
LDAP_ROWS: dict[str, str] = {
    "": "alice",
    "tls_ca_cert_file = {other}\n": "alice",
    YES: FAILS,
    "tls_ca_cert_file = {right}\n" + YES: "alice",
    "tls_ca_cert_file = {other}\n" + YES: FAILS,
    "tls_ca_cert_file = {missing}\n": FAILS,
    "tls_ca_cert_dir = {right_dir}\n" + YES: "alice",
    "tls_ca_cert_dir = {other_dir}\n" + YES: FAILS,
    "tls_ca_cert_dir = {missing}\n" + YES: FAILS,
    TLS_CLIENT: "alice",
    "tls_cert = {client}\ntls_key = {stranger_key}\n": FAILS,
    "tls_cert = {client}\n": FAILS,
    "tls_key = {client_key}\n": FAILS,
    "tls_cert = {missing}\ntls_key = {client_key}\n": FAILS,
    "tls_cipher_suite = NORMAL:-VERS-TLS1.3\n": "alice",
    "tls_cipher_suite = nonsense\n": FAILS,
    "version = 2\n": "alice",
}


@pytest.mark.parametrize("start_tls", [False, True], ids=["ldaps", "start_tls"])
async def test_tls_of_ldap(made: Certificates, slapd: Slapd, start_tls: bool) -> None:
    with Proxy(slapd.port if start_tls else slapd.tls_port) as proxy:
        texts = {extra: ldap_file(made, slapd, extra, proxy.port, start_tls) for extra in LDAP_ROWS}
        assert await compare_rows(made.etc, "ldap", texts, KEY) == LDAP_ROWS
        assert PASSWORD.encode() not in proxy.sent


@pytest.mark.parametrize("start_tls", [False, True], ids=["ldaps", "start_tls"])
async def test_the_name_of_an_ldap_server(made: Certificates, slapd: Slapd, start_tls: bool) -> None:
    rows: dict[str, str] = {"": "alice", "tls_ca_cert_file = {right}\n" + YES: FAILS}
    with Proxy(slapd.port if start_tls else slapd.tls_port, "127.0.0.2") as proxy:
        texts = {extra: ldap_file(made, slapd, extra, proxy.port, start_tls, "127.0.0.2") for extra in rows}
        assert await compare_rows(made.etc, "ldap", texts, KEY) == rows
        assert PASSWORD.encode() not in proxy.sent


async def test_tls_parameters_of_ldap_have_no_effect_without_tls(made: Certificates, slapd: Slapd) -> None:
    extra = "tls_ca_cert_file = {missing}\ntls_cert = {missing}\ntls_cipher_suite = nonsense\n" + YES
    assert await compare(made.etc, "ldap", slapd.file(made.fill(extra)), [KEY]) == {KEY: "alice"}


async def test_start_tls_never_goes_on_in_the_clear(made: Certificates) -> None:
    pytest.importorskip("ldap", reason="python-ldap is not installed (it needs libldap2-dev and libsasl2-dev)")
    server = Slapd()
    try:
        server.prepare()
        server.start()
        with Proxy(server.port) as proxy:
            text = ldap_file(made, server, "", proxy.port, True)
            assert await compare(made.etc, "ldap", text, [KEY]) == {KEY: FAILS}
            assert PASSWORD.encode() not in proxy.sent
    finally:
        server.remove()


@pytest.mark.parametrize("start_tls", [False, True], ids=["ldaps", "start_tls"])
async def test_a_silent_handshake_of_ldap_is_a_temporary_failure(
    made: Certificates, slapd: Slapd, start_tls: bool
) -> None:
    file = made.etc / f"silent{start_tls}.cf"
    with Proxy(slapd.port if start_tls else slapd.tls_port) as proxy:
        file.write_text(ldap_file(made, slapd, "timeout = 1\n", proxy.port, start_tls))
        table = open_table(f"ldap:{file}", Config.load(str(made.etc)))
        assert isinstance(table, RemoteTable)
        proxy.hold()
        with pytest.raises(TableError):
            await table.ask(KEY)
        await table.close()
        if not start_tls:
            # The library waits for the handshake of ldaps until the connection ends.
            proxy.release()
        await until(lambda: not any(thread.name == table.name for thread in threading.enumerate()))


async def test_a_connection_to_a_lost_ldap_host_ends(made: Certificates, slapd: Slapd) -> None:
    file = made.etc / "keepalive.cf"
    file.write_text(slapd.file())
    table = open_table(f"ldap:{file}", Config.load(str(made.etc)))
    assert isinstance(table, RemoteTable)
    assert await table.ask(KEY) == "alice"
    running = timers(slapd.port)
    await table.close()
    assert running
    for timer in running:
        kind, _, ticks = timer.partition(":")
        assert kind == "02"
        assert int(ticks, 16) <= KEEPALIVE_IDLE_S * os.sysconf("SC_CLK_TCK")


def timers(port: int) -> list[str]:
    """Return the timers of the clients' connections to a port of 127.0.0.1: `02` is keepalive (proc(5))."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return [fields[5] for fields in lines if fields[2] == f"0100007F:{port:04X}" and fields[3] == "01"]


async def test_start_tls_within_tls_is_a_temporary_failure(made: Certificates, slapd: Slapd) -> None:
    text = slapd.file("start_tls = yes\n").replace(slapd.url, f"ldaps://127.0.0.1:{slapd.tls_port}")
    assert await compare(made.etc, "ldap", text, [KEY]) == {KEY: FAILS}


def ldap_file(
    made: Certificates, server: Slapd, extra: str, port: int, start_tls: bool, host: str = "127.0.0.1"
) -> str:
    """Return a file of parameters for a server behind a proxy."""
    text = server.file(made.fill(extra) + ("start_tls = yes\n" if start_tls else ""))
    return text.replace(server.url, f"{'ldap' if start_tls else 'ldaps'}://{host}:{port}")


SASL_ROWS: dict[str, str] = {
    "": "alice",
    "sasl_mechs = CRAM-MD5\n": "alice",
    "sasl_mechs = DIGEST-MD5\n": "alice",
    "sasl_mechs = DIGEST-MD5\nsasl_minssf = 50\n": "alice",
    "sasl_mechs = DIGEST-MD5\nsasl_realm = example.org\n": "alice",
    "sasl_mechs = DIGEST-MD5\nsasl_authz_id = u:u0\n": "alice",
    "sasl_mechs = DIGEST-MD5\nsasl_authz_id = u:u1\n": FAILS,
    "sasl_mechs = SCRAM-SHA-256\n": "alice",
    "sasl_mechs = SCRAM-SHA-256\nversion = 2\n": FAILS,
    "sasl_mechs = NONSENSE\n": FAILS,
    "sasl_mechs = EXTERNAL\n": FAILS,
    "sasl_mechs = PLAIN\n": FAILS,
    "sasl_mechs = PLAIN\nstart_tls = yes\n": "alice",
    "sasl_mechs = PLAIN\nstart_tls = yes\nsasl_minssf = 50\n": "alice",
    "sasl_mechs = EXTERNAL\nstart_tls = yes\n": FAILS,
    "sasl_mechs = EXTERNAL\nstart_tls = yes\n" + TLS_CLIENT: "alice",
    "sasl_mechs = EXTERNAL\nstart_tls = yes\ntls_cert = {stranger}\ntls_key = {stranger_key}\n": FAILS,
    "start_tls = yes\n" + TLS_CLIENT: "alice",
}


async def test_sasl_bind_of_ldap(made: Certificates, slapd: Slapd) -> None:
    texts = {
        extra: slapd.file("bind = sasl\n" + made.fill(extra)).replace("cn=admin,dc=example,dc=org", "u0", 1)
        for extra in SASL_ROWS
    }
    texts["wrong password"] = texts["sasl_mechs = CRAM-MD5\n"].replace(PASSWORD, "wrong")
    assert await compare_rows(made.etc, "ldap", texts, KEY) == SASL_ROWS | {"wrong password": FAILS}


async def test_a_sasl_mechanism_below_sasl_minssf_is_a_temporary_failure(made: Certificates, slapd: Slapd) -> None:
    # As ldap_table(5) says; Debian's Postfix reads the parameter without effect.
    file = made.etc / "minssf.cf"
    for strength, expected in ((0, "alice"), (1, FAILS)):
        text = slapd.file(f"bind = sasl\nsasl_mechs = CRAM-MD5\nsasl_minssf = {strength}\n")
        file.write_text(text.replace("cn=admin,dc=example,dc=org", "u0", 1))
        assert await ours(made.etc, f"ldap:{file}", [KEY]) == {KEY: expected}


USER = f"mail:{quote(PASSWORD, safe='')}@"
URI_ROWS: dict[str, str] = {
    f"postgresql://{USER}127.0.0.1:{{port}}/postgres?sslmode=disable": "clear mail",
    f"postgresql://{USER}127.0.0.1:{{port}}/postgres": "TLS mail",
    f"postgresql://{USER}127.0.0.1:{{port}}/postgres?sslmode=require": "TLS mail",
    f"postgresql://{USER}127.0.0.2:{{port}}/postgres?sslmode=verify-ca&sslrootcert={{right}}": "TLS mail",
    f"postgresql://{USER}127.0.0.1:{{port}}/postgres?sslmode=verify-ca&sslrootcert={{other}}": FAILS,
    f"postgresql://{USER}127.0.0.1:{{port}}/postgres?sslmode=verify-ca&sslrootcert={{missing}}": FAILS,
    f"postgresql://{USER}127.0.0.1:{{port}}/postgres?sslmode=verify-full&sslrootcert={{right}}": "TLS mail",
    f"postgresql://{USER}localhost:{{port}}/postgres?sslmode=verify-full&sslrootcert={{right}}": "TLS mail",
    f"postgresql://{USER}127.0.0.2:{{port}}/postgres?sslmode=verify-full&sslrootcert={{right}}": FAILS,
    f"postgresql://{USER}127.0.0.1:{{port}}/postgres?sslcert={{client}}&sslkey={{client_key}}": "TLS /CN=client mail",
    f"postgresql://{USER}127.0.0.1:{{port}}/postgres?sslmode=require&sslcert={{other}}&sslkey={{stranger_key}}": FAILS,
    f"postgresql://127.0.0.1:{{port}}/postgres?user=mail&password={quote(PASSWORD, safe='')}": "TLS mail",
    "postgresql://other:x@127.0.0.1:{port}/postgres": "TLS other",
    "postgresql://127.0.0.1:{port}/postgres": FAILS,
    "postgresql://mail@127.0.0.1:{port}/postgres": FAILS,
    f"postgresql://{USER}127.0.0.1:{{port}}/missing": FAILS,
    f"postgresql://{USER}127.0.0.1:{{port}}/postgres?nonsense=1": FAILS,
    f"postgresql://{USER}127.0.0.1:{{port}}/postgres?sslmode=nonsense": FAILS,
    f"127.0.0.1:1 postgresql://{USER}127.0.0.1:{{port}}/postgres": "TLS mail",
}


async def test_uris_of_pgsql(made: Certificates, postgres: Postgres) -> None:
    with Proxy(postgres.port, "127.0.0.2") as proxy:
        texts = {
            uri: pgsql_file(
                postgres,
                made.fill(uri.replace("{port}", str(proxy.port if "127.0.0.2" in uri else postgres.port))),
            )
            for uri in URI_ROWS
        }
        assert await compare_rows(made.etc, "pgsql", texts, KEY) == URI_ROWS
        assert b"SELECT" not in proxy.sent


async def test_a_pgsql_uri_that_requires_tls_never_goes_on_in_the_clear(made: Certificates, postgres: Postgres) -> None:
    def refused(octets: bytes) -> bytes:
        return b"N" if octets == b"S" else octets

    with Proxy(postgres.port, change=refused) as proxy:
        text = pgsql_file(postgres, f"postgresql://{USER}127.0.0.1:{proxy.port}/postgres?sslmode=require")
        assert await compare(made.etc, "pgsql", text, [KEY]) == {KEY: FAILS}
        assert b"mail" not in proxy.sent


@contextlib.contextmanager
def dated(server: TableServer, made: Certificates, dates: str) -> Iterator[None]:
    """Let the server have a certificate of other dates during the block."""
    server.kill()
    server.secure(made.right.sign_for(*DATES[dates], *SERVER), made.right.cert)
    server.start()
    try:
        yield
    finally:
        server.kill()
        server.secure(made.server, made.right.cert)
        server.start()


@pytest.mark.parametrize("dates", DATES)
async def test_a_mysql_server_with_a_certificate_of_other_dates_is_a_temporary_failure(
    made: Certificates, mariadb: MariaDb, dates: str
) -> None:
    rows: dict[str, str] = {
        "tls_CAfile = {right}": FAILS,
        "tls_CApath = {right_dir}": FAILS,
        "tls_CAfile = {right}\ntls_verify_cert = yes": FAILS,
        CLIENT: "TLS",
    }
    with dated(mariadb, made, dates), Proxy(mariadb.port) as proxy:
        texts = {extra: mysql_file(made, mariadb, extra, f"127.0.0.1:{proxy.port}") for extra in rows}
        assert await compare_rows(made.etc, "mysql", texts, KEY) == rows
        assert b"SELECT" not in proxy.sent


@pytest.mark.parametrize("dates", DATES)
@pytest.mark.parametrize("start_tls", [False, True], ids=["ldaps", "start_tls"])
async def test_an_ldap_server_with_a_certificate_of_other_dates_is_a_temporary_failure(
    made: Certificates, slapd: Slapd, start_tls: bool, dates: str
) -> None:
    rows: dict[str, str] = {
        "tls_ca_cert_file = {right}\n" + YES: FAILS,
        "tls_ca_cert_dir = {right_dir}\n" + YES: FAILS,
        "tls_ca_cert_file = {right}\n": "alice",
    }
    with dated(slapd, made, dates), Proxy(slapd.port if start_tls else slapd.tls_port) as proxy:
        texts = {extra: ldap_file(made, slapd, extra, proxy.port, start_tls) for extra in rows}
        assert await compare_rows(made.etc, "ldap", texts, KEY) == rows
        assert PASSWORD.encode() not in proxy.sent


@pytest.mark.parametrize("dates", DATES)
async def test_a_pgsql_server_with_a_certificate_of_other_dates_is_a_temporary_failure(
    made: Certificates, postgres: Postgres, dates: str
) -> None:
    rows: dict[str, str] = {
        "sslmode=verify-ca&sslrootcert={right}": FAILS,
        "sslmode=verify-full&sslrootcert={right}": FAILS,
        "sslmode=require&sslrootcert={right}": FAILS,
        "sslmode=require": "TLS mail",
    }
    with dated(postgres, made, dates), Proxy(postgres.port) as proxy:
        uri = f"postgresql://{USER}127.0.0.1:{proxy.port}/postgres?"
        texts = {extra: pgsql_file(postgres, uri + made.fill(extra)) for extra in rows}
        assert await compare_rows(made.etc, "pgsql", texts, KEY) == rows
        assert b"SELECT" not in proxy.sent


@pytest.mark.parametrize(
    "uri",
    [
        f"postgresql://{USER}127.0.0.1:1/postgres",
        f"postgresql://mail:{PASSWORD}@127.0.0.1:1/postgres",
        f"postgresql://127.0.0.1:1/postgres?password={quote(PASSWORD, safe='')}&user=mail",
        f"postgresql://127.0.0.1:1/postgres?user=mail&password={PASSWORD}",
        f"postgresql://127.0.0.1:1/postgres?user=mail&sslpassword={PASSWORD}",
        f"postgresql://mail:%zz{PASSWORD}@127.0.0.1:1/postgres",
        f"postgresql://127.0.0.1:1/postgres?user=mail&password=%zz{PASSWORD}",
        f"127.0.0.1:1 postgresql://{USER}127.0.0.1:1/postgres?nonsense=1",
    ],
)
async def test_the_password_of_a_uri_is_in_no_warning(made: Certificates, uri: str) -> None:
    file = made.etc / "uri.cf"
    file.write_text(f"hosts = {uri}\nuser = mail\ndbname = postgres\nquery = SELECT '%s'\n")
    warned: list[str] = []
    table = open_table(f"pgsql:{file}", Config.load(str(made.etc)), warn=warned.append)
    assert isinstance(table, RemoteTable)
    with pytest.raises(TableError) as failure:
        await table.ask(KEY)
    texts = [*warned, str(failure.value), repr(table), await table.reach()]
    assert warned
    for text in texts:
        assert PASSWORD not in text
        assert quote(PASSWORD, safe="") not in text
    await table.close()


def pgsql_file(server: Postgres, uri: str) -> str:
    """Return a file of parameters with a URI. Its user and password are for other hosts."""
    return server.file(PGSQL).replace(f"127.0.0.1:{server.port}", uri)
