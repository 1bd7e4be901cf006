"""Process names of a running site are those of Postfix: monitors and health checks search for them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.mta import Site, processes, running, wait_for


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site whose eager programs run under their titles."""
    site = Site(tmp_path_factory.mktemp("site"))
    with running(site):
        wait_for("qmgr's title", lambda: [comm(pid) for pid in processes(site, "qmgr")] == ["qmgr"])
        wait_for("smtpd's titles", lambda: {comm(pid) for pid in processes(site, "smtpd")} == {"smtpd"})
        yield site


def comm(pid: int) -> str:
    """Return the name that pgrep -x compares."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


def test_pgrep_finds_each_program_by_its_exact_name(site: Site) -> None:
    for program in ("master", "qmgr", "smtpd"):
        found = subprocess.run(["pgrep", "-x", program], capture_output=True, text=True, check=False).stdout
        pids = processes(site, program)
        assert pids
        assert set(pids) <= set(map(int, found.split())), program


def test_master_is_shown_with_its_path(site: Site) -> None:
    [pid] = processes(site, "master")
    shown = subprocess.run(
        ["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=True
    ).stdout
    assert shown == f"/usr/lib/postfix/sbin/master -c {site.etc}\n"
    assert (site.queue / "pid" / "master.pid").read_text().strip() == str(pid)


def test_program_is_shown_with_its_service_and_options(site: Site) -> None:
    [pid] = processes(site, "qmgr")
    shown = subprocess.run(
        ["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=True
    ).stdout
    assert shown.startswith("qmgr -n qmgr -t unix ")


def test_threads_have_their_own_names(site: Site) -> None:
    [pid] = processes(site, "qmgr")

    def threads() -> set[str]:
        return {path.read_text().strip() for path in Path(f"/proc/{pid}/task").glob("*/comm")}

    wait_for("the names of qmgr's threads", lambda: {"qmgr", "log", "state log"} <= threads())
