"""`postfix tls`: the same files and parameters as Debian's, in a copy of the same configuration."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from support import peers
from support.certificates import Authority
from support.mta import POSTILLION_COMMANDS, Site, running, wait_for
from support.tls import TlsClient, context

STAMP = re.compile(r"\d{8}-\d{6}")
PROGRAMS = ("postillion", "postfix")


class Result(NamedTuple):
    """The exit status, standard output, and the configuration directory afterwards."""

    status: int
    output: str
    etc: Path


@pytest.fixture(scope="module")
def etc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration directory that each run gets a copy of."""
    peers.root()
    site = Site(tmp_path_factory.mktemp("site"), main_cf={"myhostname": "mx.example.org"})
    return site.etc


def run(etc: Path, program: str, *words: str) -> Result:
    """Run `postfix tls` on a configuration directory."""
    command = peers.peer("postfix") if program == "postfix" else str(POSTILLION_COMMANDS / "postfix")
    words = tuple(word.format(etc=etc) for word in words)
    done = subprocess.run(
        [command, "-c", str(etc), "tls", *words], capture_output=True, text=True, timeout=300, check=False
    )
    return Result(done.returncode, done.stdout, etc)


def both(etc: Path, tmp_path: Path, *commands: tuple[str, ...], main_cf: str = "") -> tuple[Result, Result]:
    """Run commands of `postfix tls` in two copies of a directory; return the results of the last one."""
    results: list[Result] = []
    for program in PROGRAMS:
        copy = tmp_path / program
        if not copy.exists():
            shutil.copytree(etc, copy)
            with (copy / "main.cf").open("a") as file:
                file.write(main_cf)
        results.append([run(copy, program, *words) for words in commands][-1])
    return results[0], results[1]


def parameters(result: Result) -> dict[str, str]:
    """Return the parameters of main.cf without what differs by time and place."""
    lines = (result.etc / "main.cf").read_text().splitlines()
    found = dict(line.split(" = ", 1) for line in lines if " = " in line and not line.startswith("#"))
    return {name: plain(result, value) for name, value in found.items()}


def plain(result: Result, text: str) -> str:
    """Return a text without the time and the directory."""
    return STAMP.sub("STAMP", text.replace(str(result.etc), "ETC"))


def made(result: Result) -> list[tuple[str, int]]:
    """Return the new files with their modes."""
    return sorted((plain(result, path.name), path.stat().st_mode & 0o777) for path in result.etc.glob("*.pem"))


