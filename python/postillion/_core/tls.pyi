"""TLS of server and clients: parameters, keys and certificates (smtpd(8), smtp(8), TLS_README), and the library."""

from collections.abc import Sequence
from typing import Literal, final

from postillion._core.tables import Table
from postillion.config import Config

__all__ = [
    "TlsClient",
    "TlsPolicy",
    "TlsServer",
    "compile_version",
    "public_key_algorithms",
    "run_version",
    "self_signed_chain",
]

def compile_version() -> str:
    """Return the version of OpenSSL that the program was built with: `OpenSSL 3.0.22`."""

def public_key_algorithms() -> list[str]:
    """Return the kinds of keys that a certificate may have, in lower case."""

def run_version() -> str:
    """Return the version of OpenSSL in use, with its date: `OpenSSL 3.0.22 25 Aug 2026`."""

def self_signed_chain(name: str) -> bytes:
    """Return a new RSA-2048 key and a certificate for the host `name` that nobody else has signed, in PEM format.

    Raises `ValueError` for a name that cannot stand in a certificate.
    """

@final
class TlsServer:
    """TLS of an SMTP server, with all of its files read: the program needs root's rights once."""

    def __new__(
        cls, config: Config, chains: Sequence[Table] = ..., secret: tuple[bytes, float] | None = None
    ) -> TlsServer:
        """Read the parameters and their files. `chains`: the tables of tls_server_sni_maps, opened with their files.

        `secret`: that of session tickets, and its age in seconds; None: this process has its own one. Raises
        `ConfigError` for a value that is never valid.
        """

    @property
    def level(self) -> Literal["none", "may", "encrypt"]:
        """The use of TLS: none, optional, or required."""
    @property
    def problem(self) -> tuple[str, str, str] | None:
        """The reason why TLS does not work, such as a file that cannot be read: parameter, text and fix."""
    @property
    def expiries(self) -> list[tuple[str, str, int]]:
        """When each chain expires: parameter, common name, and whole days left; negative after that."""
    @property
    def has_changed(self) -> bool:
        """Whether the files have changed since they were read, and have stayed the same since the last question."""
    def renew(self) -> tuple[Literal["renewed", "refused", "closed"], tuple[str, str, str] | None]:
        """Read the files again, for new connections; return the result, and the problem as in `problem`.

        `refused`: they cannot be used, so the old ones stay in use. `closed`: this process may not read them.
        """
    @property
    def warnings(self) -> list[str]:
        """Problems that do not keep the server from its work."""

@final
class TlsPolicy:
    """The policy of one connection. Equal policies may share a connection."""

    @property
    def level(self) -> str:
        """The use of TLS in Postfix's word: `may`, `encrypt` ... `half-dane` is `dane` with an insecure MX record."""
    @property
    def requires_tls(self) -> bool:
        """Mail is never sent in the clear."""
    @property
    def must_match(self) -> bool:
        """The server must show that it is the right one."""
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self, /) -> int: ...

@final
class TlsClient:
    """TLS of an SMTP or LMTP client, with all of its files read: the program needs root's rights once."""

    def __new__(cls, config: Config, prefix: str) -> TlsClient:
        """Read the parameters of `smtp_tls_` or `lmtp_tls_`, and their files. `prefix`: `smtp` or `lmtp`.

        Raises `ConfigError` for a value that is never valid.
        """

    @property
    def problem(self) -> tuple[str, str, str] | None:
        """The reason why TLS does not work, such as a file that cannot be read: parameter, text and fix.

        As in Postfix, mail goes out in the clear where it may, and waits elsewhere.
        """
    @property
    def warnings(self) -> list[str]:
        """Problems that do not keep the client from its work."""
    @property
    def log_level(self) -> int:
        """The amount of log lines: 0 to 4."""
    def policy(
        self,
        level: str,
        *,
        names: Sequence[str] = ...,
        fingerprints: Sequence[str] = ...,
        tlsa: Sequence[tuple[int, int, int, bytes]] = ...,
        trust_anchor_files: Sequence[str] = ...,
        protocols: str | None = None,
        ciphers: str | None = None,
        exclude: str | None = None,
        servername: str | None = None,
        session_key: str = "",
        insecure_mx: bool = False,
    ) -> TlsPolicy:
        """Return the policy of a connection. Main.cf has the rest of the choices.

        `names`: those that the certificate may have; `.example.com` stands for all names below. `fingerprints`: in
        hexadecimal digits. `tlsa`: the server's records (usage, selector, matching type, data). If none is usable,
        `dane` becomes `encrypt`. `insecure_mx`: the server's name comes from an MX record without a signature.
        `session_key`: the server's part of the key of the cached TLS session; the policy is the other part.

        Raises `ValueError` with a text for the log, such as a bad cipher grade.
        """
