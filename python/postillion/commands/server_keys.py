"""Private keys, certificates and requests for them, made by openssl(1) as `postfix tls` does."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from typing import Final, NamedTuple

from postillion.commands.failure import Failure

KEY_MODE: Final = 0o600
CERTIFICATE_MODE: Final = 0o644
DAYS: Final = 36525
"""Validity of a self-signed certificate: 100 years, as in Postfix."""
OPENSSL_TIMEOUT_S: Final = 600
"""Longest time of an openssl command; a long RSA key takes minutes."""
HOSTS_MAX: Final = 100
HOST: Final = re.compile(r"(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
NO_PASSWORD: Final = ("-passin", "pass:")
"""Without it, openssl asks for the password of an encrypted key."""
PEM: Final = b"-----BEGIN "
SELF_SIGNED: Final = ("basicConstraints = CA:false",)


class Kind(NamedTuple):
    """A kind of keys. `command`: shows a key; `prefix`: of file names; `size`: the default."""

    name: str
    command: str
    prefix: str
    size: str
    key_parameter: str
    certificate_parameter: str


RSA: Final = Kind("rsa", "rsa", "", "2048", "smtpd_tls_key_file", "smtpd_tls_cert_file")
ECDSA: Final = Kind("ecdsa", "ec", "ec", "secp256r1", "smtpd_tls_eckey_file", "smtpd_tls_eccert_file")
KINDS: Final = {kind.name: kind for kind in (RSA, ECDSA)}


class OpenSsl:
    """The openssl command. `path`: openssl_path."""

    def __init__(self, path: str) -> None:
        """Raise `Failure` when it does not work."""
        self._path = path
        self._run("version", problem=f"openssl_path = {path}: the command does not work")

    def create_key(self, kind: Kind, size: str, path: str) -> None:
        """Write a new private key to a new file. Raises `Failure`."""
        words = ("genrsa", size) if kind is RSA else ("ecparam", "-param_enc", "named_curve", "-genkey", "-name", size)
        key = self._run(*words, problem=f"cannot make a {kind.name} key of {size}")
        _create(path, key, KEY_MODE)

    def copy_key(self, kind: Kind, old: str, path: str) -> None:
        """Write the private key of a file to a new file. Raises `Failure` when it is of another kind."""
        found, key = self._read_key(old)
        if found is not kind:
            raise Failure(f"the key in {old} is of kind {found.name}, not {kind.name}")
        _create(path, key, KEY_MODE)

    def create_certificate(self, key: str, path: str, hosts: list[str]) -> None:
        """Write a self-signed certificate to a new file. Raises `Failure`."""
        words = ("req", "-x509", "-config", "/dev/stdin", "-new", "-key", key, "-subj", f"/CN={hosts[0]}")
        text = _config("x509_extensions", SELF_SIGNED, hosts)
        made = self._run(*words, "-days", str(DAYS), given=text, problem="cannot make a self-signed certificate")
        _create(path, made, CERTIFICATE_MODE)

    def request(self, key: str, hosts: list[str]) -> str:
        """Return a request for a certificate (CSR) in PEM format. Raises `Failure`."""
        words = ("req", "-config", "/dev/stdin", "-new", "-key", key, "-subj", "/", *NO_PASSWORD)
        text = _config("req_extensions", (), hosts)
        return self._run(*words, given=text, problem=f"cannot make a request with the key in {key}").decode()

    def kind_of(self, key: str) -> Kind:
        """Return the kind of the private key in a file. Raises `Failure`."""
        return self._read_key(key)[0]

    def digest_of_key(self, key: str) -> str:
        """Return the SHA-256 digest of the public part of a key, for a TLSA record 3 1 1. Raises `Failure`."""
        problem = f"no private key is found in {key}"
        return self._digest(self._run("pkey", *NO_PASSWORD, "-in", key, "-pubout", problem=problem))

    def digest_of_certificate(self, path: str) -> str:
        """Return the same digest of the public key in a certificate. Raises `Failure`."""
        problem = f"no certificate is found in {path}"
        return self._digest(self._run("x509", "-pubkey", "-noout", "-in", path, problem=problem))

    def _digest(self, public: bytes) -> str:
        der = self._run("pkey", "-pubin", "-outform", "DER", given=public, problem="cannot read a public key")
        return hashlib.sha256(der).hexdigest()

    def _read_key(self, path: str) -> tuple[Kind, bytes]:
        problem = f"no private key is found in {path}"
        for kind in KINDS.values():
            try:
                return kind, self._run(kind.command, *NO_PASSWORD, "-in", path, problem=problem)
            except Failure:
                continue
        raise Failure(problem)

    def _run(self, *words: str, given: bytes = b"", problem: str) -> bytes:
        """Return the output of an openssl command. Raises `Failure` with `problem` and openssl's first line."""
        try:
            done = subprocess.run(
                [self._path, *words], input=given, capture_output=True, check=False, timeout=OPENSSL_TIMEOUT_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failure(f"{problem}: {error}") from None
        if done.returncode or not done.stdout:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise Failure(f"{problem}: {lines[0]}" if lines else problem)
        return done.stdout


def check_hosts(hosts: list[str]) -> None:
    """Raise `Failure` unless these are names for a certificate."""
    if len(hosts) > HOSTS_MAX:
        raise Failure(f"more than {HOSTS_MAX} host names")
    for host in hosts:
        if not HOST.fullmatch(host):
            raise Failure(f"not a host name: {host!r}")


def _config(section: str, extensions: tuple[str, ...], hosts: list[str]) -> bytes:
    """Return a configuration of openssl(1) for a certificate with these names."""
    lines = ["default_md = sha256", f"{section} = v3", "prompt = yes", "distinguished_name = dn", "[dn]", "[v3]"]
    lines += [*extensions, "subjectKeyIdentifier = hash", "extendedKeyUsage = serverAuth, clientAuth"]
    lines += ["subjectAltName = @alts", "[alts]"]
    lines += [f"DNS.{number} = {host}" for number, host in enumerate(hosts, 1)]
    return "".join(line + "\n" for line in lines).encode()


def _create(path: str, content: bytes, mode: int) -> None:
    """Write a new file, and sync it. Raises `Failure`, and then there is no such file, or it is another one's."""
    if PEM not in content:
        raise Failure(f"openssl_path: the command has not made what belongs into {path}")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    except OSError as error:
        raise Failure(f"cannot create {path}: {error.strerror}") from None
    try:
        with open(fd, "wb") as file:
            os.fchmod(fd, mode)
            file.write(content)
            file.flush()
            os.fsync(fd)
    except OSError as error:
        os.unlink(path)
        raise Failure(f"cannot write {path}: {error.strerror}") from None
