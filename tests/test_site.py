"""One site, two programs: with the same main.cf and master.cf, Postillion does what Postfix does.

Every test runs twice, on Postillion and on the real Postfix, and expects the same of both.
"""

import contextlib
import os
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.either import PROGRAMS, program
from support.mta import Site, commands_of, listening, local_user, running, wait_for
from support.peers import peer
from support.sink import Sink

BODIES = {
    "plain": b"Hello\r\n",
    "empty": b"",
    "dots": b".\r\n..\r\n.leading\r\ninner . dot\r\n...\r\n",
    "8-bit": "Grüße, 你好\r\n".encode() + bytes(range(0x80, 0x100)) + b"\r\n",
    "long line": b"x" * 900 + b"\r\n",
    "blank lines": b"\r\n\r\n\r\nend\r\n\r\n",
    "from line": b"From here to there\r\n>From quoted\r\n",
    "100 kB": b"0123456789abcdef" * 4 + b"\r\n" + (b"line of text\r\n" * 7000),
}
HEADER = (
    b"From: a@example.net\r\nTo: b@example.org\r\nSubject: test\r\n"
    b"Message-Id: <1@test>\r\nDate: Sun, 22 Nov 2026 17:02:03 +0000\r\n"
)


@pytest.fixture(scope="module", params=PROGRAMS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Site]]:
    """Run a server; yield its program and its site."""
    mta = program(request)
    site = Site(tmp_path_factory.mktemp(mta))
    with running(site, mta):
        yield mta, site


@contextlib.contextmanager
def arrival(site: Site, user: str) -> Iterator[list[Path]]:
    """Yield a list. At the end of the block, wait for new messages of the user and add them to the list."""
    before = set(site.maildir(user))
    found: list[Path] = []
    yield found
    wait_for("a message in the Maildir", lambda: set(site.maildir(user)) - before)
    found.extend(sorted(set(site.maildir(user)) - before))


def split(message: bytes, eol: bytes) -> tuple[bytes, bytes]:
    """Return header and body."""
    header, _, body = message.partition(eol + eol)
    return header, body


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_body_reaches_next_hop_byte_for_byte(server: tuple[str, Site], body: bytes) -> None:
    _, site = server
    with Sink(site.next_port) as sink, smtplib.SMTP("127.0.0.1", site.port) as client:
        client.sendmail("a@example.net", ["x@next.example"], HEADER + b"\r\n" + body, ["body=8bitmime"])
        (received,) = sink.wait(1)
    header, got = split(received.content, b"\r\n")
    assert got == body
    assert header.startswith(b"Received: from ")
    assert header.endswith(HEADER.rstrip())
    assert (received.mail_from, received.rcpt_tos) == ("a@example.net", ["x@next.example"])


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_body_reaches_maildir_byte_for_byte(server: tuple[str, Site], body: bytes) -> None:
    _, site = server
    user = local_user()
    with arrival(site, user) as found, smtplib.SMTP("127.0.0.1", site.port) as client:
        client.sendmail("a@example.net", [f"{user}@example.org"], HEADER + b"\r\n" + body, ["body=8bitmime"])
    header, got = split(found[0].read_bytes(), b"\n")
    assert got == body.replace(b"\r\n", b"\n")
    lines = header.split(b"\n")
    assert lines[0] == b"Return-Path: <a@example.net>"
    assert f"Delivered-To: {user}@example.org".encode() in lines


def test_several_recipients_share_a_transaction_with_separate_results(server: tuple[str, Site]) -> None:
    _, site = server
    user = local_user()
    with Sink(site.next_port, refuse={"bad@next.example": "550 5.1.1 no such user"}) as sink:
        with arrival(site, user) as found, smtplib.SMTP("127.0.0.1", site.port) as client:
            rcpts = ["one@next.example", "bad@next.example", "two@next.example"]
            client.sendmail(f"{user}@example.org", rcpts, HEADER + b"\r\nbody\r\n")
        (received,) = sink.wait(1)
    assert sorted(received.rcpt_tos) == ["one@next.example", "two@next.example"]
    report = found[0].read_text()
    assert "Subject: Undelivered Mail Returned to Sender" in report
    assert "Final-Recipient: rfc822; bad@next.example" in report
    assert "Status: 5.1.1" in report
    assert "Return-Path: <>" in report


