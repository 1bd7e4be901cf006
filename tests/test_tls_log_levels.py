"""TLS log levels of single peers: keys in order, values, tables that fail, and the lines of smtp and smtpd."""

from __future__ import annotations

from pathlib import Path

import pytest

from postillion.tables import TableError
from postillion.tables.tls_log_levels import TlsLogLevels
from support.agents import FakeDaemon
from support.certificates import Authority, Certificate
from support.memory_config import config
from support.mta import Site, running, wait_for
from support.tls import TlsClient, context
from support.tls_peer import Kind, TlsPeer, by
from test_smtp_agent import smtp
from test_smtp_tls_hostile import context as server_context

NAME = "smtp_tls_loglevel_maps"


def level(
    entries: dict[str, str], name: str, address: str, *, parents: str = "", warnings: list[str] | None = None
) -> int | None:
    """Return the level of a peer by a table with these entries. `parents`: parent_domain_matches_subdomains."""
    table = "inline:{ " + ", ".join(f"{{ {key} = {value} }}" for key, value in entries.items()) + " }"
    values = {NAME: table, "parent_domain_matches_subdomains": parents}
    said = [] if warnings is None else warnings
    return TlsLogLevels(NAME, config(**values), said.append).of(name, address)


@pytest.mark.parametrize(
    ("entries", "name", "address", "expected"),
    [
        ({"mx.example.com": "4", "192.0.2.1": "1"}, "mx.example.com", "192.0.2.1", 4),
        ({"MX.example.com": "4"}, "mx.EXAMPLE.com.", "192.0.2.1", 4),
        ({".example.com": "2", "192.0.2.1": "1"}, "mx.example.com", "192.0.2.1", 2),
        ({".com": "3"}, "mx.example.com", "192.0.2.1", 3),
        ({"example.com": "3"}, "mx.example.com", "192.0.2.1", None),
        ({".mx.example.com": "3"}, "mx.example.com", "192.0.2.1", None),
        ({"192.0.2.1": "1"}, "mx.example.com", "192.0.2.1", 1),
        ({"192.0.2": "1", "192": "2"}, "unknown", "192.0.2.1", 1),
        ({"192": "2"}, "unknown", "192.0.2.1", 2),
        ({"192.0.2.": "2"}, "unknown", "192.0.2.1", None),
        ({"2001:db8": "2"}, "unknown", "2001:db8::1", 2),
        ({"unknown": "2"}, "unknown", "192.0.2.1", None),
        ({"mx.example.com": "DUNNO", "192.0.2.1": "1"}, "mx.example.com", "192.0.2.1", None),
        ({"mx.example.com": "dunno", ".example.com": "1"}, "mx.example.com", "192.0.2.1", None),
        ({"mx.example.com": "0"}, "mx.example.com", "", 0),
        ({"mx.example.com": "2,trace"}, "mx.example.com", "", 2),
        ({"mx.example.com": "1, trace"}, "mx.example.com", "", 1),
    ],
)
def test_name_comes_before_address_and_whole_keys_before_parts(
    entries: dict[str, str], name: str, address: str, expected: int | None
) -> None:
    assert level(entries, name, address) == expected


def test_bare_parents_are_keys_where_the_site_says_so() -> None:
    assert level({"example.com": "3"}, "mx.example.com", "", parents=NAME) == 3
    assert level({".example.com": "3"}, "mx.example.com", "", parents=NAME) is None


@pytest.mark.parametrize("value", ["5", "-1", "high", "1 2", "trace", "1,high"])
def test_bad_value_leaves_the_level_to_main_cf(value: str) -> None:
    warnings: list[str] = []
    assert level({"mx.example.com": value}, "mx.example.com", "", warnings=warnings) is None
    told = f'{NAME}: mx.example.com: bad TLS log level "{value}": give a number from 0 to 4, or DUNNO'
    assert warnings == [told]


def test_patterns_get_no_parts() -> None:
    table = "regexp:{ {/^mx\\.example\\.com$$/ 1}, {/^\\.example\\.com$$/ 2}, {/^192\\.0\\.2$$/ 3} }"
    levels = TlsLogLevels(NAME, config(**{NAME: table}), print)
    assert [levels.of(name, "192.0.2.1") for name in ("mx.example.com", "a.example.com")] == [1, None]


def test_table_that_fails_is_a_warning(tmp_path: Path) -> None:
    warnings: list[str] = []
    levels = TlsLogLevels(NAME, config(**{NAME: f"texthash:{tmp_path}/none"}), warnings.append)
    assert levels.of("mx.example.com", "192.0.2.1") is None
    assert warnings
    assert warnings[-1].startswith(f"{NAME}: ")
    with pytest.raises(TableError):
        levels._maps.lookup("x")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Authority(tmp_path_factory.mktemp("ca"), "authority").sign("/CN=mx.example.org", "DNS:mx.example.org")


def established(daemon: FakeDaemon) -> int:
    return sum("TLS connection established to" in line for line in daemon.logged())


@pytest.mark.parametrize(
    ("main_cf", "table", "lines"),
    [("0", "127.0.0.1=1", 1), ("1", "127.0.0.1=0", 0), ("0", "127=2", 1), ("1", "127.0.0.1=DUNNO", 1), ("0", "x=1", 0)],
)
async def test_smtp_logs_a_session_by_its_server(
    tmp_path: Path, certificate: Certificate, main_cf: str, table: str, lines: int
) -> None:
    peer = TlsPeer(Kind(by(server_context(certificate))))
    key, _, value = table.partition("=")
    more = f"smtp_tls_security_level = encrypt\nsmtp_tls_loglevel = {main_cf}\n"
    more += f"smtp_tls_loglevel_maps = inline:{{ {{ {key} = {value} }} }}\n"
    async with smtp(tmp_path, more) as (hub, daemon):
        assert (await hub.deliver(f"[127.0.0.1]:{peer.port}")).only.outcome == "sent"
        assert established(daemon) == lines
    peer.close()


@pytest.mark.parametrize(("main_cf", "value", "lines"), [("0", "1", 1), ("1", "0", 0)])
def test_smtpd_logs_a_session_by_its_client(
    tmp_path: Path, certificate: Certificate, main_cf: str, value: str, lines: int
) -> None:
    chain = tmp_path / "chain.pem"
    chain.write_text(certificate.key.read_text() + certificate.cert.read_text())
    parameters = {
        "smtpd_tls_chain_files": str(chain),
        "smtpd_tls_security_level": "may",
        "smtpd_tls_loglevel": main_cf,
        "smtpd_tls_loglevel_maps": f"inline:{{ {{ 127.0.0 = {value} }} }}",
    }
    with running(Site(tmp_path / "site", main_cf=parameters)) as site:
        for number in (1, 2):
            # The second client is known already.
            client = TlsClient(site.port)
            client.starttls(context())
            client.close()
            wait_for("the end", lambda most=number: site.log_text().count("starttls=1") >= most)  # type: ignore[misc]
        assert site.log_text().count("TLS connection established from") == 2 * lines
