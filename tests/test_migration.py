"""The steps of docs/operating.md: from Postfix to Postillion and back, with mail in both queues, and none is lost.

The test runs the guide's commands, with its paths replaced by those of a site in a temporary directory.
"""

import json
import shutil
import smtplib
import subprocess
from collections.abc import Sequence
from pathlib import Path

from support.mta import POSTILLION_COMMANDS, Site, listening, start, stop, wait_for
from support.peers import peer, root
from support.sink import Sink

RECIPIENT = "x@next.example"


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


def test_queued_mail_migrates_to_postillion_and_back(tmp_path: Path) -> None:
    root()
    peer("postfix")
    site = Site(tmp_path)
    # Postfix's commands write to the log as its owner while its mail system is down.
    site.log.touch()
    for path in (site.log.parent, site.log):
        shutil.chown(path, "postfix")
    old, new = site.etc, tmp_path / "etc-postillion"
    queue = tmp_path / "queue-postillion"
    start(site, "postfix")
    send(site, "one", "two")
    wait_for("mail in Postfix's queue", lambda: deferred(theirs("postqueue", "-c", old, "-j").splitlines()) == 2)

    # Migrate from Postfix.
    shutil.copytree(old, new)
    directories = (f"queue_directory={queue}", f"data_directory={tmp_path}/data-postillion")
    ours("postconf", "-c", new, "-e", *directories)
    ours("postillion", "-c", new, "check")
    theirs("postconf", "-c", old, "-e", "master_service_disable=inet")
    stop(site, "postfix")
    theirs("postfix", "-c", old, "start")
    ours("postillion", "-c", new, "start")
    wait_for("the SMTP port", lambda: listening(site.port))
    try:
        send(site, "three", "four")
        wait_for("mail in our queue", lambda: deferred(ours("postqueue", "-c", new, "-j").splitlines()) == 2)
        assert deferred(theirs("postqueue", "-c", old, "-j").splitlines()) == 2

        # Migrate back to Postfix.
        ours("postconf", "-c", new, "-e", "master_service_disable=inet")
        ours("postillion", "-c", new, "reload")
        wait_for("closed ports", lambda: not listening(site.port))
        theirs("postconf", "-c", old, "-X", "master_service_disable")
        stop(site, "postfix")
        start(site, "postfix")
    finally:
        ours("postillion", "-c", new, "stop")
    try:
        ours("postsuper", "-c", new, "-r", "ALL")
        moved = list((queue / "maildrop").iterdir())
        for path in moved:
            path.rename(site.queue / "maildrop" / path.name)
        theirs("postkick", "-c", old, "public", "pickup", "W")
        wait_for(
            "all mail in Postfix's queue", lambda: deferred(theirs("postqueue", "-c", old, "-j").splitlines()) == 4
        )
        with Sink(site.next_port) as sink:
            theirs("postqueue", "-c", old, "-f")
            arrived = [message.content for message in sink.wait(4)]
    finally:
        stop(site, "postfix")
    assert len(moved) == 2
    for subject in ("one", "two", "three", "four"):
        assert sum(f"Subject: {subject}\r\n".encode() in content for content in arrived) == 1
