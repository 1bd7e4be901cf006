"""Postillion: a mail transfer agent that runs a site's Postfix configuration."""

from importlib.metadata import version

__version__ = version("postillion")
