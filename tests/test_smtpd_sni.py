"""The chain for the name that a client asks for (tls_server_sni_maps), on Postfix and on Postillion."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from postillion._core.tables import Index
from postillion.config import Config, ConfigError
from postillion.smtpd.mode import modes
from support.certificates import KEY, RSA_KEY, Authority
from support.mta import Site, let_others_pass, running, wait_for
from support.peers import peer, postfix_home, root
from support.tls import s_client

TLSMGR = "tlsmgr unix - - n 1000? 1 tlsmgr\n"
LONG = ".".join(["label"] * 41)
CASES = {
    "one.example": ("one", "to one.example: "),
    "ONE.example": ("one", "to ONE.example: "),
    "a.two.example": ("one", "to a.two.example: "),
    "a.b.two.example": ("one", "to a.b.two.example: "),
    "two.example": ("default", "TLS SNI two.example from unknown[127.0.0.1] not matched, using default chain"),
    "none.example": ("default", "TLS SNI none.example from unknown[127.0.0.1] not matched, using default chain"),
    "odd!": ("default", "warning: TLS SNI from unknown[127.0.0.1] is invalid: odd!"),
    "-x.example": ("default", "warning: TLS SNI from unknown[127.0.0.1] is invalid: -x.example"),
    "x_y.example": ("default", "TLS SNI x_y.example from unknown[127.0.0.1] not matched, using default chain"),
    "a..b": ("default", "warning: TLS SNI from unknown[127.0.0.1] is invalid: a..b"),
    "192.0.2.1": ("default", "warning: TLS SNI from unknown[127.0.0.1] is invalid: 192.0.2.1"),
    LONG: ("default", f"TLS SNI {LONG} from unknown[127.0.0.1] not matched, using default chain"),
    "": ("default", "established from unknown[127.0.0.1]: "),
}
"""By the client's name: the certificate that it gets, and words of the log."""


class Chains:
    """Files of keys with their chains, and tables that name them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._authority = Authority(directory, "authority")
        for name in ("default", "one", "three"):
            self._write(name)
        self._write("two", RSA_KEY)
        (directory / "broken.pem").write_text("no PEM\n")
        self.text = directory / "sni"
        self.write(self.text, "one")

    def path(self, name: str) -> Path:
        """Return the file of a key and its chain."""
        return self.directory / f"{name}.pem"

    def _write(self, name: str, key: tuple[str, ...] = KEY) -> None:
        made = self._authority.sign(f"/CN={name}.example", key=key)
        self.path(name).write_text(made.key.read_text() + made.cert.read_text())

    def write(self, text: Path, one: str) -> None:
        """Write a table whose first chain is `one`, and its index."""
        text.write_text(
            f"one.example {self.path(one)}\n"
            f".two.example {self.path('two')}, {self.path('one')}\n"
            f"broken.example {self.path('broken')}\n"
        )
        subprocess.run([peer("postmap"), "-F", f"hash:{text}"], check=True)

    def site(self, directory: Path, maps: str, **main_cf: str) -> Site:
        """Return a site with such tables."""
        settings = {
            "smtpd_tls_security_level": "may",
            "smtpd_tls_chain_files": str(self.path("default")),
            "smtpd_tls_loglevel": "1",
            "tls_server_sni_maps": maps,
        }
        return Site(directory, main_cf={**settings, **main_cf}, master_cf=TLSMGR)


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> Chains:
    peer("openssl")
    root()
    postfix_home()
    directory = tmp_path_factory.mktemp("chains")
    let_others_pass(directory)
    return Chains(directory)


@pytest.fixture(scope="module", params=["hash", "texthash", "silent"])
def sites(
    request: pytest.FixtureRequest, chains: Chains, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Site]]:
    """Postfix and Postillion with the same table."""
    level = {"smtpd_tls_loglevel": "0"} if request.param == "silent" else {}
    kind = "hash" if request.param == "silent" else request.param
    made = [chains.site(tmp_path_factory.mktemp(name), f"{kind}:{chains.text}", **level) for name in ("p", "o")]
    with running(made[0], "postfix"), running(made[1]):
        yield made


def asked(site: Site, name: str, *words: str) -> tuple[str, list[str]]:
    """Return the certificate's name for a client, and the lines of smtpd about TLS."""
    wait_for("the end of earlier sessions", lambda: _is_idle(site))
    before = len(site.log_text())
    output = s_client(site.port, *(["-servername", name] if name else ["-noservername"]), *words)
    wait_for("the end", lambda: " connect from" in site.log_text()[before:] and _is_idle(site))
    found = re.search(r"^ *0 s:CN = (\w+)\.example$", output, re.MULTILINE)
    alert = re.search(r"alert [a-z ]+", output)
    served = found[1] if found else alert[0] if alert else output
    lines = re.findall(r"/smtpd\[\d+\]: (.*(?:TLS|SSL|SNI|sni).*)", site.log_text()[before:])
    return served, lines


