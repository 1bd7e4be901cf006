"""Sites for tests: their files, start and stop, processes and log.

A `Site` is a directory with a main.cf and a master.cf that Postillion and Postfix accept. `running` starts one of them
from it and stops it again. Only the start and stop commands depend on the program.
"""

import asyncio
import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from postillion._core.tables import Index
from support.ports import free_port

POSTILLION_COMMANDS = Path(sys.executable).parent
PATIENCE_S = 60.0
T = TypeVar("T")

MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = {owner}
setgid_group = {group}
maillog_file = {directory}/log/maillog
maillog_file_prefixes = {directory}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.example.org
mydomain = example.org
mydestination = example.org, localhost
mynetworks = 127.0.0.0/8
smtpd_peername_lookup = no
alias_maps = hash:{directory}/etc/aliases
alias_database =
mail_spool_directory = {directory}/mail/
transport_maps = inline:{{{{ next.example = smtp:[127.0.0.1]:{next_port} }}}}
default_transport = error:no mail leaves this machine
local_recipient_maps = unix:passwd.byname $alias_maps
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
"""

MASTER_CF = """\
# service type  private unpriv  chroot  wakeup  maxproc command
127.0.0.1:{port} inet n -       n       -       -       smtpd
pickup    unix  n       -       n       60      1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
verify    unix  -       -       n       -       1       verify
flush     unix  n       -       n       1000?   0       flush
proxymap  unix  -       -       n       -       -       proxymap
smtp      unix  -       -       n       -       -       smtp
relay     unix  -       -       n       -       -       smtp
showq     unix  n       -       n       -       -       showq
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
discard   unix  -       -       n       -       -       discard
local     unix  -       n       n       -       -       local
scache    unix  -       -       n       -       1       scache
anvil     unix  -       -       n       -       1       anvil
postlog   unix-dgram n  -       n       -       1       postlogd
"""


def wait_for(what: str, condition: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Wait until `condition` holds. Raises `TimeoutError` with `what` after `patience_s`."""
    deadline = time.monotonic() + patience_s
    pause = 0.005
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {patience_s} s for {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)


async def until(condition: Callable[[], T], patience_s: float = PATIENCE_S) -> T:
    """Wait until `condition` is true; return its value. Raises `TimeoutError` after `patience_s`."""
    async with asyncio.timeout(patience_s):
        while not (value := condition()):  # noqa: ASYNC110 - another process makes most conditions true
            await asyncio.sleep(0.01)
    return value


def ended(pid: int) -> bool:
    """Return whether a process has ended. A zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def age_s(pid: int) -> float:
    """Return the age of a process; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    return 0.0 if fields[0] == "Z" else uptime_s - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def exists(user: str) -> bool:
    """Return whether the machine has this user."""
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def local_user() -> str:
    """Return a user that the server may deliver to: its own user, or nobody when it runs as root."""
    return "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


def let_others_pass(directory: Path) -> None:
    """Let other users pass through a directory of root's: pytest's directories are private, the programs drop root."""
    for parent in (directory, *directory.parents):
        if parent.stat().st_uid == 0 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)


