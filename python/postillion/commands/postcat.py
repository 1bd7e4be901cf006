"""postcat: show messages in the queue (postcat(1)).

    postcat -q queue_id ...      envelope, content, end
    postcat -qb queue_id ...     body alone
    postcat -qh queue_id ...     headers alone
    postcat -qe queue_id ...     envelope alone
    postcat -qbh queue_id ...    the message as it was sent, without envelope

Messages share files in this queue, so a message is always named by its ID: `-q` is implied. Further options: `-c
config_dir`, `-d` and `-r` (accepted: envelope fields have names here, not numbers), `-n` (numeric times and no
headings), `-o` (octets of the record), `-v`.
"""

import getopt
import os
import sys
import time
from collections.abc import Iterator

from postillion import ipc
from postillion._core import QueueError, StoredMessage, read_message
from postillion.commands.queue import EX_UNAVAILABLE, EX_USAGE, Tool, fatal
from postillion.commands.showq import printable

USAGE = (
    "usage: postcat [-b (body text)] [-c config_dir] [-d (decimal record type)] [-e (envelope records)] "
    "[-h (header text)] [-q (access queue)] [-v] [queue_id(s)...]"
)
NOTIFY = ((1, "NEVER"), (2, "SUCCESS"), (4, "FAILURE"), (8, "DELAY"))


def main(argv: list[str] | None = None) -> int:
    """Run postcat; the exit status."""
    try:
        given, names = getopt.getopt(sys.argv[1:] if argv is None else argv, "bc:defhnoqrv")
    except getopt.GetoptError:
        fatal("postcat", USAGE, EX_USAGE)
    if not names:
        fatal("postcat", USAGE, EX_USAGE)
    letters = {option[1] for option, _ in given}
    parts = letters & {"b", "e", "h"} or {"b", "e", "h"}
    tool = Tool("postcat", dict(given).get("-c"))
    try:
        for name in names:
            write(look_up(tool, name), name, parts, letters)
        sys.stdout.flush()
    except QueueError as problem:
        tool.fatal(str(problem))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


def look_up(tool: Tool, name: str) -> StoredMessage:
    """Return a message; ends the command when there is none. Raises `QueueError` when it cannot be read."""
    if not name.isascii() or not name.isalnum():
        tool.fatal(f"bad mail queue ID: {printable(name[:100])}", EX_USAGE)
    place = None
    try:
        answer = tool.do({"verb": "place", "id": name})
        place = (answer["path"], answer["offset"], answer["octets"])
    except ipc.NotRunning:
        pass
    try:
        message = read_message(tool.queue_directory, name, place)
    except QueueError:
        # It may have been moved since it was asked for.
        message = read_message(tool.queue_directory, name)
    if message is None:
        tool.fatal(f"open queue file {name}: No such file or directory", EX_UNAVAILABLE)
    return message


def write(message: StoredMessage, name: str, parts: set[str], letters: set[str]) -> None:
    """Write the parts of a message that are wanted."""
    out = sys.stdout.buffer
    headings = "e" in parts and "n" not in letters

    def heading(text: str) -> None:
        if headings:
            out.write(f"*** {text} {message.path} {name} ***\n".encode())

    if "e" in parts:
        heading("ENVELOPE RECORDS")
        if "o" in letters:
            out.write(f"record: {message.offset} {message.record_octets}\n".encode())
        for line in envelope(message, numeric="n" in letters):
            out.write(line.encode() + b"\n")
    heading("MESSAGE CONTENTS")
    if parts & {"b", "h"}:
        headers, body = split(message.text())
        out.write((headers if "h" in parts else b"") + (body if "b" in parts else b""))
    heading("MESSAGE FILE END")


def envelope(message: StoredMessage, *, numeric: bool) -> Iterator[str]:
    """Yield the envelope's lines."""

    def moment(value: float) -> str:
        return f"{value:.6f}" if numeric else time.ctime(value)

    sizes = (
        message.size_octets,
        message.offset,
        len(message.recipients),
        0,
        message.size_octets,
        int(message.smtputf8),
    )
    yield "message_size: " + " ".join(f"{size:>15}" for size in sizes)
    yield f"message_arrival_time: {moment(message.arrival)}"
    for attribute, value in message.attributes:
        yield f"named_attribute: {attribute}={printable(value)}"
    if message.body:
        yield f"named_attribute: encoding={message.body.lower()}"
    if message.envid is not None:
        yield f"named_attribute: envelope_id={printable(message.envid)}"
    if message.ret:
        yield f"named_attribute: ret_flags={message.ret}"
    yield f"sender: {printable(message.sender)}"
    for address, original, orcpt, notify, done in message.recipients:
        if orcpt is not None:
            yield f"named_attribute: dsn_orig_rcpt={printable(orcpt)}"
        if notify:
            yield "named_attribute: notify_flags=" + ",".join(word for bit, word in NOTIFY if notify & bit)
        if original is not None:
            yield f"original_recipient: {printable(original)}"
        yield f"{'done_recipient' if done else 'recipient'}: {printable(address)}"


def split(text: bytes) -> tuple[bytes, bytes]:
    """Return headers and body; the empty line between them is the body's first."""
    if text.startswith(b"\n"):
        return b"", text
    headers, separator, body = text.partition(b"\n\n")
    return (headers + b"\n", b"\n" + body) if separator else (text, b"")


if __name__ == "__main__":
    sys.exit(main())
