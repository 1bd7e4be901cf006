"""The configuration in force: copies of main.cf and master.cf, made when master accepts them.

Programs read these copies, however late they start: an edit of the files takes effect at the next reload, and never
when that is refused. The copies are in the directory pid/ of the queue, which only master's user can change.
"""

import os

from postillion.config import main_cf

DIRECTORY = "pid"
FILES = ("main.cf", "master.cf")


def keep(directory: str, queue: str) -> None:
    """Copy the files of a configuration directory. Raises `OSError` and `ConfigError`; single files stay whole."""
    for name in FILES:
        source, copy = os.path.join(directory, name), os.path.join(queue, DIRECTORY, name)
        draft = f"{copy}.new"
        mode = os.stat(source).st_mode & 0o777
        with open(draft, "w", encoding="utf-8", errors="surrogateescape") as file:
            os.fchmod(file.fileno(), mode)
            file.write(main_cf.read(source))
        os.rename(draft, copy)
