"""The programs that master.cf may name, with the module and the number of processes of each.

A Postfix process serves one client at a time; a process here serves many. So maxproc limits the sessions of a service,
and the number of processes depends on the processors.
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
"""Programs and their Python modules."""

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
"""Programs whose work other processes do; their lines are accepted, and no process is started."""

BUILT_IN_SERVICES = ("defer", "trace")
"""Services of the program bounce without a process: the queue manager stores their records."""

ABSENT = ("dnsblog", "nbdb_reindexd", "pipe", "tlsproxy", "virtual")
"""Programs of Postfix without a counterpart yet, whose lines are accepted with a warning. The checker refuses a
transport that needs one."""

REFUSED = {
    "nqmgr": ("and no mail would be delivered", 'name "qmgr", the same program'),
    "oqmgr": ("and no mail would be delivered", 'name "qmgr"'),
    "postscreen": (
        "and no program would answer on its port",
        "let smtpd listen there, or keep Postfix for this service",
    ),
    "qmqpd": ("and no program would answer on its port", "remove the line, or keep Postfix for this service"),
    "spawn": ("and no program would answer its clients", "remove the line, or keep Postfix for this service"),
}
"""Programs of Postfix without a counterpart yet, whose lines are refused: the consequence and the fix."""

PER_TWO_PROCESSORS = ("smtpd", "smtp", "lmtp")
"""Programs with one process for every two processors. A process serves thousands of clients, and more clients in one
process let more messages share an fsync and a connection. The other processor serves the programs behind it."""
WITH_TICKETS = ("smtpd",)
"""Programs that get the secret of session tickets."""
EAGER = ("qmgr", "smtpd")
"""Programs that start with master; the others start at their first request."""
RELOADS_IN_PLACE = ("qmgr",)
"""Programs that read their configuration again on SIGHUP; the others finish their work and end."""


def processes(program: str, maxproc: int, processors: int) -> int:
    """Return the number of processes of a service. `maxproc`: 0 for no limit."""
    if program in PER_TWO_PROCESSORS:
        wanted = -(-processors // 2)
    elif program == "local":
        wanted = max(2, processors)
    else:
        return 1
    return min(maxproc, wanted) if maxproc else wanted


def session_limit(maxproc: int, count: int) -> int:
    """Return the maximum number of concurrent sessions of each of `count` processes; 0 for no limit."""
    return -(-maxproc // count)


def processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0))


def startable(entries: list[Entry]) -> list[Entry]:
    """Return the services to start.

    Raises `ConfigError` for an unknown program, and for a program that is needed and not implemented.
    """
    started: list[Entry] = []
    for entry in entries:
        if entry.command in PROGRAMS:
            if not (entry.command == "bounce" and entry.service in BUILT_IN_SERVICES):
                started.append(entry)
        elif entry.command in REFUSED:
            effect, fix = REFUSED[entry.command]
            raise entry.error(f"the program {entry.command} is not supported yet, {effect}", fix)
        elif entry.command not in BUILT_IN and entry.command not in ABSENT:
            meant = nearest(entry.command)
            fix = f"did you mean {meant}?" if meant else f"the programs are {', '.join(sorted(PROGRAMS))}"
            raise entry.error(f'unknown program "{entry.command}" for service {entry.name}', fix)
    return started


def absent(entries: list[Entry]) -> list[str]:
    """Return a warning about the accepted services that are not started; none without such services."""
    names = [f"{entry.service} ({entry.command})" for entry in entries if entry.command in ABSENT]
    return [f"services without an implemented program, which are not started: {', '.join(names)}"] if names else []


def nearest(program: str) -> str | None:
    """Return the program with the most similar name; None when no name is similar."""
    import difflib

    found = difflib.get_close_matches(program, [*PROGRAMS, *BUILT_IN, *ABSENT, *REFUSED], n=1)
    return found[0] if found else None