def _is_idle(site: Site) -> bool:
    begun, ended = (site.log_text().count(f": {word} from ") for word in ("connect", "disconnect"))
    return begun == ended > 0


@pytest.mark.parametrize("name", CASES)
def test_client_gets_the_chain_of_the_name(sites: list[Site], name: str) -> None:
    (certificate, lines), ours = (asked(site, name) for site in sites)
    assert ours == (certificate, lines)
    assert certificate == CASES[name][0]
    if lines or "SNI" in CASES[name][1]:
        assert CASES[name][1] in "\n".join(lines)


def test_key_of_the_type_that_the_client_wants(sites: list[Site]) -> None:
    for signature, served in (("RSA-PSS+SHA256", "two"), ("ECDSA+SHA256", "one")):
        assert [asked(site, "a.two.example", "-sigalgs", signature)[0] for site in sites] == [served, served]
    # The default chain is never in its place.
    assert [asked(site, "one.example", "-sigalgs", "RSA-PSS+SHA256")[0] for site in sites] == [
        "alert handshake failure"
    ] * 2


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_session_with_a_chain_of_its_own_is_resumed(sites: list[Site], tmp_path: Path, version: str) -> None:
    for site in sites:
        words = ["-servername", "one.example", version]
        session = tmp_path / f"session{site.port}"
        assert "\nNew, TLSv1." in s_client(site.port, *words, "-sess_out", str(session))
        assert "\nReused, TLSv1." in s_client(site.port, *words, "-sess_in", str(session))


def test_chain_that_cannot_be_used_ends_the_handshake(sites: list[Site]) -> None:
    (served, lines), (ours, our_lines) = (asked(site, "broken.example") for site in sites)
    assert served == ours == "alert internal error"
    assert [line for line in lines if "broken.example" not in line] == our_lines[1:]
    assert our_lines[0] == "warning: tls_server_sni_maps: broken.example: no key is in these files"


def test_failed_lookup_ends_the_handshake(chains: Chains, tmp_path: Path) -> None:
    made = [chains.site(tmp_path / name, "fail:broken") for name in ("p", "o")]
    with running(made[0], "postfix"), running(made[1]):
        assert [asked(site, "one.example")[0] for site in made] == ["alert internal error"] * 2
        assert "warning: tls_server_sni_maps: one.example: " in made[1].log_text()
        assert [asked(site, "")[0] for site in made] == ["default"] * 2


def test_changed_table_is_used_without_a_reload(chains: Chains, tmp_path: Path) -> None:
    text = tmp_path / "sni"
    let_others_pass(tmp_path)
    chains.write(text, "one")
    for path in (text, text.with_name("sni.db")):
        path.chmod(0o600)
    with running(chains.site(tmp_path / "site", f"hash:{text}")) as site:
        assert asked(site, "one.example")[0] == "one"
        chains.write(text, "three")
        wait_for("the new chain", lambda: asked(site, "one.example")[0] == "three")


def test_index_without_files_is_refused_in_the_handshake(chains: Chains, tmp_path: Path) -> None:
    text = tmp_path / "sni"
    text.write_text(f"one.example {chains.path('one')}\n")
    Index("hash", str(text)).create(text.read_bytes(), str(text))
    with running(chains.site(tmp_path / "site", f"hash:{text}")) as site:
        served, lines = asked(site, "one.example")
        assert served == "alert internal error"
        assert lines[0].endswith("write the table with postmap -F")


@pytest.mark.parametrize("table", ["socketmap:inet:127.0.0.1:1:sni", "unionmap:{tcp:127.0.0.1:1, tcp:127.0.0.1:2}"])
def test_remote_table_is_refused_at_the_start(chains: Chains, tmp_path: Path, table: str) -> None:
    site = chains.site(tmp_path, table)
    with pytest.raises(ConfigError, match="a handshake cannot wait for a remote table") as refusal:
        modes(Config.load(str(site.etc)), pytest.fail)
    assert refusal.value.line is not None
