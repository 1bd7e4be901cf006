"""The TLS policy for a connection to one host, as a value, and the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from postillion.delivery.smtp.tls.level import Level, at_least
from postillion.dns import Tlsa

CONFIGURATION_PROBLEM: Final = ("4.7.5", "client TLS configuration problem")
"""Status code and text of mail that waits until the site corrects its configuration. The log has the reason."""


class NoPolicy(Exception):
    """The host must not be tried. `dsn` is the enhanced status code; the text is that of Postfix's log."""

    def __init__(self, dsn: str, text: str) -> None:
        super().__init__(text)
        self.dsn = dsn


@dataclass(frozen=True, slots=True)
class Domain:
    """The policy that the recipient's domain publishes, as reports name it (RFC 8460 §4.2).

    `kind`: sts, tlsa or no-policy-found. `ttl`: seconds that it holds. `strings`: its lines. `mx_patterns`: the names
    of the hosts that it allows, `*.` for one label. `failure`: why the domain's policy could not be used, in RFC 8460's
    words; empty for none.
    """

    kind: str
    name: str = ""
    ttl: int | None = None
    strings: tuple[str, ...] = ()
    mx_patterns: tuple[str, ...] = ()
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """How a connection to a host uses TLS.

    `level`: at fingerprint the certificate or key must match one of `fingerprints`; at dane and half-dane one of
    `records`; at verify and secure the certificate must have one of `names`, and an authority must vouch for it.
    dane-only has become dane, or there is no policy.

    `why`: the parameter, table and key that decided, for an administrator.
    """

    level: Level
    why: str
    names: tuple[str, ...] = ()
    """Names in DNS's form, for a certificate at verify and secure, and for DANE-TA; `.example.org`: any name below."""
    fingerprints: tuple[str, ...] = ()
    """Digests of a certificate or of its public key, in lower-case hexadecimal digits without colons."""
    fingerprint_digest: str = ""
    records: tuple[Tlsa, ...] = ()
    """The usable TLSA records, strongest digest first."""
    trust_files: tuple[str, ...] = ()
    """Files of certificates that vouch for the server, in place of the authorities of main.cf."""
    protocols: str | None = None
    """As smtp_tls_protocols: `>=TLSv1.2`, `!TLSv1`. None, here and below: the parameters of the level decide."""
    ciphers: str | None = None
    """The grade: medium, high, null."""
    exclude: str | None = None
    """As smtp_tls_exclude_ciphers: `RC4`."""
    servername: str = ""
    """The name that the client asks for (SNI); empty for none."""
    connection_reuse: bool = False
    domain: Domain | None = None
    """The policy of the recipient's domain, if a table or MTA-STS gave it."""

    @property
    def needs_tls(self) -> bool:
        """Whether no mail goes out without TLS."""
        return at_least(self.level, "encrypt")

    @property
    def needs_match(self) -> bool:
        """Whether no mail goes out to a server that does not match the policy."""
        return at_least(self.level, "fingerprint")
