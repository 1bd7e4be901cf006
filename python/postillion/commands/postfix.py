"""postfix(1): start, stop and look after the mail system.

    postfix [-c config_directory] [-v] command

    start               start the mail system in the background; return when it is up
    start-fg            the same in the foreground, with signals and log of this terminal or container
    stop                finish what is in flight, then end; returns when the last process ended
    abort               end at once; what is in flight is delivered later, perhaps twice
    reload              read main.cf and master.cf again; no session is cut
    status              exit status 0 when the mail system runs, else 1
    check               read the whole configuration as a start would
    flush               try to deliver every deferred message now
    logrotate           rename maillog_file with maillog_file_rotate_suffix, and compress it with
                        maillog_file_compressor
    set-permissions [name=value]...
                        give the queue its owners and modes again; name=value goes into main.cf first
    upgrade-configuration [name=value]...
                        create missing directories, and check both files
    tls subcommand      turn TLS on, make the server's keys and certificates (postfix_tls.py)

The same commands as postillion(1), with Postfix's habits: what is done goes to the mail log in the name of
`postfix/postfix-script`, and to standard error when that is a terminal. Warnings and errors always go to both. Exit
status 0 when the command did its work, else 1; with `flush` that of postqueue(1). Not implemented: `-D`
(debugger_command).
"""

import sys

from postillion.commands import getopt, postillion
from postillion.commands.console import Console
from postillion.commands.failure import Failure, NotRunning
from postillion.config import Config, ConfigError
from postillion.master.log import MasterLog
from postillion.program.log import Target

SCRIPT = "postfix-script"
"""The name in log lines: Postfix's commands are those of a shell script."""
TLS_SCRIPT = "postfix-tls-script"
USAGE = "usage: postfix [-c config_dir] [-Dv] command"
UNKNOWN = (
    "Usage: postfix start (or stop, reload, abort, flush, check, status, set-permissions, upgrade-configuration, "
    "logrotate, tls)"
)
COMMANDS = {name: command for name, command in postillion.COMMANDS.items() if name not in ("init", "queue", "explain")}


class ScriptConsole(Console):
    """Events and results go to the log, and to a terminal; warnings and errors to the log and standard error."""

    system = "Postfix"

    def __init__(self, directory: str, *, verbose: bool = False, script: str = SCRIPT) -> None:
        super().__init__("postfix", verbose=verbose)
        self._script = script
        self._target: Target | None = None
        try:
            target = Target.find(Config.load(directory))
        except ConfigError:
            # The command finds the same error.
            return
        self.program = f"{target.syslog_name}/{script}"
        if not target.destination.startswith("/dev/"):
            self._target = target

    def event(self, text: str) -> None:
        """Log the action that follows."""
        self._tell("info", text, sys.stderr.isatty())

    def result(self, text: str) -> None:
        """Log the answer to a command."""
        self._tell("info", text, sys.stderr.isatty())

    def warning(self, text: str) -> None:
        """Log and print a warning: the command goes on."""
        self._tell("warning", text, True)

    def fatal(self, text: str) -> None:
        """Log and print the error that ended the command."""
        self._tell("fatal", text, True)

    def _tell(self, severity: str, text: str, printed: bool) -> None:
        if self._target is not None:
            try:
                # Open the file for each line: this command never writes to a file that logrotate compresses.
                log = MasterLog(self._target, self._script)
            except OSError:
                printed = True
            else:
                log.line(severity, text)
                log.close()
        if printed:
            self._print(text if severity == "info" else f"{severity}: {text}")


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    try:
        given, words = getopt.getopt(sys.argv[1:] if argv is None else argv, "c:Dv")
    except getopt.GetoptError as error:
        return _refuse(f"{error.msg}; {USAGE}")
    options = dict(given)
    if not words:
        return _refuse(USAGE)
    if "-D" in options:
        return _refuse("-D: no debugger is started for programs; attach one with gdb -p, or use -v")
    directory = postillion.configuration_directory(options.get("-c"))
    command, *arguments = words
    if command == "post-install" and arguments:
        command, *arguments = arguments
    console = ScriptConsole(directory, verbose="-v" in options)
    if command == "tls":
        return _tls(directory, ScriptConsole(directory, verbose="-v" in options, script=TLS_SCRIPT), arguments)
    if command not in COMMANDS:
        console.fatal(f"unknown command: '{command}'. {UNKNOWN}")
        return 1
    if command == "status":
        try:
            return COMMANDS[command](directory, console) or 0
        except NotRunning as answer:
            console.result(str(answer))
            return 1
        except ConfigError:
            pass
    # As in Postfix, words behind a command that takes none are ignored, but for logrotate.
    if command == "logrotate" and arguments:
        console.fatal("usage postfix logrotate (no arguments)")
        return 1
    return postillion.run(command, directory, console, arguments if command in postillion.WITH_ASSIGNMENTS else [])


def _tls(directory: str, console: ScriptConsole, words: list[str]) -> int:
    # subprocess takes milliseconds to import.
    from postillion.commands.postfix_tls import TlsCommand

    try:
        return TlsCommand(directory, console).run(words)
    except (ConfigError, Failure) as problem:
        console.fatal(str(problem))
        return 1


def _refuse(text: str) -> int:
    print(f"postfix: fatal: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
