"""Checks of headers and lines: Postfix and Postillion log, reply and deliver alike, with the same tables.

Each runs twice: with local tables, and with the same tables behind a socketmap server.
"""

from __future__ import annotations

import re
import smtplib
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from postillion.config import Config
from postillion.tables import Table, open_table
from support.either import PROGRAMS, Server
from support.mta import Site, delivered, running, wait_for
from support.peers import postfix_home, root
from support.ports import free_port
from support.scripted import Scripted
from support.wire_sink import WireSink

ACTIONS = "REJECT|WARN|INFO|PASS|DISCARD|HOLD|PREPEND|REPLACE|REDIRECT|BCC|STRIP|IGNORE|OK|DUNNO"
HEADER_CHECKS = rf"""
/^X-({ACTIONS}): *(.*)/ $1 $2
/^X-Bogus/ bogus a b
/^Subject: folded.*/ WARN seen
/^(Content-Type|X-Mark): .*x-mark/ WARN CLASS
/^Received: .*with ESMTP.*for <trace@/ REPLACE Received: hidden
/^To: bare$/ WARN bare
"""
BODY_CHECKS = rf"""
/^body-({ACTIONS})(?: +(.*))?$/ $1 $2
/^--bnd/ WARN boundary
/^\./ WARN dot
/x-mark/ WARN marked
/^$/ WARN empty
/tail$/ WARN tail
"""
CHECKS = {
    "header_checks": "pcre:{directory}/header",
    "mime_header_checks": "regexp:{directory}/mime_header",
    "nested_header_checks": "pcre:{directory}/nested_header",
    "body_checks": "pcre:{directory}/body",
    "smtp_header_checks": "pcre:{directory}/outgoing",
    "smtp_body_checks": "pcre:{directory}/outgoing_body",
    "smtp_mime_header_checks": "pcre:{directory}/outgoing_mime",
    "smtp_nested_header_checks": "pcre:{directory}/outgoing_nested",
    "lmtp_header_checks": "regexp:{directory}/outgoing_lmtp",
    "lmtp_body_checks": "pcre:{directory}/outgoing_body",
    "canonical_maps": "pcre:{directory}/canonical",
}
"""The table of each parameter. A server has them too, by the parameters' names."""
OF_SERVICE = ("smtp_mime_header_checks", "smtp_nested_header_checks")
"""The parameters that one transport has and main.cf has not."""
INLINE = " inline:{{X-Case:Abc = WARN exact}, {x-case:abc = WARN folded}}"
SERVICES = """
127.0.0.1:{submission} inet n - n - - smtpd -o cleanup_service_name=subcleanup
subcleanup unix n - n - 0 cleanup -o header_checks=pcre:{directory}/private -o body_checks=
lmtp unix - - n - - lmtp
parts unix - - n - - smtp
  -o smtp_mime_header_checks={smtp_mime_header_checks} -o smtp_nested_header_checks={smtp_nested_header_checks}
fail unix - - n - - smtp -o smtp_header_checks=fail:table
failbody unix - - n - - smtp -o smtp_body_checks=fail:table
down unix - - n - - smtp -o smtp_body_checks=socketmap:inet:127.0.0.1:{table_port}:down
"""
DOMAINS = ("next", "lmtp", "parts", "fail", "failbody", "down")
"""The first labels of the domains: `next` is smtp's, another one that of the transport of its name."""
QUEUE_ID = re.compile(r"\b[0-9A-F]{6,}: ")
"""A queue ID of Postfix: five digits of microseconds, and one to ten of the file's inode."""
PARTS = (
    "Content-Type: multipart/mixed; boundary=bnd; x-mark\nX-Mark: x-mark\n\nprolog x-mark\n"
    "--bnd\nContent-Type: text/plain; x-mark\nX-Mark: x-mark\n\n.x-mark\n"
    "--bnd\nContent-Type: message/rfc822; x-mark\n\nX-Mark: x-mark\nContent-Type: text/plain; x-mark\n\ninner x-mark\n"
    "--bnd--\nepilog x-mark\n"
)
HEADERS = [
    f"X-{action}"
    for action in (
        "REJECT:", "REJECT: no such", "REJECT: 4.7.0 later", "REJECT: 2.7.0 bad", "WARN:", "WARN: text", "INFO: x",
        "PASS: x", "DISCARD: x", "HOLD: x", "PREPEND: noheader", "PREPEND: X-P: v", "REPLACE: X-New: v", "REPLACE: bad",
        "REPLACE: Cc: bare", "REDIRECT: x", "REDIRECT: Other@next.example", "BCC: x", "BCC: b@next.example", "STRIP:",
        "STRIP: x", "IGNORE: x", "OK:", "DUNNO: x", "Bogus: x",
    )
]  # fmt: skip
LINES = [
    f"body-{action}"
    for action in (
        "REJECT", "WARN x", "PASS", "DISCARD", "HOLD", "PREPEND pre text", "PREPEND .dot", "REPLACE repl", "REPLACE",
        "REDIRECT o@next.example", "BCC b@next.example", "STRIP", "IGNORE",
    )
]  # fmt: skip
MESSAGES = [
    *(f"Subject: x\n{header}\nX-WARN: after\n\nbody-WARN after\n" for header in HEADERS),
    *(f"Subject: x\n\nbefore\n{line}\nbody-WARN after\n" for line in LINES),
    "X-Case:Abc\nX-Case:ABC\nx-case:abc\n\nx\n",
    "Subject: folded\n  more\n\ttab\nTo: bare\n\nx\n",
    "X-WARN: 1\nno header x-mark\nX-WARN: 2\n",
    f"Subject: x\n{PARTS}",
    # A rule sees a header without the blanks before its colon.
    "Subject : folded x\nX-WARN\t : blank\nX-REPLACE : X-New: v\n\nx\n",
    "Subject: x\n" + PARTS.replace("X-Mark:", "X-Mark :").replace("Type: text/plain", "Type\t: text/plain"),
    "Subject: x\n\n" + "y" * 2044 + "tail\n" + "y" * 2048 + "tail\n",
    "Subject: x\nX-Out: a\n\nout-b\nout-c\n",
    # A line that is no header ends the header of an attached message, too.
    "Content-Type: message/rfc822\nno header x-mark\nX-Mark: x-mark\n\nx-mark\n",
    "Content-Type: multipart/digest; boundary=bnd\n\n--bnd\nno header x-mark\nX-Mark: x-mark\n\nx-mark\n",
    f"Content-Type: multipart/mixed; boundary=bnd\n\n--bnd{'y' * 2043}tail\nX-Mark: x-mark\n\nx-mark\n",
    # An mbox line is one line.
    "From a b\n\tfolded x-mark\nX-WARN: x-mark\n\nx\n",
    "Subject: x\nX-WARN: " + "y" * 300 + "\n\nx\n",
    "Subject: x\n" + "".join(f"Content-Type: multipart/mixed; boundary=b{n}x\n\n--b{n}x\n" for n in range(103)),
    # Several pieces for smtp, and more lines than one batch has.
    "Subject: x\n\n" + "".join(f"out-{n % 99} {n:05}\n" for n in range(4000)) + "out-b\nlast\n",
]


