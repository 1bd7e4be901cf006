"""postkick: exit statuses, and the requests of the queue manager."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from postillion.commands import postkick, postqueue
from support import peers
from support.mta import until
from support.queue_commands import CONTENT, command
from support.queue_files import MAIN_CF, Message, announce, write_segment
from test_qmgr import DEFERRED, SENT, FakeAgent, qmgr

OURS = [sys.executable, "-m", postkick.__name__]


@pytest.mark.parametrize(
    "words", [["public", "nosuch", "W"], ["nosuch", "pickup", "W"], ["public", "pickup"], []], ids=" ".join
)
def test_unreachable_service_has_the_status_of_postfix(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "main.cf").write_text(MAIN_CF.format(directory=tmp_path))
    mine, theirs = (
        subprocess.run([*program, "-c", str(tmp_path), *words], capture_output=True, text=True, check=False)
        for program in (OURS, [peers.peer("postkick")])
    )
    assert mine.returncode == theirs.returncode == 1
    assert mine.stderr.splitlines()[-1] == theirs.stderr.splitlines()[-1]


async def test_f_retries_deferred_mail_and_each_letter_finds_new_mail(tmp_path: Path) -> None:
    async with qmgr(tmp_path) as daemon:
        fate = [DEFERRED]
        agent = await FakeAgent(tmp_path, lambda job: fate[0](job)).connect("smtp")
        now_us = int(time.time() * 1e6)
        deferred, found = Message(now_us, ["a@example.net"], content=CONTENT), Message(now_us + 1, ["b@example.net"])
        announce(tmp_path, 1, [deferred]).close()
        await agent.has(1)
        async with asyncio.timeout(30):
            while '"queue_name": "deferred"' not in (await command(postqueue, "-j")).stdout:
                pass
        fate[0] = SENT
        write_segment(tmp_path, 2, [found])
        assert (await command(postkick, "public", "qmgr", "W")).returncode == 0
        await until(lambda: f"{found.id}: removed" in daemon.logged())
        assert f"{deferred.id}: removed" not in daemon.logged()
        assert (await command(postkick, "public", "qmgr", "FD")).returncode == 0
        await until(lambda: f"{deferred.id}: removed" in daemon.logged())
        assert len(agent.jobs) == 3
