"""Postillion: a mail transfer agent that runs a site's Postfix configuration."""

__version__: str


def __getattr__(name: str) -> str:
    """Return the installed version when asked for `__version__`.

    Looked up late: importlib.metadata costs 30 ms, which every run of sendmail would pay.
    """
    if name == "__version__":
        from importlib.metadata import version

        return version("postillion")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
