"""A service of master.cf at run time: its listeners, its processes, and the time of the next start."""

import os
import signal
import sys
from collections.abc import Sequence

from postillion.config import Config
from postillion.config.master_cf import Entry
from postillion.master import in_force, programs
from postillion.master.listeners import Address

LIVED_S = 1.0
"""Minimum run time of a process that is replaced at once; an earlier end is a failed start."""
THROTTLE_FIRST_S = 1.0
THROTTLE_MAX_S = 60.0
SAFE_PATH = "/usr/bin:/bin"
HANDLED = (signal.SIGHUP, signal.SIGTERM)
"""Signals that master sends, and every program handles."""


class Process:
    """A running process of a service."""

    __slots__ = ("diagnostics", "form", "lines", "partial", "pid", "retired", "service", "started")

    def __init__(self, pid: int, service: "Service", started: float, diagnostics: int) -> None:
        self.pid = pid
        self.service = service
        self.started = started
        self.diagnostics = diagnostics
        self.form = service.form()
        self.partial = b""
        self.lines = 0
        self.retired = False


class Service:
    """One service: its command, its listeners and its processes."""

    def __init__(self, entry: Entry, config: Config, wanted: list[Address]) -> None:
        self.configure(entry, config, wanted)
        self.listeners: dict[Address, int] = {}
        self.processes: list[Process] = []
        self.active = False
        self.used = False
        self.throttled_until = 0.0
        self.throttle_s = 0.0
        self.next_wakeup: float | None = None

    def configure(self, entry: Entry, config: Config, wanted: list[Address]) -> None:
        """Apply a line of master.cf."""
        self.entry = entry
        self.wanted = wanted
        self.module = programs.PROGRAMS[entry.command]
        self.path = os.path.join(config.text("daemon_directory"), entry.command)
        maxproc = config.number("default_process_limit") if entry.maxproc is None else entry.maxproc
        self.count = programs.processes(entry.command, maxproc, programs.processors())
        self.session_limit = programs.session_limit(maxproc, self.count)
        self.eager = entry.command in programs.EAGER and not (entry.command == "smtpd" and entry.type != "inet")
        self.reloads_in_place = entry.command in programs.RELOADS_IN_PLACE
        self.config_directory = config.directory
        self.in_force = os.path.join(os.path.abspath(config.text("queue_directory")), in_force.DIRECTORY)

    @property
    def serving(self) -> list[Process]:
        """The processes that accept new work."""
        return [process for process in self.processes if not process.retired]

    def arguments(self) -> list[str]:
        """Return the command line of a process."""
        return [sys.executable, "-P", "-m", self.module, *self.options()]

    def options(self) -> list[str]:
        """Return the options of the program."""
        entry = self.entry
        words = ["-n", entry.service, "-t", entry.type]
        if entry.unprivileged:
            words.append("-u")
        words += ["-m", str(self.session_limit), "-s", str(len(self.listeners)), "-c", self.config_directory]
        words += ["-i", self.in_force]
        return words + entry.arguments

    def form(self) -> tuple[list[str], list[tuple[Address, int]]]:
        """Return the arguments and listeners of a new process; a reload replaces a process with others."""
        return self.arguments(), list(self.listeners.items())

    def died(self, process: Process, failed: bool, now: float) -> bool:
        """Remove a process that ended; return True when its end throttles the service.

        A process that ends within `LIVED_S` is a failed start, whatever its status: an idle process ends much later.
        """
        self.processes.remove(process)
        if process.retired:
            return False
        if now - process.started > LIVED_S:
            self.throttle_s = 0.0
            self.active = failed or bool(self.serving)
            return False
        if now < self.throttled_until:
            # This process belongs to a start that already failed.
            return False
        self.throttle_s = min(max(self.throttle_s * 2, THROTTLE_FIRST_S), THROTTLE_MAX_S)
        self.throttled_until = now + self.throttle_s
        return True

    def missing(self, now: float) -> int:
        """Return the number of processes to start now."""
        if now < self.throttled_until or not (self.eager or self.active):
            return 0
        if self.reloads_in_place and len(self.processes) > len(self.serving):
            # The next process waits until this one has released the queue.
            return 0
        return max(0, self.count - len(self.serving))

    def watches(self, now: float) -> bool:
        """Return whether master waits for a connection because no process does."""
        return not self.serving and now >= self.throttled_until and not self.eager

    def retire(self) -> None:
        """Tell the processes to finish their work; the next connection starts new ones."""
        for process in self.serving:
            process.retired = True
            send(process.pid, signal.SIGTERM if self.reloads_in_place else signal.SIGHUP)
        self.active = False


def spawn(service: Service, lifeline: int, environment: dict[str, str], now: float, secret: bytes) -> Process:
    """Start one process of a service and return it. `secret`: of session tickets.

    Raises `OSError` when the system cannot start one.
    """
    ours, theirs = os.pipe()
    source = _pipe_with(secret) if service.entry.command in programs.WITH_TICKETS else os.open(os.devnull, os.O_RDWR)
    try:
        actions: list[tuple[int, int, int]] = [(os.POSIX_SPAWN_DUP2, source, 0), (os.POSIX_SPAWN_DUP2, theirs, 2)]
        inherited: Sequence[int] = (lifeline, *service.listeners.values())
        actions += [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(inherited, 3)]
        arguments = service.arguments()
        pid = os.posix_spawn(
            arguments[0],
            arguments,
            environment,
            file_actions=actions,
            setpgroup=0,
            # A signal that comes before the program can handle it waits until `daemon.run` unblocks it.
            setsigmask=HANDLED,
            setsigdef=(signal.SIGPIPE, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD),
        )
    except OSError:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
        os.close(source)
    os.set_blocking(ours, False)
    process = Process(pid, service, now, ours)
    service.processes.append(process)
    service.used = True
    return process


def _pipe_with(octets: bytes) -> int:
    """Return the end of a pipe that has these octets: fewer than a pipe holds."""
    source, sink = os.pipe()
    os.write(sink, octets)
    os.close(sink)
    return source


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a child. The pid cannot belong to another process: only master reaps its children."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def environment(config: Config) -> dict[str, str]:
    """Return the environment of every process: the variables in import_environment, PATH and MAIL_CONFIG."""
    kept: dict[str, str] = {"PATH": SAFE_PATH}
    for word in config.items("import_environment"):
        name, equals, value = word.strip("{}").strip().partition("=")
        if equals:
            kept[name] = value
        elif name in os.environ:
            kept[name] = os.environ[name]
    kept["MAIL_CONFIG"] = config.directory
    return kept
