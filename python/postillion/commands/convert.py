"""postillion queue --convert v1: write the queue in the form of older releases, before a downgrade.

The mail system must be stopped. Both releases read a queue whose conversion was interrupted in part only; run the
command again. A start of this release needs no way back: it reads both forms, and writes the new one.
"""

from postillion._core.queue import QueueError, convert_queue
from postillion.commands.console import Console
from postillion.commands.failure import Failure
from postillion.config import Config
from postillion.master.lock import Lock, running

FORMS = ("v1",)
"""The forms that `--convert` takes; v2 is that of this release."""


def convert(directory: str, console: Console, form: str) -> None:
    """Convert the queue and print how much it was. Raises `Failure` when it cannot be done."""
    if form not in FORMS:
        raise Failure(f"queue --convert {form}: the form must be {' or '.join(FORMS)}")
    config = Config.load(directory)
    queue = config.text("queue_directory")
    pid = running(config)
    if pid is not None:
        raise Failure(f"queue --convert {form} needs a stopped mail system, and PID {pid} runs: postillion stop")
    # No mail system can start meanwhile.
    lock = Lock(config, queue, config.text("data_directory"))
    try:
        segments, records = convert_queue(queue)
    except QueueError as error:
        raise Failure(f"the queue was not converted: {error}; what is queued stays queued") from error
    finally:
        lock.release(clean=True)
    console.result(f"{queue}: converted {segments} segments with {records} messages; older releases read the queue now")
