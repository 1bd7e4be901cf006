"""Tables that only root may read: programs open them before they drop their rights, and a change is seen."""

from __future__ import annotations

import itertools
import os
import re
import smtplib
import subprocess
import threading
from pathlib import Path

import pytest

from postillion._core.tables import Index
from support.mta import Site, local_user, processes, running, wait_for
from support.sink import Sink

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has files that mail_owner may not read")

LOG = "has changed -- restarting"


class Load:
    """A client that sends message after message. `codes`: the replies that are not 250."""

    def __init__(self, port: int, recipient: str) -> None:
        self.port = port
        self.recipient = recipient
        self.sent = 0
        self.codes: list[object] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _send(self) -> None:
        for number in itertools.count():
            if self._stop.is_set():
                return
            try:
                with smtplib.SMTP("127.0.0.1", self.port, timeout=60) as client:
                    client.sendmail("a@example.net", [self.recipient], f"Subject: n{number}\r\n\r\nx\r\n")
                self.sent += 1
            except (smtplib.SMTPException, OSError) as problem:
                self.codes.append(problem)

    def more(self, number: int) -> None:
        """Wait until this many more messages are accepted."""
        goal = self.sent + number
        wait_for(f"{goal} messages", lambda: self.sent >= goal)


def replace(path: Path, text: str) -> None:
    """Write a file of root's that nobody else may read, and rename it to its name."""
    new = path.with_suffix(".new")
    new.touch(0o600)
    new.write_text(text)
    # A text must be unchanged for a second before it is read.
    os.utime(new, (0, 1_700_000_000 + int(path.exists())))
    new.rename(path)


def hashed(path: Path, text: str) -> None:
    """Do the same with the index of a hash table."""
    path.touch(0o600)
    path.write_text(text)
    Index("hash", str(path), mode=0o600).create(text.encode(), str(path))


def test_smtpd_serves_new_checks_and_no_session_ends(tmp_path: Path) -> None:
    checks = tmp_path / "checks"
    replace(checks, "/^Subject:/ PREPEND X-Version: one\n")
    site = Site(tmp_path / "site", main_cf={"header_checks": f"pcre:{checks}"})
    with Sink(site.next_port) as sink, running(site), smtplib.SMTP("127.0.0.1", site.port) as open_session:
        open_session.ehlo("client.example")
        first = processes(site, "smtpd")
        with Load(site.port, "r@next.example") as load:
            load.more(3)
            replace(checks, "/^Subject:/ PREPEND X-Version: two\n")
            wait_for("a successor", lambda: set(processes(site, "smtpd")) - set(first))
            wait_for("the new table", lambda: b"X-Version: two" in sink.messages[-1].content)
            wait_for("the first process's line", lambda: LOG in site.log_text())
            assert site.log_text().count(LOG) == len(first)
            assert open_session.sendmail("a@example.net", ["r@next.example"], "Subject: last\r\n\r\nx\r\n") == {}
            load.more(3)
        open_session.quit()
        assert load.codes == []
        wait_for("all mail", lambda: len(sink.messages) == load.sent + 1)
        wait_for("the end of the first process", lambda: not set(processes(site, "smtpd")) & set(first))
    assert f"table pcre:{checks} {LOG}" in site.log_text()
    assert not any(word in site.log_text() for word in ("status=deferred", "reject:", "throttling", "request:"))


def at_work(site: Site) -> list[int]:
    """Return the queue managers that have put a message into the active queue."""
    return [int(pid) for pid in re.findall(r"qmgr\[(\d+)\]: \w+: from=", site.log_text())]


@pytest.mark.parametrize("reloaded", [False, True], ids=["changed", "reloaded"])
def test_qmgr_serves_a_new_transport_table(reloaded: bool, tmp_path: Path) -> None:
    transports = tmp_path / "transports"
    site = Site(tmp_path / "site")
    old, new = (f"next.example {way}\n" for way in (f"smtp:[127.0.0.1]:{site.next_port}", "discard:gone"))
    hashed(transports, old)
    with (site.etc / "main.cf").open("a") as main_cf:
        main_cf.write(f"transport_maps = hash:{transports}\n")
    with Sink(site.next_port) as sink, running(site):
        wait_for("qmgr", lambda: processes(site, "qmgr"))
        first = processes(site, "qmgr")
        with Load(site.port, "r@next.example") as load:
            wait_for("mail by the first route", lambda: len(sink.messages) >= 3)
            if reloaded:
                subprocess.run([*site.command("postillion"), "reload"], check=True, timeout=60)
                # It has read its tables once it has put a message into its active queue.
                wait_for("a successor at work", lambda: set(at_work(site)) - set(first))
                first = processes(site, "qmgr")
            hashed(transports, new)
            wait_for("mail by the second route", lambda: "relay=none" in site.log_text())
            load.more(3)
        assert load.codes == []
        delivered = r": (\w+): to=<r@next.example>.* status=sent "
        wait_for("all mail", lambda: len(set(re.findall(delivered, site.log_text()))) == load.sent)
        assert processes(site, "qmgr") != first
    assert f"table hash:{transports} {LOG}" in site.log_text()
    assert "status=deferred" not in site.log_text()


def test_a_table_that_became_empty_keeps_its_content_and_its_process(tmp_path: Path) -> None:
    checks = tmp_path / "checks"
    replace(checks, "/^Subject:/ PREPEND X-Version: one\n")
    site = Site(tmp_path / "site", main_cf={"header_checks": f"pcre:{checks}"})
    with Sink(site.next_port) as sink, running(site):
        wait_for("smtpd", lambda: processes(site, "smtpd"))
        first = processes(site, "smtpd")
        with Load(site.port, "r@next.example") as load:
            load.more(3)
            replace(checks, "")
            wait_for("the warning", lambda: "the old content stays in use" in site.log_text())
            load.more(3)
        wait_for("all mail", lambda: len(sink.messages) == load.sent)
        assert all(b"X-Version: one" in message.content for message in sink.messages)
        assert processes(site, "smtpd") == first
    assert LOG not in site.log_text()


def test_maps_of_cleanup_are_opened_as_root(tmp_path: Path) -> None:
    aliases = tmp_path / "virtual"
    replace(aliases, f"alias@example.org {local_user()}@example.org\n")
    site = Site(tmp_path / "site", main_cf={"virtual_alias_maps": f"texthash:{aliases}"})
    with running(site):
        with smtplib.SMTP("127.0.0.1", site.port) as client:
            client.sendmail("a@example.net", ["alias@example.org"], "Subject: x\r\n\r\nx\r\n")
        wait_for("the message", lambda: site.maildir(local_user()))
