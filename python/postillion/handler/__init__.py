"""A site's aiosmtpd handler as policy of smtpd (docs/aiosmtpd.md)."""
