"""postillion(1): start, stop and look after the mail system, as postfix(1).

    postillion [-c config_directory] [-v] start|start-fg|stop|abort|reload|status|check|flush|init
    postillion bench HOST:PORT [option]...
    postillion --version

Exit status 0 when the command did its work, else 1 with one line on standard error that says how to mend it.
"""

import argparse
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from postillion.config import Config, ConfigError
from postillion.config.settings import DEFAULT_DIRECTORY

START_MAX_S = 60.0
STOP_MAX_S = 20.0


class Failure(Exception):
    """Why a command did not do its work, in one line."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["bench"]:
        from postillion.commands import bench

        return bench.main(words[1:])
    options = _parser().parse_args(words)
    if options.version:
        from postillion import __version__

        print(f"postillion {__version__}")
        return 0
    if options.command is None:
        _parser().print_usage(sys.stderr)
        return 1
    directory = os.path.abspath(options.config_directory or os.environ.get("MAIL_CONFIG") or DEFAULT_DIRECTORY)
    try:
        COMMANDS[options.command](directory, options.verbose > 0)
    except (ConfigError, Failure) as error:
        print(f"postillion: fatal: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"postillion: fatal: {error.filename or directory}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def start(directory: str, verbose: bool) -> None:
    """Start the mail system in the background; return when it is up, raise `Failure` when it cannot be."""
    config = Config.load(directory)
    if config.text("maillog_file") == "/dev/stdout":
        raise Failure("maillog_file /dev/stdout needs the foreground: use start-fg, or log to a file")
    _say(f"starting with {directory}", verbose)
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


def start_fg(directory: str, verbose: bool) -> None:
    """Become the master program, logging and stopping where this command was typed."""
    _say(f"running with {directory}", verbose)
    sys.stdout.flush()
    command = _master(directory)
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


def stop(directory: str, verbose: bool) -> None:
    """Stop: messages in flight are finished, everything else stays queued. Returns when the last process ended."""
    _end(directory, signal.SIGTERM, "stopping", verbose)


def abort(directory: str, verbose: bool) -> None:
    """Stop at once: messages in flight stay queued and are delivered later, perhaps twice."""
    _end(directory, signal.SIGQUIT, "aborting", verbose)


def reload(directory: str, verbose: bool) -> None:
    """Let the running mail system read its configuration again; refuses a configuration that cannot work."""
    for warning in _plan_warnings(directory):
        _warn(warning)
    pid = _running(directory)
    _say(f"reloading PID {pid}", verbose)
    os.kill(pid, signal.SIGHUP)


def status(directory: str, verbose: bool) -> None:
    """Say whether the mail system runs; exit status 1 when it does not."""
    pid = _running(directory)
    _announce(f"the Postillion mail system is running: PID: {pid}")
    if verbose:
        print(f"configuration {directory}, queue {Config.load(directory).text('queue_directory')}")


def check(directory: str, verbose: bool) -> None:
    """Read the whole configuration as a start would; print warnings, raise for what would stop it."""
    for warning in _plan_warnings(directory):
        _warn(warning)
    _say(f"{directory} is in order", verbose)


def flush(directory: str, verbose: bool) -> None:
    """Try to deliver everything in the queue now."""
    _running(directory)
    command = [sys.executable, "-P", "-m", "postillion.commands.postqueue", "-c", directory, "-f"]
    if subprocess.run(command, check=False).returncode != 0:
        raise Failure("the queue manager did not take the request: see the log")


def init(directory: str, verbose: bool) -> None:
    """Write a configuration that runs as it is, with everything it touches next to the directory."""
    from postillion.config.instance import create

    create(directory)
    _announce(f"{directory} is ready: postillion -c {directory} start")


COMMANDS: dict[str, Callable[[str, bool], None]] = {
    "start": start,
    "start-fg": start_fg,
    "stop": stop,
    "abort": abort,
    "reload": reload,
    "status": status,
    "check": check,
    "flush": flush,
    "init": init,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="postillion", description="Start, stop and look after the mail system.")
    parser.add_argument("-c", dest="config_directory", metavar="DIR", help="the directory of main.cf and master.cf")
    parser.add_argument("-v", dest="verbose", action="count", default=0, help="say what is done")
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument(
        "command", nargs="?", choices=tuple(COMMANDS), metavar="COMMAND", help="|".join((*COMMANDS, "bench"))
    )
    return parser


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


def _running(directory: str) -> int:
    from postillion.master import lock

    pid = lock.running(Config.load(directory))
    if not pid:
        raise Failure("the Postillion mail system is not running: use postillion start")
    return pid


def _end(directory: str, number: signal.Signals, what: str, verbose: bool) -> None:
    """Signal the running master and return when it has ended; kill it when it takes too long."""
    pid = _running(directory)
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # The descriptor is of the master, and not of one that has its number since, if it runs yet.
        if _running(directory) != pid:
            raise Failure("the mail system was started anew meanwhile: try again")
        _say(f"{what} PID {pid}", verbose)
        signal.pidfd_send_signal(process, number)
        ended, _, _ = select.select([process], [], [], STOP_MAX_S)
        if not ended:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            raise Failure(f"PID {pid} did not end within {STOP_MAX_S:.0f} seconds and was killed: see the log")
    finally:
        os.close(process)


def _plan_warnings(directory: str) -> list[str]:
    from postillion.master.plan import Plan

    return Plan(directory).warnings


def _say(text: str, verbose: bool) -> None:
    if verbose:
        print(f"postillion: {text}", file=sys.stderr)


def _warn(text: str) -> None:
    print(f"postillion: warning: {text}", file=sys.stderr)


def _announce(text: str) -> None:
    """Print a result: with colour on a terminal, plain for scripts."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console(highlight=True).print(f"[bold green]{text}", soft_wrap=True)
    else:
        print(text)


if __name__ == "__main__":
    sys.exit(main())
