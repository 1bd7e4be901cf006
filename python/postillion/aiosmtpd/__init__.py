"""An `aiosmtpd.smtp.SMTP` for aiosmtpd's Controller, with lines and messages read in Rust (docs/aiosmtpd.md)."""

from postillion.aiosmtpd.server import SMTP

__all__ = ["SMTP"]
