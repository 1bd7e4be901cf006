"""Note each module that a process imports while its event loop runs, or in a thread.

With this directory in PYTHONPATH Python runs this file at its start. LATE_IMPORTS names the file for the notes: a line
for each module, with the program and the code that imports it.
"""

import os
import sys
import threading
from types import FrameType

RUNNER = os.path.join("asyncio", "runners.py")


def _is_late() -> bool:
    """Return whether the event loop runs: programs drop their rights before they start it."""
    if threading.current_thread() is not threading.main_thread():
        return True
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.endswith(RUNNER):
            return True
        frame = frame.f_back
    return False


def _place() -> str:
    """Return the code that imports: the first frame outside of Python's import system and this file."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and ("importlib" in frame.f_code.co_filename or frame.f_code.co_filename == __file__):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "?"


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if event == "import" and _is_late():
        os.write(_notes, f"{arguments[0]} by {sys.orig_argv[3].split()[0]} at {_place()}\n".encode())


if "LATE_IMPORTS" in os.environ:
    _notes = os.open(os.environ["LATE_IMPORTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    sys.addaudithook(_hook)
