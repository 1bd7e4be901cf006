"""The names of processes: `master`, `qmgr`, `smtpd` for `ps`, `top`, `pgrep -x` and monitors, as with Postfix.

setproctitle writes both names that Linux has: the command line (`ps -o args`), which needs the memory of the process's
own arguments, and the thread name (`ps -o comm`, 15 octets).
"""

from collections.abc import Sequence

import setproctitle


def set_title(program: str, arguments: Sequence[str], *, path: str = "") -> None:
    """Show this process as `program` with `arguments`. `path`: the path of the program in `ps -o args`.

    Later threads inherit the name, unless they have one of their own.
    """
    setproctitle.setproctitle(" ".join([path or program, *arguments]))
    # setproctitle made the first 15 octets of the title the thread's name.
    setproctitle.setthreadtitle(program)
