"""A complete site as an ordinary user, also when the tests run as root: no part of it needs a privilege.

The test copies the package and its dependencies to a directory that the user can read. Debian's own Python runs them.
"""

import contextlib
import importlib.util
import os
import pwd
import re
import shutil
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.mta import Site, listening, processes, wait_for
from support.peers import root

PYTHON = "/usr/bin/python3"
PACKAGES = ("postillion", "aiosmtpd", "attr", "msgspec", "public", "setproctitle", "uvloop")
USER = "nobody"
PROGRAMS = ("master", "smtpd", "qmgr", "pickup", "local")


def same_python() -> bool:
    """Return whether Debian's Python has the version of this Python."""
    if not Path(PYTHON).exists():
        return False
    version = subprocess.run([PYTHON, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True)
    return version.stdout.split() == [str(number) for number in sys.version_info[:2]]


def command(site: Site, name: str, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command of Postillion as the ordinary user."""
    account = pwd.getpwnam(USER)
    return subprocess.run(
        [PYTHON, "-m", f"postillion.commands.{name}", *arguments],
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        cwd=site.directory,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(site.directory / "packages")},
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Make a site whose files all belong to the ordinary user."""
    root()
    if not same_python():
        pytest.skip(f"{PYTHON} is another Python than {sys.executable}")
    site = Site(tmp_path, main_cf={"import_environment": "PYTHONPATH"})
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.submodule_search_locations
        shutil.copytree(spec.submodule_search_locations[0], tmp_path / "packages" / name)
    subprocess.run(["chown", "-R", USER, str(tmp_path)], check=True)
    return site


@contextlib.contextmanager
def started(site: Site) -> Iterator[None]:
    """Run the site during the block."""
    result = command(site, "postillion", "-c", str(site.etc), "start")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    try:
        yield
    finally:
        assert command(site, "postillion", "-c", str(site.etc), "stop").returncode == 0


def test_ordinary_user_runs_site_and_gets_mail(site: Site) -> None:
    with started(site):
        with smtplib.SMTP("127.0.0.1", site.port, "client.example", 20) as client:
            client.sendmail("a@example.net", [f"{USER}@example.org"], "Subject: by SMTP\r\n\r\nbody\r\n")
        sent = command(
            site, "sendmail", "-C", str(site.etc), f"{USER}@example.org", text="Subject: by sendmail\n\nbody\n"
        )
        assert (sent.returncode, sent.stderr) == (0, "")
        wait_for("both messages", lambda: len(site.maildir(USER)) == 2)
        texts = [path.read_text() for path in site.maildir(USER)]
        assert (
            sorted(subject in text for subject in ("by SMTP", "by sendmail") for text in texts)
            == [False] * 2 + [True] * 2
        )
        uid = pwd.getpwnam(USER).pw_uid
        for program in PROGRAMS:
            pids = processes(site, program)
            assert pids, program
            assert {os.stat(f"/proc/{pid}").st_uid for pid in pids} == {uid}, program
        listing = command(site, "postqueue", "-c", str(site.etc), "-p")
        assert listing.stdout == "Mail queue is empty\n"
        assert "warning" not in site.log_text()


@pytest.mark.parametrize(
    ("path", "mode", "message"),
    [
        (
            "etc/main.cf",
            0o600,
            r"etc/main\.cf: cannot be read \(Permission denied\): give read permission to the user that runs this",
        ),
        (
            "etc/master.cf",
            0o600,
            r"etc/master\.cf: cannot be read \(Permission denied\): give read permission to the user that runs this",
        ),
        ("queue", 0o755, r"etc/main\.cf, line 2: queue_directory .*: start as its owner, or name another directory"),
        ("data", 0o755, r"etc/main\.cf, line 3: data_directory .*: start as its owner, or name another directory"),
        ("log", 0o755, r"etc/main\.cf, line 8: maillog_file .*: name a writable file"),
    ],
)
def test_start_error_names_path_without_permission(site: Site, path: str, mode: int, message: str) -> None:
    os.chown(site.directory / path, 0, 0)
    (site.directory / path).chmod(mode)
    result = command(site, "postillion", "-c", str(site.etc), "start")
    assert result.returncode == 1
    assert re.fullmatch(rf"postillion: fatal: {re.escape(str(site.directory))}/{message}\n", result.stderr), (
        result.stderr
    )
    assert not listening(site.port)
    assert [program for program in PROGRAMS if processes(site, program)] == []