class Peer:
    """A running site of one program, with a next hop that keeps its mail."""

    def __init__(self, site: Site, sink: WireSink, submission: int, tables: TableServer, program: str) -> None:
        self.site = site
        self.sink = sink
        self.submission = submission
        self.tables = tables
        self.program = program

    def send(
        self, message: str, *recipients: str, sender: str = "s@example.net", port: int | None = None
    ) -> tuple[int, str, list[str], list[bytes]]:
        """Return the reply, the lines of cleanup and smtp about checks, and the content that the next hop got."""
        site = self.site
        seen = len(site.log_text())
        for found in self.sink.messages.values():
            found.clear()
        with smtplib.SMTP("127.0.0.1", port or site.port) as client:
            client.ehlo("client.example")
            client.mail(sender)
            for recipient in recipients:
                client.rcpt(recipient)
            code, text = client.data(message.replace("\n", "\r\n").encode())
        reply = re.sub(r"queued as \w+", "queued", text.decode())
        wait_for("the end of the session", lambda: re.search(r"disconnect from .* quit=1", site.log_text()[seen:]))
        ended = r": removed|: (discard|hold): "
        if code == 250:
            queue_id = text.decode().rpartition(" ")[2]
            wait_for("the end of the message", lambda: re.search(ended, site.log_text()[seen:]))
            if ": removed" in site.log_text()[seen:]:
                delivered(site, queue_id)
        lines = re.findall(r"/(cleanup|smtp|lmtp)\[\d+\]: (.*)", site.log_text()[seen:])
        told = [f"{name}: {line}" for name, line in lines if not re.search("message-id=|status=|breaking", line)]
        # The order of lines is that of one program alone.
        told = sorted((plain(line.encode()).decode() for line in told), key=lambda line: line.partition(":")[0])
        contents = [content for found in self.sink.messages.values() for content in found]
        return code, reply, [re.sub(QUEUE_ID, "ID: ", line) for line in told], sorted(map(plain, contents))


