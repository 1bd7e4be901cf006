"""smtp_generic_maps and lmtp_generic_maps: the next hop sees the same addresses from Postfix and from Postillion.

The domain of a recipient selects the transport, and each transport has tables of its own.
"""

from __future__ import annotations

import re
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support.either import PROGRAMS, program
from support.mta import Site, running, wait_for
from support.ports import free_port
from support.tcp_table import TcpTable
from support.wire_sink import WireSink

HASH = "smtp_generic_maps=hash:{etc}/generic"
TRANSPORTS = {
    "hash": ("smtp", HASH),
    "ext": ("smtp", f"{HASH} -o propagate_unmatched_extensions=generic"),
    "pcre": ("smtp", "smtp_generic_maps=pcre:{etc}/pcre"),
    "regexp": ("smtp", "smtp_generic_maps=regexp:{etc}/regexp"),
    "both": ("smtp", "smtp_generic_maps=inline:{{carl@a.example=first@public.example}},hash:{etc}/generic"),
    "checked": ("smtp", f"{HASH} -o smtp_header_checks=pcre:{{etc}}/checks"),
    "seven": ("smtp", f"{HASH} -o smtp_discard_ehlo_keywords=8bitmime"),
    "lmtp": ("lmtp", HASH.replace("smtp_", "lmtp_")),
    "other": ("lmtp", HASH),
    "none": ("smtp", "smtp_generic_maps="),
    "tcp": ("smtp", "smtp_generic_maps=tcp:127.0.0.1:{table_port}"),
    "fail": ("smtp", "smtp_generic_maps=fail:table"),
    "empty": ("smtp", "smtp_generic_maps=pcre:{etc}/empty"),
}
"""By the domain's first label: the program of the transport, and its parameters."""
GENERIC = """\
ann@a.example ann@public.example
ann@hash.example hidden@public.example
ann@ext.example hidden@public.example
one@hash.example same@public.example
two@hash.example same@public.example
from@checked.example mapped@public.example
plus+kept@a.example exact@public.example
bob bob@public.example
dan+x dan-x@public.example
carl@a.example dan@a.example
dan@a.example eve@a.example
"a b"@a.example "x y"@public.example
@cat.example all@public.example
@dom.example @other.example
many@a.example x@public.example, y@public.example
bare@a.example justlocal
full@a.example Full Name <full@public.example>
null@a.example <>
"""
PATTERNS = r"""
/^(.*)@a\.example$/ $1@REGEXP.example
/^@/ never@x.example
/^bob$/ never@x.example
"""
CHECKS = r"""
/^Subject: to/ REPLACE To: ann@a.example
/^From:/ REPLACE From: carl@a.example
/^Cc:/ REPLACE X-Cc: ann@a.example
/^Sender:/ PREPEND Reply-To: ann@a.example
/^Errors-To:/ IGNORE
"""
ROWS = {"ann@a.example": "ann@tcp.example", "down@a.example": ""}
ROWS |= {f"u{number}@dom.example": f"u{number}@other.example" for number in range(40)}
MANY = ", ".join(f"u{number}@dom.example" for number in range(40))
PUBLIC = "From: Ann <ann@public.example>"


class Case(NamedTuple):
    """A message, and its expected form at the next hop. `header`: each field, with its new form where it changes."""

    name: str
    sender: str
    recipients: list[str]
    header: list[str | tuple[str, str]]
    mail: str
    rcpt: list[str]
    body: str = "body\n"
    options: tuple[str, ...] = ()


