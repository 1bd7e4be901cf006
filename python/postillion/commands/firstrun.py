"""A first run: start a complete server in a directory, send a message through it, show where it landed.

    python -m postillion.commands.firstrun DIRECTORY [--once]

This is what `make run` calls. The server listens on 127.0.0.1:2525 and touches nothing outside of DIRECTORY. Without
--once it goes on serving until Ctrl-C. The exit status is 0 only if the message arrived.
"""

import argparse
import os
import pwd
import signal
import smtplib
import sys
import time
import uuid
from pathlib import Path

from rich.console import Console

from postillion.commands.postillion import main as postillion
from postillion.config import Config, ConfigError, instance, master_cf

ARRIVAL_MAX_S = 30.0
LOG_MAX_S = 2.0
POLL_S = 0.02
LOG_LINES_MAX = 40
ENDING = (signal.SIGINT, signal.SIGTERM)


def main(argv: list[str] | None = None) -> int:
    """Run the server and send the message; return 0 if it arrived."""
    parser = argparse.ArgumentParser(prog="postillion.commands.firstrun", description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path, help="everything is written below it")
    parser.add_argument("--once", action="store_true", help="stop after the first message")
    options = parser.parse_args(argv)
    console = Console(highlight=False, soft_wrap=True)
    etc = options.directory.resolve() / "etc"
    try:
        if not (etc / "main.cf").exists():
            instance.create(str(etc))
        config = Config.load(str(etc))
        address = smtp_address(etc)
    except ConfigError as error:
        console.print(f"[red]{error}")
        return 1
    # An interrupt at any time after this stops the server first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if postillion(["-c", str(etc), "start"]) != 0:
        return 1
    try:
        arrived = first_message(console, config, address)
        if not options.once:
            wait_for_interrupt(console, etc, address)
    finally:
        postillion(["-c", str(etc), "stop"])
    return 0 if arrived else 1


def smtp_address(etc: Path) -> tuple[str, int]:
    """Return host and port of the first smtpd in master.cf."""
    for entry in master_cf.load(str(etc))[0]:
        if entry.command == "smtpd" and entry.type == "inet":
            host, _, port = entry.service.rpartition(":")
            return host or "127.0.0.1", int(port)
    raise ConfigError(str(etc / "master.cf"), None, "no smtpd listens", "add a line for 127.0.0.1:2525")


def first_message(console: Console, config: Config, address: tuple[str, int]) -> bool:
    """Send a message to the invoking user; show the file that it became and its log lines; say whether it arrived."""
    user = pwd.getpwuid(os.getuid()).pw_name
    mailbox = Path(config.text("mail_spool_directory")) / user / "new"
    log = Path(config.text("maillog_file"))
    log_start = log.stat().st_size if log.exists() else 0
    mark = uuid.uuid4().hex
    mail = f"{user}@localhost"
    text = f"From: {mail}\r\nTo: {mail}\r\nSubject: first message\r\nX-Mark: {mark}\r\n\r\nIt works.\r\n"
    try:
        with smtplib.SMTP(*address, timeout=ARRIVAL_MAX_S) as client:
            client.sendmail(mail, [mail], text)
    except (OSError, smtplib.SMTPException) as error:
        console.print(f"[red]the message was not accepted:[/] {error}")
        return False
    landed = wait_for_file(mailbox, mark)
    console.print("\n".join(log_lines(log, log_start)), style="dim", markup=False)
    if landed is None:
        console.print(f"[red]the message did not reach[/] {mailbox} [red]within {ARRIVAL_MAX_S:.0f} s")
        return False
    console.print(f"\n[green]The first message arrived:[/] {landed}\n")
    console.print(landed.read_text(encoding="utf-8", errors="replace"), markup=False)
    return True


def log_lines(log: Path, start: int) -> list[str]:
    """Return the log's lines from octet `start` on, once the message is `removed`; those so far if it never is."""
    deadline = time.monotonic() + LOG_MAX_S
    while True:
        with log.open(encoding="utf-8", errors="replace") as file:
            file.seek(start)
            text = file.read()
        if ": removed" in text or time.monotonic() > deadline:
            return text.splitlines()[-LOG_LINES_MAX:]
        time.sleep(POLL_S)


def wait_for_file(directory: Path, mark: str) -> Path | None:
    """Return the file in `directory` that contains `mark`, or None when none comes within `ARRIVAL_MAX_S`."""
    deadline = time.monotonic() + ARRIVAL_MAX_S
    seen: set[Path] = set()
    while time.monotonic() < deadline:
        for path in set(directory.glob("*")) - seen:
            seen.add(path)
            if mark.encode() in path.read_bytes():
                return path
        time.sleep(POLL_S)
    return None


def wait_for_interrupt(console: Console, etc: Path, address: tuple[str, int]) -> None:
    """Say how to go on, and return on Ctrl-C or SIGTERM."""
    host, port = address
    console.print(f"Serving SMTP on {host}:{port}; Ctrl-C stops. Try, in another terminal:")
    console.print(f"  mailq -C {etc}\n  postconf -c {etc} -n\n  tail -f {etc.parent}/log/maillog", markup=False)
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    signal.sigwait(ENDING)


if __name__ == "__main__":
    sys.exit(main())
