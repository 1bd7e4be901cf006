"""TLS of the SMTP server: its parameters, keys and certificates (smtpd(8), TLS_README)."""

from typing import Literal, final

from postillion.config import Config

__all__ = ["TlsServer"]

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