FROM = ("From: Ann <ann@a.example>", PUBLIC)
TO_X = ["<x@hash.example> ORCPT=rfc822;x@hash.example"]
CASES = [
    Case(
        "sender, recipients and header",
        "ann@a.example",
        ["bob@hash.example", "ann@hash.example"],
        [FROM, ("To: Bob B <bob@example.org>, carl@a.example", "To: Bob B <bob@public.example>, dan@a.example")],
        "<ann@public.example>",
        [
            "<bob@hash.example> ORCPT=rfc822;bob@hash.example",
            "<hidden@public.example> ORCPT=rfc822;ann@hash.example",
        ],
    ),
    Case(
        "null sender",
        "null@a.example",
        ["x@hash.example"],
        [("From: Null <null@a.example>", 'From: Null <"">')],
        "<>",
        TO_X,
    ),
    Case(
        "an extension is dropped by default",
        "ann+ext@a.example",
        ["ann+e@hash.example"],
        [
            ("From: ann+x@a.example", "From: ann@public.example"),
            ("To: dan+x@example.org, bob+y@example.org", "To: dan-x@public.example, bob@public.example"),
            ("Cc: plus+kept@a.example", "Cc: exact@public.example"),
        ],
        "<ann@public.example>",
        ["<hidden@public.example> ORCPT=rfc822;ann+2Be@hash.example"],
    ),
    Case(
        "an extension is kept with propagate_unmatched_extensions",
        "ann+ext@a.example",
        ["ann+e@ext.example", "carl+q@ext.example"],
        [
            ("From: ann+x@a.example", "From: ann+x@public.example"),
            (
                "To: bob+y@example.org, carl+z@a.example, u+v@dom.example, s+t@cat.example",
                "To: bob+y@public.example, dan+z@a.example, u+v@other.example, all@public.example",
            ),
        ],
        "<ann+ext@public.example>",
        [
            "<carl+q@ext.example> ORCPT=rfc822;carl+2Bq@ext.example",
            "<hidden+e@public.example> ORCPT=rfc822;ann+2Be@ext.example",
        ],
    ),
    Case("the null sender stays", "", ["x@hash.example"], [FROM], "<>", TO_X),
    Case(
        "a bare result gets the domain of myorigin",
        "bare@a.example",
        ["x@hash.example"],
        [("From: bare@a.example", "From: justlocal@mx.example.org")],
        "<justlocal@mx.example.org>",
        TO_X,
    ),
    Case(
        "a result with a name is its address",
        "full@a.example",
        ["x@hash.example"],
        [("From: full@a.example", "From: full@public.example")],
        "<full@public.example>",
        TO_X,
    ),
    Case(
        "each header with addresses",
        "x@b.example",
        ["x@hash.example"],
        [
            FROM,
            *(
                (f"{name}: ann@a.example, u+v@dom.example", f"{name}: ann@public.example, u+v@other.example")
                for name in (
                    "Reply-To", "Cc", "Errors-To", "Return-Receipt-To", "Sender", "Mail-Followup-To", "Apparently-To",
                    "Disposition-Notification-To", "Resent-From", "Resent-Sender", "Resent-Reply-To", "Resent-To",
                    "Resent-Cc",
                )
            ),
            "X-Other: ann@a.example",
            "In-Reply-To: <ann@a.example>",
            "References: <ann@a.example>",
            "Comments: ann@a.example",
            "List-Post: <mailto:ann@a.example>",
        ],
        "<x@b.example>",
        TO_X,
    ),
    Case(
        "case makes no difference",
        "Ann@A.Example",
        ["ANN@hash.example"],
        [("CC: ANN@A.example", "CC: ann@public.example"), ("from: Ann@a.EXAMPLE", "from: ann@public.example")],
        "<ann@public.example>",
        ["<hidden@public.example> ORCPT=rfc822;ANN@hash.example"],
    ),
    Case(
        "quotes, comments, groups and folded lines",
        '"a b"@a.example',
        ['"a b"@hash.example'],
        [
            ('From: "Q, \\"x\\"" <"a b"@a.example>', 'From: "Q, \\"x\\"" <"x y"@public.example>'),
            ("To: =?utf-8?q?x?= <ann@a.example>", "To: =?utf-8?q?x?= <ann@public.example>"),
            ("Cc: ann@a.example (Ann, A.),\n\tbob@b.example", "Cc: ann@public.example (Ann, A.), bob@b.example"),
            ("Reply-To: staff: ann@a.example, x@b.example;", "Reply-To: staff: ann@public.example, x@b.example;"),
        ],
        '<"x y"@public.example>',
        ['<"a b"@hash.example> ORCPT=rfc822;"a+20b"@hash.example'],
    ),
    Case(
        "several results: the first one counts",
        "many@a.example",
        ["x@hash.example"],
        [("From: many@a.example", "From: x@public.example")],
        "<x@public.example>",
        TO_X,
    ),
    Case(
        "recipients that become the same stay two",
        "x@b.example",
        ["one@hash.example", "two@hash.example"],
        ["From: x@b.example"],
        "<x@b.example>",
        [
            "<same@public.example> ORCPT=rfc822;one@hash.example",
            "<same@public.example> ORCPT=rfc822;two@hash.example",
        ],
    ),
    Case(
        "an attached message stays",
        "x@b.example",
        ["x@hash.example"],
        [FROM, "Content-Type: message/rfc822"],
        "<x@b.example>",
        TO_X,
        "From: ann@a.example\nTo: ann@a.example\n\nann@a.example\n",
    ),
    Case(
        "headers of parts stay",
        "x@b.example",
        ["x@hash.example"],
        [FROM, "Content-Type: multipart/mixed; boundary=b"],
        "<x@b.example>",
        TO_X,
        "--b\nFrom: ann@a.example\nContent-Type: message/rfc822\n\nTo: ann@a.example\n\nx\n--b--\n",
    ),
    Case(
        "a pattern table is asked for the whole address",
        "ann@a.example",
        ["x@pcre.example"],
        [
            ("From: ann+x@a.example", "From: ann+x@pcre.example"),
            "To: bob@example.org",
        ],
        "<ann@pcre.example>",
        ["<x@pcre.example> ORCPT=rfc822;x@pcre.example"],
    ),
    Case(
        "a regular expression",
        "ann@a.example",
        ["x@regexp.example"],
        [("From: Ann <ANN@a.example>", "From: Ann <ANN@regexp.example>")],
        "<ann@regexp.example>",
        ["<x@regexp.example> ORCPT=rfc822;x@regexp.example"],
    ),
    Case(
        "the first table with a value counts",
        "carl@a.example",
        ["x@both.example"],
        [FROM],
        "<first@public.example>",
        ["<x@both.example> ORCPT=rfc822;x@both.example"],
    ),
    Case(
        "header checks come first",
        "ann@a.example",
        ["from@checked.example"],
        [
            ("From: ann@a.example", "From: dan@a.example"),
            ("Subject: to", "To: ann@a.example"),
            ("Cc: ann@a.example", "X-Cc: ann@a.example"),
            ("Sender: ann@a.example", "Reply-To: ann@a.example\nSender: ann@public.example"),
            ("Errors-To: ann@a.example", ""),
        ],
        "<ann@public.example>",
        ["<mapped@public.example> ORCPT=rfc822;from@checked.example"],
    ),
    Case(
        "content that is converted for the server",
        "ann@a.example",
        ["x@seven.example"],
        [
            FROM,
            "MIME-Version: 1.0",
            ("Content-Transfer-Encoding: 8bit", "Content-Transfer-Encoding: quoted-printable"),
        ],
        "<ann@public.example>",
        ["<x@seven.example> ORCPT=rfc822;x@seven.example"],
        "gr\xfc\xdfe\n",
        ("BODY=8BITMIME",),
    ),
    Case(
        "LMTP has a parameter of its own",
        "ann@a.example",
        ["x@lmtp.example"],
        [FROM],
        "<ann@public.example>",
        ["<x@lmtp.example> ORCPT=rfc822;x@lmtp.example"],
    ),
    Case(
        "smtp_generic_maps is not LMTP's",
        "ann@a.example",
        ["x@other.example"],
        ["From: ann@a.example"],
        "<ann@a.example>",
        ["<x@other.example> ORCPT=rfc822;x@other.example"],
    ),
    Case(
        "another transport has no maps",
        "ann@a.example",
        ["x@none.example"],
        ["From: ann@a.example"],
        "<ann@a.example>",
        ["<x@none.example> ORCPT=rfc822;x@none.example"],
    ),
    Case(
        "a remote table",
        "ann@a.example",
        ["x@tcp.example"],
        [
            ("From: Ann <ann@a.example>", "From: Ann <ann@tcp.example>"),
            "Cc: ann+x@a.example",
            (f"To: {MANY}", f"To: {MANY.replace('dom.', 'other.')}"),
        ],
        "<ann@tcp.example>",
        ["<x@tcp.example> ORCPT=rfc822;x@tcp.example"],
    ),
]  # fmt: skip


