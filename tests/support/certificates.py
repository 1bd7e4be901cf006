"""Certificates of a test, made with the openssl command."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

from support.peers import peer

DAYS = "30"
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
RSA_KEY = ("-newkey", "rsa:2048", "-nodes")


class Certificate(NamedTuple):
    """The files of a certificate and its private key."""

    cert: Path
    key: Path


class Authority:
    """A certification authority. `cert`: the file of its certificate; `path`: a directory with it, by its hash.

    `key`: the file of its key. `issuer`: the authority above an intermediate one.
    """

    def __init__(self, directory: Path, name: str, issuer: Authority | None = None) -> None:
        self._directory = directory / name
        self._directory.mkdir()
        (self._directory / "openssl.cnf").write_text("[req]\ndistinguished_name = dn\n[dn]\n")
        # Like the authority that a MySQL server makes for itself: no keyUsage.
        above = () if issuer is None else issuer.signature
        self.cert, self.key = self._request("ca", f"/CN={name}", "basicConstraints=critical,CA:TRUE", words=above)
        self.path = self._directory / "hashed"
        self.path.mkdir()
        hashed = subprocess.run(
            [peer("openssl"), "x509", "-hash", "-noout", "-in", self.cert], capture_output=True, text=True, check=True
        )
        (self.path / f"{hashed.stdout.strip()}.0").symlink_to(self.cert)

    @property
    def signature(self) -> tuple[str, ...]:
        """The words by which openssl signs with this authority's key."""
        return ("-CA", str(self.cert), "-CAkey", str(self.key))

    def sign(
        self, subject: str, names: str = "", key: tuple[str, ...] = KEY, extensions: tuple[str, ...] = ()
    ) -> Certificate:
        """Return a certificate. `subject`: `/CN=name`; `names`: its subjectAltName, such as `DNS:name`."""
        extensions = (*self._extensions(names), *extensions)
        return self._request(self._leaf(), subject, *extensions, words=self.signature, key=key)

    def sign_for(self, first: str, last: str, subject: str, names: str = "") -> Certificate:
        """Return a certificate that is valid between two dates, such as `20000101000000Z`."""
        name = self._leaf()
        request, key = self._request(name, subject, is_certificate=False)
        index = self._directory / "index"
        index.touch()
        config = self._directory / f"{name}.cnf"
        config.write_text(
            f"[ca]\ndatabase = {index}\nserial = {index}.serial\nnew_certs_dir = {self._directory}\n"
            "default_md = sha256\nunique_subject = no\npolicy = any\nx509_extensions = leaf\n"
            "[any]\ncommonName = supplied\n[leaf]\n" + "\n".join(self._extensions(names))
        )
        signed = Certificate(self._directory / f"{name}-signed.pem", key)
        command = [peer("openssl"), "ca", "-batch", "-notext", "-create_serial", "-config", str(config)]
        command += ["-name", "ca", "-cert", str(self.cert), "-keyfile", str(self.key)]
        command += ["-startdate", first, "-enddate", last, "-in", str(request), "-out", str(signed.cert)]
        subprocess.run(command, capture_output=True, check=True)
        return signed

    def _leaf(self) -> str:
        """Return a name for the files of a new certificate."""
        return f"leaf{len(list(self._directory.iterdir()))}"

    def _extensions(self, names: str) -> list[str]:
        return ["basicConstraints=CA:FALSE", *([f"subjectAltName={names}"] if names else [])]

    def _request(
        self,
        name: str,
        subject: str,
        *extensions: str,
        words: tuple[str, ...] = (),
        key: tuple[str, ...] = KEY,
        is_certificate: bool = True,
    ) -> Certificate:
        """Return a new key, with its certificate or with a request for one."""
        made = Certificate(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        command = [peer("openssl"), "req", "-config", str(self._directory / "openssl.cnf")]
        command += ["-x509", "-days", DAYS] if is_certificate else []
        command += [*key, *words, "-subj", subject, "-keyout", str(made.key), "-out", str(made.cert)]
        command += [word for extension in extensions for word in ("-addext", extension)]
        subprocess.run(command, capture_output=True, check=True)
        return made