def openssl(*words: str | Path) -> str:
    """Return the output of an openssl command."""
    command = [peers.peer("openssl"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def described(result: Result, pattern: str) -> str:
    """Return what openssl says about a certificate, without numbers, dates, keys and signatures."""
    [path] = result.etc.glob(pattern)
    text = openssl("x509", "-in", path, "-noout", "-text")
    text = re.sub(r"^ +[0-9A-Fa-f:]{2,}$", "", text, flags=re.M)
    text = re.sub(r"(Not (Before|After) ?: \w+ +\d+) [\d:]+", r"\1", text)
    return re.sub(r"Serial Number:.*|Key Identifier:.*", "", text)


def test_client_is_enabled_as_by_postfix(etc: Path, tmp_path: Path) -> None:
    ours, theirs = both(etc, tmp_path, ("enable-client",))
    assert (ours.status, parameters(ours)) == (theirs.status, parameters(theirs)) == (0, parameters(theirs))
    assert parameters(ours)["smtp_tls_security_level"] == "may"


@pytest.mark.parametrize("words", [("enable-server",), ("enable-server", "-a", "ecdsa", "a.example", "b.example")])
def test_server_is_enabled_as_by_postfix(etc: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    ours, theirs = both(etc, tmp_path, words)
    assert (ours.status, parameters(ours), made(ours)) == (theirs.status, parameters(theirs), made(theirs))
    assert sorted(mode for _, mode in made(ours)) == [0o600, 0o644]
    assert described(ours, "*cert-*") == described(theirs, "*cert-*")


@pytest.mark.parametrize("side", ["client", "server"])
def test_settings_of_a_site_are_left_alone(etc: Path, tmp_path: Path, side: str) -> None:
    parameter = "smtp_tls_security_level" if side == "client" else "smtpd_use_tls"
    value = "encrypt" if side == "client" else "yes"
    ours, theirs = both(etc, tmp_path, (f"enable-{side}",), main_cf=f"{parameter} = {value}\n")
    assert (ours.status, parameters(ours)) == (theirs.status, parameters(theirs))
    assert parameters(ours)[parameter] == value
    assert made(ours) == []
    assert [result.status for result in both(etc, tmp_path, (f"all-default-{side}",))] == [1, 1]


@pytest.mark.parametrize("side", ["client", "server"])
def test_fresh_configuration_is_all_default(etc: Path, tmp_path: Path, side: str) -> None:
    assert [result.status for result in both(etc, tmp_path, (f"all-default-{side}",))] == [0, 0]


@pytest.mark.parametrize("algorithm", ["rsa", "ecdsa"])
def test_new_key_is_made_and_deployed(etc: Path, tmp_path: Path, algorithm: str) -> None:
    ours, theirs = both(etc, tmp_path, ("new-server-key", "-a", algorithm, "mx.example.net", "*.example.net"))
    assert (ours.status, made(ours)) == (theirs.status, made(theirs))
    assert described(ours, "*cert-*") == described(theirs, "*cert-*")
    assert parameters(ours) == parameters(theirs)
    for result, program in zip((ours, theirs), PROGRAMS, strict=True):
        [key], [certificate] = result.etc.glob("*key-*"), result.etc.glob("*cert-*")
        assert run(result.etc, program, "deploy-server-cert", certificate.name, key.name).status == 0
    assert parameters(ours) == parameters(theirs)


def test_new_certificate_keeps_the_deployed_key(etc: Path, tmp_path: Path) -> None:
    keys = {}
    for program in PROGRAMS:
        copy = tmp_path / program
        shutil.copytree(etc, copy)
        assert run(copy, program, "enable-server").status == 0
        [key] = copy.glob("key-*")
        key.rename(copy / "old-key.pem")
        old = (copy / "main.cf").read_text()
        (copy / "main.cf").write_text(re.sub(r"key-[\d-]+\.pem", "old-key.pem", old))
        [certificate] = copy.glob("cert-*")
        certificate.unlink()
        assert run(copy, program, "new-server-cert", "new.example").status == 0
        [key] = copy.glob("key-*")
        assert key.stat().st_mode & 0o777 == 0o600
        assert openssl("rsa", "-in", key) == openssl("rsa", "-in", copy / "old-key.pem")
        keys[program] = parameters(Result(0, "", copy))
    assert keys["postillion"] == keys["postfix"]


def test_request_and_records_are_those_of_postfix(etc: Path, tmp_path: Path) -> None:
    assert run(etc, "postillion", "new-server-key", "-a", "ecdsa").status == 0
    [key], [certificate] = etc.glob("eckey-*"), etc.glob("eccert-*")
    key.rename(etc / "shared.key")
    certificate.unlink()
    commands = [
        ("output-server-tlsa", "shared.key"),
        ("output-server-tlsa", "-h", "other.example", "shared.key", "none"),
        ("output-server-csr", "-k", "shared.key"),
        ("output-server-csr", "-k", "shared.key", "a.example", "b.example"),
    ]
    for words in commands:
        ours, theirs = both(etc, tmp_path, words)
        outputs = [plain(result, result.output) for result in (ours, theirs)]
        if "csr" in words[0]:
            outputs = [request_text(output) for output in outputs]
        assert (ours.status, outputs[0]) == (theirs.status, outputs[1]), words
        assert outputs[0] != ""


def test_site_takes_the_new_key(tmp_path: Path) -> None:
    site = Site(tmp_path, main_cf={"myhostname": "mx.example.org"})
    for words in (("enable-server",), ("new-server-key", "-a", "ecdsa", "new.example")):
        assert run(site.etc, "postillion", *words).status == 0
    [key], [certificate] = site.etc.glob("eckey-*"), site.etc.glob("eccert-*")
    [old] = site.etc.glob("cert-*")
    with running(site):
        assert offered(site) == old.read_text()
        assert run(site.etc, "postillion", "deploy-server-cert", certificate.name, key.name).status == 0
        assert site.run("postfix", "reload").returncode == 0
        # TLS 1.3 takes the key of ECDSA first.
        wait_for("the new key", lambda: offered(site) == certificate.read_text())


def offered(site: Site) -> str:
    """Return the certificate that smtpd shows."""
    client = TlsClient(site.port)
    try:
        client.starttls(context())
        assert isinstance(client.socket, ssl.SSLSocket)
        return ssl.DER_cert_to_PEM_cert(client.socket.getpeercert(binary_form=True) or b"")
    finally:
        client.close()


def test_site_with_chain_files_keeps_its_keys(etc: Path, tmp_path: Path) -> None:
    # Debian's takes the settings for the defaults, and makes and publishes a key that its smtpd does not read.
    copy = tmp_path / "postillion"
    shutil.copytree(etc, copy)
    with (copy / "main.cf").open("a") as file:
        file.write("smtpd_tls_chain_files = $config_directory/own.pem\n")
    authority = Authority(tmp_path, "authority")
    own = authority.sign("/CN=own")
    before = (copy / "main.cf").read_text()
    rows = [
        (("all-default-server",), 1),
        (("enable-server",), 0),
        (("deploy-server-cert", str(own.cert), str(own.key)), 1),
        (("output-server-csr",), 1),
        (("output-server-csr", "-k", str(own.key)), 0),
        (("output-server-tlsa",), 1),
        (("output-server-tlsa", str(own.key)), 0),
    ]
    assert [(words, run(copy, "postillion", *words).status) for words, _ in rows] == rows
    assert (copy / "main.cf").read_text() == before
    assert made(Result(0, "", copy)) == []


def request_text(pem: str) -> str:
    """Return what openssl says about a request, without its signature, which has a random part."""
    command = [peers.peer("openssl"), "req", "-noout", "-text"]
    done = subprocess.run(command, input=pem, capture_output=True, text=True, check=True)
    return done.stdout.partition("Signature Algorithm")[0]


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("nosuch",),
        ("enable-client", "more"),
        ("enable-client", "-x"),
        ("enable-server", "-a", "dsa"),
        ("new-server-key", "-b", "nosuch"),
        ("new-server-key", "-a", "ecdsa", "-b", "nosuch"),
        ("deploy-server-cert", "one"),
        ("deploy-server-cert", "none.pem", "none.key"),
        ("deploy-server-cert", "other.pem", "own.key"),
        ("deploy-server-cert", "own.key", "own.pem"),
        ("output-server-csr",),
        ("output-server-csr", "-k", "none.key"),
        ("output-server-tlsa",),
        ("output-server-tlsa", "none.key"),
        ("all-default-client", "more"),
    ],
    ids=" ".join,
)
def test_bad_command_changes_nothing(etc: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    authority = Authority(tmp_path, "authority")
    own, other = authority.sign("/CN=own"), authority.sign("/CN=other")
    for program in PROGRAMS:
        copy = tmp_path / program
        shutil.copytree(etc, copy)
        for source, name in ((own.cert, "own.pem"), (own.key, "own.key"), (other.cert, "other.pem")):
            shutil.copy(source, copy / name)
    before = (tmp_path / "postillion/main.cf").read_text()
    ours, theirs = both(etc, tmp_path, words)
    assert (ours.status, made(ours)) == (theirs.status, made(theirs))
    assert (ours.status, ours.output) == (1, "")
    assert (ours.etc / "main.cf").read_text() == before


@pytest.mark.parametrize(
    "words",
    [
        ("enable-client", "-r", "x\nmynetworks = 0.0.0.0/0"),
        ("enable-client", "-r", "dev:$mydomain"),
        ("deploy-server-cert", "$x/own.pem", "$x/own.key"),
        ("new-server-key", "-b", "99999999"),
        ("new-server-key", "-a", "ecdsa", "-b", "x" * 41),
    ],
    ids=" ".join,
)
def test_value_that_main_cf_cannot_have_is_refused(etc: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    authority = Authority(tmp_path, "authority")
    own, copy = authority.sign("/CN=own"), tmp_path / "postillion"
    shutil.copytree(etc, copy)
    (copy / "$x").mkdir()
    for source, name in ((own.cert, "own.pem"), (own.key, "own.key")):
        shutil.copy(source, copy / "$x" / name)
    before = (copy / "main.cf").read_text()
    result = run(copy, "postillion", *words)
    assert (result.status, result.output, made(result)) == (1, "", made(Result(0, "", etc)))
    assert (copy / "main.cf").read_text() == before


@pytest.mark.parametrize("host", ["a b", "a\nDNS.2 = evil", "/CN=x", "", "x" * 64])
def test_name_that_is_no_host_makes_no_certificate(etc: Path, tmp_path: Path, host: str) -> None:
    copy = tmp_path / "postillion"
    shutil.copytree(etc, copy)
    result = run(copy, "postillion", "new-server-key", host)
    assert (result.status, made(result)) == (1, made(Result(0, "", etc)))