class Peer:
    """A running site of one program, with a next hop that keeps commands and mail."""

    def __init__(self, site: Site, sink: WireSink, table: TcpTable, name: str) -> None:
        self.site = site
        self.sink = sink
        self.table = table
        self.name = name

    def send(self, case: Case) -> int:
        """Send a message; return the length of the log before it."""
        seen = len(self.site.log_text())
        self.sink.commands.clear()
        for found in self.sink.messages.values():
            found.clear()
        header = "\n".join(field if isinstance(field, str) else field[0] for field in case.header)
        with smtplib.SMTP("127.0.0.1", self.site.port) as client:
            client.ehlo("client.example")
            client.mail(case.sender, case.options)
            for recipient in case.recipients:
                client.rcpt(recipient)
            code, text = client.data(f"{header}\n\n{case.body}".replace("\n", "\r\n").encode("latin-1"))
        assert code == 250, text
        return seen


def write_site(directory: Path, table_port: int) -> Site:
    """Return a site with the transports and their tables."""
    names = {"etc": directory / "etc", "table_port": table_port}
    services = (
        f"g_{name} unix - - n - - {program} -o {options.format(**names)}\n"
        for name, (program, options) in TRANSPORTS.items()
    )
    main_cf = {
        "recipient_delimiter": "+",
        "local_header_rewrite_clients": "static:all",
        "smtpd_discard_ehlo_keywords": "smtputf8",
    }
    site = Site(directory, main_cf=main_cf, master_cf="".join(services))
    hosts = {"smtp": "[127.0.0.1]", "lmtp": "inet:127.0.0.1"}
    hops = "".join(
        f" {{ {name}.example = g_{name}:{hosts[kind]}:{site.next_port} }}" for name, (kind, _) in TRANSPORTS.items()
    )
    values = (site.etc / "main.cf").read_text()
    values = re.sub(r"transport_maps = .*", lambda _: f"transport_maps = inline:{{{hops} }}", values)
    (site.etc / "main.cf").write_text(values)
    (site.etc / "generic").write_text(GENERIC)
    (site.etc / "pcre").write_text(PATTERNS.replace("REGEXP", "pcre"))
    (site.etc / "regexp").write_text(PATTERNS.replace("REGEXP", "regexp"))
    (site.etc / "checks").write_text(CHECKS)
    (site.etc / "empty").write_text("/^ann@a/ ,\n")
    return site


