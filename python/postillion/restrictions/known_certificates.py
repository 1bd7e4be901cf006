"""The clients that relay_clientcerts lists, by the fingerprint of their certificate or of its public key."""

from __future__ import annotations

from postillion.checks.check import Dialogue
from postillion.config import Config
from postillion.tables import open_maps

RELAY_CLIENTCERTS = "relay_clientcerts"


class KnownCertificates:
    """The tables of relay_clientcerts. smtpd_tls_fingerprint_digest names the digest of the fingerprints."""

    def __init__(self, config: Config) -> None:
        """Open the tables. Raises `ConfigError`."""
        self._tables = open_maps(RELAY_CLIENTCERTS, config)

    def lists(self, dialogue: Dialogue) -> bool:
        """Return whether a table has the client's certificate or its public key. Raises `TableError`."""
        certificate = dialogue.certificate
        if certificate is None:
            return False
        fingerprint, public_key, _ = certificate
        return any(self._tables.lookup(key) is not None for key in (fingerprint, public_key))

    def trusts(self, dialogue: Dialogue) -> bool:
        """Return whether a trusted authority has issued the client's certificate, or a table has it.

        Raises `TableError`.
        """
        certificate = dialogue.certificate
        return certificate is not None and (certificate[2] or self.lists(dialogue))
