"""The names of processes: `master`, `qmgr`, `smtpd` for `ps`, `top`, `pgrep -x` and monitors, as with Postfix.

setproctitle writes both names that Linux has: the command line (`ps -o args`), which needs the memory of the process's
own arguments, and the thread name (`ps -o comm`, 15 octets).
"""

from collections.abc import Sequence

import setproctitle


def set_title(program: str, arguments: Sequence[str], *, path: str = "") -> None:
    """Show this process as `program`, with `arguments` behind it. `path`: what stands for the program in `ps -o args`.

    Threads that start later have the same name, unless they have one of their own.
    """
    setproctitle.setproctitle(" ".join([path or program, *arguments]))
    # The title's first 15 octets are the thread's name now.
    setproctitle.setthreadtitle(program)
