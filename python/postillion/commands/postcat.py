"""postcat: show messages in the queue, or in files (postcat(1)).

    postcat -q queue_id ...      envelope, content, end of a message in the queue
    postcat file ...             the same of a file in Postfix's format, as in maildrop/; without a name, of stdin
    postcat -b                   body alone
    postcat -h                   headers alone
    postcat -e                   envelope alone
    postcat -bh                  the message as it was sent, without envelope

Further options: `-c config_dir`, `-d` (the type of each record, as a number), `-o` (its offset), `-v` (its name, for
content too), `-n` (times as numbers, no headings), `-r` (records in the order in which they stand; pointers are shown,
not followed).

In this queue a message is a part of a segment: the path in a heading is that of the segment and the queue ID, offsets
are those in the segment. The header stands behind the body, and the envelope behind both. They are shown before it, but
with `-r`.
"""

from __future__ import annotations

import itertools
import os
import sys

from postillion._core.queue import QueueError, StoredMessage, read_message
from postillion.commands import getopt, records
from postillion.commands.queue import Tool, fatal
from postillion.commands.records import BadRecord, Printer, Record, Shown
from postillion.program import ipc
from postillion.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

USAGE = (
    "usage: postcat [-b (body text)] [-c config_dir] [-d (decimal record type)] [-e (envelope records)] "
    "[-h (header text)] [-n (numbers, no headings)] [-o (offsets)] [-q (access queue)] [-r (file order)] [-v] "
    "[file(s)...]"
)
RECORD_HEADER_OCTETS = 48
"""Octets of a record of the queue before its content (docs/queue.md)."""
MAILDROP = "maildrop"


def main(argv: list[str] | None = None) -> int:
    """Run postcat; the exit status."""
    try:
        given, names = getopt.getopt(sys.argv[1:] if argv is None else argv, "bc:defhnoqrv")
    except getopt.GetoptError:
        fatal("postcat", USAGE)
    letters = {option[1] for option, _ in given}
    parts = letters & {"b", "e", "h"} or {"b", "e", "h"}
    shown = Shown(
        envelope="e" in parts,
        headers="h" in parts,
        body="b" in parts,
        types="d" in letters,
        offsets="o" in letters,
        names="v" in letters,
        numeric="n" in letters,
    )
    tool = Tool("postcat", dict(given).get("-c"))
    if not names and "q" in letters:
        fatal("postcat", USAGE)
    try:
        if not names:
            show_file(tool, sys.stdin.buffer, "stdin", shown, raw="r" in letters)
        for name in names:
            if "q" in letters:
                show_queued(tool, name, shown, raw="r" in letters)
            else:
                show_path(tool, name, name, shown, raw="r" in letters)
        sys.stdout.flush()
    except QueueError as problem:
        sys.stdout.flush()
        tool.fatal(str(problem))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


def show_queued(tool: Tool, name: str, shown: Shown, *, raw: bool) -> None:
    """Show a message by its ID; ends the command when there is none. Raises `QueueError` when it cannot be read."""
    if not name.isascii() or not name.isalnum():
        tool.fatal(f"bad mail queue ID: {printable(name[:100])}")
    message = look_up(tool, name)
    if message is None:
        path = os.path.join(MAILDROP, name)
        show_path(tool, os.path.join(tool.queue_directory, path), path, shown, raw=raw, missing=name)
        return
    printer = Printer(sys.stdout.buffer, f"{message.path}/{name}", shown)
    for record in stored(message, raw=raw, long_queue_ids=tool.long_queue_ids):
        printer.show(record)


def look_up(tool: Tool, name: str) -> StoredMessage | None:
    """Return a message of the queue: from where the queue manager says that it is, or by a search of the segments."""
    place = None
    try:
        answer = tool.do({"verb": "place", "id": name})
        if answer["path"] is None:
            return None
        place = (answer["path"], answer["offset"], answer["octets"])
    except ipc.NotRunning:
        pass
    try:
        return read_message(tool.queue_directory, name, place)
    except QueueError:
        if place is None:
            raise
        # It may have been moved since it was asked for.
        return read_message(tool.queue_directory, name)


def stored(message: StoredMessage, *, raw: bool, long_queue_ids: bool) -> Iterator[Record]:
    """Yield a message of the queue as records. `raw`: in the order in which they stand on disk."""
    fields = [Record(at, kind, text.encode()) for at, kind, text in message.fields(long_queue_ids=long_queue_ids)]
    start = message.offset + RECORD_HEADER_OCTETS
    end = message.offset + message.record_octets
    envelope = fields[0].offset
    filters = [field for field in fields if field.kind == "L"]
    if not raw:
        yield from presented([field for field in fields if field not in filters])
    yield Record(start, "M", b"")
    content = lines(message, start)
    yield from sorted(content, key=lambda line: line.offset) if raw else content
    if raw:
        yield Record(envelope, "X", b"")
        yield from fields
    else:
        yield Record(envelope, "X", b"")
        yield from filters
    yield Record(end, "E", b"")


def presented(fields: list[Record]) -> Iterable[Record]:
    """Return an envelope's fields in Postfix's order: size, times, facts, sender, facts of the client, recipients."""
    first = [field for kind in "CT" for field in fields if field.kind == kind]
    size = next(at for at, field in enumerate(fields) if field.kind == "C")
    last = max((at for at, field in enumerate(fields) if field.kind in "RD"), default=size)
    before, recipients, facts = fields[:size], fields[size + 1 : last + 1], fields[last + 1 :]
    own = [field for field in before if field.kind == "A"]
    sender = [field for field in before if field.kind == "S"]
    return itertools.chain(first, own, sender, facts, recipients)


def lines(message: StoredMessage, start: int) -> Iterator[Record]:
    """Yield the lines of a content. On disk they end with CRLF, and a dot at the start of one is doubled.

    `start`: the offset of the body. The header is behind it, at the end of the content.
    """
    text, head_octets = message.text(), message.head_octets
    envelope = message.fields()[0][0]
    offset = envelope - head_octets if head_octets else start
    for line in text.splitlines(keepends=True) if b"\r" not in text else text.split(b"\n"):
        bare = line.removesuffix(b"\n")
        yield Record(offset, "N", bare)
        offset += len(bare) + 2 + bare.startswith(b".")
        if head_octets and offset == envelope:
            offset = start


def show_path(tool: Tool, path: str, name: str, shown: Shown, *, raw: bool, missing: str = "") -> None:
    """Show a file in Postfix's format. `missing`: the queue ID that was asked for."""
    try:
        with open(path, "rb") as file:
            show_file(tool, file, name, shown, raw=raw)
    except OSError as problem:
        sys.stdout.flush()
        what = f"open queue file {missing}" if missing else f"open {printable(name)}"
        tool.fatal(f"{what}: {problem.strerror}")


def show_file(tool: Tool, file: BinaryIO, name: str, shown: Shown, *, raw: bool) -> None:
    """Show what a file holds, as far as it makes sense; ends the command where it makes none any more."""
    printer = None
    try:
        for record in records.read(file, follow=not raw):
            printer = printer or Printer(sys.stdout.buffer, printable(name), shown)
            printer.show(record)
            if printer.satisfied:
                return
    except BadRecord as problem:
        sys.stdout.flush()
        tool.warn(f"{printable(name)}: {problem}")
        if printer is not None:
            tool.fatal("record read error")


if __name__ == "__main__":
    sys.exit(main())
