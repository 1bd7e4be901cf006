"""The common start, run and stop of the programs that master starts.

Order of start: arguments, main.cf with the `-o` of master.cf, log, `chdir(queue_directory)`, listening sockets; then
`run` prepares the program as root, reads its tables, drops privileges and runs its coroutine on an event loop.

    def prepare(daemon: Daemon) -> Settings: ...            # the settings, tables and lists of the program
    async def serve(daemon: Daemon, settings: Settings) -> None: ...

    def main() -> None:
        run(start("anvil", sys.argv[1:]), prepare, serve)

The module that master starts, or a module `setup` beside it, has the function `prepare`. The checker calls it as well,
before master starts anything, with a `Daemon` without sockets or a queue. So `prepare` reads the configuration, opens
tables, raises `ConfigError`, and has no other effect.

File descriptors: 3 is the lifeline, a pipe that master holds open; its end of file means the end of master. Listening
sockets start at 4. SIGTERM and the end of the lifeline set `stopping`, SIGHUP sets `draining`.
"""

import asyncio
import concurrent.futures.thread
import encodings.ascii
import encodings.idna
import encodings.latin_1
import encodings.punycode
import gc
import os
import signal
import socket
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn, TypeVar

from postillion._core.log import Log
from postillion.config import Config, ConfigError, core_dumps, domain, effect, secrets
from postillion.config.main_cf import split_assignment
from postillion.program import succession
from postillion.program.log import open_log, utc_offset_s
from postillion.program.title import set_title
from postillion.tables import read_tables, remote

LIFELINE_FD: Final = 3
LISTENER_FD_FIRST: Final = 4
NUMBER_MAX: Final = 1_000_000
STOP_GRACE_S: Final = 5.0
"""Timeout of the work in progress at SIGTERM."""
TABLES_CHECK_S: Final = 2.0
"""Interval of the checks for changed tables that only root may read."""
CLOCK_CHECK_S: Final = 60.0
"""Interval of the checks for daylight saving time."""
GC_OBJECTS: Final = 20_000
"""Number of new objects that starts a collection of the youngest ones. Few are in cycles, and these stay longer."""

Made = TypeVar("Made")
"""The result of a program's `prepare`, and an argument of its `serve`."""

PRELOADED: Final = (
    concurrent.futures.thread,
    encodings.ascii,
    encodings.idna,
    encodings.latin_1,
    encodings.punycode,
    domain,
    remote,
)
"""Modules that are imported on demand elsewhere: mail_owner may not be able to read the Python installation."""


class Arguments:
    """Master's options: `-n service -t type [-u] [-o name=value]... -m limit -s sockets -c dir -i dir [-v]`."""

    def __init__(self, argv: list[str]) -> None:
        """Parse the options; raises `ConfigError` for an unknown one."""
        self.service = ""
        self.transport_type = "unix"
        self.unprivileged = False
        self.overrides: list[tuple[str, str]] = []
        self.listeners: int | None = None
        self.session_limit = 0
        self.config_directory: str | None = None
        self.in_force: str | None = None
        self.verbose = 0
        at = 0
        while at < len(argv) and argv[at].startswith("-") and argv[at] != "-":
            word = argv[at]
            at += 1
            if word == "--":
                break
            for position, letter in enumerate(word[1:], 2):
                if letter in "notscim":
                    value = word[position:]
                    if not value:
                        if at == len(argv):
                            raise ConfigError("command line", None, f"option -{letter} needs a value", "add the value")
                        value = argv[at]
                        at += 1
                    self._option(letter, value)
                    break
                if letter not in "uvlzdDSV":
                    raise ConfigError("command line", None, f"unknown option -{letter}", "remove it in master.cf")
                self.unprivileged |= letter == "u"
                self.verbose += letter == "v"

    def _option(self, letter: str, value: str) -> None:
        if letter == "n":
            self.service = value
        elif letter == "t":
            self.transport_type = value
        elif letter == "c":
            self.config_directory = value
        elif letter == "i":
            self.in_force = value
        elif letter == "o":
            self.overrides.append(split_assignment(value, f"-o {secrets.shown_line(value)}", None))
        elif not value.isascii() or not value.isdigit() or int(value) > NUMBER_MAX:
            raise ConfigError("command line", None, f"bad number -{letter} {value}", "give a whole number")
        elif letter == "m":
            self.session_limit = int(value)
        else:
            self.listeners = int(value)


