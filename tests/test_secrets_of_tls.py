"""Private keys and passwords of logins: a canary that no log, listing, explanation or core dump shows."""

from __future__ import annotations

import base64
import os
import re
import resource
import signal
import smtplib
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.certificates import Authority, Certificate
from support.mta import Site, ended, processes, running, wait_for
from support.peers import root
from support.sasl import AuthServer
from support.tls import TlsClient, context
from test_secrets import CANARY, core_dumps_allowed, core_files, postconf

REMOTE = "c4n4ry-Lila"
USER = "login-user"
WAIT_MAX_S = 60.0
KEY_LINE_CHARS = 20
"""Shortest line of a key that counts: the last one may be anything."""
LEVEL = "4"


def secrets_of(*certificates: Certificate) -> list[bytes]:
    """Return the forms of the secrets: the passwords, their base64 in a login, the lines of keys and their numbers."""
    found = [CANARY.encode(), REMOTE.encode(), base64.b64encode(f"\0{USER}\0{CANARY}".encode())]
    for certificate in certificates:
        lines = certificate.key.read_text().splitlines()[1:-1]
        found += [line.encode() for line in lines if len(line) > KEY_LINE_CHARS]
        command = ["openssl", "pkey", "-in", str(certificate.key), "-noout", "-text"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        digits = re.search(r"priv:\s+((?:[0-9a-f]{2}:?\s*)+)", text)
        assert digits is not None
        number = bytes.fromhex(re.sub(r"[\s:]", "", digits[1]))
        found += [number, number.hex().encode(), number.hex().upper().encode()]
    return found


class Waiting(AuthServer):
    """A server that answers a login when the test is over: its client waits with the password in memory."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self._over = threading.Event()
        super().__init__(["AUTH PLAIN"], [self._wait])

    def _wait(self, _line: str) -> str:
        self.asked.set()
        self._over.wait(WAIT_MAX_S)
        return "454 4.7.0 later"

    def close(self) -> None:
        """Answer, stop listening, and close every connection."""
        self._over.set()
        super().close()


@contextmanager
def serving() -> Iterator[Waiting]:
    """Run the server."""
    server = Waiting()
    try:
        yield server
    finally:
        server.close()


def made_site(directory: Path, server: Waiting, ours: Certificate, client: Certificate) -> Site:
    """Return a site with a key for its server, one for its client, an account there, and a remote table."""
    chain = directory / "chain.pem"
    chain.write_text(ours.key.read_text() + ours.cert.read_text())
    (directory / "logins").write_text(f"[127.0.0.1]:{server.port} {USER}:{CANARY}\n")
    for file in (chain, directory / "logins"):
        file.chmod(0o600)
    remote = f"hosts = 127.0.0.1:1\nuser = u\npassword = {REMOTE}\ndbname = x\nquery = SELECT 1\n"
    (directory / "remote.cf").write_text(remote)
    main_cf = {
        "smtpd_tls_chain_files": str(chain),
        "smtpd_tls_security_level": "may",
        "smtpd_tls_loglevel": LEVEL,
        "smtp_tls_security_level": "may",
        "smtp_tls_loglevel": LEVEL,
        "smtp_tls_cert_file": str(client.cert),
        "smtp_tls_key_file": str(client.key),
        "smtp_sasl_auth_enable": "yes",
        "smtp_sasl_security_options": "noanonymous",
        "smtp_sasl_password_maps": f"proxy:texthash:{directory}/logins",
        "smtp_sasl_auth_cache_name": "proxy:btree:$data_directory/refused",
        "debug_peer_list": "127.0.0.1",
        "smtp_host_lookup": "native",
        "relay_domains": "next.example, remote.example",
        "relay_recipient_maps": f"inline:{{ {{ u@next.example = x }} }} pgsql:{directory}/remote.cf",
        "transport_maps": f"inline:{{ {{ next.example = smtp:[127.0.0.1]:{server.port} }} }}",
    }
    return Site(directory / "site", main_cf=main_cf, master_cf="smtp unix - - n - 1 smtp\n")


def is_dumpable(pid: int) -> bool:
    """Return whether the kernel may write a core dump: the files in /proc of a process that forbids it are root's."""
    limits = Path(f"/proc/{pid}/limits").read_text()
    found = re.search(r"^Max core file size +(\S+)", limits, re.MULTILINE)
    assert found is not None
    user = Path(f"/proc/{pid}/environ").stat().st_uid
    return found[1] != "1" or user != 0


def aborted(pid: int) -> None:
    """Abort a process, and wait for its end."""
    os.kill(pid, signal.SIGABRT)
    wait_for("the end of a process", lambda: ended(pid))


def test_no_key_and_no_password_is_shown(tmp_path: Path) -> None:
    root()
    authority = Authority(tmp_path, "authority")
    ours, client = authority.sign("/CN=mx.example.org", "DNS:mx.example.org"), authority.sign("/CN=client.example")
    tmp_path.chmod(0o755)
    secrets = secrets_of(ours, client)
    with serving() as server:
        site = made_site(tmp_path, server, ours, client)
        with core_dumps_allowed(), running(site):
            session = TlsClient(site.port)
            session.starttls(context())
            with smtplib.SMTP("127.0.0.1", site.port, timeout=WAIT_MAX_S) as mail:
                mail.starttls(context=ssl._create_unverified_context())
                assert mail.sendmail("s@example.org", ["u@next.example"], "Subject: x\n\nhi\n") == {}
                mail.docmd("MAIL FROM:<s@example.org>")
                assert mail.docmd("RCPT TO:<u@remote.example>")[0] == 451
            assert server.asked.wait(WAIT_MAX_S)
            for program in ("smtp", "smtpd"):
                pids = processes(site, program)
                assert pids
                for pid in pids:
                    assert not is_dumpable(pid), program
                    aborted(pid)
            session.close()
            said = [site.run("postillion", "explain", "u@next.example"), site.run("postillion", "check")]
            assert "[password]" in said[0].stdout, said[0]
            texts = [done.stdout + done.stderr for done in said]
        texts += [postconf(site.etc, *words).stdout for words in (["-n"], ["-nx"], ["-Mx"], ["-P"])]
        texts.append(site.log_text())
        assert "TLS connection established from" in site.log_text()
        for text in texts:
            assert not [secret for secret in secrets if secret in text.encode()]
        assert core_files(site.queue) == []


def test_a_site_without_keys_and_passwords_may_leave_core_dumps(tmp_path: Path) -> None:
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("the hard limit of core dumps is 0 here")
    with core_dumps_allowed(), running(Site(tmp_path)) as site:
        wait_for("smtpd", lambda: processes(site, "smtpd"))
        assert all(is_dumpable(pid) for pid in processes(site, "smtpd"))


MARKED = """
import ctypes, resource, sys
from postillion.config import Config
from postillion.delivery.smtp.sasl import Logins
from postillion.delivery.smtp.tls.connector import Connector
from postillion.dns import Resolver
config = Config.load(sys.argv[1], [tuple(word.split("=", 1)) for word in sys.argv[2:]])
Connector(config, "smtp", Resolver(["127.0.0.1"], 9), print)
Logins(config, "smtp", print)
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)[0] == 1)
"""
"""Prints PR_GET_DUMPABLE, and whether the limit of core dumps is the one that forbids them."""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], "1 False"),
        (["smtp_tls_security_level=may"], "0 True"),
        (["smtp_tls_security_level=may", "smtp_tls_cert_file={cert}", "smtp_tls_key_file={key}"], "0 True"),
        (["smtp_sasl_auth_enable=yes", "smtp_sasl_password_maps=texthash:{directory}/logins"], "0 True"),
        (["smtp_sasl_password_maps=texthash:{directory}/logins"], "1 False"),
    ],
)
def test_only_an_agent_with_tls_or_logins_is_marked(tmp_path: Path, given: list[str], expected: str) -> None:
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\nmydomain = example.org\n")
    client = Authority(tmp_path, "authority").sign("/CN=client.example")
    words = [word.format(cert=client.cert, key=client.key, directory=tmp_path) for word in given]
    command = [
        "/bin/sh",
        "-c",
        'ulimit -S -c 8 && exec "$@"',
        "sh",
        sys.executable,
        "-c",
        MARKED,
        str(tmp_path),
        *words,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_MAX_S)
    if "ulimit" in done.stderr:
        pytest.skip("the hard limit of core dumps is 0 here")
    assert done.stdout.splitlines()[-1:] == [expected], done.stderr
