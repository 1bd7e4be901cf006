"""Checks of smtpd: the interface of restrictions, limits and a site's handler, and their replies."""
