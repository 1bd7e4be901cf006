"""File system errors under a running server: clients get 45x replies.

No acknowledged message is lost, no refused one is delivered, and no process needs a restart. strace makes system calls
of every smtpd process fail. Lowered resource limits make the kernel give short writes and refuse descriptors.
"""

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.calls import strace
from support.hostile import Watch, watched
from support.mta import Site, processes, wait_for
from test_hostile_site import send

SMALL, LARGE = 1_000, 1_500_000
"""Message sizes in octets: for a shared segment, and for a segment of its own."""
BROKEN = (451, "4.3.0 Error: queue file write error")
FULL = (452, "4.3.1 Insufficient system storage")


@contextlib.contextmanager
def failing(watch: Watch, inject: str) -> Iterator[None]:
    """Make system calls of all smtpd processes fail during the block."""
    call = inject.partition(":")[0]
    pids = [word for pid in watch.pids for word in ("-p", str(pid))]

    def traced() -> bool:
        tasks = (task for pid in watch.pids for task in Path(f"/proc/{pid}/task").iterdir())
        return all("TracerPid:\t0\n" not in (task / "status").read_text() for task in tasks)

    with strace("-f", *pids, "-e", f"trace={call}", "-e", f"inject={inject}"):
        wait_for("every thread to be traced", traced)
        yield


def limit(pid: int, what: str, bound: str) -> None:
    """Set a soft limit of a process, as the process's own user: root may lack the right."""
    status = Path(f"/proc/{pid}/status").read_text()
    uid, gid = (re.search(rf"^{name}:\t(\d+)", status, re.MULTILINE) for name in ("Uid", "Gid"))
    assert uid
    assert gid
    user = ["setpriv", f"--reuid={uid[1]}", f"--regid={gid[1]}", "--clear-groups"] if os.geteuid() == 0 else []
    subprocess.run([*user, "prlimit", f"--pid={pid}", f"--{what}={bound}:"], check=True)


@contextlib.contextmanager
def limited(what: str, name: str, bounds: dict[int, int]) -> Iterator[None]:
    """Lower a resource limit of processes to `bounds` during the block. `name`: the limit's name in /proc."""
    before = {}
    for pid in bounds:
        found = re.search(rf"^{name} +(\S+)", Path(f"/proc/{pid}/limits").read_text(), re.MULTILINE)
        assert found
        before[pid] = found[1]
    for pid, bound in bounds.items():
        limit(pid, what, str(bound))
    try:
        yield
    finally:
        for pid, bound_before in before.items():
            limit(pid, what, bound_before)


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory, summarize: Callable[[str], None]) -> Iterator[Watch]:
    """Run a site; at the end check that each acknowledged message has arrived once."""
    with watched(Site(tmp_path_factory.mktemp("site"))) as watch:
        yield watch
        watch.check_arrivals()
        found, acked = watch.found(), set(watch.acknowledged)
        faults = int(watch.marker().split("-")[1]) - len(acked)
        duplicates = sum(map(len, found.values())) - len(found)
        numbers = f"{faults} faults, {len(acked)} acked, {len(acked - found.keys())} lost, {duplicates} duplicates"
        summarize(f"storage errors: {numbers}")
        assert found.keys() == acked, "what was refused is not delivered"
        assert duplicates == 0


def check_recovery(watch: Watch) -> None:
    """Check that the same processes accept mail of any size again, and every acknowledged message arrives."""
    for _ in range(3):
        assert [send(watch.site, watch, size) for size in (SMALL, LARGE)] == [(250, "")] * 2
    watch.check_arrivals()
    assert sorted(processes(watch.site, "smtpd")) == watch.pids
    assert "Traceback" not in watch.site.log_text()


@pytest.mark.parametrize(
    ("inject", "sizes", "reply"),
    [
        ("fdatasync:error=EIO", (SMALL, LARGE), BROKEN),
        ("fdatasync:error=ENOSPC", (SMALL, LARGE), FULL),
        ("fdatasync:error=EDQUOT", (SMALL, LARGE), FULL),
        ("pwritev:error=EIO", (SMALL, LARGE), BROKEN),
        ("pwritev:error=ENOSPC", (SMALL, LARGE), FULL),
        ("pwritev:error=EDQUOT", (SMALL, LARGE), FULL),
        ("pwritev:error=EFBIG", (SMALL, LARGE), FULL),
        ("rename:error=EROFS", (LARGE,), BROKEN),
        ("rename:error=ENOSPC", (LARGE,), FULL),
        ("fsync:error=EIO", (LARGE,), BROKEN),
    ],
)
def test_failing_system_call_is_45x_until_it_works_again(
    watch: Watch, inject: str, sizes: tuple[int, ...], reply: tuple[int, str]
) -> None:
    before = len(watch.acknowledged)
    with failing(watch, inject):
        for size in sizes * 2:
            assert send(watch.site, watch, size) == reply
        assert len(watch.acknowledged) == before
    check_recovery(watch)


@pytest.mark.parametrize("call", ["fdatasync", "pwritev"])
def test_occasional_failures_affect_only_their_own_messages(watch: Watch, call: str) -> None:
    with failing(watch, f"{call}:error=EIO:when=2+2"):
        replies = [send(watch.site, watch, size) for size in (SMALL, LARGE) * 8]
    assert set(replies) == {BROKEN, (250, "")}
    check_recovery(watch)


def test_file_size_limit_is_452_and_removes_the_partial_message(watch: Watch) -> None:
    segments = watch.site.queue / "incoming"
    # The kernel writes up to the limit (a short write), and then fails with EFBIG.
    with limited("fsize", "Max file size", dict.fromkeys(watch.pids, LARGE // 2)):
        assert {send(watch.site, watch, LARGE) for _ in range(4)} == {FULL}
        assert send(watch.site, watch, SMALL) == (250, "")
        assert [path.name for path in segments.glob("new.*")] == []
    check_recovery(watch)


def test_process_without_descriptors_refuses_mail_and_recovers(watch: Watch) -> None:
    # One descriptor for the session, none for a segment.
    bounds = {pid: len(list(Path(f"/proc/{pid}/fd").iterdir())) + 1 for pid in watch.pids}
    with limited("nofile", "Max open files", bounds):
        assert {send(watch.site, watch, LARGE) for _ in range(4)} == {BROKEN}
    check_recovery(watch)
