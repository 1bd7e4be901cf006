"""postqueue: list and flush the queue (postqueue(1)).

    postqueue -p             the queue for people, as mailq prints it; with -v also what each message waits for
    postqueue -j             the queue for programs: one JSON object a line and message
    postqueue -f             try every deferred message now
    postqueue -i queue_id    try one deferred message now
    postqueue -s site        try the deferred messages for a domain of fast_flush_domains now

`-p` and `-j` read the queue from disk while the mail system is down. Further options: `-c config_dir`.

Behind Postfix's members a line of `-j` has `attempts`, `next_attempt` (seconds since 1970) and `waits`: what the
message waits for.
"""

import os
import sys

from postillion.commands import getopt
from postillion.commands.queue import Tool, fatal
from postillion.program import ipc
from postillion.text import printable

USAGE = "usage: postqueue -f | postqueue -i queueid | postqueue -j | postqueue -p | postqueue -s site"
LONG_OCTETS = 1 << 20
"""A listing of more is long."""
NICE = 19
MODES = ("-f", "-i", "-j", "-p", "-s")


def main(argv: list[str] | None = None) -> int:
    """Run postqueue; the exit status."""
    try:
        given, rest = getopt.getopt(sys.argv[1:] if argv is None else argv, "c:fi:jps:v")
    except getopt.GetoptError:
        fatal("postqueue", USAGE)
    modes = [(option, value) for option, value in given if option in MODES]
    if len(modes) != 1 or rest:
        fatal("postqueue", USAGE)
    [(mode, value)] = modes
    tool = Tool("postqueue", dict(given).get("-c"))
    try:
        if mode in ("-p", "-j"):
            # Copy the listing without a buffer: it may be long.
            tool.print(Output().write, text=mode == "-p", waits=("-v", "") in given)
        else:
            flush(tool, mode, value)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough, as with `postqueue -p | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


class Output:
    """Standard output. A long listing lowers the priority of this process, because mail comes first (nice(1))."""

    def __init__(self) -> None:
        self._before_nice = LONG_OCTETS

    def write(self, data: bytes) -> None:
        """Write all octets."""
        if self._before_nice > 0:
            self._before_nice -= len(data)
            if self._before_nice <= 0:
                os.nice(NICE)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(1, rest) :]


def flush(tool: Tool, mode: str, value: str) -> None:
    """Ask the queue manager to retry deferred mail now: all, one message, or that for a site."""
    request: dict[str, str] = {"verb": "flush"}
    if mode == "-i":
        if not value.isascii() or not value.isalnum():
            tool.fatal(f'Cannot flush queue ID - invalid name: "{printable(value[:100])}"')
        request["id"] = value
    elif mode == "-s":
        if not is_site(value):
            site = printable(value[:100])
            tool.fatal(f'Cannot flush mail queue - invalid destination: "{site}"')
        request["site"] = value
    try:
        tool.do(request)
    except ipc.NotRunning:
        tool.fatal("Cannot flush mail queue - mail system is down")


def is_site(value: str) -> bool:
    """Return whether a text can be a domain or an address literal."""
    bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    labels = bare.replace(":", ".").split(".") if bare is not value else bare.split(".")
    return 0 < len(value) < 256 and all(label or bare is not value for label in labels) and value.isprintable()


if __name__ == "__main__":
    sys.exit(main())