@pytest.fixture(scope="module", params=PROGRAMS)
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    name = program(request)
    table_port = free_port()
    site = write_site(tmp_path_factory.mktemp(name), table_port)
    postmap = site.command("postmap", name)
    subprocess.run([*postmap, f"hash:{site.etc}/generic"], check=True)
    keywords = ("PIPELINING", "8BITMIME", "DSN")
    with WireSink(site.next_port, keywords) as sink, TcpTable(table_port, ROWS) as table, running(site, name):
        yield Peer(site, sink, table, name)


def fields_of(content: bytes) -> list[str]:
    """Return the header fields of a message as lines, without those that each run makes anew."""
    header = content.split(b"\r\n\r\n")[0].decode("latin-1")
    fields = [re.sub(r"\r\n[ \t]+", " ", text) for text in re.split(r"\r\n(?![ \t])", header)]
    return [text for text in fields if not re.match("(?:Received|(?:Resent-)?(?:Message-Id|Date)):", text)]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_next_hop_sees_mapped_addresses(peer: Peer, case: Case) -> None:
    seen = peer.send(case)
    # Several processes write the log, so a recipient's line may follow the queue manager's.
    status = re.compile(r"to=<([^>]*)>, relay=.*status=sent")
    wait_for("the delivery", lambda: len(status.findall(peer.site.log_text(), seen)) == len(case.recipients))
    told = [re.split(r" (?=SIZE=|BODY=)", command)[0] for command in peer.sink.commands]
    mail = [command.removeprefix("MAIL FROM:") for command in told if command.startswith("MAIL")]
    rcpt = [command.removeprefix("RCPT TO:") for command in told if command.startswith("RCPT")]
    assert (mail, sorted(rcpt)) == ([case.mail], case.rcpt)
    content = next(message for found in peer.sink.messages.values() for message in found)
    expected = [field if isinstance(field, str) else field[1] for field in case.header]
    expected = [line for field in expected for line in field.split("\n") if line]
    assert [field for field in fields_of(content) if field in expected or "ann" in field] == expected
    assert content.split(b"\r\n\r\n", 1)[1].count(b"ann@a.example") == case.body.count("ann@a.example")
    # The log has the recipients' own addresses.
    log = peer.site.log_text()[seen:]
    assert sorted(status.findall(log)) == sorted(case.recipients)
    if case.name.startswith("several results"):
        assert log.count("warning: multi-valued smtp_generic_maps result for many@a.example") == 2


DOWN = [
    Case("the table fails", "ann@a.example", ["x@fail.example"], [FROM], "", []),
    Case("a value without an address", "ann@a.example", ["x@empty.example"], [FROM], "", []),
    Case("a remote table fails for the sender", "down@a.example", ["x@tcp.example"], [FROM], "", []),
    Case("a remote table fails for a header", "ann@a.example", ["x@tcp.example"], ["To: down@a.example"], "", []),
]


@pytest.mark.parametrize("case", DOWN, ids=[case.name for case in DOWN])
def test_no_address_goes_out_unmapped_when_a_table_fails(peer: Peer, case: Case) -> None:
    seen = peer.send(case)
    problem = r"smtp_generic_maps map lookup problem for (?:ann|down)@a\.example\n"
    wait_for("the failed lookup", lambda: re.search(problem, peer.site.log_text()[seen:]))
    if peer.name == "postillion":
        wait_for("the deferral", lambda: re.search(r"status=deferred", peer.site.log_text()[seen:]))
        assert re.search(r"dsn=4.3.0, status=deferred \(local data error while talking to 127", peer.site.log_text())
    assert not [message for found in peer.sink.messages.values() for message in found]
    begun = [command for command in peer.sink.commands if command.startswith("MAIL")]
    assert begun == (["MAIL FROM:<ann@tcp.example>"] if "header" in case.name else [])
