"""The first inputs of each fuzz target.

They come from the transcripts in tests/dialogues/, the corpus of messages in tests/support/corpus.py, and encoders of
our own for binary input. Inputs that once failed are files under rust/fuzz/seeds/TARGET/ and are run, too.
"""

from __future__ import annotations

import itertools
import random
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support import corpus  # noqa: E402

SEED_MAX_OCTETS = 3000
SERVER_SETTINGS = (b"\0\0\0\0", b"\1\0\0\3", b"\2\7\0\5", b"\3\1\x0f\x87", b"\x71\x08\0\x40", b"\x1d\x20\7\x09")
"""For targets/smtp_server: bare newlines, limits, questions, the split."""
CLEANUP_SETTINGS = (b"\2\0\0\0", b"\0\4\0\3", b"\1\1\x0f\5", b"\x82\2\1\7", b"\x6f\7\2\x21", b"\x13\0\4\x0b")


def _client_words() -> Iterator[bytes]:
    """Return the client's part of each transcript."""
    for path in sorted((ROOT / "tests" / "dialogues").glob("*.smtp")):
        said = b""
        for line in path.read_text().splitlines():
            kind, _, text = line.partition(":")
            if kind in ("C", "C~"):
                octets = text.removeprefix(" ").encode().decode("unicode_escape").encode("latin-1")
                said += octets + (b"\r\n" if kind == "C" else b"")
        yield said[:SEED_MAX_OCTETS]


def _messages() -> Iterator[bytes]:
    """Return each small message of the corpus, in wire form without its end."""
    for message in corpus.MESSAGES.values():
        if len(message.sent) <= SEED_MAX_OCTETS:
            yield message.wire.removesuffix(b".\r\n")


def _server() -> Iterator[bytes]:
    for words, settings in itertools.product(_client_words(), SERVER_SETTINGS[:2]):
        yield settings + words
    for settings in SERVER_SETTINGS:
        begin = b"EHLO x\r\nMAIL FROM:<a@b.c> SIZE=9 BODY=8BITMIME\r\nRCPT TO:<r@b.c> NOTIFY=NEVER\r\n"
        yield settings + begin + b"DATA\r\nS: x\r\n\r\n..\r\nb\r\n.\r\nQUIT\r\n"
        yield settings + begin + b"BDAT 5\r\na\nb\r\nBDAT 0 LAST\r\nMAIL FROM:<>\r\nBDAT 3 LAST\r\nabcRSET\r\n"
    # With AUTH: a challenge, an answer, a line that is too long.
    for words in (b"AUTH PLAIN\r\nxx\r\nMAIL FROM:<> AUTH=<>\r\n", b"AUTH PLAIN x\r\n" + b"x" * 41 + b"\r\nNOOP\r\n"):
        yield b"\1\x40\0\5EHLO c.example\r\n" + words


SESSION_SETTINGS = (b"\0\0\0\3", b"\2\0\3\5", b"\x2b\7\2\1", b"\4\4\1\2", b"\x18\1\4\6", b"\0\x08\0\4")
"""For targets/session: questions, an owner alone, a queue that fails, limits, a remembered domain, the split."""


def _starttls() -> Iterator[bytes]:
    """Return the client's part of each transcript inside TLS, behind octets that came too early."""
    before, early = b"EHLO a", b"NOOP\r\nMAIL FROM:<a@example.org>\r\n"
    for flags, said in zip(itertools.cycle(b"\0\1\2\7"), _client_words()):
        yield bytes((flags, len(said) % 256, len(before), len(early))) + before + early + said


def _starttls_client() -> Iterator[bytes]:
    """Return sessions of servers at each level, with octets behind the reply to STARTTLS."""
    offer, reply = b"220 mx\r\n|250-mx\r\n250 STARTTLS\r\n|", b"250 2.0.0 fine\r\n"
    behind = (b"", reply, b"250-evil\r\n250 AUTH PLAIN\r\n", b"\x16hel", b"\x16hello250 evil\r\n")
    inside = b"|250 mx\r\n|" + 2 * (reply + b"|") + b"354 go\r\n|" + reply
    answers = (b"220 go\r\n" + inside, b"220 go\r\n|250 mx\r\n250 x\r\n", b"454 no\r\n|" + reply, b"220-go\r\n")
    for flags, early, answer in itertools.product(range(16), behind, answers):
        yield bytes((flags, len(early))) + early + offer + answer


