"""The checks before a start or reload, in this order. The first error ends them.

| check | condition |
|---|---|
| plan | main.cf and master.cf can be read; their services and addresses are valid (`master.plan`) |
| `-o` | every value in a line of master.cf is of its type, and its log can be opened |
| programs | each program that master would start prepares itself: settings, tables, restriction lists |
| tables | the source of each table can be read; for a table that is only a default, a warning |
| transports | mail goes only to services whose programs run; a service that some mail may need gives a warning |
| qmgr | a service runs it where mail is accepted |
| absorbed services | the lines of cleanup and trivial-rewrite ask for nothing that is missing (`checker.absorbed`) |

A bad value in main.cf that no started program reads gives a warning.
"""

import asyncio
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

from postillion._core.log import Log
from postillion.checker import absorbed, transports
from postillion.checker.absorbed import configured
from postillion.checker.rights import as_owner
from postillion.config import Config, ConfigError
from postillion.config.master_cf import Entry
from postillion.master import programs
from postillion.master.plan import Plan
from postillion.program.daemon import Arguments, Daemon, make
from postillion.program.log import Target
from postillion.qmgr.settings import Configuration
from postillion.smtpd import expiry
from postillion.smtpd.setup import Parts, minfree_octets
from postillion.tables import read_tables
from postillion.tables.remote import remote_tables

OF_ALL = ("config_directory", "queue_directory")
"""Parameters that no service may have for itself: programs meet in one queue."""
LOG = "maillog_file"
OF_MASTER = "cimnst"
"""Options that master gives to programs."""


