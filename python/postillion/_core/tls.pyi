"""TLS of server and clients: parameters, keys and certificates (smtpd(8), smtp(8), TLS_README), and the library."""

from collections.abc import Sequence
from typing import Literal, final

from postillion._core.tables import Table
from postillion.config import Config

__all__ = [
    "TlsChannel",
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
    def sessions(self) -> int:
        """The number of TLS sessions that a connection may resume."""
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
        log_level: int | None = None,
    ) -> TlsPolicy:
        """Return the policy of a connection. Main.cf has the rest of the choices.

        `names`: those that the certificate may have; `.example.com` stands for all names below. `fingerprints`: in
        hexadecimal digits. `tlsa`: the server's records (usage, selector, matching type, data). If none is usable,
        `dane` becomes `encrypt`. `insecure_mx`: the server's name comes from an MX record without a signature.
        `session_key`: the server's part of the key of the cached TLS session; the policy is the other part.
        `log_level`: the amount of log lines; None: as main.cf says.

        Raises `ValueError` with a text for the log, such as a bad cipher grade.
        """

@final
class TlsChannel:
    """One TLS connection of a client, without its socket: octets in, octets out. It begins with the handshake.

    `peer`, in its methods: the server in a log line, such as `mx.example.org[192.0.2.1]:25`.
    """

    def __new__(cls, client: TlsClient, policy: TlsPolicy) -> TlsChannel:
        """Begin the handshake: `take_output` has the first octets. Raises `ValueError` when the library has no TLS."""

    def receive(self, octets: bytes) -> bytes:
        """Take octets from the server; return its plaintext. Then `take_output` may have some for the server."""
    def send(self, plain: bytes) -> None:
        """Encrypt plaintext. Before the handshake is complete, and after a failure, it is dropped."""
    def close(self) -> None:
        """Tell the server that nothing follows."""
    def take_output(self) -> bytes:
        """Return the octets for the server since the last call."""
    @property
    def is_established(self) -> bool:
        """Whether the handshake is complete."""
    @property
    def is_resumed(self) -> bool:
        """Whether the handshake went on with an earlier session."""
    @property
    def is_matched(self) -> bool:
        """Whether the server is the one that the policy wants."""
    @property
    def ended(self) -> bool:
        """Whether the server has said that it sends nothing more."""
    @property
    def failure(self) -> list[str] | None:
        """The library's errors, after which the connection is over; none when the server only went away."""
    @property
    def chain(self) -> list[tuple[str, str, str, str, str]]:
        """The server's chain: subject, issuer, digest of certificate and of public key, and the certificate in PEM."""
    def established_to(self, peer: str) -> str | None:
        """Return the log line about a complete handshake."""
    def certificate_to(self, peer: str) -> str | None:
        """Return the log line about the server's certificate; None without one."""
    def distrust_of(self, peer: str) -> str | None:
        """Return the log line that says why this is not the wanted server, where the policy wants to know."""
    def matches(self, peer: str) -> list[str]:
        """Return the log lines about the name, the TLSA record, the fingerprint or the trust anchor that matches."""
