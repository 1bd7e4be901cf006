"""The server on standard input and output: `sendmail -bs` runs `smtpd -S`.

It has the rights of the user who runs it, so it can neither listen nor write to the queue. Messages go to maildrop/,
from where pickup takes them; they wait there when no daemon runs. Relay control does not apply: a user of this machine
may send to anybody (SMTPD_STAND_ALONE in smtpd(8)).
"""

from __future__ import annotations

import os
import secrets
import select
import socket
import time
from typing import Final

from postillion import cleanup
from postillion._core import MaildropWriter, SmtpdSession, maildrop_envelope
from postillion.config import ConfigError
from postillion.daemon import Daemon, start
from postillion.smtpd import setup
from postillion.smtpd.server import ENDED, IDLE, SLEEPING

READ_BYTES: Final = 64 * 1024
MAILDROP: Final = "maildrop"
PICKUP_SOCKET: Final = "public/pickup"
QUESTION_LAST: Final = 5
MESSAGE: Final = 6


def main(argv: list[str]) -> int:
    """Serve standard input to its end; the exit status."""
    daemon = start("smtpd", argv)
    settings = cleanup.settings(daemon.config)
    try:
        config = setup.server_config(daemon.config, None, daemon.log, settings, None)
    except ConfigError as problem:
        daemon.fatal(str(problem))
    session = SmtpdSession(config, "localhost", "127.0.0.1", 0, 0, time.monotonic(), rewrites_headers=True)
    turn = session.greet(time.monotonic())
    while True:
        turn = _settle(daemon, session, turn)
        output = session.take_output()
        if output is not None:
            _write_all(1, output)
        if turn == ENDED:
            break
        turn = _step(session, turn)
    session.lost()
    daemon.log.flush()
    return 0


def _settle(daemon: Daemon, session: SmtpdSession, turn: int) -> int:
    """Answer questions with yes and store messages, until the session wants input, time or its end."""
    while turn > IDLE:
        if turn <= QUESTION_LAST:
            turn = session.accept(time.monotonic())
            continue
        sender, recipients, content = session.take_message()
        name, error = "", None
        try:
            name = drop(sender or "", recipients, content)
        except OSError as problem:
            daemon.log.warning(f"maildrop: {problem}")
            error = "451 4.3.0 Error: queue file write error"
        turn = session.stored(name, error, time.monotonic())
    return turn


def _step(session: SmtpdSession, turn: int) -> int:
    """Wait for input or for the session's deadline, and pass on what came."""
    wait_s = max(session.deadline - time.monotonic(), 0.0)
    if turn == SLEEPING:
        time.sleep(wait_s)
        return session.timeout(time.monotonic())
    readable, _, _ = select.select([0], [], [], wait_s)
    now = time.monotonic()
    if not readable:
        return session.timeout(now)
    data = os.read(0, READ_BYTES)
    return session.receive(data, now) if data else session.eof(now)


def drop(sender: str, recipients: list[tuple[str, str | None, int]], content: bytes) -> str:
    """Write a message into maildrop/ and wake pickup; return its file's name. Raises `OSError`; nothing is left then.

    The mode says when the file is whole, as with Postfix's postdrop: 0600 while it is written, 0700 after its sync.
    """
    writer = MaildropWriter(dot_ends=False)
    to = [(address, None, orcpt, notify) for address, orcpt, notify in recipients]
    records = maildrop_envelope(sender, to, wall_now=time.time())
    body, _ = writer.feed(content)
    # The name is unique by chance and time; it is no queue ID.
    name = f"{time.time_ns() // 1000 % 1_000_000:05X}{secrets.token_hex(6).upper()}"
    path = os.path.join(MAILDROP, name)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        for part in (records, body, writer.finish()):
            _write_all(descriptor, part)
        os.fsync(descriptor)
        os.fchmod(descriptor, 0o700)
        _sync_directory(MAILDROP)
    except OSError:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)
    _wake_pickup()
    return name


def _sync_directory(path: str) -> None:
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        # maildrop/ may be written by everybody and read by its owner alone; then the file's own sync must do.
        return
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _wake_pickup() -> None:
    """Best effort: pickup looks by itself every minute, and may not run at all."""
    try:
        with socket.socket(socket.AF_UNIX) as trigger:
            trigger.settimeout(1)
            trigger.connect(PICKUP_SOCKET)
            trigger.send(b"W")
    except OSError:
        pass


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