class Daemon:
    """A program that master started.

    `program`: its name in log lines. `service`, `transport_type`: its name and type in master.cf. `listeners`: the
    sockets that master bound; `fifos`: the descriptors of fifos. `lifeline`: None without master. `verbose`: the
    number of `-v` options. `session_limit`: maximum number of concurrent sessions or deliveries of this process, from
    maxproc; 0 for no limit.
    """

    def __init__(self, program: str, options: "Arguments", config: Config, log: Log) -> None:
        self.program = program
        self.service = options.service or program
        self.transport_type = options.transport_type
        self.unprivileged = options.unprivileged
        self.session_limit = options.session_limit
        self.verbose = options.verbose
        self.config = config
        self.config.set_runtime(process_name=program)
        self.log = log
        self.stopping = asyncio.Event()
        self.draining = asyncio.Event()
        self.lifeline: int | None = None
        self.listeners: list[socket.socket] = []
        self.fifos: list[int] = []

    def enter(self, listeners: int | None) -> None:
        """Change to the queue directory and adopt the `listeners` sockets of master; None without a master."""
        os.umask(0o077)
        queue_directory = self.config.text("queue_directory")
        try:
            os.chdir(queue_directory)
        except OSError as error:
            self.fatal(f"chdir {queue_directory}: {error.strerror}")
        if listeners is not None:
            self.lifeline = LIFELINE_FD
            os.set_inheritable(LIFELINE_FD, False)
            os.set_blocking(LIFELINE_FD, False)
            self._adopt(range(LISTENER_FD_FIRST, LISTENER_FD_FIRST + listeners))

    def _adopt(self, descriptors: range) -> None:
        for fd in descriptors:
            os.set_inheritable(fd, False)
            os.set_blocking(fd, False)
            if self.transport_type == "fifo":
                self.fifos.append(fd)
            else:
                self.listeners.append(socket.socket(fileno=fd))

    def drop_privileges(self) -> None:
        """Become mail_owner permanently when the program runs as root with `-u`.

        Raises `ConfigError` when mail_owner is an unknown account or root.
        """
        if not self.unprivileged or os.geteuid() != 0:
            return
        import pwd

        owner = self.config.text("mail_owner")
        try:
            account = pwd.getpwnam(owner)
        except KeyError:
            raise _bad_owner(self.config, owner, "there is no such account") from None
        if account.pw_uid == 0:
            raise _bad_owner(self.config, owner, "this is root")
        os.setgroups([])
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
        if os.getresuid() != (account.pw_uid,) * 3 or os.getresgid() != (account.pw_gid,) * 3:
            raise RuntimeError("privileges were not dropped")
        core_dumps.renew()
        self.unprivileged = False

    def must_be_replaced(self, config: Config | None = None) -> bool:
        """Return whether a table of the configuration has changed and only root may read it; then ask for a successor.

        `config`: another one than the program's own.
        """
        opened = (config or self.config).opened
        table = next((table for _, table in opened if getattr(table, "is_closed", False)), None)
        if table is None or os.geteuid() == 0:
            return False
        self.log.info(f"table {table.name} has changed -- restarting")
        succession.request()
        return True

    def fatal(self, text: str) -> NoReturn:
        """Log a fatal error and exit with status 1."""
        self.log.line("fatal", text)
        self.log.flush()
        sys.exit(1)


def start(program: str, argv: list[str]) -> Daemon:
    """Return the program with its configuration and log, in the queue directory, with master's privileges.

    Exits with status 1 and one line on standard error when the configuration is unusable.
    """
    try:
        options = Arguments(argv)
        set_title(program, [secrets.shown_pair(word) for word in argv])
        runtime = (("service_name", options.service),) if options.service else ()
        config = Config.load(options.config_directory, (*runtime, *options.overrides), options.in_force)
        daemon = Daemon(program, options, config, open_log(config, program))
        daemon.enter(options.listeners)
    except ConfigError as error:
        sys.exit(f"{program}: fatal: {error}")
    except OSError as error:
        sys.exit(f"{program}: fatal: log file: {error}")
    return daemon


