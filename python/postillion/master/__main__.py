"""master(8): `python -m postillion.master -c DIR [-r FD]`; administrators use `postillion start` or `start-fg`.

`-r FD`: write `ready`, or the error in one line, to this descriptor. The exit status of a failed start is 1; then no
socket is bound and no process runs.
"""

import os
import resource
import sys

from postillion.config import ConfigError
from postillion.config.settings import DEFAULT_DIRECTORY
from postillion.master import directories, in_force
from postillion.master.checking import Checking
from postillion.master.lock import Lock
from postillion.master.log import MasterLog
from postillion.master.plan import Plan
from postillion.master.service import environment
from postillion.master.supervisor import Master
from postillion.program.title import set_title

OPEN_FILES_MAX = 65_536


def main(argv: list[str] | None = None) -> int:
    """Run the mail system in the foreground until a signal ends it; return the exit status."""
    directory, ready = _options(sys.argv[1:] if argv is None else argv)
    try:
        plan = Plan(directory)
        set_title("master", ["-c", directory], path=os.path.join(plan.config.text("daemon_directory"), "master"))
        checking = Checking(plan.config, environment(plan.config))
        try:
            queue, data = directories.prepare(plan.config), directories.prepare_data(plan.config)
        except ConfigError:
            checking.kill()
            raise
        warnings = checking.wait()
        lock = Lock(plan.config, queue, data)
    except ConfigError as error:
        return _refuse(str(error), ready)
    os.chdir(queue)
    os.umask(0o022)
    _raise_limits()
    try:
        in_force.keep(directory, queue)
    except OSError as error:
        lock.release()
        problem = f"{error.filename}: {error.strerror}"
        return _refuse(str(directories.blame(plan.config, "queue_directory", problem, "free some space there")), ready)
    try:
        log = MasterLog(plan.target)
        master = Master(plan, log, directory)
        master.open(plan, patient=lock.follows_crash)
    except ConfigError as error:
        lock.release()
        return _refuse(str(error), ready)
    except OSError as error:
        lock.release()
        problem, fix = f"cannot be opened ({error.strerror})", "name a writable file"
        return _refuse(str(directories.blame(plan.config, "maillog_file", problem, fix)), ready)
    log.info(f"daemon started -- version {plan.config.text('mail_version')}, configuration {directory}")
    for warning in warnings:
        log.warning(warning)
    if ready is not None:
        os.write(ready, b"ready\n")
        os.close(ready)
    status = master.run()
    lock.release(clean=True)
    return status


def _options(argv: list[str]) -> tuple[str, int | None]:
    directory = os.environ.get("MAIL_CONFIG") or DEFAULT_DIRECTORY
    ready: int | None = None
    words = iter(argv)
    for word in words:
        value = next(words, "")
        if word == "-c" and value:
            directory = value
        elif word == "-r" and value.isdigit():
            ready = int(value)
            os.set_inheritable(ready, False)
        else:
            sys.exit("usage: python -m postillion.master [-c config_directory] [-r descriptor]")
    return os.path.abspath(directory), ready


def _refuse(text: str, ready: int | None) -> int:
    if ready is None:
        print(f"postillion: fatal: {text}", file=sys.stderr)
    else:
        os.write(ready, text.encode("utf-8", "replace") + b"\n")
    return 1


def _raise_limits() -> None:
    """Raise the limit of open descriptors up to `OPEN_FILES_MAX`; each session needs one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    sys.exit(main())
