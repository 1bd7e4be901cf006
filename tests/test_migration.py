"""The steps of docs/operating.md: from Postfix to Postillion and back, with mail in both queues, and none is lost.

The test runs the command blocks of the guide as they stand, with its paths replaced by those of a site in a temporary
directory, and with `MAIL_CONFIG` in the environment as its third step has it. After each step, mail for an alias and
for a virtual alias shows that the running mail system can read the hash tables.
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
ALIAS = "info@example.org"
VIRTUAL = "sales@virtual.example"
RECIPIENTS = (RECIPIENT, ALIAS, VIRTUAL)
"""Addresses that lead to the first of them: by itself, by the alias file, and by a table of postmap."""
OUR_INDEX = b"PostillionIndex"
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


def send(site: Site, subject: str, recipients: Sequence[str] = RECIPIENTS) -> None:
    """Send a message to each recipient. All lead to a next hop that does not listen yet."""
    with smtplib.SMTP("127.0.0.1", site.port) as client:
        for recipient in recipients:
            client.sendmail("a@example.org", [recipient], f"Subject: {subject} {recipient}\r\n\r\nbody\r\n")


def deferred(output: str) -> int:
    """Return the number of messages for the next hop that are deferred, from the output of `postqueue -j`."""
    messages = [json.loads(line) for line in output.splitlines()]
    return sum(
        message["queue_name"] == "deferred" and message["recipients"][0]["address"] == RECIPIENT for message in messages
    )


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
    aliases, virtual = tmp_path / "etc" / "aliases", tmp_path / "etc" / "virtual"
    site = Site(
        tmp_path,
        main_cf={
            "alias_database": f"hash:{aliases}",
            "virtual_alias_maps": f"hash:{virtual}",
            "virtual_alias_domains": VIRTUAL.partition("@")[2],
        },
    )
    aliases.write_text(f"{ALIAS.partition('@')[0]}: {RECIPIENT}\n")
    virtual.write_text(f"{VIRTUAL} {RECIPIENT}\n")
    indexes = [path.with_name(f"{path.name}.db") for path in (aliases, virtual)]

    def ours_write() -> list[bool]:
        return [path.read_bytes().startswith(OUR_INDEX) for path in indexes]

    # Postfix's commands write to the log as its owner while its mail system is down.
    site.log.touch()
    for path in (site.log.parent, site.log):
        shutil.chown(path, "postfix")
    theirs("postmap", "-c", site.etc, f"hash:{virtual}")
    old, new = site.etc, tmp_path / "etc-postillion"
    queue = tmp_path / "queue-postillion"
    copy, take_over, index = blocks("Migrate from Postfix")
    index_back, give_back, requeue = blocks("Migrate back to Postfix")
    guide = Guide(
        {
            "/etc/aliases": aliases,
            "/etc/postfix": old,
            "/etc/postillion": new,
            "/var/spool/postfix": site.queue,
            "/var/spool/postillion": queue,
            "/var/lib/postillion": tmp_path / "data-postillion",
        }
    )
    start(site, "postfix")
    send(site, "before")
    wait_for("mail in Postfix's queue", lambda: deferred(theirs("postqueue", "-c", old, "-j")) == 3)
    guide.follow(copy)
    guide.follow(take_over)
    monkeypatch.setenv("MAIL_CONFIG", str(new))
    wait_for("the SMTP port", lambda: listening(site.port))
    try:
        send(site, "while both run")
        wait_for("mail in our queue", lambda: deferred(ours("postqueue", "-j")) == 3)
        assert deferred(theirs("postqueue", "-c", old, "-j")) == 3
        assert ours_write() == [False, False]
        guide.follow(index)
        assert ours_write() == [True, True]
        send(site, "with our indexes")
        wait_for("more mail in our queue", lambda: deferred(ours("postqueue", "-j")) == 6)
        guide.follow(index_back)
        assert ours_write() == [False, False]
        guide.follow(give_back)
        ours("postillion", "status")
        wait_for("Postfix at the SMTP port", lambda: listening(site.port))
        send(site, "after")
        wait_for("mail in Postfix's queue", lambda: deferred(theirs("postqueue", "-c", old, "-j")) == 6)
        guide.follow(requeue)
        wait_for("all mail in Postfix's queue", lambda: deferred(theirs("postqueue", "-c", old, "-j")) == 12)
        with Sink(site.next_port) as sink:
            theirs("postqueue", "-c", old, "-f")
            arrived = sink.wait(12)
    finally:
        subprocess.run([POSTILLION_COMMANDS / "postillion", "-c", new, "abort"], capture_output=True, check=False)
        stop(site, "postfix")
    assert list((queue / "maildrop").iterdir()) == []
    for subject in ("before", "while both run", "with our indexes", "after"):
        for recipient in RECIPIENTS:
            line = f"Subject: {subject} {recipient}\r\n".encode()
            assert [message.rcpt_tos for message in arrived if line in message.content] == [[RECIPIENT]]


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
    send(site, "kept", [RECIPIENT])
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
            assert f"Subject: kept {RECIPIENT}\r\n".encode() in sink.wait(1)[0].content
        finally:
            stop(site, "postillion")
