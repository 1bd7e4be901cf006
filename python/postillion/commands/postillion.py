"""postillion(1): start, stop and look after the mail system, as postfix(1).

    postillion [-c config_directory] [-v] start|start-fg|stop|abort|reload|status|check|flush|logrotate|init
    postillion [-c config_directory] [-v] set-permissions|upgrade-configuration|create-missing [name=value]...
    postillion [-c config_directory] [-v] queue --convert v1
    postillion [-c config_directory] explain ADDRESS [--sender ADDRESS] [--client IP]
    postillion bench HOST:PORT [option]...
    postillion --version

Exit status 0 when the command did its work, else 1 with one line on standard error that says how to fix it; with
`flush` that of postqueue(1). postfix(1) has the same commands with Postfix's output.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence

from postillion.commands.console import Console
from postillion.commands.failure import Failure, NotRunning
from postillion.config import Config, ConfigError
from postillion.config.settings import DEFAULT_DIRECTORY

START_MAX_S = 60.0
RELOAD_MAX_S = 130.0
"""Timeout of a reload: a check that runs already, then that of this command (CHECK_MAX_S each)."""
STOP_MAX_S = 20.0


USAGE = (
    "usage: postillion [-c config_directory] [-v] COMMAND | postillion explain ADDRESS | postillion bench HOST:PORT"
    " | postillion --version"
)


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["bench"]:
        from postillion.commands import bench

        return bench.main(words[1:])
    # Not at the top: postfix(1) imports this module, and has only short options.
    import getopt

    try:
        given, words = getopt.gnu_getopt(words, "c:hv", ["convert=", "help", "version", "sender=", "client="])
    except getopt.GetoptError as error:
        return _refuse(f"postillion: fatal: {error.msg}\n{USAGE}")
    options = dict(given)
    if "--version" in options:
        from postillion import __version__

        print(f"postillion {__version__}")
        return 0
    if options.keys() & {"-h", "--help"}:
        print(__doc__.strip())
        return 0
    if not words:
        return _refuse(USAGE)
    command, *arguments = words
    if command == "explain":
        arguments = [options.get("--sender", ""), options.get("--client", ""), *arguments]
    elif options.keys() & {"--sender", "--client"}:
        return _refuse(f"postillion: fatal: --sender and --client belong to the command explain\n{USAGE}")
    console = Console("postillion", verbose="-v" in options)
    if "--convert" in options:
        if (command, arguments) != ("queue", []):
            return _refuse(f"postillion: fatal: --convert belongs to the command queue\n{USAGE}")
        arguments = [options["--convert"]]
    elif command == "queue":
        return _refuse(f"postillion: fatal: queue needs --convert v1\n{USAGE}")
    if command not in COMMANDS or (arguments and command not in (*WITH_ASSIGNMENTS, "queue", "explain")):
        return _refuse(f"{USAGE}\nCOMMAND: {'|'.join((*COMMANDS, 'bench'))}")
    return run(command, configuration_directory(options.get("-c")), console, arguments)


def configuration_directory(given: str | None) -> str:
    """Return the directory of main.cf and master.cf, absolute. `given`: the value of `-c`."""
    return os.path.abspath(given or os.environ.get("MAIL_CONFIG") or DEFAULT_DIRECTORY)


def run(command: str, directory: str, console: Console, arguments: Sequence[str] = ()) -> int:
    """Run one of `COMMANDS`; return the exit status. Errors are told by the console."""
    try:
        return COMMANDS[command](directory, console, *arguments) or 0
    except (ConfigError, Failure) as error:
        console.fatal(str(error))
    except OSError as error:
        console.fatal(f"{error.filename or directory}: {error.strerror}")
    return 1


def _refuse(text: str) -> int:
    print(text, file=sys.stderr)
    return 1


def start(directory: str, console: Console) -> None:
    """Start the mail system in the background; return when it is up, raise `Failure` when it cannot be."""
    import subprocess

    config = Config.load(directory)
    if config.text("maillog_file") == "/dev/stdout":
        raise Failure("maillog_file /dev/stdout needs the foreground: use start-fg, or log to a file")
    console.event(f"starting the {console.system} mail system")
    ours, theirs = os.pipe()
    null = subprocess.DEVNULL
    try:
        master = subprocess.Popen(
            [*_master(directory), "-r", str(theirs)],
            stdin=null,
            stdout=null,
            stderr=null,
            pass_fds=[theirs],
            start_new_session=True,
        )
    finally:
        os.close(theirs)
    answer = _read_answer(ours, START_MAX_S)
    if answer == "ready":
        # It outlives this command on purpose: without this, Popen would warn that nobody waits for it.
        master.returncode = 0
        return
    master.kill()
    master.wait()
    raise Failure(answer or "the master program ended before it was up: see the log, or try start-fg")


def start_fg(directory: str, console: Console) -> None:
    """Become the master program, logging and stopping where this command was typed."""
    console.event(f"starting the {console.system} mail system")
    sys.stdout.flush()
    command = _master(directory)
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


def stop(directory: str, console: Console) -> None:
    """Stop: messages in flight are finished, everything else stays queued. Returns when the last process ended."""
    _end(directory, signal.SIGTERM, "stopping", console)


def abort(directory: str, console: Console) -> None:
    """Stop at once: messages in flight stay queued and are delivered later, perhaps twice."""
    _end(directory, signal.SIGQUIT, "aborting", console)


def reload(directory: str, console: Console) -> None:
    """Let the running mail system read its configuration again; return when it did, raise `Failure` when it refused."""
    from postillion.master import answers

    _check(directory, console)
    pid = _running(directory, console)
    console.event(f"refreshing the {console.system} mail system")
    question = answers.Question(Config.load(directory).text("queue_directory"))
    try:
        os.kill(pid, signal.SIGHUP)
        answer = question.wait(pid, RELOAD_MAX_S)
    finally:
        question.close()
    if answer != answers.OK:
        raise Failure(answer or "the master program gave no answer: see the log")


def status(directory: str, console: Console) -> None:
    """Say whether the mail system runs; exit status 1 when it does not."""
    pid = _running(directory, console)
    console.result(f"the {console.system} mail system is running: PID: {pid}")
    console.detail(f"configuration {directory}, queue {Config.load(directory).text('queue_directory')}")


def check(directory: str, console: Console) -> None:
    """Run the checker; print its warnings, and when certificates expire. Raises `Failure` as `_check`."""
    for note in _check(directory, console):
        console.result(note)


def _check(directory: str, console: Console) -> list[str]:
    """Run the checker; print its warnings, and return its notes. Raises `Failure` for what would stop a start."""
    from postillion.master import checking

    warnings, notes = checking.check(directory)
    for warning in warnings:
        console.warning(warning)
    console.detail(f"{directory} is in order")
    return notes


def flush(directory: str, console: Console) -> int:
    """Try to deliver everything in the queue now."""
    from postillion.commands import postqueue

    return postqueue.main(["-c", directory, "-f"])


def logrotate(directory: str, console: Console) -> None:
    """Rename maillog_file, let every program open a new one, and compress the old one."""
    from postillion.commands.logrotate import logrotate

    logrotate(directory, console)


def set_permissions(directory: str, console: Console, *assignments: str) -> None:
    """Give the queue the owners and modes that main.cf asks for."""
    from postillion.commands import permissions

    permissions.set_permissions(directory, console, *assignments)


def upgrade_configuration(directory: str, console: Console, *assignments: str) -> None:
    """Create missing directories and check both files: no release needs a line that an older one lacks."""
    create_missing(directory, console, *assignments)
    _check(directory, console)


def create_missing(directory: str, console: Console, *assignments: str) -> None:
    """Create the directories of the queue that are not there."""
    from postillion.commands import permissions

    permissions.create_missing(directory, console, *assignments)


def explain(directory: str, console: Console, sender: str, client: str, *addresses: str) -> int:
    """Print what the mail system does with an address, step by step."""
    from postillion.commands.explain import explain

    return explain(directory, console, sender, client, *addresses)


def init(directory: str, console: Console) -> None:
    """Write a configuration that runs as it is, with everything it touches next to the directory."""
    from postillion.config.instance import create

    create(directory)
    console.result(f"{directory} is ready: postillion -c {directory} start")


def queue(directory: str, console: Console, form: str) -> None:
    """Write the queue in the form of an older release, before a downgrade. The mail system must be stopped."""
    from postillion.commands.convert import convert

    convert(directory, console, form)


COMMANDS: dict[str, Callable[..., int | None]] = {
    "start": start,
    "start-fg": start_fg,
    "stop": stop,
    "abort": abort,
    "reload": reload,
    "status": status,
    "check": check,
    "flush": flush,
    "logrotate": logrotate,
    "set-permissions": set_permissions,
    "upgrade-configuration": upgrade_configuration,
    "create-missing": create_missing,
    "init": init,
    "queue": queue,
    "explain": explain,
}
"""By name: what gets the configuration directory and the console, and returns the exit status if it is not 0."""
WITH_ASSIGNMENTS = ("set-permissions", "upgrade-configuration", "create-missing")
"""Commands that take `name=value` words."""


def _master(directory: str) -> list[str]:
    return [sys.executable, "-P", "-m", "postillion.master", "-c", directory]


def _read_answer(fd: int, within_s: float) -> str:
    """The line that master writes when it is up or cannot be; empty when it says nothing."""
    until = time.monotonic() + within_s
    octets = b""
    with os.fdopen(fd, "rb", buffering=0) as pipe:
        while not octets.endswith(b"\n"):
            readable, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
            if not readable:
                return f"the master program was not up within {within_s:.0f} seconds: see the log"
            more = pipe.read(4096)
            if not more:
                break
            octets += more
    return octets.decode("utf-8", "replace").strip()


def _running(directory: str, console: Console) -> int:
    from postillion.master import lock

    pid = lock.running(Config.load(directory))
    if not pid:
        raise NotRunning(f"the {console.system} mail system is not running")
    return pid


def _end(directory: str, number: signal.Signals, what: str, console: Console) -> None:
    """Signal the running master and return when it has ended; kill it when it takes too long."""
    pid = _running(directory, console)
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # The descriptor is of the master, and not of one that has its number since, if it runs yet.
        if _running(directory, console) != pid:
            raise Failure("the mail system was started anew meanwhile: try again")
        console.event(f"{what} the {console.system} mail system")
        signal.pidfd_send_signal(process, number)
        ended, _, _ = select.select([process], [], [], STOP_MAX_S)
        if not ended:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            raise Failure(f"PID {pid} did not end within {STOP_MAX_S:.0f} seconds and was killed: see the log")
    finally:
        os.close(process)


if __name__ == "__main__":
    sys.exit(main())