def _login() -> Iterator[bytes]:
    """Return exchanges of each mechanism: challenges in form and out of it, refusals, success."""
    first = b"#r=$more,s=QUJD,i=4096|"
    ends = (b"235 2.7.0 ok\r\n", b"535 5.7.8 no\r\n", b"334 \r\n|501 end\r\n", b"334 !\r\n|421 bye\r\n")
    middles = (b"", b"334 VTo=\r\n|334 UDo=\r\n|", first, first + b"#v=QUJD|", first + b"#e=x|", b"#r=$x,|", b"#|")
    for number, (middle, end) in enumerate(itertools.product(middles, ends)):
        for kind in range(9):
            yield bytes((kind | (number % 8) << 4, number)) + middle + end


def _session() -> Iterator[bytes]:
    yield from (settings + words for settings, words in itertools.product(SESSION_SETTINGS, _client_words()))
    begin = b"EHLO x\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<r@b.c>\r\nRCPT TO:<bad@b.c>\r\nDATA\r\n"
    for settings, message in zip(itertools.cycle(SESSION_SETTINGS), _messages()):
        yield settings + begin + message + b".\r\nRSET\r\n"
    yield b"\0\3\0\3EHLO x\r\nAUTH PLAIN x\r\n" + begin + b"S: bad\r\n\r\n.\r\nQUIT\r\n"
    begin = b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<u@b.c>\r\nRCPT TO:<R@b.c>\r\nRCPT TO:<f@b.c>\r\n"
    yield b"\0\x08\0\5" + begin + b"BDAT 8 LAST\r\nS: x\r\n\r\nMAIL FROM:<>\r\nRCPT TO:<r@b.c>\r\nQUIT\r\n"


def _intake() -> Iterator[bytes]:
    for settings in (b"\0\x1f\3", b"\7\x0c\5", b"\5\x05\1"):
        yield settings + b"EHLO x\r\nDATA\r\na\r\n..b\r\n.\r\nTAKE\r\nabcQUIT\r\n"
        yield settings + b"D\r\n.\r\nD\na line that is long\r\n\n.\r\r\n.\r\n" + b"x" * 40 + b"\nT\r\n\r\n.\r\n"
    for settings, message in zip(itertools.cycle((b"\0\x1f\3", b"\2\x1f\1", b"\4\x1f\6")), _messages()):
        yield settings + b"DATA\r\n" + message + b".\r\nNOOP\r\n"


CLIENT_HELLOS = (
    ("220 mx ESMTP", "250-mx|250-PIPELINING|250-8BITMIME|250-DSN|250-SIZE 5000|250 SMTPUTF8"),
    ("220 mx ESMTP", "250-mx|250-SIZE 10|250 X"),
    ("220 mx", "500 what", "250 mx"),
    ("220-a|220 b ESMTP", "250-mx|250 PIPELINING"),
)
"""Greeting and hello; only here, `|` separates the lines of a reply."""
CLIENT_REPLIES = (
    "250 2.1.0 ok;250 2.1.5 ok;354 go;250 2.0.0 taken;250 ok;250 ok;354 go;250 ok",
    "250 ok|250 ok|550 5.1.1 no|354 go;250 ok",
    "250 ok|250 ok|354 go;450 4.3.0 later;250 ok|250 ok|250 ok|354 go;554-no|554 never",
    "450 4.7.1 greylisted|503 no|503 no;421 bye",
    "250 ok|550 no|550 no|554 no valid recipients;250 ok",
    "250 ok|550 no|354 go anyway;250 ok",
    "250 ok;250 ok;354 go;250 taken|450 full",
    "garbage;250 ok;25 x;999 what;354;250",
    "250 ok|250 ok|250 ok|250 ok|354 go;250 ok|221 bye|250 more",
)


def _client() -> Iterator[bytes]:
    def part(text: str) -> bytes:
        return text.replace("|", "\r\n").encode() + b"\r\n"

    for hello, replies in itertools.product(CLIENT_HELLOS, CLIENT_REPLIES):
        parts = b"|".join([part(text) for text in hello] + [part(text) for text in replies.split(";")])
        for head in (b"\0\0\3", b"\x81\x09\4", b"\x38\x40\5"):
            yield head + parts


