"""Keys and certificates while smtpd runs: changed files are used without a restart.

smtpd looks at the files every `CHECK_S`. It reads changed ones that it may read, and gives them to new sessions; open
sessions keep theirs. Files that only root may read are read by a successor (`program.succession`), once master's check
has shown that they can be used. Keys that cannot be used leave the old ones in use, with a warning.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from postillion.config import Config
from postillion.program import succession
from postillion.smtpd import expiry
from postillion.smtpd.mode import Mode

if TYPE_CHECKING:
    from postillion.program.daemon import Daemon

CHECK_S: Final = 2.0
"""Interval of the checks for changed files."""


async def follow(daemon: Daemon, modes: tuple[Mode, ...]) -> None:
    """Use changed keys until the program drains."""
    servers = list({id(mode.tls): mode for mode in modes}.values())
    told = ""
    while not daemon.draining.is_set():
        await asyncio.sleep(CHECK_S)
        for config, tls in ((mode.config, mode.tls) for mode in servers):
            if not tls.has_changed:
                continue
            # In a thread: a file of many authorities takes time.
            outcome, problem = await asyncio.to_thread(tls.renew)
            if outcome == "closed":
                succession.request_checked()
            elif problem is None:
                told = ""
                daemon.log.info("TLS keys have changed -- new sessions use them")
                for text in expiry.warnings(config, tls):
                    daemon.log.warning(text)
            elif (text := _unused(config, problem)) != told:
                told = text
                daemon.log.warning(text)


def _unused(config: Config, problem: tuple[str, str, str]) -> str:
    """Return the warning about changed keys that cannot be used."""
    name, text, fix = problem
    return f"{config.error(name, f'{name}: {text}', fix)} ({succession.OLD_KEYS})"
