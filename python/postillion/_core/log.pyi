"""The mail log."""

from typing import final

__all__ = ["Log"]

@final
class Log:
    """A program's log: lines are formatted here and written in batches by a thread.

    `destination`: a path to append to (`/dev/stdout` for standard output of any kind), `syslog:` and a socket's
    path, or `memory:`. `facility`: syslog's number, 2 for mail. Raises `OSError` when it cannot be opened.
    """

    def __new__(
        cls,
        host: str,
        syslog_name: str,
        program: str,
        pid: int,
        utc_offset_s: int,
        destination: str,
        *,
        permissions: int = 0o600,
        facility: int = 2,
    ) -> Log: ...
    def line(self, severity: str, text: str) -> None:
        """Add a line of severity info, warning, error, fatal or panic; raises `ValueError` for another word."""

    def info(self, text: str) -> None:
        """Add a line about an event."""

    def warning(self, text: str) -> None:
        """Add a line about a problem to check."""

    def set_utc_offset(self, utc_offset_s: int) -> None:
        """Set how far local time is ahead of UTC."""

    def flush(self) -> None:
        """Wait until all lines so far are written."""

    def take_lines(self) -> list[str]:
        """Return the lines of a `memory:` log so far, without stamp, host and tag."""
