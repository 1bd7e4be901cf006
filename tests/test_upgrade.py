"""Up from a release whose queue has version 1, and down again: no message is lost, and none changes.

The queue of that release is an archive (`support/queue_v1.py`). `POSTILLION_OLDER=/path/bin/python` names an
environment with the release itself: then it runs the site before and after, under load.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postillion._core.queue import read_message
from support.crash import EVERYTHING, Faults, check, crash_site, drain, new_arrivals, new_ledger, verdict
from support.ledger import Route
from support.mta import Site, ended, listening, running, wait_for
from support.ports import free_port
from support.queue_files import Message, crc32c, read_queue, write_segment
from support.queue_v1 import FAR, OLDER_PYTHON, Expected, read_segment, unpack
from support.sink import Sink

MESSAGES = 9
"""Messages in the archive that wait; one of them is held."""
FLOWING_MAX_S = 120.0
ROUTES = [Route("", [to]) for to in ("x@later.example", "x@next.example", "y@next.example")]


def older(site: Site, module: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the older release."""
    command = [OLDER_PYTHON, "-P", "-m", f"postillion.commands.{module}", "-c", str(site.etc), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def ours(site: Site, program: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of this release."""
    command = [*site.command(program), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@contextlib.contextmanager
def running_older(site: Site) -> Iterator[None]:
    """Run the site with the older release during the block."""
    started = older(site, "postillion", "start")
    assert started.returncode == 0, started.stdout + started.stderr + site.log_text()
    wait_for("the SMTP port", lambda: listening(site.port))
    pid = int((site.queue / "pid" / "master.pid").read_text())
    try:
        yield
    finally:
        older(site, "postillion", "stop")
        wait_for("the older master's end", lambda: ended(pid))


def older_site(directory: Path) -> tuple[Site, int]:
    """Return a site that delivers mail to older.example to a next hop of its own, and the port of that next hop."""
    port = free_port()
    maps = f"texthash:{directory}/etc/transport inline:{{{{ older.example = smtp:[127.0.0.1]:{port} }}}}"
    settings = {"transport_maps": maps, "maximal_queue_lifetime": FAR, "bounce_queue_lifetime": FAR}
    return crash_site(directory, settings), port


def versions(queue: Path) -> set[int]:
    """Return the versions of the segments in a queue directory."""
    segments = [path for name in ("incoming", "deferred") for path in (queue / name).glob("?" * 16)]
    return {path.read_bytes()[4] for path in segments}


def test_queue_of_version_1_is_listed_and_read(tmp_path: Path) -> None:
    expected = unpack(tmp_path)
    listed = {entry["queue_id"]: entry for entry in map(json.loads, read_queue(str(tmp_path), long_queue_ids=False))}
    assert listed.keys() == expected.keys()
    assert len(listed) == MESSAGES
    for queue_id, message in expected.items():
        assert listed[queue_id]["queue_name"] == ("hold" if message.held else "deferred")
        assert [to["address"] for to in listed[queue_id]["recipients"]] == message.waiting
        stored = read_message(str(tmp_path), queue_id)
        assert stored is not None
        assert stored.head_octets == 0
        text = stored.text()
        assert (len(text), hashlib.sha256(text).hexdigest()) == (message.octets, message.sha256)
        assert message.text is None or text.decode("latin-1") == message.text


def same(expected: dict[str, Expected], sink: Sink) -> bool:
    """Return whether each message of the archive has arrived, unchanged; fail for any other message."""
    arrived = {hashlib.sha256(received.content.replace(b"\r\n", b"\n")).hexdigest() for received in sink.messages}
    wanted = {message.sha256 for message in expected.values()}
    assert arrived <= wanted
    return arrived == wanted


def test_upgrade_under_load_loses_nothing(tmp_path: Path, summarize: Callable[[str], None]) -> None:
    site, port = older_site(tmp_path)
    expected = unpack(site.queue)
    ledger = new_ledger(site)
    faults = Faults(site, ledger)
    with Sink(port) as older_sink, Sink(site.next_port) as sink:
        arrivals = new_arrivals(site, sink)
        with contextlib.ExitStack() as whole:
            with ledger.load(ROUTES):
                if OLDER_PYTHON:
                    with running_older(site):
                        ledger.wait_for_more(60, FLOWING_MAX_S)
                        assert versions(site.queue) == {1}
                whole.enter_context(running(site))
                ledger.wait_for_more(20, FLOWING_MAX_S)
                faults.strike(EVERYTHING, random.Random(1))
                ledger.wait_for_more(20, FLOWING_MAX_S)
            assert ours(site, "postsuper", "-H", "ALL").returncode == 0
            drain(site, ledger, arrivals)
            wait_for("the mail of the older release", lambda: same(expected, older_sink))
    release = "the release" if OLDER_PYTHON else "the archive"
    summarize(f"upgrade from {release}: {verdict(faults, ledger, arrivals, faults.in_flight)}")
    check(faults, ledger, arrivals, faults.in_flight)


def test_downgrade_after_conversion_loses_nothing(tmp_path: Path) -> None:
    site, _ = older_site(tmp_path)
    ledger = new_ledger(site)
    with running(site):
        with ledger.load([Route("", ["x@later.example"])]):
            ledger.wait_for_more(120, FLOWING_MAX_S)
        refused = ours(site, "postillion", "queue", "--convert", "v1")
        assert refused.returncode == 1
        assert "needs a stopped mail system" in refused.stderr
        assert 2 in versions(site.queue)
    before = {
        entry["queue_id"]: read_text(site, entry["queue_id"]) for entry in map(json.loads, read_queue(str(site.queue)))
    }
    owners = {path.name: path.stat().st_uid for path in (site.queue / "incoming").iterdir()}
    if OLDER_PYTHON:
        with running_older(site):
            wait_for("the older release's refusal", lambda: "queue file version 2" in site.log_text())
        assert versions(site.queue) >= {2}, "the older release changes nothing"
    done = ours(site, "postillion", "queue", "--convert", "v1")
    assert done.returncode == 0, done.stderr
    assert "older releases read the queue now" in done.stdout
    assert versions(site.queue) == {1}
    segments = (site.queue / "incoming").glob("?" * 16)
    assert {path.name: path.stat().st_uid for path in (site.queue / "incoming").iterdir()} == owners
    contents = [content for path in segments for content in read_segment(path).values()]
    assert {digest_of_wire(content) for content in contents} >= set(before.values())
    assert {queue_id: read_text(site, queue_id) for queue_id in before} == before, "this release reads it, too"
    with Sink(site.next_port) as sink:
        arrivals = new_arrivals(site, sink)
        with running_older(site) if OLDER_PYTHON else running(site):
            drain(site, ledger, arrivals)
        assert not arrivals.wrong
        assert not arrivals.missing(ledger)


def read_text(site: Site, queue_id: str) -> str:
    """Return the hash of a stored message's text."""
    stored = read_message(str(site.queue), queue_id)
    assert stored is not None
    return hashlib.sha256(stored.text()).hexdigest()


def digest_of_wire(content: bytes) -> str:
    """Return the hash of a content's text: line ends are LF, and doubled dots are single."""
    lines = content.split(b"\r\n")
    return hashlib.sha256(b"\n".join(line[line.startswith(b".") :] for line in lines)).hexdigest()


@pytest.mark.parametrize("words", ["queue", "queue --convert v3", "status --convert v1", "queue x"])
def test_wrong_words_change_nothing(tmp_path: Path, words: str) -> None:
    site = Site(tmp_path)
    write_segment(site.queue, 1, [Message(1, ["a@example.net"])])
    octets = (site.queue / "incoming" / f"{1:016X}").read_bytes()
    done = ours(site, "postillion", *words.split())
    assert done.returncode == 1
    assert "--convert" in done.stderr
    assert (site.queue / "incoming" / f"{1:016X}").read_bytes() == octets


def test_conversion_names_what_stops_it(tmp_path: Path) -> None:
    site = Site(tmp_path)
    write_segment(site.queue, 1, [Message(1, ["a@example.net"])])
    segment = site.queue / "incoming" / f"{1:016X}"
    (site.queue / "pid").mkdir()
    octets = segment.read_bytes()
    segment.write_bytes(newer(octets))
    done = ours(site, "postillion", "queue", "--convert", "v1")
    assert done.returncode == 1
    assert f"{segment}: queue file version 9, but this release reads versions up to 2" in done.stderr
    assert segment.read_bytes() == newer(octets)
    assert os.listdir(segment.parent) == [segment.name]


def newer(octets: bytes) -> bytes:
    """Return a segment with a header of version 9."""
    head = octets[:4] + b"\x09\x00" + octets[6:28]
    return head + crc32c(head).to_bytes(4, "little") + octets[32:]
