"""The destination of log lines by Postfix's parameters: `maillog_file`, standard output or syslog.

`Target.find(config)` works without the Rust core, for master and for errors before a log is open; `open_log` opens the
log of a program.
"""

import os
import time

from postillion.config import Config, ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from postillion._core.log import Log

SYSLOG_SOCKET = "/dev/log"
NOWHERE = "/dev/null"
FACILITIES = {
    word: number
    for number, word in enumerate(
        ["kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"]
    )
} | {f"local{n}": 16 + n for n in range(8)}
"""The facilities of syslog(3) by number."""
LINE_MAX_OCTETS = 2000


class Target:
    """A destination of log lines, and the values at the start of each line.

    `destination`: a path, or `syslog:` and the path of a socket, as in `_core.log.Log`.
    """

    __slots__ = ("destination", "facility", "host", "permissions", "syslog_name")

    def __init__(self, destination: str, host: str, syslog_name: str, facility: int, permissions: int) -> None:
        self.destination = destination
        self.host = host
        self.syslog_name = syslog_name
        self.facility = facility
        self.permissions = permissions

    @classmethod
    def find(cls, config: Config) -> "Target":
        """Return the target in main.cf. Raises `ConfigError` for a file outside `maillog_file_prefixes`.

        Without `maillog_file` and without a syslog socket, lines are discarded, as by syslog(3).
        """
        host = config.text("myhostname").partition(".")[0]
        facility = FACILITIES.get(config.text("syslog_facility"))
        if facility is None:
            raise _bad(config, "syslog_facility", f"give one of {', '.join(FACILITIES)}")
        octal = config.text("maillog_file_permissions")
        if not octal.isascii() or not octal.isdigit() or any(digit in "89" for digit in octal) or len(octal) > 4:
            raise _bad(config, "maillog_file_permissions", "give an octal mode such as 0600")
        path = config.text("maillog_file")
        if not path:
            path = f"syslog:{SYSLOG_SOCKET}" if os.path.exists(SYSLOG_SOCKET) else NOWHERE
        elif not any(path.startswith(prefix) for prefix in config.items("maillog_file_prefixes")):
            raise _bad(config, "maillog_file", "give a path under one of the maillog_file_prefixes")
        return cls(path, host, config.text("syslog_name"), facility, int(octal, 8))


def open_log(config: Config, program: str) -> "Log":
    """Return the open log of a program. Raises `OSError` with the file's name when it cannot be opened."""
    from postillion._core.log import Log

    to = Target.find(config)
    try:
        return Log(
            to.host,
            to.syslog_name,
            program,
            os.getpid(),
            utc_offset_s(),
            to.destination,
            permissions=to.permissions,
            facility=to.facility,
        )
    except OSError as error:
        # An error of the core has only its text.
        raise OSError(error.errno, str(error), to.destination) from error


def utc_offset_s() -> int:
    """Return the seconds that local time is ahead of UTC, now."""
    return time.localtime().tm_gmtoff


def _bad(config: Config, name: str, fix: str) -> ConfigError:
    return config.error(name, f'bad value "{config.text(name)}" for {name}', fix)
