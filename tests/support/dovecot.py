"""Dovecot for a test: its authentication server on a socket of its own, and its LMTP server."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.certificates import Certificate
from support.mta import let_others_pass, listening, wait_for
from support.peers import peer, root
from support.ports import free_port

CONF = """\
base_dir = {directory}/run
log_path = {directory}/log
protocols =
ssl = no
disable_plaintext_auth = no
auth_verbose = yes
auth_mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256 external
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {directory}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home=/nonexistent
}}
service auth {{
  unix_listener {directory}/auth {{
    mode = 0666
  }}
}}
# Without a penalty for the address of a client with wrong passwords.
auth_failure_delay = 0
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
"""

LMTP_CONF = """\
base_dir = {directory}/run
log_path = {directory}/log
protocols = lmtp
mail_location = maildir:{directory}/mail/%u
ssl = yes
ssl_cert = <{cert}
ssl_key = <{key}
lmtp_verbose_replies = yes
lmtp_add_received_header = yes
auth_username_format = %n
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={directory}/mail/%u allow_all_users=yes
}}
first_valid_uid = 1
first_valid_gid = 1
service auth {{
  unix_listener auth-userdb {{
    mode = 0666
  }}
}}
service lmtp {{
  unix_listener {directory}/lmtp {{
    mode = 0666
  }}
  inet_listener starttls {{
    address = 127.0.0.1
    port = {starttls}
  }}
  inet_listener wrapper {{
    address = 127.0.0.1
    port = {wrapper}
    ssl = yes
  }}
}}
"""


@dataclass
class Lmtp:
    """A running LMTP server: its socket, its port with STARTTLS, and its port that begins with TLS."""

    directory: Path
    starttls: int
    wrapper: int

    @property
    def socket(self) -> Path:
        """The socket in the file system."""
        return self.directory / "lmtp"

    def messages(self, user: str) -> list[str]:
        """Return the messages of a user."""
        return [path.read_text() for path in sorted((self.directory / "mail" / user / "new").glob("*"))]

    def log_text(self) -> str:
        """Return the log so far."""
        return (self.directory / "log").read_text()


@contextmanager
def dovecot_lmtp(directory: Path, certificate: Certificate) -> Iterator[Lmtp]:
    """Run Dovecot's LMTP server, which has each user that mail is for."""
    root()
    program = peer("dovecot")
    (directory / "mail").mkdir(parents=True)
    let_others_pass(directory / "mail")
    (directory / "mail").chmod(0o777)
    server = Lmtp(directory, free_port(), free_port())
    names = {"cert": certificate.cert, "key": certificate.key, "starttls": server.starttls, "wrapper": server.wrapper}
    conf = directory / "dovecot.conf"
    conf.write_text(LMTP_CONF.format(directory=directory, **names))
    with _running([program, "-F", "-c", str(conf)], lambda: server.socket.exists() and listening(server.wrapper)):
        yield server


@contextmanager
def _running(command: list[str], is_ready: Callable[[], bool]) -> Iterator[None]:
    """Run a server during the block."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_for("Dovecot's socket", lambda: is_ready() or process.poll() is not None)
        assert process.poll() is None, process.stderr and process.stderr.read()
        yield
    finally:
        process.terminate()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


@contextmanager
def dovecot_auth(directory: Path, users: Mapping[str, str]) -> Iterator[Path]:
    """Run Dovecot with these users; yield the socket of its authentication server."""
    root()
    program = peer("dovecot")
    directory.mkdir()
    let_others_pass(directory)
    directory.chmod(0o755)
    (directory / "users").write_text("".join(f"{user}:{password}\n" for user, password in users.items()))
    (directory / "users").chmod(0o644)
    conf = directory / "dovecot.conf"
    conf.write_text(CONF.format(directory=directory))
    socket = directory / "auth"
    with _running([program, "-F", "-c", str(conf)], socket.exists):
        yield socket
