"""The server on standard input and output: `sendmail -bs` runs `smtpd -S`.

It has the rights of the user who runs it, so it can neither listen nor write to the queue. Messages go to maildrop/,
from where pickup takes them; they wait there when no daemon runs. Relay control does not apply: a user of this machine
may send to anybody (SMTPD_STAND_ALONE in smtpd(8)).
"""

from __future__ import annotations

import os
import select
import time
from typing import Final

from postillion._core.pickup import MaildropWriter, maildrop_envelope
from postillion._core.smtpd import Next, SmtpdSession
from postillion.config import ConfigError
from postillion.pickup.submit import MaildropFile, trigger
from postillion.program import cleanup
from postillion.program.daemon import Daemon, start
from postillion.smtpd import setup

READ_BYTES: Final = 64 * 1024

Message = tuple[str, list[tuple[str, str | None, int]], str, str, str | None, bytes]
"""As `SmtpdSession.take_message` gives it."""


def main(argv: list[str]) -> int:
    """Serve standard input to its end; the exit status."""
    # Local programs end lines with LF, and no other server here could be tricked by it.
    daemon = start("smtpd", ["-o", "smtpd_forbid_bare_newline=no", *argv])
    settings = cleanup.settings(daemon.config)
    try:
        config = setup.server_config(daemon.config, None, daemon.log, settings, None)
    except ConfigError as problem:
        daemon.fatal(str(problem))
    session = SmtpdSession(config, "localhost", "127.0.0.1", 0, time.monotonic(), rewrites_headers=True)
    step = session.greet(time.monotonic())
    while True:
        step = _answer(daemon, session, step)
        output = session.take_output()
        if output is not None:
            _write_all(1, output)
        if step == Next.CLOSE:
            break
        step = _wait(session, step)
    session.lost()
    daemon.log.flush()
    return 0


def _answer(daemon: Daemon, session: SmtpdSession, step: Next) -> Next:
    """Accept everything and store messages, until the session waits or ends."""
    while step.is_question:
        if step != Next.MESSAGE:
            step = session.accept(time.monotonic())
            continue
        message = session.take_message()
        name, error = "", None
        try:
            name = drop(message)
        except OSError as problem:
            daemon.log.warning(f"maildrop: {problem}")
            error = "451 4.3.0 Error: queue file write error"
        step = session.stored(name, error, time.monotonic())
    return step


def _wait(session: SmtpdSession, step: Next) -> Next:
    """Wait for input or for the session's deadline; return the session's next step."""
    wait_s = max(session.deadline - time.monotonic(), 0.0)
    if step == Next.SLEEP:
        time.sleep(wait_s)
        return session.timeout(time.monotonic())
    readable, _, _ = select.select([0], [], [], wait_s)
    now = time.monotonic()
    if not readable:
        return session.timeout(now)
    data = os.read(0, READ_BYTES)
    return session.receive(data, now) if data else session.eof(now)


def drop(message: Message) -> str:
    """Write a message into maildrop/ and wake pickup; return its file's name. Raises `OSError`: nothing is left."""
    sender, recipients, body, ret, envid, content = message
    to = [(address, None, orcpt, notify) for address, orcpt, notify in recipients]
    writer = MaildropWriter(dot_ends=False)
    file = MaildropFile()
    try:
        file.write(maildrop_envelope(sender, to, wall_now=time.time(), body=body, ret=ret, envid=envid))
        file.write(writer.feed(content)[0])
        file.write(writer.finish())
        name = file.complete()
    finally:
        file.close()
    # Best effort: pickup looks by itself every minute, and may not run at all.
    trigger()
    return name


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
