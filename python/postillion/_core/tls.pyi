"""TLS: a server's parameters, keys and certificates (smtpd(8), TLS_README), and the library."""

from typing import Literal, final

from postillion.config import Config

__all__ = ["TlsServer", "compile_version", "public_key_algorithms", "run_version"]

def compile_version() -> str:
    """Return the version of OpenSSL that the program was built with: `OpenSSL 3.0.22`."""

def public_key_algorithms() -> list[str]:
    """Return the kinds of keys that a certificate may have, in lower case."""

def run_version() -> str:
    """Return the version of OpenSSL in use, with its date: `OpenSSL 3.0.22 25 Aug 2026`."""

@final
class TlsServer:
    """TLS of an SMTP server, with all of its files read: the program needs root's rights once."""

    def __new__(cls, config: Config) -> TlsServer:
        """Read the parameters and their files. Raises `ConfigError` for a value that is never valid."""

    @property
    def level(self) -> Literal["none", "may", "encrypt"]:
        """The use of TLS: none, optional, or required."""
    @property
    def problem(self) -> tuple[str, str, str] | None:
        """The reason why TLS does not work, such as a file that cannot be read: parameter, text and fix."""
    @property
    def warnings(self) -> list[str]:
        """Problems that do not keep the server from its work."""