class Check:
    """One check of a configuration directory."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._found: dict[str, None] = {}
        self._notes: dict[str, None] = {}
        self._read: set[str] = set()
        self._reached: set[str] = set()

    @property
    def warnings(self) -> list[str]:
        """The warnings of `run`, each text once."""
        return list(self._found)

    @property
    def notes(self) -> list[str]:
        """The facts that `run` has found, each text once: when certificates expire."""
        return list(self._notes)

    def run(self) -> None:
        """Check the whole configuration. Raises `ConfigError` for the first error."""
        plan = Plan(self._directory)
        self._warn(plan.warnings)
        _check_log(plan.config)
        self._go_to_queue(plan.config)
        for entry in plan.entries:
            self._check_overrides(plan.config, entry)
        for entry in plan.started:
            self._check_program(plan, entry)
        for error in transports.without_queue_manager(plan):
            raise error
        self._warn(absorbed.check(plan))
        self._check_room(plan)
        self._warn(_unread(plan))

    def _warn(self, texts: Iterable[str]) -> None:
        self._found.update(dict.fromkeys(texts))

    def _go_to_queue(self, config: Config) -> None:
        """Change to the queue directory, as programs do: a table may have a relative path. It may not exist yet."""
        queue = config.text("queue_directory")
        os.chdir(queue if os.path.isdir(queue) else "/")

    def _check_overrides(self, config: Config, entry: Entry) -> None:
        own = configured(config, entry)
        for name, _ in entry.overrides():
            error = own.bad_value(name)
            if error is not None:
                raise error
            if name in OF_ALL and own.text(name) != config.text(name):
                raise entry.error(f"-o {name}: all services have the same {name}", "set it in main.cf")
        if own.text(LOG) != config.text(LOG):
            _check_log(own)

    def _check_program(self, plan: Plan, entry: Entry) -> None:
        module = program_module(programs.PROGRAMS[entry.command])
        made = self._attempt(entry, lambda: self._prepare(plan.config, entry, module))
        if hasattr(module, "prepare_as_owner"):
            self._warn(as_owner(entry, plan.config, lambda: self._prepare_as_owner(plan.config, entry, module)))
        if isinstance(made, Parts):
            for mode in (made.calm, made.stressed):
                self._notes.update(dict.fromkeys(expiry.lines(mode.tls)))
        if isinstance(made, Configuration):
            for error in transports.refusals(made, plan):
                raise error
            self._warn(transports.warnings(made, plan))

    def _prepare(self, config: Config, entry: Entry, module: ModuleType) -> object:
        daemon = rehearsed(config, entry)
        made = make(daemon, module.prepare)
        for error in read_tables(daemon.config, self._read):
            if error.line is not None:
                raise error
            # The default of a parameter, such as /etc/aliases on a host without local mail.
            self._warn([str(error)])
        self._warn(_warned(daemon.log))
        self._warn(self._unreachable(daemon.config))
        return made

    def _unreachable(self, config: Config) -> list[str]:
        """Return a warning for each remote table without a server: a restart must work while a server is down."""
        opened = {table.name: table for table in remote_tables(config)}
        tables = [table for name, table in opened.items() if name not in self._reached]
        if not tables:
            return []
        self._reached.update(opened)

        async def reach() -> list[str]:
            found = await asyncio.gather(*(table.reach() for table in tables))
            await asyncio.gather(*(table.close() for table in tables))
            return [problem for problem in found if problem]

        return asyncio.run(reach())

    def _prepare_as_owner(self, config: Config, entry: Entry, module: ModuleType) -> list[str]:
        daemon = rehearsed(config, entry)
        self._attempt(entry, lambda: module.prepare_as_owner(daemon))
        return _warned(daemon.log)

    def _attempt(self, entry: Entry, work: Callable[[], Any]) -> Any:
        """Return the result of `work`. An exception other than `ConfigError` would end the program as well."""
        try:
            return work()
        except ConfigError:
            raise
        except Exception as problem:
            text = f"{entry.command} could not start: {type(problem).__name__}: {problem}"
            raise entry.error(text, "correct this value in main.cf or in this line") from problem

    def _check_room(self, plan: Plan) -> None:
        """Warn when smtpd would refuse every message, because the file system of the queue is too small."""
        if not any(entry.command == "smtpd" for entry in plan.started):
            return
        needed = minfree_octets(plan.config)
        room = os.statvfs(".")
        size = room.f_blocks * room.f_frsize
        if needed > size:
            name = "queue_minfree" if plan.config.number("queue_minfree") >= needed else "message_size_limit"
            problem = (
                f"{name}: smtpd accepts mail while {needed} octets are free, and the queue's file system has {size}"
            )
            self._warn([str(plan.config.error(name, problem, "give less"))])


def rehearsed(config: Config, entry: Entry) -> Daemon:
    """Return the program of a line as master would start it, without sockets or a queue, with a log in memory."""
    for word in entry.options():
        own = [letter for letter in word[1:] if letter in OF_MASTER] if word.startswith("-") else []
        if own:
            raise entry.error(f"option -{own[0]} is master's own", "remove it")
    try:
        options = Arguments(["-n", entry.service, "-t", entry.type, *entry.arguments])
    except ConfigError as error:
        raise entry.error(error.problem, error.fix) from None
    entry.check_arguments()
    options.unprivileged |= entry.unprivileged
    log = Log("localhost", "postfix", entry.command, os.getpid(), 0, "memory:")
    daemon = Daemon(entry.command, options, configured(config, entry), log)
    daemon.config.warn = log.warning
    return daemon


def program_module(name: str) -> ModuleType:
    """Return the module with a program's `prepare`: the one that `python -m name` runs, or `setup` beside it.

    `setup` spares the checker the modules that only serve.
    """
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        name += ".setup" if importlib.util.find_spec(f"{name}.setup") is not None else ".__main__"
    return importlib.import_module(name)


def _check_log(config: Config) -> None:
    """Raise `ConfigError` for a log file whose directory does not exist."""
    path = Target.find(config).destination
    if path.startswith("/") and not os.path.isdir(os.path.dirname(path)):
        raise config.error(LOG, f"{LOG}: {path}: the directory is missing", "create it, or name another file")


def _warned(log: Log) -> list[str]:
    """Return the warnings that a program wrote into its log while it prepared itself."""
    log.flush()
    return [line.removeprefix("warning: ") for line in log.take_lines() if line.startswith("warning: ")]


def _unread(plan: Plan) -> Iterator[str]:
    """Yield a warning for each bad value that no started program reads."""
    for error in plan.config.bad_values():
        yield f"{error}; no program that is started reads this"
