"""Settings of all tests: fixed examples of hypothesis, and lines for the summary of the run."""

import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

FULL = "POSTILLION_FAULTS" in os.environ
"""The full form of the crash tests draws new examples in each run. hypothesis prints a failing one."""
THREAD_END_MAX_S = 10.0
LINES = pytest.StashKey[list[str]]()
OWN = pytest.StashKey[str]()
"""The temporary directory of a run. It is removed at the end, unless a test has failed."""
SUMMARY = "summary"

settings.register_profile(
    "postillion", derandomize=not FULL, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("postillion")


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a short name: the path of a socket in a queue below it has at most 107 octets."""
    return tmp_path_factory.mktemp("t")


@pytest.fixture(scope="module", autouse=True)
def threads_end() -> Iterator[None]:
    """Check that a module's threads end with it: one that goes on slows every later test down.

    The threads of a site's handler live as long as their process; they wait.
    """
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + THREAD_END_MAX_S
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("handler "):
            continue
        thread.join(max(0.0, deadline - time.monotonic()))
        assert not thread.is_alive(), f"{thread} goes on"


@pytest.fixture(scope="session")
def summarize(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Return a function that adds a line to the summary: pytest-xdist drops the output of its workers."""
    return pytestconfig.stash[LINES].append


def pytest_configure(config: pytest.Config) -> None:
    """Start with an empty list of lines. Allow the frames that coverage's tracer counts twice (CPython 3.11).

    A run has a temporary directory of its own: pytest's common one is made private again by each further run, and then
    the programs of a site, which drop root, cannot deliver any more.
    """
    config.stash[LINES] = []
    if config.option.basetemp is None and not hasattr(config, "workerinput"):
        config.stash[OWN] = config.option.basetemp = tempfile.mkdtemp(prefix="postillion-tests-")
    if getattr(config.option, "cov_source", None):
        sys.setrecursionlimit(2 * sys.getrecursionlimit())


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Send a worker's lines to the main process. Remove the files of a good run."""
    directory = session.config.stash.get(OWN, None)
    if directory is not None and exitstatus == pytest.ExitCode.OK:
        shutil.rmtree(directory, ignore_errors=True)
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[SUMMARY] = session.config.stash[LINES]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Receive a worker's lines."""
    node.config.stash[LINES] += getattr(node, "workeroutput", {}).get(SUMMARY, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the lines of the crash tests."""
    lines = config.stash[LINES]
    if lines:
        terminalreporter.section("crash tests")
        for line in sorted(lines):
            terminalreporter.write_line(line)