class Site:
    """A site's configuration, queue, mail and log, in one directory."""

    def __init__(self, directory: Path, *, main_cf: Mapping[str, str] | None = None, master_cf: str = "") -> None:
        self.directory = directory
        self.port = free_port()
        self.next_port = free_port()
        self.etc = directory / "etc"
        self.mail = directory / "mail"
        self.queue = directory / "queue"
        self.log = directory / "log" / "maillog"
        for path in (self.etc, self.mail, self.queue, self.log.parent, directory / "data"):
            path.mkdir(parents=True, exist_ok=True)
        user = pwd.getpwuid(os.geteuid())
        owner = user.pw_name if user.pw_uid else ("postfix" if exists("postfix") else "nobody")
        group = "postdrop" if user.pw_uid == 0 and owner == "postfix" else str(user.pw_gid)
        names = {"directory": directory, "owner": owner, "group": group}
        ports = {"port": self.port, "next_port": self.next_port}
        extra = "".join(f"{name} = {value}\n" for name, value in (main_cf or {}).items())
        (self.etc / "main.cf").write_text(MAIN_CF.format(**names, **ports) + extra)
        (self.etc / "master.cf").write_text(MASTER_CF.format(**ports) + master_cf)
        (self.etc / "aliases").write_text("postmaster: nobody\n")
        write_aliases(self.etc / "aliases")
        if user.pw_uid == 0:
            let_others_pass(directory)
            shutil.chown(directory / "data", owner)
            self.mail.chmod(0o1777)

    def command(self, program: str, mta: str = "postillion") -> list[str]:
        """Return the start of a command line for this site, of a program of Postillion or Postfix."""
        return [str(commands_of(mta) / program), "-c", str(self.etc)]

    def run(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of Postillion on this site; return its output and status."""
        command = [*self.command(program), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def log_text(self) -> str:
        """Return the whole log so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def log_of(self, queue_id: str) -> str:
        """Return the lines of the log about one message so far."""
        return "\n".join(line for line in self.log_text().splitlines() if f" {queue_id}: " in line)

    def maildir(self, user: str) -> list[Path]:
        """Return the messages in a user's Maildir, oldest first."""
        return sorted((self.mail / user / "new").glob("*"), key=lambda path: path.stat().st_mtime_ns)


def submitted(site: Site, before: int) -> str:
    """Wait until pickup takes a message; return its queue ID. `before`: the length of the log before its submission."""
    pattern = re.compile(r"pickup\[\d+\]: (\w+): uid")
    wait_for("pickup", lambda: pattern.search(site.log_text(), before))
    found = pattern.search(site.log_text(), before)
    assert found is not None
    return found[1]


def delivered(site: Site, queue_id: str) -> str:
    """Wait until each recipient of a message has its status; return the lines about the message.

    Each program writes its lines when it has time for them, so cleanup's and an agent's may follow those of the queue
    manager. The line with the Message-Id is cleanup's last one, that with the status an agent's.
    """

    def is_complete() -> bool:
        log = site.log_of(queue_id)
        count = re.search(r" nrcpt=(\d+) ", log)
        if count is None or ": message-id=" not in log:
            return False
        return len(re.findall(r" to=<.* status=\w+ ", log)) >= int(count[1])

    wait_for(f"the delivery of {queue_id}", is_complete)
    return site.log_of(queue_id)


def listening(port: int) -> bool:
    """Return whether a port of 127.0.0.1 accepts connections."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _command_line(process: Path) -> list[str]:
    """Return the words of a process's command line, none when it has ended. `process`: its directory in /proc."""
    with contextlib.suppress(OSError):
        return (process / "cmdline").read_text(errors="replace").replace("\0", " ").split()
    return []


def _parent(process: Path) -> Path:
    """Return the directory of the parent process, that of no process when it has ended."""
    with contextlib.suppress(OSError):
        behind_name = (process / "stat").read_text(errors="replace").rpartition(")")[2]
        return process.with_name(behind_name.split()[1])
    return process.with_name("0")


def site_programs(site: Site) -> Iterator[tuple[int, str, list[str]]]:
    """Yield PID, program and arguments of each process of this site, with or without its title.

    A child of master is left out until it is a program of its own: it has master's command line before.
    """
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        words = _command_line(entry)
        if str(site.etc) not in words or words == _command_line(_parent(entry)):
            continue
        if len(words) > 3 and words[2] == "-m":
            # A new process: `python -P -m postillion.smtpd -n ...`
            yield int(entry.name), words[3].rpartition(".")[2], words[4:]
        elif words[1:]:
            yield int(entry.name), os.path.basename(words[0]), words[1:]


def processes(site: Site, program: str) -> list[int]:
    """Return the process IDs of a program of this site."""
    return [pid for pid, name, _ in site_programs(site) if name == program]


def write_aliases(text: Path) -> None:
    """Write the index of an alias file, as `postalias hash:FILE` does."""
    Index("hash", str(text), form="alias").create(text.read_bytes(), str(text))


def keep_last(main_cf: Path) -> None:
    """Keep the last entry of each parameter.

    Each program of Postfix warns of an entry that another one overrides. When postlogd does so at its start while ten
    lines wait in its socket, it waits for itself for ever.
    """
    entries: dict[str, str] = {}
    name = ""
    for line in main_cf.read_text().splitlines(keepends=True):
        if line[0].isspace():
            entries[name] = entries.get(name, "") + line
        else:
            name = line.partition("=")[0].strip()
            entries[name] = line
    main_cf.write_text("".join(entries.values()))


def commands_of(mta: str) -> Path:
    """Return the directory with the commands of "postillion" or "postfix"."""
    return Path("/usr/sbin") if mta == "postfix" else POSTILLION_COMMANDS


def start(site: Site, program: str) -> None:
    """Start Postillion or Postfix from the site's configuration; wait until it listens for SMTP."""
    if program == "postfix":
        keep_last(site.etc / "main.cf")
        subprocess.run(["/usr/sbin/postalias", "-c", str(site.etc), f"hash:{site.etc}/aliases"], check=True)
    else:
        write_aliases(site.etc / "aliases")
    command = [*site.command(program, program), "start"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{program} start: {result.stdout}{result.stderr}{site.log_text()}")
    wait_for("the SMTP port", lambda: listening(site.port))


def stop(site: Site, program: str) -> None:
    """Stop the site; wait until its master has ended."""
    pid_file = site.queue / "pid" / "master.pid"
    pid = int(pid_file.read_text())
    subprocess.run([*site.command(program, program), "stop"], capture_output=True, timeout=60, check=False)

    try:
        wait_for("master's end", lambda: ended(pid))
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        raise


@contextlib.contextmanager
def running(site: Site, program: str = "postillion") -> Iterator[Site]:
    """Run the site with `program` ("postillion" or "postfix") during the block."""
    start(site, program)
    try:
        yield site
    finally:
        stop(site, program)
