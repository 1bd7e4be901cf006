"""aiosmtpd's own tests, from its wheel, against `postillion.aiosmtpd.SMTP`."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import aiosmtpd
import pytest

from support.aiosmtpd_plugin import MADE

TESTS = Path(aiosmtpd.__file__).parent / "tests"
DIFFERING: dict[str, str] = {
    "test_smtp.TestSMTPWithController::test_long_line_leak": "replaces what joins a line's pieces in Python",
}
"""Expected failures: `module::name[parameters]` and the reason, as in docs/aiosmtpd.md."""
RUNS_MAX = 3
"""The cases have short time limits of their own: those that fail on a busy machine run again."""
CASES_LEAST = 500
CONNECTIONS_LEAST = 300
OWN_NETWORK = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
"""aiosmtpd's tests use fixed ports: a network namespace isolates parallel runs on one machine."""


def _own_network() -> tuple[str, ...]:
    try:
        ran = subprocess.run([*OWN_NETWORK, "true"], capture_output=True, timeout=30, check=False)
    except OSError:
        return ()
    return OWN_NETWORK if ran.returncode == 0 else ()


def test_aiosmtpd_own_tests_pass_with_our_class(tmp_path: Path) -> None:
    pytest.importorskip("pytest_mock")
    made, cases, failed = _run(tmp_path)
    assert made >= CONNECTIONS_LEAST
    assert cases >= CASES_LEAST
    for _ in range(1, RUNS_MAX):
        if failed.keys() == DIFFERING.keys():
            break
        print(f"again: {failed}")
        _, _, failed = _run(tmp_path, "--last-failed")
    assert failed.keys() == DIFFERING.keys(), {name: failed.get(name) for name in failed.keys() ^ DIFFERING.keys()}


def _run(directory: Path, *more: str) -> tuple[int, int, dict[str, str]]:
    """Run the tests; return the numbers of connections and cases, and the failed cases with their messages."""
    report = directory / "report.xml"
    options = ["-q", "-p", "support.aiosmtpd_plugin", "-o", "asyncio_mode=strict", "-o", "addopts="]
    options += ["-o", f"cache_dir={directory}/cache", f"--rootdir={TESTS}", f"--junit-xml={report}", *more]
    words = [sys.executable, "-m", "pytest", *options, str(TESTS)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    ran = subprocess.run(
        [*_own_network(), *words],
        env=environment,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    made = [line.removeprefix(MADE) for line in ran.stdout.splitlines() if line.startswith(MADE)]
    assert made, ran.stdout[-3000:] + ran.stderr[-3000:]
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = {
        f"{case.get('classname', '').rpartition('tests.')[2]}::{case.get('name')}": found.get("message", "")
        for case in cases
        for found in case
        if found.tag in ("failure", "error")
    }
    return int(made[0]), len(cases), failed


def test_every_expected_failure_is_documented() -> None:
    page = " ".join((Path(__file__).parent.parent / "docs" / "aiosmtpd.md").read_text().split())
    for name, reason in DIFFERING.items():
        assert f"`{name}`" in page
        assert reason in page
    assert f"of its {CASES_LEAST} and more cases {len(DIFFERING) or 'none'} differ" in page
