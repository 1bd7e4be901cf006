"""Keys of smtpd that change while it runs, and the time until its certificates expire."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from support.certificates import Authority, Certificate
from support.mta import Site, processes, running, wait_for
from support.peers import peer, root
from support.tls import TlsClient, context, s_client

IN_USE = "the old keys stay in use)"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    peer("openssl")
    return Authority(tmp_path_factory.mktemp("keys"), "authority")


class Files:
    """The files of a server's key and chain, with the names and links of certbot. `closed`: only root may enter."""

    def __init__(self, directory: Path, *, closed: bool) -> None:
        self.live, self.archive = directory / "live", directory / "archive"
        self.cert, self.key = self.live / "fullchain.pem", self.live / "privkey.pem"
        self._number = 0
        for made in (self.live, self.archive):
            made.mkdir()
            if closed:
                made.chmod(0o700)

    def use(self, certificate: Certificate, *names: str) -> None:
        """Write new files, and let the links point at them; of these names alone, if there are any."""
        self._number += 1
        for name, source in (("fullchain", certificate.cert), ("privkey", certificate.key)):
            if names and name not in names:
                continue
            file = self.archive / f"{name}{self._number}.pem"
            file.touch(0o600 if name == "privkey" else 0o644)
            file.write_bytes(source.read_bytes())
            new = self.live / "new"
            new.symlink_to(file)
            new.rename(self.live / f"{name}.pem")

    def site(self, directory: Path, **main_cf: str) -> Site:
        """Return a site with these files."""
        settings = {
            "smtpd_tls_security_level": "may",
            "smtpd_tls_cert_file": str(self.cert),
            "smtpd_tls_key_file": str(self.key),
        }
        return Site(directory, main_cf={**settings, **main_cf})


def serves(site: Site, name: str) -> bool:
    return f"CN = {name}.example" in s_client(site.port)


@pytest.mark.parametrize("closed", [False, True], ids=["readable", "only for root"])
def test_new_keys_are_used_and_no_session_ends(authority: Authority, tmp_path: Path, closed: bool) -> None:
    if closed:
        root()
    first, second = authority.sign("/CN=first.example"), authority.sign("/CN=second.example")
    files = Files(tmp_path, closed=closed)
    files.use(first)
    if not closed:
        os.chmod(files.key, 0o644)
    with running(files.site(tmp_path / "site")) as site:
        secured, plain = TlsClient(site.port), TlsClient(site.port)
        secured.starttls(context())
        plain.reply()
        assert serves(site, "first")
        before = processes(site, "smtpd")
        files.use(second)
        if not closed:
            os.chmod(files.key, 0o644)
        wait_for("the new certificate", lambda: serves(site, "second"))
        assert secured.say("NOOP", "QUIT") == ["250 2.0.0 Ok", "221 2.0.0 Bye"]
        plain.say("EHLO client.example", "STARTTLS")
        plain.secure(context())
        assert plain.say("EHLO client.example", "QUIT")[-1] == "221 2.0.0 Bye"
        same = processes(site, "smtpd") == before
        assert same is not closed
        assert ("TLS keys have changed -- new sessions use them" in site.log_text()) is not closed
        assert ("TLS keys of smtpd (127.0.0.1:" in site.log_text()) is closed
        assert IN_USE not in site.log_text()


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


BROKEN: dict[str, tuple[Callable[[Files, Certificate], object], str]] = {
    "key of another certificate": (lambda files, new: files.use(new, "privkey"), "the key does not match"),
    "certificate of another key": (lambda files, new: files.use(new, "fullchain"), "the key does not match"),
    "half-written key": (lambda files, _: half(files.key), "no readable key"),
    "half-written certificate": (lambda files, _: half(files.cert), "a certificate is malformed"),
    "no key": (lambda files, _: files.key.unlink(), "No such file"),
    "no certificate": (lambda files, _: files.cert.unlink(), "No such file"),
}


@pytest.mark.parametrize("closed", [False, True], ids=["readable", "only for root"])
@pytest.mark.parametrize("case", BROKEN)
def test_keys_that_cannot_be_used_leave_the_old_ones(
    authority: Authority, tmp_path: Path, case: str, closed: bool
) -> None:
    if closed:
        root()
    first, second = authority.sign("/CN=first.example"), authority.sign("/CN=second.example")
    files = Files(tmp_path, closed=closed)
    files.use(first)
    if not closed:
        os.chmod(files.key, 0o644)
    spoil, problem = BROKEN[case]
    with running(files.site(tmp_path / "site")) as site:
        assert serves(site, "first")
        before = processes(site, "smtpd")
        spoil(files, second)
        wait_for("the warning", lambda: IN_USE in site.log_text())
        assert serves(site, "first")
        assert processes(site, "smtpd") == before
        (warning,) = [line for line in site.log_text().splitlines() if IN_USE in line]
        assert problem in warning
        assert re.search(r"warning: .*main\.cf, line \d+: smtpd_tls_(cert|key)_file: ", warning)
        files.use(second)
        if not closed:
            os.chmod(files.key, 0o644)
        wait_for("the new certificate", lambda: serves(site, "second"))
        assert site.log_text().count(IN_USE) == 1


def test_check_tells_when_certificates_expire(authority: Authority, tmp_path: Path) -> None:
    made = {
        "long": authority.sign("/CN=long.example"),
        "old": authority.sign_for("20000101000000Z", "20010101000000Z", "/CN=old.example"),
    }
    told = {}
    for name, certificate in made.items():
        directory = tmp_path / name
        directory.mkdir()
        files = Files(directory, closed=False)
        files.use(certificate)
        checked = files.site(directory / "site").run("postillion", "check")
        assert checked.returncode == 0
        told[name] = checked.stdout + checked.stderr
    # It was made for 30 days, maybe at another second.
    line = r"smtpd_tls_cert_file: the certificate of long\.example expires in (29|30) days\n"
    assert re.fullmatch(line, told["long"])
    assert re.search(r"warning: .*the certificate of old\.example has expired: renew it", told["old"])


def test_check_tells_of_the_certificate_that_expires_first(authority: Authority, tmp_path: Path) -> None:
    leaf = authority.sign("/CN=leaf.example")
    old = authority.sign_for("20000101000000Z", "20010101000000Z", "/CN=middle.example")
    chain = tmp_path / "chain.pem"
    chain.write_text(leaf.key.read_text() + leaf.cert.read_text() + old.cert.read_text())
    settings = {"smtpd_tls_security_level": "may", "smtpd_tls_chain_files": str(chain)}
    checked = Site(tmp_path / "site", main_cf=settings).run("postillion", "check")
    assert "smtpd_tls_chain_files: the certificate of middle.example has expired" in checked.stdout
