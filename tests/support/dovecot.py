"""Dovecot's authentication server for a test: users with passwords, on a socket of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support.mta import let_others_pass, wait_for
from support.peers import peer, root

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
    server = subprocess.Popen([program, "-F", "-c", conf], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    socket = directory / "auth"
    try:
        wait_for("Dovecot's socket", lambda: socket.exists() or server.poll() is not None)
        assert server.poll() is None, server.stderr and server.stderr.read()
        yield socket
    finally:
        server.terminate()
        server.wait()
        if server.stderr is not None:
            server.stderr.close()
