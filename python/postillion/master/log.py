"""Master's own log: lines in the format of the Rust core, written without it.

Master forks, so it must not have threads, and it does not import `postillion._core`. It writes few lines, one by one.
"""

import os
import socket
import sys
import time

from postillion.program.log import LINE_MAX_OCTETS, Target, utc_offset_s
from postillion.text import printable

SEVERITIES = {
    "info": ("", 6),
    "warning": ("warning: ", 4),
    "error": ("error: ", 3),
    "fatal": ("fatal: ", 2),
    "panic": ("panic: ", 2),
}
"""The word before the text, and syslog's number (RFC 3164 §4.1.1)."""
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class MasterLog:
    """The log at the target that main.cf names; writing a line never raises."""

    def __init__(self, target: Target, program: str = "master") -> None:
        """Open the log; raises `OSError` when the file or the socket cannot be opened."""
        self._target = target
        self._program = program
        self._fd = -1
        self._socket: socket.socket | None = None
        self._syslogd = ""
        kind, _, path = target.destination.partition(":")
        if kind == "syslog":
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            os.stat(path)
            self._syslogd = path
        elif target.destination == "/dev/stdout":
            self._fd = os.dup(sys.__stdout__.fileno() if sys.__stdout__ is not None else 1)
        else:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._fd = os.open(target.destination, flags, target.permissions)

    @property
    def file(self) -> tuple[int, int]:
        """Device and inode of the log file: others after it was rotated. (0, 0) for syslog."""
        if self._fd < 0:
            return 0, 0
        found = os.fstat(self._fd)
        return found.st_dev, found.st_ino

    def info(self, text: str) -> None:
        """Write a line about an event."""
        self.line("info", text)

    def warning(self, text: str) -> None:
        """Write a line about a problem."""
        self.line("warning", text)

    def line(self, severity: str, text: str, tag: str | None = None) -> None:
        """Write a line. `tag`: the program and pid that the line names, `smtpd[123]`; master's own by default."""
        self.write(severity, text, f"{self._target.syslog_name}/{tag or f'{self._program}[{os.getpid()}]'}")

    def write(self, severity: str, text: str, tag: str) -> None:
        """Write a line with this tag in front, without `syslog_name`."""
        prefix, number = SEVERITIES[severity]
        now = time.gmtime(time.time() + utc_offset_s())
        stamp = f"{MONTHS[now.tm_mon - 1]} {now.tm_mday:2} {now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02}"
        head = f"<{self._target.facility * 8 + number}>{stamp}" if self._socket else f"{stamp} {self._target.host}"
        line = f"{head} {tag}: {prefix}{printable(text[:LINE_MAX_OCTETS])}"
        octets = line.encode("utf-8", "replace")[: LINE_MAX_OCTETS + len(head) + 100]
        try:
            if self._socket is not None:
                self._socket.sendto(octets, self._syslogd)
            else:
                os.write(self._fd, octets + b"\n")
        except OSError:
            # A failure of the log cannot be logged; mail continues without it.
            pass

    def close(self) -> None:
        """Close the descriptor."""
        if self._socket is not None:
            self._socket.close()
        elif self._fd >= 0:
            os.close(self._fd)