def make(daemon: Daemon, prepare: Callable[[Daemon], Made]) -> Made:
    """Return the settings and tables that a program serves with. Raises `ConfigError`.

    The checker calls this too, so a configuration that it accepts also starts.
    """
    for refusal in effect.refusals(daemon.config, [daemon.program]):
        raise refusal
    return prepare(daemon)


def run(
    daemon: Daemon, prepare: Callable[[Daemon], Made], serve: Callable[[Daemon, Made], Awaitable[None]]
) -> NoReturn:
    """Prepare, drop privileges and run `serve` to its end, then exit 0; exit 1 with a log line when it raises.

    `serve` finishes the work in progress and returns after `daemon.stopping` or `daemon.draining`. It is cancelled
    `STOP_GRACE_S` after `stopping`. The timeouts of the sessions limit the time of draining.
    """
    factory = _loop_factory()
    try:
        daemon.config.warn = daemon.log.warning
        daemon.config.log = daemon.log.info
        made = make(daemon, prepare)
        for problem in read_tables(daemon.config):
            # The table was lost after the check. Mail that needs it waits.
            daemon.log.warning(str(problem))
        daemon.drop_privileges()
        # The objects of the start live as long as the program: no collection looks at them.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_OBJECTS)
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_supervise(daemon, lambda: serve(daemon, made)))
    except ConfigError as error:
        daemon.fatal(str(error))
    except Exception as error:
        trace = traceback.extract_tb(error.__traceback__)
        place = f"{os.path.basename(trace[-1].filename)}:{trace[-1].lineno}" if trace else "?"
        for line in traceback.format_exception(error):
            for part in line.rstrip("\n").split("\n"):
                daemon.log.line("error", part)
        daemon.fatal(f"{type(error).__name__} at {place}: {error}")
    daemon.log.flush()
    sys.exit(0)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return uvloop's factory where it is installed: it serves two to three times the connections per second."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _supervise(daemon: Daemon, serve: Callable[[], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, daemon.stopping.set)
    loop.add_signal_handler(signal.SIGINT, daemon.stopping.set)
    loop.add_signal_handler(signal.SIGHUP, daemon.draining.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGHUP))
    if daemon.lifeline is not None:
        loop.add_reader(daemon.lifeline, _lifeline_ended, daemon, loop)
    work = asyncio.ensure_future(_as_coroutine(serve()))
    watchers = [
        asyncio.ensure_future(_bound_stop(daemon, work)),
        asyncio.ensure_future(_keep_local_time(daemon)),
        asyncio.ensure_future(_watch_tables(daemon)),
    ]
    try:
        await work
    except asyncio.CancelledError:
        if not daemon.stopping.is_set():
            raise
    finally:
        for watcher in watchers:
            watcher.cancel()


async def _as_coroutine(work: Awaitable[None]) -> None:
    await work


def _lifeline_ended(daemon: Daemon, loop: asyncio.AbstractEventLoop) -> None:
    assert daemon.lifeline is not None
    try:
        if os.read(daemon.lifeline, 1):
            return
    except BlockingIOError:
        return
    loop.remove_reader(daemon.lifeline)
    daemon.stopping.set()


async def _bound_stop(daemon: Daemon, work: "asyncio.Future[None]") -> None:
    await daemon.stopping.wait()
    await asyncio.sleep(STOP_GRACE_S)
    work.cancel()


async def _watch_tables(daemon: Daemon) -> None:
    """Ask master for a successor when a table has changed and only root may read it."""
    while daemon.lifeline is not None:
        await asyncio.sleep(TABLES_CHECK_S)
        if daemon.must_be_replaced():
            return


async def _keep_local_time(daemon: Daemon) -> None:
    while True:
        await asyncio.sleep(CLOCK_CHECK_S)
        daemon.log.set_utc_offset(utc_offset_s())


def _bad_owner(config: Config, owner: str, problem: str) -> ConfigError:
    return config.error("mail_owner", f"mail_owner {owner}: {problem}", "name an account that is used for mail only")
