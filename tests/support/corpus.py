"""The corpus: messages of every shape, as sent and as expected at the next hop.

`MESSAGES` maps names to messages. Sent content has CRLF line ends and no stuffed dots. A rule builds each large
message, so that it is the same on every machine. Below the Received header, a message arrives byte for byte as sent,
with these exceptions. A row with an exception spells it out:

    last line without CRLF    the line gets one (RFC 5321 §4.1.1.4: a message ends with CRLF)
    LF without CR             becomes CRLF (smtpd_forbid_bare_newline = normalize)
    CR without LF             becomes a blank (cleanup_replace_stray_cr_lf)
    body without separator    gets the empty line that separates it (RFC 5322 §2.1)
    "From " before headers    becomes X-Mailbox-Line (as Postfix does)
    blanks before a colon     are removed (as Postfix does)
    Bcc, Resent-Bcc, Return-Path, Content-Length are dropped (message_drop_headers)
    a header above header_size_limit is truncated
"""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass

HEADER_SIZE_LIMIT = 102_400


@dataclass(frozen=True)
class Message:
    """A message of the corpus."""

    name: str
    sent: bytes
    arrives: bytes

    @property
    def wire(self) -> bytes:
        """The octets after DATA: content with stuffed dots and a last CRLF, then the end of data."""
        content = self.sent if self.sent.endswith(b"\r\n") or not self.sent else self.sent + b"\r\n"
        return stuffed(content) + b".\r\n"


def stuffed(content: bytes) -> bytes:
    """Return content with stuffed dots (RFC 5321 §4.5.2)."""
    dotted = content.replace(b"\r\n.", b"\r\n..")
    return b"." + dotted if dotted.startswith(b".") else dotted


FROM = b"From: Ann Author <ann@example.net>\r\n"
TO = b"To: Ben Reader <ben@next.example>\r\n"
DATE = b"Date: Sun, 22 Nov 2026 17:02:03 +0000\r\n"
ID = b"Message-Id: <corpus.1@example.net>\r\n"
SUBJECT = b"Subject: a message of the corpus\r\n"
HEADER = FROM + TO + DATE + ID + SUBJECT
PLAIN = HEADER + b"\r\n"
END = PLAIN + b"x\r\n"


def _mime(kind: bytes, parts: list[bytes], boundary: bytes = b"=_part") -> bytes:
    """Return a multipart body with its header."""
    head = b'MIME-Version: 1.0\r\nContent-Type: multipart/%s; boundary="%s"\r\n\r\n' % (kind, boundary)
    return head + b"".join(b"--%s\r\n%s\r\n" % (boundary, part) for part in parts) + b"--%s--\r\n" % boundary


def _nested(depth: int) -> bytes:
    """Return multiparts inside each other."""
    body = b"Content-Type: text/plain\r\n\r\nthe innermost part\r\n"
    for level in range(depth):
        body = _mime(b"mixed", [body], b"level-%d" % level)
    return body


def _attachment(octets: int) -> bytes:
    """Return random octets in base 64, in lines of 76."""
    text = base64.encodebytes(random.Random(octets).randbytes(octets)).replace(b"\n", b"\r\n")
    head = b'Content-Type: application/octet-stream; name="data.bin"\r\nContent-Transfer-Encoding: base64\r\n'
    return head + b'Content-Disposition: attachment; filename="data.bin"\r\n\r\n' + text


def _prose(octets: int) -> bytes:
    """Return `octets` octets of lines of words, some of them quoted."""
    rng = random.Random(7)
    words = [b"mail", b"queue", b"of", b"the", b"rider", b"horse", b"leads", b"and", b"pulls", b"far", b".", b"post"]
    lines: list[bytes] = []
    size = 0
    while size < octets:
        line = b"> " * rng.randrange(3) + b" ".join(rng.choices(words, k=rng.randrange(14))) + b"\r\n"
        lines.append(line)
        size += len(line)
    return b"".join(lines)[:octets]


