"""TLS of the load source and of the sink: TLS 1.3, and for the sink a certificate of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final, Literal

from postillion._core.tls import TlsClient, TlsPolicy, TlsServer, self_signed_chain
from postillion.config import Config
from postillion.config.main_cf import Setting

Handshakes = Literal["full", "resumed"]
"""Whether each connection begins a TLS session, or resumes an earlier one."""
HANDSHAKES: Final = ("full", "resumed")
PROTOCOLS: Final = ">=TLSv1.3"
NAME: Final = "sink.example"
SESSION_KEY: Final = "bench"


def client(handshakes: Handshakes) -> tuple[TlsClient, TlsPolicy]:
    """Return TLS of a source, which takes any certificate. `resumed`: it keeps TLS sessions and offers the last one."""
    config = _config(smtp_tls_session_cache_database="internal:bench")
    made = TlsClient(config, "smtp")
    key = SESSION_KEY if handshakes == "resumed" else ""
    return made, made.policy("encrypt", protocols=PROTOCOLS, session_key=key)


def server(*, wrapper: bool = False) -> TlsServer:
    """Return TLS of a sink with a new certificate of RSA-2048 and session tickets. `wrapper`: no STARTTLS."""
    with tempfile.TemporaryDirectory(prefix="postillion-bench-") as directory:
        chain = Path(directory) / "sink.pem"
        write_chain(chain, NAME)
        config = _config(
            smtpd_tls_security_level="may",
            smtpd_tls_chain_files=str(chain),
            smtpd_tls_protocols=PROTOCOLS,
            smtpd_tls_mandatory_protocols=PROTOCOLS,
            smtpd_tls_wrappermode="yes" if wrapper else "no",
        )
        # The files are read once.
        made = TlsServer(config)
    if made.problem is not None:
        raise ValueError(": ".join(made.problem))
    return made


def write_chain(path: Path, name: str) -> None:
    """Write a new RSA-2048 key and its certificate for the host `name`; only the owner can read the file."""
    path.touch(mode=0o600)
    path.write_bytes(self_signed_chain(name))


def _config(**values: str) -> Config:
    given = {"myhostname": NAME, "mydomain": "example"} | values
    return Config("/etc/postfix", {name: Setting(value, "postillion bench", None) for name, value in given.items()})
