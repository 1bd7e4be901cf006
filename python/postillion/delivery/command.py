"""Delivery to a command: the message on its standard input, the verdict from its exit status and output.

A shell runs only for a command with a character that needs one; the text of a message never becomes part of the
command. The command runs in its own session, so that its children can be killed with it, with file descriptors 0, 1
and 2 only, and with an environment of `export_environment` and the names in local(8).
"""

import asyncio
import os
import re
import signal
import subprocess
from contextlib import suppress
from typing import NamedTuple

from postillion.delivery.account import Account, check_permitted, privileged
from postillion.delivery.verdict import Verdict, bounced, deferred, failed, sent

OUTPUT_MAX_OCTETS = 4096
"""Maximum size of a command's output in the report to the sender; the rest is read and dropped."""
SHELL = "/bin/sh"
PATH = "/usr/bin:/bin"
UMASK = 0o077
READ_OCTETS = 65536
POLL_S = 0.05
KILL_WAIT_S = 5.0
NEEDS_NO_SHELL = re.compile(r"[ \t]*[0-9A-Za-z!@%\-_=+:,./][0-9A-Za-z!@%\-_=+:,./ \t]*\Z")
STATUS_IN_OUTPUT = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|\Z)")

SYSEXITS: dict[int, tuple[str, str]] = {
    64: ("5.3.0", "command line usage error"),
    65: ("5.6.0", "data format error"),
    66: ("5.3.0", "cannot open input"),
    67: ("5.1.1", "user unknown"),
    68: ("5.1.2", "host name unknown"),
    69: ("5.3.0", "service unavailable"),
    70: ("5.3.0", "internal software error"),
    71: ("4.3.0", "system resource problem"),
    72: ("5.3.0", "critical OS file missing"),
    73: ("5.2.0", "can't create user output file"),
    74: ("5.3.0", "input/output error"),
    75: ("4.3.0", "temporary failure"),
    76: ("5.5.0", "remote error in protocol"),
    77: ("5.7.0", "permission denied"),
    78: ("5.3.5", "local configuration error"),
}
"""Exit status -> enhanced status code and text (sysexits.h, with Postfix's codes)."""


class Command(NamedTuple):
    """A command to run. `directory`: None for the queue directory. `shell`: `local_command_shell`, or empty."""

    text: str
    account: Account
    environment: dict[str, str]
    directory: str | None
    shell: str
    time_limit_s: float


async def deliver(command: Command, message: bytes) -> Verdict:
    """Return the verdict of the command. After `time_limit_s`, the command and its children are killed."""
    try:
        check_permitted(command.account)
        running = _Running(_start(command), message)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        return deferred("4.3.0", f'temporary failure. Cannot run "{command.text}"{where}: {error.strerror}')
    except ValueError as error:
        return bounced("5.3.5", f"local configuration error. The command can't be run: {error}")
    try:
        status = await asyncio.wait_for(running.exit_status(), command.time_limit_s)
    except TimeoutError:
        return bounced("5.3.0", f'Command time limit exceeded: "{command.text}"{_output(running.output)}')
    finally:
        await running.end()
    return verdict_of(command.text, status, running.output)


def verdict_of(command: str, status: int, output: bytes) -> Verdict:
    """Return the verdict for a command that ended. `status`: exit status, or the negative number of a signal."""
    if status == 0:
        # A successful command may leave a part of the message unread.
        return sent(f"delivered to command: {command}")
    shown = _output(output)
    if status < 0:
        return deferred("4.3.0", f'Command died with signal {-status}: "{command}"{shown}')
    if found := STATUS_IN_OUTPUT.match(text := single_line(output)):
        dsn = found.group(1) if not found.group(1).startswith("2") else "5.3.0"
        return failed(dsn, text[found.end() :] or text)
    if status in SYSEXITS:
        dsn, meaning = SYSEXITS[status]
        return failed(dsn, f"{meaning}{shown}")
    return bounced("5.3.0", f'Command died with status {status}: "{command}"{shown}')


def arguments(text: str) -> tuple[list[str], bool]:
    """Return the arguments of a command line, and whether it needs a shell."""
    if NEEDS_NO_SHELL.match(text):
        return text.split(), False
    return [SHELL, "-c", text], True


