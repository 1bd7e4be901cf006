"""Checks of changed keys, before a successor reads them.

A program asks for a successor because only root may read its changed keys (`program.succession`). A successor with keys
that cannot be used would leave clients without TLS, so a check comes first: `checker.keys`, with the arguments of the
service. One check runs at a time. A check of keys that failed before gives no second warning.
"""

import os
import selectors
import time

from postillion.config import Config, ConfigError
from postillion.master.checking import Checking
from postillion.master.log import MasterLog
from postillion.master.service import Process, Service
from postillion.program import succession

MODULE = "postillion.checker.keys"


class KeyChecks:
    """The check that runs, and the programs that wait for theirs."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._checking: Checking | None = None
        self._checked: tuple[Service, list[Process]] | None = None
        self._waiting: dict[Service, list[Process]] = {}
        self._told: dict[str, str] = {}
        """The last warning about each service."""

    @property
    def until(self) -> float | None:
        """The deadline of the check that runs, on the monotonic clock."""
        return None if self._checking is None else self._checking.until

    def add(self, process: Process) -> None:
        """Check the keys for the successor of a process."""
        waiting = self._waiting.setdefault(process.service, [])
        if process not in waiting:
            waiting.append(process)

    def start(self, config: Config, environment: dict[str, str], log: MasterLog) -> None:
        """Start the next check, unless one runs. End one that takes too long."""
        if self._checking is not None and time.monotonic() >= self._checking.until:
            self._checking.kill()
        if self._checking is not None or not self._waiting:
            return
        service = next(iter(self._waiting))
        processes = self._waiting.pop(service)
        try:
            self._checking = Checking(config, environment, (MODULE, *service.options()))
        except OSError as error:
            log.warning(f"cannot start the checker: {error.strerror} ({succession.OLD_KEYS})")
            return
        self._checked = service, processes
        self._selector.register(self._checking.descriptor, selectors.EVENT_READ, self._checking)

    def end(self, log: MasterLog) -> list[Process]:
        """Return the processes to replace after a check that is complete; none after a failed one."""
        assert self._checking is not None
        assert self._checked is not None
        (service, processes), checking = self._checked, self._checking
        self._checking = self._checked = None
        self._selector.unregister(checking.descriptor)
        checking.close()
        name = service.entry.name
        try:
            checking.result()
        except ConfigError as error:
            if self._told.get(name) != str(error):
                log.warning(f"{error} ({succession.OLD_KEYS})")
            self._told[name] = str(error)
            return []
        self._told.pop(name, None)
        log.info(f"TLS keys of {os.path.basename(service.path)} ({service.entry.service}) have changed -- restarting")
        return processes
