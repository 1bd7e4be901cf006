"""Moving messages from the queue to maildrop/, from where pickup takes them through cleanup again (`postsuper -r`).

A message is in maildrop/ for good before the queue forgets it: after a crash in between it exists twice, never not at
all. Files are written some hundreds at a time, then synced one after the other, so that most syncs find nothing to do.
"""

from __future__ import annotations

import os

from postillion._core.pickup import MaildropWriter, maildrop_envelope
from postillion._core.queue import QueueError, StoredMessage, read_message
from postillion.pickup.submit import DIRECTORY, MaildropFile
from postillion.program.sync import sync_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Final

MODE: Final = 0o700
"""Mode of a complete file, as in Postfix: rwx for the owner, who is the user of pickup."""
FILES_A_BATCH: Final = 200
PIECE_OCTETS: Final = 256 * 1024
OWN_FACTS: Final = frozenset({"message_id", "resent_message_id", "log_ident", "hold", "tls_required"})
"""Facts that cleanup finds anew."""
Place = tuple[str, str, int, int]
"""Queue ID, segment file, offset, octets of the record."""


class Mover:
    """Writes messages of a queue directory into its maildrop/. The new files belong to the owner of maildrop/.

    Raises `OSError` when there is no maildrop/. `warn` gets a line for each message that stays in the queue.
    """

    def __init__(self, queue_directory: str, warn: Callable[[str], None]) -> None:
        self._queue_directory = queue_directory
        self._directory = os.path.join(queue_directory, DIRECTORY)
        self._warn = warn
        self._owner = os.stat(self._directory).st_uid if os.geteuid() == 0 else None

    def move(self, messages: list[Place]) -> Iterator[list[str]]:
        """Yield the IDs of messages that are in maildrop/ for good, batch by batch.

        An unreadable message is named and left out. Raises `OSError` when maildrop/ cannot be written.
        """
        for start in range(0, len(messages), FILES_A_BATCH):
            moved: list[str] = []
            files: list[MaildropFile] = []
            try:
                for place in messages[start : start + FILES_A_BATCH]:
                    message = self._read(place)
                    if message is not None:
                        files.append(self._write(place[0], *message))
                        moved.append(place[0])
                for file in files:
                    file.sync()
                for file in files:
                    file.publish(MODE)
                    file.keep()
                for file in files:
                    file.sync()
                sync_directory(self._directory)
            finally:
                for file in files:
                    file.close()
            yield moved

    def _read(self, place: Place) -> tuple[StoredMessage, bytes] | None:
        name, path, offset, octets = place
        try:
            message = read_message(self._queue_directory, name, (path, offset, octets))
            if message is None:
                raise QueueError("another message stands in its place")
            return message, message.text()
        except QueueError as problem:
            self._warn(f"{name}: not requeued: {problem}")
            return None

    def _write(self, name: str, message: StoredMessage, text: bytes) -> MaildropFile:
        """Return a new file of maildrop/ that holds the message. Pickup ignores it until `publish` sets its mode."""
        facts = {key: value for key, value in message.attributes if key not in OWN_FACTS}
        facts["log_ident"] = name
        if message.smtputf8:
            facts["smtputf8"] = "yes"
        waiting = [recipient[:4] for recipient in message.recipients if not recipient[4]]
        file = MaildropFile(directory=self._directory)
        try:
            if self._owner is not None:
                # The group stays: a command that root started has the owner's user alone by now.
                file.give_to(self._owner)
            file.write(
                maildrop_envelope(
                    message.sender,
                    waiting,
                    wall_now=message.arrival,
                    body=message.body,
                    ret=message.ret,
                    envid=message.envid,
                    trace=message.trace,
                    requiretls=message.requiretls,
                    remote="client_address" in facts,
                    attributes=facts,
                )
            )
            writer = MaildropWriter(dot_ends=False, line_endings="never")
            for at in range(0, len(text), PIECE_OCTETS):
                file.write(writer.feed(text[at : at + PIECE_OCTETS])[0])
            file.write(writer.finish())
        except BaseException:
            file.close()
            raise
        return file
