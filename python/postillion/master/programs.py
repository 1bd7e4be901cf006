"""The programs that master.cf may name: what starts for each, and how many processes of it.

A Postfix process serves one client at a time; ours serve many. So maxproc bounds the sessions of a service, and the
number of processes follows the processors.
"""

import os

from postillion.config.master_cf import Entry

PROGRAMS = {
    "anvil": "postillion.services.anvil",
    "bounce": "postillion.delivery.bounce",
    "discard": "postillion.services.discard",
    "error": "postillion.services.error",
    "lmtp": "postillion.delivery.lmtp",
    "local": "postillion.delivery.local",
    "pickup": "postillion.pickup",
    "qmgr": "postillion.qmgr",
    "smtp": "postillion.delivery.smtp",
    "smtpd": "postillion.smtpd",
}
"""Program and the module that it is."""

BUILT_IN = {
    "cleanup": "in the process that receives a message",
    "flush": "in qmgr",
    "postlogd": "in every process",
    "proxymap": "in every process",
    "scache": "in smtp",
    "showq": "in qmgr",
    "tlsmgr": "in every process",
    "trivial-rewrite": "in qmgr and smtpd",
    "verify": "in qmgr",
}
"""Programs whose work other processes do: their lines are accepted and nothing is started."""

BUILT_IN_SERVICES = ("defer", "trace")
"""Services of the program bounce that need no process: the queue manager keeps the reasons itself."""

ABSENT = (
    "dnsblog",
    "nbdb_reindexd",
    "nqmgr",
    "oqmgr",
    "pipe",
    "postscreen",
    "qmqpd",
    "spawn",
    "tlsproxy",
    "virtual",
)
"""Programs of Postfix without a counterpart yet: their lines are accepted with a warning, their mail waits."""

PER_TWO_PROCESSORS = ("smtpd", "smtp", "lmtp")
"""One process serves thousands of clients, and the more of them it has the more messages share a sync and a connection
to the next hop: so these get one for two processors. The other is for those that the mail goes through next."""
EAGER = ("qmgr", "smtpd")
"""Started at once; the others when they are first asked for something."""
RELOADS_IN_PLACE = ("qmgr",)
"""These read their configuration again at SIGHUP; the others end when what is in flight has ended."""


def processes(program: str, maxproc: int, processors: int) -> int:
    """Return how many processes a service gets. `maxproc`: 0 for no limit."""
    if program in PER_TWO_PROCESSORS:
        wanted = -(-processors // 2)
    elif program == "local":
        wanted = max(2, processors)
    else:
        return 1
    return min(maxproc, wanted) if maxproc else wanted


def session_limit(maxproc: int, count: int) -> int:
    """Return the sessions that each of `count` processes may have at a time; 0 for no limit."""
    return -(-maxproc // count)


def processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0))


def startable(entries: list[Entry]) -> tuple[list[Entry], list[str]]:
    """Return the services that are started, and warnings about those without a program here.

    Raises `ConfigError` for a program that neither Postfix nor Postillion has.
    """
    started: list[Entry] = []
    waiting: list[str] = []
    for entry in entries:
        if entry.command in PROGRAMS:
            if not (entry.command == "bounce" and entry.service in BUILT_IN_SERVICES):
                started.append(entry)
        elif entry.command in ABSENT:
            waiting.append(f"{entry.service} ({entry.command})")
        elif entry.command not in BUILT_IN:
            meant = nearest(entry.command)
            mend = f"did you mean {meant}?" if meant else f"the programs are {', '.join(sorted(PROGRAMS))}"
            raise entry.error(f'unknown program "{entry.command}" for service {entry.name}', mend)
    if not waiting:
        return started, []
    return started, [f"services whose programs are not here yet, and are not started: {', '.join(waiting)}"]


def nearest(program: str) -> str | None:
    """Return the program whose name is most like `program`."""
    import difflib

    found = difflib.get_close_matches(program, [*PROGRAMS, *BUILT_IN, *ABSENT], n=1)
    return found[0] if found else None