def plain(content: bytes) -> bytes:
    """Return a content without what differs from run to run."""
    return re.sub(rb" id \w+|\w{3}, .*\d{4} \(\w+\)|<\d{14}\.\w+@", b"*", content)


REMOTE = " with remote tables"


class TableServer:
    """A socketmap server that answers from the tables of a site. A map is a parameter, or `down`.

    `down` is smtp_body_checks that cannot answer before it is `up`.
    """

    def __init__(self, tables: Path) -> None:
        opened = {name: open_table(value.format(directory=tables), Config("", {})) for name, value in CHECKS.items()}
        self._tables: dict[str, Table] = {**opened, "down": opened["smtp_body_checks"]}
        self._lock = threading.Lock()
        self.asked: Counter[str] = Counter()
        self.up = threading.Event()
        self.server = Scripted(self._serve)

    def close(self) -> None:
        """End the server."""
        self.server.close()

    @staticmethod
    def _length(stream: BinaryIO) -> bytes:
        """Return the digits at the start of a netstring, none at the end of the stream."""
        return b"".join(iter(lambda: stream.read(1) or b":", b":"))

    def _serve(self, client: socket.socket) -> None:
        stream = client.makefile("rb")
        while digits := self._length(stream):
            name, _, key = stream.read(int(digits)).decode("utf-8", "surrogateescape").partition(" ")
            stream.read(1)
            reply = self._reply(name, key)
            client.sendall(b"%d:%s," % (len(reply), reply))

    def _reply(self, name: str, key: str) -> bytes:
        if name == "down" and not self.up.is_set():
            return b"TEMP the table is down"
        with self._lock:
            self.asked[name] += 1
            value = self._tables[name].lookup(key)
        return b"NOTFOUND " if value is None else b"OK " + value.encode("utf-8", "surrogateescape")


SITES = [*PROGRAMS, *(name + REMOTE for name in PROGRAMS)]


@pytest.fixture(scope="module", params=SITES)
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    with serving(request.param, tmp_path_factory.mktemp("site")) as peer:
        yield peer


@contextmanager
def serving(site_name: str, directory: Path) -> Iterator[Peer]:
    """Run one of the `SITES`."""
    name, remote, _ = site_name.partition(REMOTE)
    if name == "postfix":
        root()
        postfix_home()
    tables = directory / "tables"
    tables.mkdir()
    write_tables(tables)
    with closing(TableServer(tables)) as server:
        site, submission = configured(directory, tables, server.server.port, remote=bool(remote))
        with WireSink(site.next_port) as sink, running(site, name):
            yield Peer(site, sink, submission, server, name)


def configured(directory: Path, tables: Path, port: int, *, remote: bool) -> tuple[Site, int]:
    """Write a site's configuration; return it, and the port of its other smtpd. `port`: that of the table server."""
    values = {parameter: value.format(directory=tables) for parameter, value in CHECKS.items()}
    if remote:
        values = {parameter: f"socketmap:inet:127.0.0.1:{port}:{parameter}" for parameter in CHECKS}
    main_cf = {parameter: value for parameter, value in values.items() if parameter not in OF_SERVICE}
    main_cf["header_checks"] += INLINE
    main_cf["masquerade_domains"] = "masq.example"
    main_cf["virtual_alias_maps"] = "inline:{{named@next.example = r@next.example}}"
    main_cf["relay_domains"] = " ".join(f"{label}.example" for label in DOMAINS)
    site = Site(directory, main_cf=main_cf)
    submission = free_port()
    with (site.etc / "master.cf").open("a") as file:
        file.write(SERVICES.format(submission=submission, directory=tables, table_port=port, **values))
    hops = {label: f"{label}:[127.0.0.1]" for label in DOMAINS}
    hops |= {"next": "smtp:[127.0.0.1]", "lmtp": "lmtp:inet:127.0.0.1"}
    entries = ", ".join(f"{{ {label}.example = {hop}:{site.next_port} }}" for label, hop in hops.items())
    with (site.etc / "main.cf").open("a") as file:
        file.write(f"transport_maps = inline:{{ {entries} }}\n")
    return site, submission


