"""Certificates of a test, made with the openssl command."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

from support.peers import peer

DAYS = "30"
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Certificate(NamedTuple):
    """The files of a certificate and its private key."""

    cert: Path
    key: Path


class Authority:
    """A certification authority. `cert`: the file of its certificate; `path`: a directory with it, by its hash."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory / name
        self._directory.mkdir()
        (self._directory / "openssl.cnf").write_text("[req]\ndistinguished_name = dn\n[dn]\n")
        # Like the authority that a MySQL server makes for itself: no keyUsage.
        self.cert, self._key = self._request("ca", f"/CN={name}", "basicConstraints=critical,CA:TRUE")
        self.path = self._directory / "hashed"
        self.path.mkdir()
        hashed = subprocess.run(
            [peer("openssl"), "x509", "-hash", "-noout", "-in", self.cert], capture_output=True, text=True, check=True
        )
        (self.path / f"{hashed.stdout.strip()}.0").symlink_to(self.cert)

    def sign(self, subject: str, names: str = "") -> Certificate:
        """Return a certificate. `subject`: `/CN=name`; `names`: its subjectAltName, such as `DNS:name`."""
        extensions = ["basicConstraints=CA:FALSE", *([f"subjectAltName={names}"] if names else [])]
        signed = ("-CA", str(self.cert), "-CAkey", str(self._key))
        return self._request(f"leaf{len(list(self._directory.iterdir()))}", subject, *extensions, words=signed)

    def _request(self, name: str, subject: str, *extensions: str, words: tuple[str, ...] = ()) -> Certificate:
        made = Certificate(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        command = [peer("openssl"), "req", "-x509", "-config", str(self._directory / "openssl.cnf"), "-days", DAYS]
        command += [*KEY, *words, "-subj", subject, "-keyout", str(made.key), "-out", str(made.cert)]
        command += [word for extension in extensions for word in ("-addext", extension)]
        subprocess.run(command, capture_output=True, check=True)
        return made
