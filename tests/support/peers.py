"""Peer programs from Debian packages.

A test whose peer is not installed is skipped; the reason names the package to install. `PEERS=required` on make's
command line (as in CI) makes a missing peer a failure.
"""

import os
import shutil
import sys
from pathlib import Path

import pytest

PACKAGES = {
    **dict.fromkeys(("postfix", "postkick", "postlock", "postlog", "postmulti", "posttls-finger", "qshape"), "postfix"),
    "smtp-source": "postfix",
    "smtp-sink": "postfix",
    "swaks": "swaks",
    "msmtp": "msmtp",
    "pflogsumm": "pflogsumm",
    "named": "bind9",
    **dict.fromkeys(("dnssec-keygen", "dnssec-signzone"), "bind9-utils"),
    "unbound": "unbound",
    "dovecot": "dovecot-core",
    "strace": "strace",
    "perf": "linux-perf",
    "mkfs.ext4": "e2fsprogs",
    "valgrind": "valgrind",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
    "slapd": "slapd",
    "ldapadd": "ldap-utils",
    "ldapmodify": "ldap-utils",
    "memcached": "memcached",
    "gnutls-cli": "gnutls-bin",
    "postsrsd": "postsrsd",
}


def peer(program: str) -> str:
    """Return the path of a peer program. Skip or fail the test when it is not installed."""
    ours = str(Path(sys.executable).parent)
    others = [path for path in os.environ.get("PATH", "").split(":") if path != ours]
    path = shutil.which(program, path=":".join([*others, "/usr/sbin", "/usr/local/sbin", "/sbin"]))
    if path is None:
        absent(f"{program} is not installed (Debian package {PACKAGES.get(program, program)})")
    assert path is not None
    return path


def root() -> None:
    """Skip or fail a test that needs root."""
    if os.geteuid() != 0:
        absent("needs root")


def postfix_home() -> Path:
    """Return the directory of the real Postfix daemons. Skip or fail when there is none."""
    peer("postfix")
    return Path("/usr/lib/postfix/sbin")


def absent(reason: str) -> None:
    """Skip the test, or fail it when peers are required."""
    if os.environ.get("POSTILLION_PEERS") == "required":
        pytest.fail(reason)
    pytest.skip(reason)