def clean_environment(exported: list[str], values: dict[str, str], allowed: str) -> dict[str, str]:
    """Return a command's environment.

    `exported`: names of our own environment, or `name=value`. `values`: attributes of the message; each character
    outside `allowed` becomes `_`, because shells and scripts may interpret it.
    """
    environment: dict[str, str] = {}
    for item in exported:
        name, sign, value = item.partition("=")
        if sign:
            environment[name] = value
        elif name in os.environ:
            environment[name] = os.environ[name]
    environment["PATH"] = PATH
    permitted = frozenset(allowed)
    for name, value in values.items():
        environment[name] = "".join(char if char in permitted else "_" for char in value)
    return environment


def single_line(output: bytes) -> str:
    """Return a command's output on one line: tabs and line ends become spaces, control and 8-bit characters `_`."""
    text = output.rstrip().translate(bytes.maketrans(b"\t\n", b"  ")).decode("latin-1")
    return "".join(char if " " <= char <= "~" else "_" for char in text)


def _start(command: Command) -> "subprocess.Popen[bytes]":
    if command.shell:
        words, through_shell = [*command.shell.split(), command.text], True
    else:
        words, through_shell = arguments(command.text)
    try:
        return _spawn(words, command)
    except FileNotFoundError:
        # The command may be built into the shell.
        if through_shell or "/" in words[0] or (command.directory and not os.path.isdir(command.directory)):
            raise
        return _spawn([SHELL, "-c", command.text], command)


def _spawn(words: list[str], command: Command) -> "subprocess.Popen[bytes]":
    root = os.getuid() == 0
    with privileged():
        return subprocess.Popen(
            words,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=command.directory,
            env=command.environment,
            start_new_session=True,
            umask=UMASK,
            user=command.account.uid if root else None,
            group=command.account.gid if root else None,
            extra_groups=[command.account.gid] if root else None,
        )


class _Running:
    """A running command, with its pipes in the event loop."""

    def __init__(self, process: "subprocess.Popen[bytes]", message: bytes) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._rest = memoryview(message)
        self._ended = asyncio.Event()
        self.output = b""
        # The numbers become None at close, because another file may reuse them.
        self._input: int | None = process.stdin.fileno()
        self._source: int | None = process.stdout.fileno()
        self._watch: int | None = None
        os.set_blocking(self._input, False)
        os.set_blocking(self._source, False)
        self._loop.add_writer(self._input, self._write)
        self._loop.add_reader(self._source, self._read)
        with suppress(OSError):
            self._watch = os.pidfd_open(process.pid)
            self._loop.add_reader(self._watch, self._ended.set)

    async def exit_status(self) -> int:
        """Wait until the command ends; return its exit status, or the negative number of its signal."""
        while (status := self._process.poll()) is None:
            if self._watch is None:
                await asyncio.sleep(POLL_S)
            else:
                await self._ended.wait()
        while self._read():
            pass
        return status

    async def end(self) -> None:
        """Kill the command and its children if it still runs, and close the pipes."""
        self._close_input()
        self._close_source()
        if self._process.poll() is None:
            with suppress(ProcessLookupError), privileged():
                os.killpg(self._process.pid, signal.SIGKILL)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.exit_status(), KILL_WAIT_S)
        if self._watch is not None:
            self._loop.remove_reader(self._watch)
            os.close(self._watch)
            self._watch = None

    def _write(self) -> None:
        if self._input is None:
            return
        try:
            self._rest = self._rest[os.write(self._input, self._rest) :]
        except BlockingIOError:
            return
        except OSError:
            # The command reads no more; its exit status decides the verdict.
            self._close_input()
            return
        if not self._rest:
            self._close_input()

    def _read(self) -> bool:
        """Read a piece of the output; return False when there is none."""
        if self._source is None:
            return False
        try:
            data = os.read(self._source, READ_OCTETS)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._close_source()
            return False
        self.output += data[: OUTPUT_MAX_OCTETS - len(self.output)]
        return True

    def _close_input(self) -> None:
        if self._input is not None and self._process.stdin is not None:
            self._loop.remove_writer(self._input)
            self._input = None
            self._process.stdin.close()

    def _close_source(self) -> None:
        if self._source is not None and self._process.stdout is not None:
            self._loop.remove_reader(self._source)
            self._source = None
            self._process.stdout.close()


def _output(output: bytes) -> str:
    text = single_line(output)
    return f". Command output: {text}" if text else ""