def write_tables(directory: Path) -> None:
    """Write the tables of a site."""
    for name in ("header", "mime_header", "nested_header"):
        (directory / name).write_text(HEADER_CHECKS.replace("CLASS", name))
    (directory / "body").write_text(BODY_CHECKS)
    (directory / "private").write_text("/^Subject: x$/ STRIP private\n")
    (directory / "outgoing").write_text("/^X-Out: (.*)/ REPLACE X-Sent: $1\n/^X-OK/ REJECT never\n")
    (directory / "outgoing_body").write_text("/^out-b/ STRIP gone\n/^out-c/ PREPEND before c\n")
    (directory / "outgoing_mime").write_text("/^X-Mark: (.*)/ REPLACE X-Part: $1\n")
    (directory / "outgoing_nested").write_text("/^X-Mark: (.*)/ PREPEND X-Nested: $1\n")
    (directory / "outgoing_lmtp").write_text("/^X-Out: (.*)/ REPLACE X-Lmtp: $1\n")
    (directory / "canonical").write_text("/^mapped(@.*)/ named$1\n")
    for path in directory.iterdir():
        path.chmod(0o644)
    directory.chmod(0o755)


def test_all_sites_log_reply_and_deliver_alike(tmp_path_factory: pytest.TempPathFactory) -> None:
    found: dict[str, list[object]] = {}
    for name in SITES:
        with serving(name, tmp_path_factory.mktemp("site")) as peer:
            found[name] = results(peer)
            asked = {parameter for parameter in CHECKS if peer.tables.asked[parameter]}
            assert asked == (set(CHECKS) if name.endswith(REMOTE) else set())
    for name in SITES[1:]:
        pairs = zip(found[SITES[0]], found[name], strict=True)
        differences = [f"{SITES[0]}: {one}\n{name}: {other}" for one, other in pairs if one != other]
        assert not differences, "\n".join(differences)


def results(peer: Peer) -> list[object]:
    """Send each message; return its replies, log lines and contents."""
    found: list[object] = [peer.send(message, "r@next.example") for message in MESSAGES]
    found.append(peer.send("Subject: x\n\nx\n", "trace@next.example"))
    found.append(peer.send(f"Subject: x\nX-Out: a\n{PARTS}out-c\n", "r@parts.example"))
    found.append(peer.send("Subject: x\nX-Out: a\n\nout-b\nout-c\n", "r@lmtp.example"))
    # The lines name canonical addresses, of the last recipient, before aliases.
    for sender in ("mapped@a.masq.example", "mapped@example.net", ""):
        for header in ("WARN: x", "REJECT: x"):
            recipients = ("mapped@next.example", "other@next.example", "mapped@next.example")
            found.append(peer.send(f"Subject: x\nX-{header}\n\nx\n", *recipients, sender=sender))
    # The other cleanup service has other checks.
    found.append(peer.send("Subject: x\nX-WARN: x\n\nbody-WARN x\n", "r@next.example", port=peer.submission))
    return found


def test_a_message_on_hold_waits_until_it_is_released(peer: Peer) -> None:
    _, _, lines, contents = peer.send("Subject: x\nX-HOLD: x\n\nx\n", "r@next.example")
    assert any(": hold: header X-HOLD: x" in line for line in lines)
    assert contents == []


@pytest.mark.parametrize("transport", ["fail", "failbody", "down"])
def test_a_message_waits_while_a_table_of_its_checks_fails(peer: Peer, transport: str) -> None:
    site, recipient = peer.site, f"r@{transport}.example"
    with smtplib.SMTP("127.0.0.1", site.port) as client:
        client.ehlo("client.example")
        client.mail("s@example.net")
        client.rcpt(recipient)
        code, text = client.data(b"Subject: x\r\n\r\nbefore\r\nout-b\r\nafter\r\n")
    assert code == 250, text
    queue_id = text.decode().rpartition(" ")[2]
    lines = delivered(site, queue_id)
    assert "dsn=4.3.0, status=deferred (local data error while talking to 127.0.0.1[127.0.0.1])" in lines
    place = "header" if transport == "fail" else "body"
    assert f"warning: {queue_id}: smtp {place} checks lookup error" in site.log_text()
    assert recipient not in peer.sink.messages
    if transport == "down":
        peer.tables.up.set()
        Server(site, peer.program).command("postqueue", "-f")
        peer.sink.wait({recipient})
        (content,) = peer.sink.messages[recipient]
        assert content.split(b"\r\n\r\n", 1)[1] == b"before\r\nafter\r\n"