def test_unknown_users_are_refused_at_rcpt(server: tuple[str, Site]) -> None:
    _, site = server
    with smtplib.SMTP("127.0.0.1", site.port, "client.example.net") as client:
        client.ehlo()
        client.mail("a@example.net")
        assert client.rcpt("nosuchuser@example.org")[0] == 550
        assert client.rcpt("postmaster@example.org")[0] == 250


def test_swaks_delivers_mail(server: tuple[str, Site]) -> None:
    _, site = server
    swaks, user = peer("swaks"), local_user()
    with arrival(site, user) as found:
        address = ["--server", f"127.0.0.1:{site.port}", "--to", f"{user}@example.org", "--from", "a@example.net"]
        text = ["--header", "X-By: swaks", "--body", "line\n.dot\n", "--pipeline"]
        subprocess.run([swaks, *address, *text], check=True, capture_output=True, timeout=30)
    assert b"X-By: swaks" in found[0].read_bytes()
    assert b"\n.dot\n" in found[0].read_bytes()


def test_msmtp_delivers_mail(server: tuple[str, Site], tmp_path: Path) -> None:
    _, site = server
    msmtp, user = peer("msmtp"), local_user()
    with arrival(site, user) as found:
        address = ["--host=127.0.0.1", f"--port={site.port}", "--from=a@example.net", f"{user}@example.org"]
        text = b"Subject: by msmtp\n\n.dot\nend\n"
        subprocess.run([msmtp, "-C", "/dev/null", *address], input=text, check=True, capture_output=True, timeout=30)
    assert b"Subject: by msmtp" in found[0].read_bytes()
    assert b"\n.dot\nend\n" in found[0].read_bytes()


def test_smtp_source_load_reaches_smtp_sink(server: tuple[str, Site]) -> None:
    _, site = server
    source, sink = peer("smtp-source"), peer("smtp-sink")
    drop = ["-u", "nobody"] if os.geteuid() == 0 else []
    before = site.log_text().count("status=sent (250 2.0.0 Ok)")
    receiver = subprocess.Popen([sink, *drop, f"127.0.0.1:{site.next_port}", "100"])
    try:
        wait_for("smtp-sink", lambda: listening(site.next_port))
        load = ["-s", "10", "-m", "200", "-r", "2", "-l", "4096", "-f", "a@example.net", "-t", "x@next.example"]
        subprocess.run([source, *load, f"127.0.0.1:{site.port}"], check=True, timeout=60)
        wait_for("all deliveries", lambda: site.log_text().count("status=sent (250 2.0.0 Ok)") >= before + 400)
    finally:
        receiver.terminate()
        receiver.wait()


def test_sendmail_delivers_mail(server: tuple[str, Site]) -> None:
    program, site = server
    user = local_user()
    sendmail = str(commands_of(program) / "sendmail")
    message = f"To: {user}@example.org\nBcc: {user}@localhost\nSubject: by sendmail\n\n.\n.dot\nFrom me\n8-bit ü\n"
    before = set(site.maildir(user))
    command = [sendmail, "-C", str(site.etc), "-t", "-i", "-f", "a@example.net", "-F", "A Name"]
    subprocess.run(command, input=message.encode(), check=True, timeout=30)
    wait_for("both copies", lambda: len(set(site.maildir(user)) - before) >= 2)
    for path in set(site.maildir(user)) - before:
        header, body = split(path.read_bytes(), b"\n")
        assert body == ".\n.dot\nFrom me\n8-bit ü\n".encode()
        assert b"Bcc:" not in header
        assert b"\nMessage-Id: <" in header
        assert b"\nDate: " in header
        assert b"From: A Name <a@example.net>" in header or b'From: "A Name" <a@example.net>' in header
        assert b"Return-Path: <a@example.net>" in header


def test_queue_is_empty_at_the_end(server: tuple[str, Site]) -> None:
    program, site = server
    queue = str(commands_of(program) / "postqueue")

    def listing() -> str:
        return subprocess.run([queue, "-c", str(site.etc), "-p"], capture_output=True, text=True, timeout=30).stdout

    wait_for("an empty queue", lambda: listing() == "Mail queue is empty\n")