def _row(name: str, sent: bytes, arrives: bytes | None = None) -> Message:
    """Return a message. Without `arrives`, it arrives as sent."""
    return Message(name, sent, sent if arrives is None else arrives)


_TRACE = b"Received: from a.example by b.example; Sun, 22 Nov 2026 17:02:03 +0000\r\n"
_CUT = b"X-Long: " + b"z" * 150_000
_MBOX = b"From ann Sun Nov 22 17:02:03 2026\r\n"
_DROPPED = b"Bcc: v@example.net,\r\n w@example.net\r\nResent-Bcc: v\r\nReturn-Path: <v>\r\nContent-Length: 3\r\n"
_ODD = (
    b'From: "A. \\"B\\" (C)" <"a b"@example.net> (D (E))\r\n'
    b"To: group: x@example.net, <@r1,@r2:y@example.net>;, root\r\nCc: a@b@c, <>, ,,\r\n\r\nx\r\n"
)
_8BIT = bytes(range(0x80, 0x100))

_ROWS = [
    # Headers and bodies, present or absent.
    _row("plain", PLAIN + b"Hello.\r\n"),
    _row("nothing", b""),
    _row("no body", HEADER, HEADER),
    _row("empty body", PLAIN),
    _row("one empty line", b"\r\n"),
    _row("only a header line", b"Subject: x\r\n"),
    _row("no header", b"no header here\r\nand none there\r\n", b"\r\nno header here\r\nand none there\r\n"),
    _row("empty header, body", b"\r\nbody\r\n"),
    _row("no separator", FROM + b"body at once\r\n", FROM + b"\r\nbody at once\r\n"),
    _row("body begins like a header", PLAIN + b"Subject: not a header\r\nBcc: nor this\r\n"),
    _row("no last line end", PLAIN + b"end", PLAIN + b"end\r\n"),
    _row("no last line end in a header", FROM + b"Subject: x", FROM + b"Subject: x\r\n"),
    _row("empty lines at the end", PLAIN + b"end\r\n\r\n\r\n\r\n"),
    _row("only empty lines", PLAIN + b"\r\n" * 50),
    # Header lines.
    _row("folded with blanks", b"Subject: one\r\n two\r\n   three\r\n" + END),
    _row("folded with tabs", b"Subject: one\r\n\ttwo\r\n\t\tthree\r\n" + END),
    _row("folded to a line of blanks", b"Subject: one\r\n  \t \r\n two\r\n" + END),
    _row("folded before the value", b"Subject:\r\n the value\r\n" + END),
    _row("header without a value", b"Subject:\r\nX-Empty: \r\nX-None:\r\n" + END),
    _row("header without a blank", b"Subject:close\r\nX:y\r\n" + END),
    _row(
        "blanks before a colon",
        b"Subject \t : far\r\n" + FROM + b"\r\nx\r\n",
        b"Subject: far\r\n" + FROM + b"\r\nx\r\n",
    ),
    _row("blanks after a value", b"Subject: value \t  \r\n" + END),
    _row("header without a colon", FROM + b"Subject without\r\n" + TO, FROM + b"\r\nSubject without\r\n" + TO),
    _row("header without a name", FROM + b": value\r\nx\r\n", FROM + b"\r\n: value\r\nx\r\n"),
    _row("header name with a blank", FROM + b"Two words: x\r\n", FROM + b"\r\nTwo words: x\r\n"),
    _row("first line is folded", b" not folded\r\n" + FROM, b"\r\n not folded\r\n" + FROM),
    _row("line of blanks ends no header", FROM + b" \r\nSubject: still a header\r\n\r\nx\r\n"),
    _row("unknown headers", b"X-1: a\r\nX-!#$%&'*+-^_`|~: b\r\nx: c\r\n" + END),
    _row("headers in any case", b"SUBJECT: A\r\nfrom: a@example.net\r\ntO: b@next.example\r\n\r\nx\r\n"),
    _row("twice the same headers", HEADER + HEADER + b"\r\nx\r\n"),
    _row("a thousand headers", b"".join(b"X-%d: %d\r\n" % (n, n * n) for n in range(1000)) + END),
    _row("a header of 998 octets", b"X-Long: " + b"z" * 990 + b"\r\n" + END),
    _row("a header of 50,000 octets", b"X-Long: " + b"z" * 50_000 + b"\r\n" + END),
    _row("a header folded a thousand times", b"X-Long: a\r\n" + b"\tb\r\n" * 1000 + END),
    _row("a header above the limit", _CUT + b"\r\n" + END, _CUT[:HEADER_SIZE_LIMIT] + b"\r\n" + END),
    _row("trace headers", _TRACE * 20 + END),
    _row(
        "resent",
        b"Resent-From: c@example.net\r\nResent-To: d@example.net\r\nResent-Date: Mon, 23 Nov 2026 08:00:00 +0000\r\n"
        b"Resent-Message-Id: <r@example.net>\r\nResent-Sender: c@example.net\r\n" + END,
    ),
    _row("dropped headers", _DROPPED + END, END),
    _row("mbox line", _MBOX + END, b"X-Mailbox-Line: " + _MBOX + END),
    _row("quoted mbox line", b">From ann\r\n" + END, b"X-Mailbox-Line: >From ann\r\n" + END),
    _row("mbox lines in the body", PLAIN + b"From here to there\r\n>From quoted\r\n\r\nFrom again\r\n"),
    _row("odd addresses", _ODD),
    _row("addresses that never close", b'From: "Ann <a@example.net\r\nTo: (((((\r\nCc: <<<<a@\r\n\r\nx\r\n'),
    _row(
        "many addresses", b"To: " + b",\r\n\t".join(b"user%d@example.net" % n for n in range(2000)) + b"\r\n\r\nx\r\n"
    ),
    # Octets.
    _row("8-bit body", PLAIN + _8BIT + b"\r\n"),
    _row("8-bit headers", b"Subject: " + _8BIT + b"\r\n" + END),
    _row(
        "UTF-8 headers",
        "Subject: Grüße, 你好, \U0001f40e\r\nFrom: Jörg <jörg@bücher.example>\r\n".encode() + TO + b"\r\nx\r\n",
    ),
    _row("UTF-8 body", PLAIN + "Zwölf Boxkämpfer jagen Viktor\r\nτὸ πρῶτον\r\n\u200b\ufeff\r\n".encode()),
    _row("encoded words", b"Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?= =?iso-8859-1?B?/Pbk?= =?broken?=\r\n" + END),
    _row("NUL", b"X-Nul: a\0b\r\n" + PLAIN + b"\0\0 and \0\r\n\0\r\n"),
    _row("control characters", PLAIN + bytes(set(range(1, 32)) - {10, 13}) + b"\x7f\r\n"),
    _row("every octet but line ends", PLAIN + bytes(set(range(256)) - {10, 13}) * 20 + b"\r\n"),
    _row("CR in the body", PLAIN + b"a\rb\r\rc\r\n\rd\r\r\n", PLAIN + b"a b  c\r\n d \r\n"),
    _row("CR in a header", b"Subject: a\rBcc: b\r\n" + END, b"Subject: a Bcc: b\r\n" + END),
    _row("LF in the body", PLAIN + b"a\nb\n\nc\r\n", PLAIN + b"a\r\nb\r\n\r\nc\r\n"),
    _row("LF in a header", b"Subject: a\nX-Next: b\r\n" + END, b"Subject: a\r\nX-Next: b\r\n" + END),
    _row("LF throughout", PLAIN.replace(b"\r\n", b"\n") + b"x\ny\r\n", PLAIN + b"x\r\ny\r\n"),
    _row("CR before every line end", PLAIN + b"a\r\r\nb\r\r\r\n", PLAIN + b"a \r\nb  \r\n"),
    # Dots.
    _row("dots", PLAIN + b".\r\n..\r\n...\r\n.a\r\n. \r\na.\r\n.\r\n\r\n.\r\n"),
    _row("a lone dot first in the body", PLAIN + b".\r\n"),
    _row("a thousand lone dots", PLAIN + b".\r\n" * 1000),
    _row("a dotted first line", b".dot\r\n" + PLAIN, b"\r\n.dot\r\n" + PLAIN),
    _row("dotted folding", b"Subject: a\r\n .b\r\n\t.\r\n" + END),
    _row("a dot and no line end", PLAIN + b"x\r\n.", PLAIN + b"x\r\n.\r\n"),
    # Long lines.
    _row("lines of 998 octets", PLAIN + (b"x" * 998 + b"\r\n") * 5),
    _row("a line of 2,048 octets", PLAIN + b"x" * 2048 + b"\r\n"),
    _row("a line of 100,000 octets", PLAIN + b"x" * 100_000 + b"\r\n"),
    _row("a dotted line of 100,000 octets", PLAIN + b"." * 100_000 + b"\r\n"),
    _row("blanks at the ends of lines", PLAIN + b"trailing   \r\ntab\t\r\n \r\n\t\r\n   x   \r\n"),
    # MIME: cleanup does not change it.
    _row(
        "multipart",
        HEADER + _mime(b"alternative", [b"\r\nplain\r\n", b"Content-Type: text/html\r\n\r\n<p>html</p>\r\n"]),
    ),
    _row("nested multiparts", HEADER + _nested(60)),
    _row("attachment", HEADER + _mime(b"mixed", [b"\r\nSee below.\r\n", _attachment(5000)])),
    _row(
        "a message in a message",
        HEADER + _mime(b"mixed", [b"Content-Type: message/rfc822\r\n\r\n" + PLAIN + b"Bcc: inner\r\n"]),
    ),
    _row(
        "quoted-printable",
        HEADER + b"Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe =\r\nsoft=20\r\n=\r\n",
    ),
    _row(
        "a multipart that never ends",
        HEADER + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n--b\r\n--c\r\n",
    ),
    _row("a multipart without a boundary", HEADER + b"Content-Type: multipart/mixed\r\n\r\n--\r\n\r\n----\r\n"),
    _row(
        "MIME headers that make no sense",
        HEADER + b"Content-Type: ;;;\r\nContent-Transfer-Encoding: 9bit\r\nMIME-Version: x\r\n\r\nx\r\n",
    ),
    _row("signed text", PLAIN + b"-----BEGIN PGP SIGNED MESSAGE-----\r\n\r\n- -- \r\ntext \r\n-----END-----\r\n"),
    # Lines that other programs could misread.
    _row("SMTP in the body", PLAIN + b"QUIT\r\nMAIL FROM:<x>\r\n250 ok\r\nDATA\r\n"),
    _row("a uuencoded part", PLAIN + b"begin 644 a\r\n#0V%T\r\n`\r\nend\r\n"),
    _row(
        "format=flowed",
        HEADER + b"Content-Type: text/plain; format=flowed\r\n\r\nsoft \r\n From stuffed\r\n >quoted\r\n-- \r\nsig\r\n",
    ),
    # Large ones.
    _row("20,000 short lines", PLAIN + b"\r\n".join(b"%d" % n for n in range(20_000)) + b"\r\n"),
    _row("100 kB of prose", PLAIN + _prose(100_000) + b"\r\n"),
    _row("1 MB of prose", PLAIN + _prose(1_000_000) + b"\r\n"),
    _row("1 MB attachment", HEADER + _mime(b"mixed", [b"\r\nSee below.\r\n", _attachment(750_000)])),
    _row("1 MB of empty lines", PLAIN + b"\r\n" * 500_000),
]

MESSAGES = {message.name: message for message in _ROWS}
assert len(MESSAGES) == len(_ROWS), "two messages have one name"
