"""Lookups in remote tables by Debian's postmap and by Postillion: the same file and keys for both."""

import asyncio
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from postillion.config import Config
from postillion.tables import TableError, open_table
from postillion.tables.remote import RemoteTable
from support.peers import absent, peer

FAILS = "a temporary failure"
AT_ONCE = 64
"""Maximum number of postmap processes at a time."""


def theirs(etc: Path, name: str, keys: list[str]) -> dict[str, str | None]:
    """Return the values that Debian's postmap finds; `FAILS` for a key that it cannot look up."""
    if name.partition(":")[0] not in subprocess.run(["postconf", "-m"], capture_output=True, text=True).stdout.split():
        absent(f"Postfix has no {name.partition(':')[0]} tables (Debian package postfix-{name.partition(':')[0]})")
    command = [peer("postmap"), "-c", str(etc), "-q"]
    done = subprocess.run(
        [*command, "-", name], input="\n".join(keys) + "\n", capture_output=True, text=True, timeout=120
    )
    if "fatal" not in done.stderr:
        lines = dict(line.split("\t", 1) for line in done.stdout.splitlines())
        return {key: lines.get(key) for key in keys}
    # It stops at the first key that fails, and prints nothing then.

    # Postfix's postmap waits a second before it ends with an error.
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(keys, pool.map(lambda key: _query([*command, key, name]), keys), strict=True))


def _query(command: list[str]) -> str | None:
    """Return the value that postmap prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return FAILS if "fatal" in done.stderr else done.stdout.removesuffix("\n") if not done.returncode else None


async def ours(etc: Path, name: str, keys: list[str]) -> dict[str, str | None]:
    """Return the values that Postillion finds; `FAILS` for a key that it cannot look up."""
    table = open_table(name, Config.load(str(etc)))
    assert isinstance(table, RemoteTable)
    found: dict[str, str | None] = {}
    for key in keys:
        try:
            found[key] = await table.ask(key)
        except TableError:
            found[key] = FAILS
    await table.close()
    return found


async def compare(etc: Path, kind: str, text: str, keys: list[str]) -> dict[str, str | None]:
    """Check that both find the same with a file of parameters; return it."""
    file = etc / f"{kind}.cf"
    file.write_text(text)
    name = f"{kind}:{file}"
    found = await ours(etc, name, keys)
    assert found == await asyncio.to_thread(theirs, etc, name, keys)
    return found


async def compare_rows(etc: Path, kind: str, texts: Mapping[str, str], key: str) -> dict[str, str | None]:
    """Check that both find the same for a key with each file of parameters, side by side; return it."""
    names: dict[str, str] = {}
    for number, (row, text) in enumerate(texts.items()):
        file = etc / f"{kind}{number}.cf"
        file.write_text(text)
        names[row] = f"{kind}:{file}"
    found = {row: (await ours(etc, name, [key]))[key] for row, name in names.items()}
    command = [peer("postmap"), "-c", str(etc), "-q", key]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = {row: asyncio.wrap_future(pool.submit(_query, [*command, name])) for row, name in names.items()}
        assert found == {row: await value for row, value in running.items()}
    return found
