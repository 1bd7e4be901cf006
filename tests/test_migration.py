"""The steps of docs/operating.md: from Postfix to Postillion and back, with mail in both queues, and none is lost.

The test runs the command blocks of the guide as they stand, with its paths replaced by those of a site in a temporary
directory, and with `MAIL_CONFIG` in the environment as its third step has it.
"""

import json
import re
import shutil
import smtplib
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.mta import POSTILLION_COMMANDS, Site, listening, start, stop, wait_for
from support.peers import peer, root
from support.sink import Sink

RECIPIENT = "x@next.example"
GUIDE = Path(__file__).parent.parent / "docs" / "operating.md"
RENAMED = "4B0C53A1F2"
"""A name as Postfix gives its queue files."""


def run(*command: str | Path) -> str:
    """Run a command of the guide; return its output, fail when it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def ours(program: str, *options: str | Path) -> str:
    """Run a command of Postillion."""
    return run(POSTILLION_COMMANDS / program, *options)


def theirs(program: str, *options: str | Path) -> str:
    """Run a command of Postfix."""
    return run(f"/usr/sbin/{program}", *options)


def send(site: Site, *subjects: str) -> None:
    """Send a message for each subject to a next hop that does not listen yet."""
    with smtplib.SMTP("127.0.0.1", site.port) as client:
        for subject in subjects:
            client.sendmail("a@example.org", [RECIPIENT], f"Subject: {subject}\r\n\r\nbody\r\n")


def deferred(listing: Sequence[str]) -> int:
    """Return the number of deferred messages in the output of `postqueue -j`."""
    return sum(json.loads(line)["queue_name"] == "deferred" for line in listing)


def blocks(heading: str) -> list[str]:
    """Return the command blocks of a section of the guide."""
    section = GUIDE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [re.sub(r"(?m)^    ", "", block) for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL)]


class Guide:
    """Runs the guide's commands with other paths. `paths`: those of the site."""

    def __init__(self, paths: dict[str, Path]) -> None:
        self._paths = paths
        self._names = re.compile("|".join(f"{re.escape(path)}(?![a-z])" for path in paths))

    def follow(self, block: str) -> None:
        """Run one block; fail when a command fails."""
        commands = self._names.sub(lambda found: str(self._paths[found[0]]), block)
        run("/bin/sh", "-ec", f'PATH="{POSTILLION_COMMANDS}:$PATH"\n{commands}')


def test_queued_mail_migrates_to_postillion_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root()
    peer("postfix")
    site = Site(tmp_path)
    # Postfix's commands write to the log as its owner while its mail system is down.
    site.log.touch()
    for path in (site.log.parent, site.log):
        shutil.chown(path, "postfix")
    old, new = site.etc, tmp_path / "etc-postillion"
    queue = tmp_path / "queue-postillion"
    copy, take_over = blocks("Migrate from Postfix")
    give_back, requeue = blocks("Migrate back to Postfix")
    guide = Guide(
        {
            "/etc/postfix": old,
            "/etc/postillion": new,
            "/var/spool/postfix": site.queue,
            "/var/spool/postillion": queue,
            "/var/lib/postillion": tmp_path / "data-postillion",
        }
    )
    start(site, "postfix")
    send(site, "one", "two")
    wait_for("mail in Postfix's queue", lambda: deferred(theirs("postqueue", "-c", old, "-j").splitlines()) == 2)
    guide.follow(copy)
    guide.follow(take_over)
    monkeypatch.setenv("MAIL_CONFIG", str(new))
    wait_for("the SMTP port", lambda: listening(site.port))
    try:
        send(site, "three", "four")
        wait_for("mail in our queue", lambda: deferred(ours("postqueue", "-j").splitlines()) == 2)
        assert deferred(theirs("postqueue", "-c", old, "-j").splitlines()) == 2
        guide.follow(give_back)
        ours("postillion", "status")
        wait_for("Postfix at the SMTP port", lambda: listening(site.port))
        guide.follow(requeue)
        wait_for(
            "all mail in Postfix's queue", lambda: deferred(theirs("postqueue", "-c", old, "-j").splitlines()) == 4
        )
        with Sink(site.next_port) as sink:
            theirs("postqueue", "-c", old, "-f")
            arrived = [message.content for message in sink.wait(4)]
    finally:
        subprocess.run([POSTILLION_COMMANDS / "postillion", "-c", new, "abort"], capture_output=True, check=False)
        stop(site, "postfix")
    assert list((queue / "maildrop").iterdir()) == []
    for subject in ("one", "two", "three", "four"):
        assert sum(f"Subject: {subject}\r\n".encode() in content for content in arrived) == 1


def test_each_postfix_command_of_the_guide_names_its_configuration() -> None:
    commands = [
        command
        for heading in ("Migrate from Postfix", "Migrate back to Postfix")
        for block in blocks(heading)
        for command in re.findall(r"/usr/s?bin/[^;&#\n]*", block)
    ]
    assert len(commands) >= 7
    assert [command for command in commands if " -c /etc/postfix " not in command] == []


def test_files_that_postfix_renamed_are_named_in_the_log_and_come_back(tmp_path: Path) -> None:
    root()
    # The first attempt may come before the stop.
    site = Site(tmp_path, main_cf={"minimal_backoff_time": "1s", "maximal_backoff_time": "1s"})
    start(site, "postillion")
    send(site, "kept")
    stop(site, "postillion")
    incoming = site.queue / "incoming"
    (segment,) = (path for path in incoming.iterdir() if re.fullmatch(r"[0-9A-F]{16}", path.name))
    segment.rename(incoming / RENAMED)
    start(site, "postillion")
    try:
        said = f"warning: incoming/{RENAMED}: its header has the name {segment.name}: "
        wait_for("the warning", lambda: said in site.log_text())
        assert site.log_text().count(said) == 1
    finally:
        stop(site, "postillion")
    ours("postsuper", "-c", site.etc, "-s")
    with Sink(site.next_port) as sink:
        start(site, "postillion")
        try:
            assert b"Subject: kept\r\n" in sink.wait(1)[0].content
        finally:
            stop(site, "postillion")