DELIVERIES = (
    # A job, its follower, and one more on the idle connection.
    b"\0\5|%s|\1\4|%s|250 ok\r\n%s|250 ok\r\n|\0\0|%s|250 ok\r\n",
    # Both messages are damaged, one of them in its second piece.
    b"\0\1|%s|%s|250 ok\r\n",
    b"\0\3|%s|%s|\5|\5|250 ok\r\n",
    # A large message is refused before its end; the connection ends; a job is withdrawn; a timeout.
    b"\0\2|%s|%s|552 5.3.4 too much\r\n",
    b"\0\2|%s|\1\0|%s|\5|\5|250 ok\r\n|\3",
    b"\0\0|%s|\1\0|%s|\2|250 ok\r\n|\0\0",
    b"\0\0|%s|%s|250 ok\r\n|\0\0|\3",
    b"\0\0|%s|%s|\4",
)
"""For targets/delivery_session: the agent's acts and the server's replies. The first `%s` is greeting and EHLO."""


def _delivery_session() -> Iterator[bytes]:
    hello = b"220 mx ESMTP\r\n|250-mx\r\n250-PIPELINING\r\n250 DSN\r\n"
    replies = (
        b"250 ok\r\n250 ok\r\n354 go\r\n",
        b"250 ok\r\n250 ok\r\n450 no\r\n354 go\r\n",
        b"250 ok\r\n550 no\r\n554 no\r\n",
    )
    for script, reply, flags in itertools.product(DELIVERIES, replies, (b"\x70\3", b"\x20\5", b"\xf0\7", b"\x14\2")):
        yield flags + script.replace(b"%s", hello, 1).replace(b"%s", reply)


def _response() -> Iterator[bytes]:
    lines = [reply.replace(";", "\r\n").replace("|", "\r\n") for reply in CLIENT_REPLIES]
    yield from (b"\3" + line.encode() + b"\r\n" for line in lines)
    yield b"\1250-mx\r\n250-AUTH=LOGIN\r\n250-SIZE\t5\r\n250 \xff\xfe\0\r\n"
    yield b"\1" + b"220-" + b"x" * 2100 + b"\r\n220 end\n"


