"""Debian's pflogsumm reads our log and counts the traffic correctly."""

import re
import smtplib
import subprocess
from pathlib import Path

from support.mta import Site, running, wait_for
from support.peers import peer
from support.sink import Sink


def test_pflogsumm_counts_received_delivered_rejected_and_bounced(tmp_path: Path) -> None:
    pflogsumm = peer("pflogsumm")
    site = Site(tmp_path)
    header = b"From: a@example.net\r\nSubject: s\r\n\r\nbody\r\n"
    with running(site), Sink(site.next_port, refuse={"bad@next.example": "550 5.1.1 no"}) as sink:
        with smtplib.SMTP("127.0.0.1", site.port, "client.example.net") as client:
            for _ in range(5):
                client.sendmail("a@example.net", ["one@next.example", "two@next.example"], header)
            client.sendmail("", ["bad@next.example"], header)
            client.mail("a@example.net")
            assert client.rcpt("nosuchuser@example.org")[0] == 550
        sink.wait(5)
        wait_for("the end of all six messages", lambda: site.log_text().count(": removed") >= 6)
    summary = subprocess.run([pflogsumm, str(site.log)], capture_output=True, text=True, check=True, timeout=60).stdout

    def total(word: str) -> int:
        found = re.search(rf"^\s*(\d+)\s+{word}\b", summary, re.MULTILINE)
        assert found, summary
        return int(found.group(1))

    assert total("received") == 6
    assert total("delivered") == 10
    assert total("bounced") == 1
    assert total("rejected") == 1
    assert total("deferred") == 0
