"""Master's event loop: waits for connections, signals, timers and the end of processes, and starts processes.

The loop is single-threaded and uses neither asyncio nor the Rust core. Nothing in it blocks: triggers and diagnostics
use non-blocking descriptors, and every wait has a timeout.
"""

import os
import selectors
import signal
import socket
import time
from types import FrameType

from postillion.config import Config, ConfigError
from postillion.master import answers, in_force, listeners
from postillion.master.checking import Checking
from postillion.master.key_checks import KeyChecks
from postillion.master.listeners import Address
from postillion.master.log import MasterLog
from postillion.master.plan import Plan
from postillion.master.service import Process, Service, environment, send, spawn
from postillion.program import succession, tickets

STOP_PHASE_S = 7.0
"""Timeout of each phase of a stop: first all programs but qmgr, then qmgr. The programs' own timeout is 5 seconds."""
IDLE_S = 60.0
DIAGNOSTIC_LINES_MAX = 200
"""Maximum number of lines from the standard error of a process that are logged."""
DIAGNOSTIC_OCTETS = 4096
DIAGNOSTIC_READS = 8
BIND_WAIT_S = 8.0
"""Longest wait for a port after a crash: old processes hold it until they notice the end of their master."""
BIND_PAUSE_S = 0.05


class Master:
    """All services of one configuration.

    `open` binds the sockets or raises an error; `run` returns the exit status after the stop.
    """

    def __init__(self, plan: Plan, log: MasterLog, directory: str) -> None:
        self.config: Config = plan.config
        self.directory = directory
        self.log = log
        self.services: dict[str, Service] = {}
        self.stopping: list[Service] = []
        self._processes: dict[int, Process] = {}
        self._selector = selectors.DefaultSelector()
        self._watched: dict[int, Service] = {}
        self._signals: set[int] = set()
        self._stop_phase = 0
        self._stop_until = 0.0
        self._checking: Checking | None = None
        self._key_checks = KeyChecks(self._selector)
        self._reload_again = False
        self._asked: list[str] = []
        """The fifos of the commands that wait for the end of this reload."""
        lifeline, self._lifeline_end = os.pipe()
        # The programs' end stays above the low numbers that they inherit; master's end is never inherited.
        self._lifeline = os.dup2(lifeline, listeners.FD_FLOOR - 1, inheritable=False)
        os.close(lifeline)
        self._environment = environment(plan.config)
        self._secret = tickets.draw()
        self._wakeup = self._catch_signals()

    def open(self, plan: Plan, *, patient: bool) -> None:
        """Bind every socket; on `ConfigError` no socket is bound.

        `patient`: retry for `BIND_WAIT_S`, because processes of a crashed master may hold a port.
        """
        until = time.monotonic() + (BIND_WAIT_S if patient else 0.0)
        bound: dict[Address, int] = {}
        for entry, wanted in plan.services:
            service = Service(entry, plan.config, wanted)
            for address in wanted:
                try:
                    fd = _bind_until(address, bound, until)
                except OSError as error:
                    for other, other_fd in bound.items():
                        listeners.release(other, other_fd)
                    raise listeners.refuse(entry, address, error) from None
                bound[address] = service.listeners[address] = fd
            self.services[entry.name] = service

    def run(self) -> int:
        """Run the services until a signal stops them; return the exit status."""
        now = time.monotonic()
        for service in self.services.values():
            self._arm_wakeup(service, now, first=True)
        while not self._ended():
            now = time.monotonic()
            self._start_missing(now)
            self._watch(now)
            self._wake(now)
            for key, _ in self._selector.select(self._timeout(now)):
                if key.data is self._wakeup:
                    _drain(self._wakeup)
                elif isinstance(key.data, Process):
                    self._read_diagnostics(key.data)
                elif isinstance(key.data, Checking):
                    if key.data.read():
                        self._end_check(key.data)
                else:
                    key.data.active = True
            self._reap()
            self._obey()
            if self._checking is not None and time.monotonic() >= self._checking.until:
                self._checking.kill()
            if not self._stop_phase:
                self._key_checks.start(self.config, self._environment, self.log)
        self._release()
        return 0

    def kill(self) -> None:
        """Kill every process at once."""
        for process in self._processes.values():
            send(process.pid, signal.SIGKILL)

    def _catch_signals(self) -> socket.socket:
        """Install the signal handlers; return the socket that becomes readable with each signal."""
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        self._selector.register(reader, selectors.EVENT_READ, reader)
        # The descriptor must outlive this call; the end of the process closes it.
        signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD):
            signal.signal(number, self._note)
        return reader

    def _note(self, number: int, _: FrameType | None) -> None:
        self._signals.add(number)

    def _ended(self) -> bool:
        return self._stop_phase > 0 and not self._processes

    # Timers and starts.

    def _start_missing(self, now: float) -> None:
        if self._stop_phase:
            return
        for service in self.services.values():
            if service.active and not service.used:
                self._arm_wakeup(service, now, first=False)
            for _ in range(service.missing(now)):
                try:
                    process = spawn(service, self._lifeline, self._environment, now, self._secret)
                except OSError as error:
                    self.log.warning(f"cannot start {service.path}: {error.strerror} -- throttling")
                    service.throttled_until = now + service.throttle_s + 1.0
                    break
                self._processes[process.pid] = process
                self._selector.register(process.diagnostics, selectors.EVENT_READ, process)

    def _watch(self, now: float) -> None:
        """Wait for connections to services without a process."""
        wanted: dict[int, Service] = {}
        if not self._stop_phase:
            for service in self.services.values():
                if service.watches(now) and not service.active:
                    wanted.update(dict.fromkeys(service.listeners.values(), service))
        for fd in self._watched.keys() - wanted.keys():
            self._selector.unregister(fd)
        for fd in wanted.keys() - self._watched.keys():
            self._selector.register(fd, selectors.EVENT_READ, wanted[fd])
        self._watched = wanted

    def _arm_wakeup(self, service: Service, now: float, *, first: bool) -> None:
        """Set the next wakeup: at the start and then every `wakeup_s`; with `?`, only for a service that was used."""
        entry = service.entry
        if not entry.wakeup_s:
            service.next_wakeup = None
        elif not entry.wakeup_when_used:
            service.next_wakeup = now if first else service.next_wakeup
        elif service.used or service.active:
            service.next_wakeup = now + entry.wakeup_s

    def _wake(self, now: float) -> None:
        if self._stop_phase:
            return
        for service in self.services.values():
            if service.next_wakeup is None or now < service.next_wakeup:
                continue
            service.next_wakeup = now + service.entry.wakeup_s
            for address in service.listeners:
                _trigger(address)

    def _timeout(self, checked: float) -> float:
        """Return the seconds until the next timer of the services, which were last checked at `checked`."""
        deadlines = [checked + IDLE_S]
        if self._checking is not None:
            deadlines.append(self._checking.until)
        if self._key_checks.until is not None:
            deadlines.append(self._key_checks.until)
        if self._stop_phase:
            deadlines.append(self._stop_until)
        else:
            for service in self.services.values():
                if service.next_wakeup is not None:
                    deadlines.append(service.next_wakeup)
                if service.throttled_until > checked:
                    deadlines.append(service.throttled_until)
        return max(0.0, min(deadlines) - time.monotonic())

    # Processes that ended, diagnostics, signals.

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            process = self._processes.pop(pid, None)
            if process is None:
                continue
            self._read_diagnostics(process)
            if process.diagnostics >= 0:
                self._close_diagnostics(process)
            self._bury(process, os.waitstatus_to_exitcode(status))

    def _bury(self, process: Process, code: int) -> None:
        service = process.service
        ending = self._stop_phase > 0 or process.retired
        if code < 0 and not (ending and -code in (signal.SIGTERM, signal.SIGHUP)):
            self.log.warning(f"process {service.path} pid {process.pid} killed by signal {-code}")
        elif code > 0:
            self.log.warning(f"process {service.path} pid {process.pid} exit status {code}")
        throttled = service.died(process, code != 0, time.monotonic())
        if throttled and not self._stop_phase:
            self.log.warning(f"{service.path}: bad command startup -- throttling")
        if not service.processes and service in self.stopping:
            self.stopping.remove(service)

    def _read_diagnostics(self, process: Process) -> None:
        """Log the standard error of a process: it is the only source for the reason of a failed start."""
        for _ in range(DIAGNOSTIC_READS):
            if process.diagnostics < 0:
                return
            try:
                octets = os.read(process.diagnostics, DIAGNOSTIC_OCTETS)
            except BlockingIOError:
                return
            if not octets:
                self._close_diagnostics(process)
                octets = b"\n"
            *lines, process.partial = (process.partial + octets).split(b"\n")
            process.partial = process.partial[-DIAGNOSTIC_OCTETS:]
            for line in lines:
                self._log_diagnostic(process, line.decode("utf-8", "replace").strip())

    def _log_diagnostic(self, process: Process, text: str) -> None:
        if text == succession.REQUEST:
            self._replace(process)
            return
        if text == succession.REQUEST_CHECKED:
            self._key_checks.add(process)
            return
        if not text or process.lines >= DIAGNOSTIC_LINES_MAX:
            return
        process.lines += 1
        command = process.service.entry.command
        fatal = f"{command}: fatal: "
        severity = "fatal" if text.startswith(fatal) else "warning"
        self.log.line(severity, text.removeprefix(fatal), f"{command}[{process.pid}]")

    def _replace(self, process: Process) -> None:
        """Start another process of the service, and let this one finish its work."""
        service = process.service
        if process.retired or self._stop_phase or self.services.get(service.entry.name) is not service:
            return
        process.retired = True
        send(process.pid, signal.SIGTERM if service.reloads_in_place else signal.SIGHUP)
        service.active = True

    def _close_diagnostics(self, process: Process) -> None:
        self._selector.unregister(process.diagnostics)
        os.close(process.diagnostics)
        process.diagnostics = -1

    def _obey(self) -> None:
        signals, self._signals = self._signals, set()
        if signal.SIGQUIT in signals:
            self.log.info("aborting")
            self.kill()
            self._stop_phase = self._stop_phase or 1
            self._stop_until = time.monotonic() + STOP_PHASE_S
        for number in (signal.SIGTERM, signal.SIGINT):
            if number in signals and not self._stop_phase:
                self.log.info(f"terminating on signal {int(number)}")
                self._begin_stop()
        if signal.SIGHUP in signals and not self._stop_phase:
            self._begin_reload()
        if self._stop_phase:
            self._continue_stop()

    # Stop: agents report their deliveries to qmgr, so qmgr ends last.

    def _begin_stop(self) -> None:
        self._stop_phase = 1
        self._stop_until = time.monotonic() + STOP_PHASE_S
        self._watch(0.0)
        for service in self.services.values():
            for address in [address for address in service.listeners if address[0] == "inet"]:
                listeners.release(address, service.listeners.pop(address))
        for process in self._processes.values():
            if not process.service.reloads_in_place:
                send(process.pid, signal.SIGTERM)

    def _continue_stop(self) -> None:
        late = time.monotonic() >= self._stop_until
        others = [process for process in self._processes.values() if not process.service.reloads_in_place]
        if self._stop_phase == 1 and (late or not others):
            self._stop_phase = 2
            self._stop_until = time.monotonic() + STOP_PHASE_S
            for process in self._processes.values():
                send(process.pid, signal.SIGKILL if process in others else signal.SIGTERM)
        elif self._stop_phase == 2 and late:
            self.kill()
            self._stop_until = time.monotonic() + STOP_PHASE_S

    def _release(self) -> None:
        for service in self.services.values():
            for address, fd in service.listeners.items():
                listeners.release(address, fd)
            service.listeners.clear()

    # Reload: listeners in the old and the new configuration stay open, so no connection is lost.

    def _begin_reload(self) -> None:
        """Start the checker while the services run. A signal during a check starts another check after it."""
        if self._checking is not None:
            self._reload_again = True
            return
        self._reload_again = False
        self._asked = answers.asked(os.getcwd())
        try:
            config = Config.load(self.directory)
            self._checking = Checking(config, environment(config))
        except ConfigError as error:
            self._refuse_reload(str(error))
        except OSError as error:
            self._refuse_reload(f"cannot start the checker: {error.strerror}")
        else:
            self._selector.register(self._checking.descriptor, selectors.EVENT_READ, self._checking)

    def _end_check(self, checking: Checking) -> None:
        if checking is self._checking:
            self._end_reload()
            return
        for process in self._key_checks.end(self.log):
            self._replace(process)

    def _end_reload(self) -> None:
        """Use the configuration after a successful check, or keep the old one."""
        checking, self._checking = self._checking, None
        assert checking is not None
        self._selector.unregister(checking.descriptor)
        checking.close()
        if self._stop_phase:
            self._answer("the mail system stops")
            return
        try:
            self._reload(checking.result())
        except ConfigError as error:
            self._refuse_reload(str(error))
        except OSError as error:
            self._refuse_reload(f"{error.filename or 'log'}: {error.strerror}")
        if self._reload_again:
            self._begin_reload()

    def _refuse_reload(self, why: str) -> None:
        self.log.line("error", f"reload refused, the old configuration stays in force: {why}")
        self._answer(why)

    def _answer(self, text: str) -> None:
        """Tell the commands that asked for this reload."""
        waiting, self._asked = self._asked, []
        answers.answer(waiting, text)

    def _reload(self, warnings: list[str]) -> None:
        plan = Plan(self.directory)
        if os.path.abspath(plan.config.text("queue_directory")) != os.getcwd():
            raise plan.config.error("queue_directory", "queue_directory changed", "stop and start instead")
        log = MasterLog(plan.target)
        in_force.keep(self.directory, os.getcwd())
        rotated = log.file != self.log.file
        self.log.close()
        self.log = log
        self.config = plan.config
        self._environment = environment(plan.config)
        log.info(f"reload -- version {plan.config.text('mail_version')}, configuration {self.directory}")
        for warning in warnings:
            log.warning(warning)
        self._adopt(plan, rotated=rotated)
        self._answer(answers.OK)

    def _adopt(self, plan: Plan, *, rotated: bool) -> None:
        now = time.monotonic()
        before, self.services = self.services, {}
        pool = {address: fd for service in before.values() for address, fd in service.listeners.items()}
        for service in before.values():
            service.listeners = {}
        for fd in self._watched:
            self._selector.unregister(fd)
        self._watched = {}
        wanted = {address for _, addresses in plan.services for address in addresses}
        for address in pool.keys() - wanted:
            listeners.release(address, pool.pop(address))
        for entry, addresses in plan.services:
            known = before.pop(entry.name, None)
            service = known or Service(entry, plan.config, addresses)
            service.configure(entry, plan.config, addresses)
            self.services[entry.name] = service
            for address in addresses:
                try:
                    if address not in pool:
                        pool[address] = listeners.bind(address, pool)
                    service.listeners[address] = pool[address]
                except OSError as error:
                    self.log.line("error", str(listeners.refuse(entry, address, error)))
            self._renew(service, rotated=rotated)
            service.throttled_until = 0.0
            self._arm_wakeup(service, now, first=True)
        for service in before.values():
            service.retire()
            if service.processes:
                self.stopping.append(service)

    def _renew(self, service: Service, *, rotated: bool) -> None:
        """Make the processes of a service use the new configuration.

        `rotated`: the log file is another one. A program that dropped its rights may not open it, so it starts anew.
        """
        now_starting = service.form()
        unchanged = not rotated and all(process.form == now_starting for process in service.serving)
        if service.reloads_in_place and unchanged:
            for process in service.serving:
                send(process.pid, signal.SIGHUP)
        else:
            service.retire()


def _bind_until(address: Address, own: dict[Address, int], until: float) -> int:
    while True:
        try:
            return listeners.bind(address, own)
        except OSError:
            if time.monotonic() >= until:
                raise
            time.sleep(BIND_PAUSE_S)


def _drain(reader: socket.socket) -> None:
    try:
        while reader.recv(4096):
            pass
    except BlockingIOError:
        pass


def _trigger(address: Address) -> None:
    """Write the trigger byte to a service; a failure is ignored, because the next wakeup repeats it."""
    kind, place, port = address
    try:
        if kind == "fifo":
            fd = os.open(place, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(fd, b"W")
            finally:
                os.close(fd)
            return
        family = socket.AF_UNIX if kind != "inet" else socket.AF_INET6 if ":" in place else socket.AF_INET
        style = socket.SOCK_DGRAM if kind == "unix-dgram" else socket.SOCK_STREAM
        with socket.socket(family, style) as trigger:
            trigger.setblocking(False)
            trigger.connect(place if family == socket.AF_UNIX else (place, port))
            trigger.send(b"W")
    except OSError:
        pass