def _data() -> Iterator[bytes]:
    ends = (b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r\n", b"\r.\r", b"\r\n.\r\r\n", b"\r\r\n.\r\n")
    for flags, message, end in zip(itertools.cycle((b"\0\3", b"\1\5")), _messages(), itertools.cycle(ends)):
        yield flags + message + end + b"QUIT\r\n"


def _stuff() -> Iterator[bytes]:
    for message in corpus.MESSAGES.values():
        if len(message.sent) <= SEED_MAX_OCTETS:
            yield b"\3" + message.sent
            yield b"\5" + message.sent.replace(b"\r\n", b"\n")


MAPPINGS = (
    "u@a\nv@a\n@b\n",
    "u+x@h.a\na@b, b@c\n!\n@d",
    '"a b+c"@b.a\n"c d"@a\nu@a, u@a\n,',
    "root@x.b.a\n<@\ng: a, b;\n\n\xff",
)
"""For targets/mapping: an address, and the answers of a table."""


def _cleanup() -> Iterator[bytes]:
    for settings, message in zip(itertools.cycle(CLEANUP_SETTINGS), [*_messages(), *_messages()]):
        yield settings + message
    yield from (CLEANUP_SETTINGS[0] + message for message in _messages())


MIME = (
    b'A: 1\nContent-Type: multipart/mixed;\n boundary="b d"\nContent-Transfer-Encoding: 8bit\n\npro\n--b d\n'
    b"Content-Type: text/x\nContent-Transfer-Encoding: binary\n\n.x = \xc3\xa9 \n--b d\n"
    b"Content-Type: message/rfc822\n\nB: 2\n\ny\n--b d--\nepi\n",
    b"Content-Type: multipart/digest; boundary=a; boundary=c\n\n--a\n\nB: 1\n\n--c\nno header\n--a--\n",
    b"Content-Type: message/global\nno header\nB: 1\n\n" + b"\xc3\xa9" * 60,
)


def _mime() -> Iterator[bytes]:
    yield from (bytes([limits, 7]) + message for limits in (0, 6, 8, 127) for message in (*MIME, *_messages()))


ADDRESSES = (
    'Ann <a@x.org>, "B, b" <b@y.org>',
    "root (Charlie, Root <x@y>), <@a,@b:u@c.org>, u%h@d, site!user",
    'friends: a@x, B <b@y>;, c@[127.0.0.1], "q\\"@"@z.org',
    "a\\,b@x, u@., @, one two, grüße@x.org\r\n\t, <>",
)


COMMANDS = (
    "MAIL FROM:<a@b.c> SIZE=9 BODY=8BITMIME RET=HDRS ENVID=x+2By SMTPUTF8",
    "MAIL FROM:<>",
    'mail from: <"a b\\"c"@[IPv6:2001:db8::1]> BODY=7BIT',
    "RCPT TO:<@r1,@r2:u@d.org> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;u+2Bv@d.org",
    "RCPT TO:<postmaster> NOTIFY=NEVER",
    "RCPT TO:grüße@bücher.example",
    'RCPT TO:<"@"@x.org>',
    "VRFY a@[127.0.0.1]",
    "a.b@c.d",
)


def _flagged(flags: tuple[bytes, ...], texts: tuple[str, ...]) -> Iterator[bytes]:
    """Return every text behind each of the flags."""
    return (flag + text.encode() for flag, text in itertools.product(flags, texts))


def _record(kind: bytes, data: bytes) -> bytes:
    """Return a record of Postfix's queue files: type, length in groups of seven bits, data."""
    length, octets = len(data), b""
    while length > 0x7F:
        octets += bytes([length & 0x7F | 0x80])
        length >>= 7
    return kind + octets + bytes([length]) + data


def _maildrop() -> Iterator[bytes]:
    envelopes = (
        [(b"T", b"1795000000 5"), (b"S", b"s@x.org"), (b"R", b"r@y.org")],
        [(b"T", b"1795000000"), (b"F", b"Ann"), (b"A", b"envelope_id=q+"), (b"A", b"ret_flags=2"), (b"S", b"")],
        [(b"S", b"s@x"), (b"o", b"rfc822;a b"), (b"n", b"6"), (b"O", b"list"), (b"R", b"a@x"), (b"R", b"b@y")],
        [(b"A", b"rewrite_context=remote"), (b"A", b"encoding=8bit"), (b"A", b"x=y"), (b"S", b"s"), (b"i", b"id=1")],
    )
    contents = (
        [(b"N", b"Subject: x"), (b"N", b""), (b"N", b"body")],
        [(b"L", b"a" * 200), (b"N", b"\0.\r")],
        [(b"L", b"b" * 100)] * 3,
        [],
    )
    for envelope, content in itertools.product(envelopes, contents):
        records = [*envelope, (b"M", b""), *content, (b"X", b""), (b"R", b"late@x.org"), (b"E", b"")]
        yield b"\3" + b"".join(_record(kind, data) for kind, data in records)


def _text(value: str) -> bytes:
    return struct.pack("<I", len(value.encode())) + value.encode()


def _optional(value: str | None) -> bytes:
    return b"\0" if value is None else b"\1" + _text(value)


def _recipient(address: str, original: str | None = None, orcpt: str | None = None, notify: int = 0) -> bytes:
    return _text(address) + _optional(original) + _optional(orcpt) + bytes([notify])


def _envelopes() -> list[bytes]:
    recipients = [_recipient("a@x.org"), _recipient("b@y.org", "list", "rfc822;list", 6)]
    found = []
    for count, envid in ((0, None), (1, "x1"), (2, None)):
        found.append(
            struct.pack("<QQ", 42 << 12, 1_795_000_000_000_000) + _text("s@x.org") + b"\2\1\2" + _optional(envid)
            + struct.pack("<QI", 4096, count) + b"".join(recipients[:count])
            + struct.pack("<I", 1) + _text("client_name") + _text("localhost")
        )  # fmt: skip
    return found


def _status(outcome: int) -> bytes:
    return struct.pack("<BBHH", outcome, 4, 4, 1) + _text("no route") + _optional("mx[192.0.2.1]:25")


def _frame() -> Iterator[bytes]:
    locator = struct.pack("<QQQ", 7, 64, 100)
    envelope = _envelopes()[1]
    job = (
        struct.pack("<QB", 3, 1) + _text("incoming/7") + locator + _text("smtp") + _text("x.org") + struct.pack("<Q", 2)
        + envelope + struct.pack("<II", 1, 0) + _recipient("a@x.org") + b"\1" + _status(2)
    )  # fmt: skip
    payloads = [
        struct.pack("<BIQQ", 1, 5, 7, 64),
        struct.pack("<BI", 2, 2) + (locator + envelope) * 2,
        struct.pack("<BQQ", 3, 7, 164),
        b"\4" + _text("smtp") + struct.pack("<II", 6, 50),
        struct.pack("<BQQB", 5, 3, 9, 1) + _status(1) + struct.pack("<II", 1, 0) + _status(0),
        b"\6" + job,
        b"\7" + _text('{"verb": "list"}'),
        b"\x08\1" + _text("[]"),
        b"\x09\1",
        struct.pack("<BQIII", 10, 3, 2, 0, 7),
    ]
    yield from (b"\x83" + payload for payload in payloads)
    whole = [struct.pack("<IB", len(payload) + 1, 1) + payload for payload in payloads]
    yield b"\3" + b"".join(whole)
    yield from (b"\5" + frame for frame in whole)


def _damage() -> Iterator[bytes]:
    """Return damages to a file, one to five at a time: see `damaged` in src/queue.rs."""
    dice = random.Random(4)
    yield b"\0"
    for count in range(1, 6):
        for _ in range(8):
            yield b"\0" + b"".join(bytes([dice.randrange(4)]) + dice.randbytes(3) for _ in range(count))


def _segment() -> Iterator[bytes]:
    yield from _damage()
    # With and without head and body, and in version 1.
    yield from (bytes([flags]) + envelope for flags in (1, 3, 5, 7, 13) for envelope in _envelopes())


def _state_log() -> Iterator[bytes]:
    yield from _damage()
    for kind in (3, 4, 5, 6, 8):
        yield b"\1" + struct.pack("<BQ", kind, 99)
    yield b"\1" + struct.pack("<BQIII", 1, 99, 2, 0, 1)
    yield b"\1" + struct.pack("<BQIQII", 2, 99, 2, 77, 1, 3) + _status(1)
    yield b"\1" + struct.pack("<BQQ", 7, 3, 99)


def _lmdb_page(number: int, flags: int, nodes: list[tuple[int, int, bytes, bytes]]) -> bytes:
    """Return a page of 512 octets; a node: a length or a page, flags, a key, a value."""
    offsets, end = [], b""
    for low, node_flags, key, value in nodes:
        end = struct.pack("<IHH", low, node_flags, len(key)) + key + value + end
        offsets.append(512 - len(end))
    lower = 16 + 2 * len(nodes)
    head = struct.pack(f"<QHHHH{len(nodes)}H", number, 0, flags, lower, 512 - len(end), *offsets)
    return head.ljust(512 - len(end), b"\0") + end


def _lmdb() -> bytes:
    """Return an LMDB file: two meta pages, a branch, two leaves and a long value."""
    free = struct.pack("<IHH5Q", 512, 8, 0, 0, 0, 0, 0, 2**64 - 1)
    main = struct.pack("<IHH5Q", 0, 0, 2, 1, 2, 2, 3, 4)
    metas = [
        (struct.pack("<QHHIIIQQ", number, 0, 8, 0, 0xBEEFC0DE, 1, 0, 0) + free + main + struct.pack("<QQ", 6, number))
        for number in (0, 1)
    ]
    return (
        b"".join(meta.ljust(512, b"\0") for meta in metas)
        + _lmdb_page(2, 2, [(1, 0, b"a\0", b"1"), (2, 0, b"key", b"2\0")])
        + _lmdb_page(3, 2, [(600, 1, b"user@example\0", struct.pack("<Q", 5))])
        + _lmdb_page(4, 1, [(2, 0, b"", b""), (3, 0, b"u", b"")])
        + (struct.pack("<QHHI", 5, 0, 4, 2) + b"v" * 600).ljust(1024, b"\0")
    )


def _tables() -> Iterator[bytes]:
    texts = [
        b'a b\n# no\n c\n"q k"@x v\nbad\nkey: value\nk\xff v\n',
        b'root: admin\n"the list": a,\n b\na@b: c\n"un: d\n',
    ]
    for text in texts:
        for flags in (0, 4, 8, 16, 32):
            yield bytes([flags]) + text
    yield (
        b"\1"
        + b"192.0.2.1 A\n192.0.2.0/24 B\nif !10.0.0.0/8\n!172.16.0.0/12 C\nendif\n[2001:db8::]/32 D\n1.2.3.4/1 E\n"
    )
    header = struct.pack("<16sIIQQQQ", b"PostillionIndex\n", 1, 0, 1, 2, 74, 90)
    yield b"\2" + header + bytes(8) + struct.pack("<II", 1, 1) + b"ab" + bytes(16)
    record = struct.pack("<II", 1, 1) + b"ab"
    yield b"\2" + struct.pack("<II", 2058, 2) * 256 + record + struct.pack("<IIII", 177604, 2048, 0, 0)
    yield b"\2" + _lmdb()
    yield b"\3got $1 ${2}$(3) $$ ${4"


def _dns() -> Iterator[bytes]:
    """Return replies with a record of each kind, and steps of a stub."""
    mail = b"\4mail\xc0\x0c"
    data = {
        0: (1, b"\xc0\0\2\1"),
        1: (28, bytes(15) + b"\1"),
        2: (15, b"\0\x0a" + mail),
        3: (12, mail),
        4: (16, b"\5v=spf\2 x"),
        5: (52, b"\3\1\1" + bytes(32)),
        6: (33, struct.pack(">HHH", 1, 2, 25) + mail),
        7: (5, mail),
    }
    for kind, (number, octets) in data.items():
        record = b"\xc0\x0c" + struct.pack(">HHIH", number, 1, 300, len(octets)) + octets
        alias = b"\xc0\x0c" + struct.pack(">HHIH", 5, 1, 60, 3) + b"\1b\0" + b"\1b\0" + record[2:]
        soa = b"\xc0\x0c" + struct.pack(">HHIH", 6, 1, 60, 22) + b"\0\0" + struct.pack(">5I", 1, 2, 3, 4, 5)
        for tcp in (0, 2):
            head = bytes([kind << 2 | tcp])
            yield head + b"\1\x80\1\0\0" + record
            yield head + b"\1\xa0\2\0\0" + alias
            yield head + b"\1\x83\0\1\0" + soa
            yield head + b"\1\x80\0\1\1" + soa + b"\0" + struct.pack(">HHIH", 41, 1232, 0, 0)
            yield head + b"\5\0\0\0\0"
        yield bytes([kind << 2 | 1]) + b"\0\0\1\x84\0" + record[2:] + b"\0\1\x08\3\2\0\2\0\5\0\6\x05"
    steps = [b"\0\1", b"\x08\2", b"\2\0", b"\3\0", b"\5\1", b"\6\x83", b"\x0e\0", b"\7\1", b"\x0f\2"]
    for chosen in itertools.permutations(steps[1:], 3):
        yield b"\1\0" + steps[0] + b"".join(chosen) + b"\2\0"


MAKERS: dict[str, Callable[[], Iterator[bytes]]] = {
    "smtp_server": _server,
    "starttls": _starttls,
    "starttls_client": _starttls_client,
    "login": _login,
    "session": _session,
    "intake": _intake,
    "smtp_client": _client,
    "delivery_session": _delivery_session,
    "response": _response,
    "data": _data,
    "stuff": _stuff,
    "cleanup": _cleanup,
    "mapping": lambda: _flagged((b"\x01", b"\x3f", b"\x1d", b"\x38"), MAPPINGS),
    "mime": _mime,
    "tables": _tables,
    "address": lambda: _flagged((b"\0", b"\x0f", b"\5"), ADDRESSES),
    "path": lambda: _flagged((b"\0", b"\1", b"\6"), COMMANDS),
    "maildrop": _maildrop,
    "dns": _dns,
    "frame": _frame,
    "envelope": lambda: iter(_envelopes()),
    "segment": _segment,
    "state_log": _state_log,
}


def of(target: str) -> list[bytes]:
    """Return the inputs that a target begins with, each once."""
    return list(dict.fromkeys(MAKERS[target]()))
