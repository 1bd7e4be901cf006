"""The queue's file system fails under a running server.

Clients are told 45x, nothing acknowledged is lost, nothing refused is delivered, no process has to be started again.
strace lets system calls of every smtpd process fail; resource limits that are set from outside give short writes and a
lack of descriptors as the kernel has them.
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
"""Octets: below and above what gets a segment of its own."""
BROKEN = (451, "4.3.0 Error: queue file write error")
FULL = (452, "4.3.1 Insufficient system storage")


@contextlib.contextmanager
def failing(watch: Watch, inject: str) -> Iterator[None]:
    """Let system calls of all smtpd processes fail while the block lasts."""
    call = inject.partition(":")[0]
    pids = [word for pid in watch.pids for word in ("-p", str(pid))]

    def traced() -> bool:
        tasks = (task for pid in watch.pids for task in Path(f"/proc/{pid}/task").iterdir())
        return all("TracerPid:\t0\n" not in (task / "status").read_text() for task in tasks)

    with strace("-f", *pids, "-e", f"trace={call}", "-e", f"inject={inject}"):
        wait_for("every thread to be traced", traced)
        yield


def limit(pid: int, what: str, bound: str) -> None:
    """Set a process's soft limit, as its own user: root may lack the right to."""
    status = Path(f"/proc/{pid}/status").read_text()
    uid, gid = (re.search(rf"^{name}:\t(\d+)", status, re.MULTILINE) for name in ("Uid", "Gid"))
    assert uid
    assert gid
    user = ["setpriv", f"--reuid={uid[1]}", f"--regid={gid[1]}", "--clear-groups"] if os.geteuid() == 0 else []
    subprocess.run([*user, "prlimit", f"--pid={pid}", f"--{what}={bound}:"], check=True)


@contextlib.contextmanager
def limited(what: str, name: str, bounds: dict[int, int]) -> Iterator[None]:
    """Lower a resource limit of processes to these bounds while the block lasts. `name`: its name in /proc."""
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
    """A running site, and then everything that was acknowledged has arrived, once."""
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


def all_is_well(watch: Watch) -> None:
    """The same processes take mail of any size again, and everything acknowledged arrives."""
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
def test_a_failing_call_is_a_45x_until_it_works_again(
    watch: Watch, inject: str, sizes: tuple[int, ...], reply: tuple[int, str]
) -> None:
    before = len(watch.acknowledged)
    with failing(watch, inject):
        for size in sizes * 2:
            assert send(watch.site, watch, size) == reply
        assert len(watch.acknowledged) == before
    all_is_well(watch)


@pytest.mark.parametrize("call", ["fdatasync", "pwritev"])
def test_calls_that_fail_now_and_then_cost_their_own_messages_only(watch: Watch, call: str) -> None:
    with failing(watch, f"{call}:error=EIO:when=2+2"):
        replies = [send(watch.site, watch, size) for size in (SMALL, LARGE) * 8]
    assert set(replies) == {BROKEN, (250, "")}
    all_is_well(watch)


def test_a_file_that_may_not_grow_is_a_452_and_its_half_written_message_is_gone(watch: Watch) -> None:
    segments = watch.site.queue / "incoming"
    # The kernel writes up to the limit, and then no more: a short write, and EFBIG.
    with limited("fsize", "Max file size", dict.fromkeys(watch.pids, LARGE // 2)):
        assert {send(watch.site, watch, LARGE) for _ in range(4)} == {FULL}
        assert send(watch.site, watch, SMALL) == (250, "")
        assert [path.name for path in segments.glob("new.*")] == []
    all_is_well(watch)


def test_a_process_without_descriptors_refuses_and_takes_mail_again_when_it_has_some(watch: Watch) -> None:
    # One for the session; none is left for a segment.
    bounds = {pid: len(list(Path(f"/proc/{pid}/fd").iterdir())) + 1 for pid in watch.pids}
    with limited("nofile", "Max open files", bounds):
        assert {send(watch.site, watch, LARGE) for _ in range(4)} == {BROKEN}
    all_is_well(watch)
