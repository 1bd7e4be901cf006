"""`postillion.aiosmtpd.SMTP` under aiosmtpd's Controller: the Rust byte path gives the same results as aiosmtpd."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import smtplib
import socket
import ssl
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiosmtpd.smtp
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session
from hypothesis import example, given, settings
from hypothesis import strategies as st

from postillion._core.smtp import SmtpIntake
from postillion.aiosmtpd import SMTP
from postillion.aiosmtpd.server import Reader
from support.ports import free_port

PATIENCE_S = 20.0
LINE_LIMIT = 20
SIZE_LIMIT = 60
ENVELOPE = b"HELO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"


class Mailbox:
    """A handler that keeps each message."""

    def __init__(self) -> None:
        self.contents: list[bytes | str | None] = []

    async def handle_DATA(self, server: object, session: Session, envelope: Envelope) -> str:
        assert envelope.original_content == envelope.content
        self.contents.append(envelope.content)
        return "250 kept"


class MemoryTransport(asyncio.Transport):
    """A transport in memory: records the server's output and its flow control."""

    def __init__(self) -> None:
        super().__init__()
        self.output = b""
        self.reading = True
        self.closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 1025) if name == "peername" else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.output += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class SmallStock(aiosmtpd.smtp.SMTP):
    line_length_limit = LINE_LIMIT


class Small(SMTP):
    line_length_limit = LINE_LIMIT


Result = tuple[bytes, list[bytes | str | None]]


async def run_session(kind: type[aiosmtpd.smtp.SMTP], pieces: list[bytes]) -> Result:
    """Send `pieces` to a server of class `kind`; return its output and its handler's messages."""
    mailbox, transport = Mailbox(), MemoryTransport()
    server = kind(mailbox, data_size_limit=SIZE_LIMIT, hostname="mx", ident="t", loop=asyncio.get_running_loop())
    server.connection_made(transport)
    for piece in pieces:
        server.data_received(piece)
        # Run until every task is idle: the session waits for nothing but octets.
        for _ in range(8):
            await asyncio.sleep(0)
    for _ in range(400):
        await asyncio.sleep(0)
    server.connection_lost(None)
    task = server._handler_coroutine
    assert task is not None
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return transport.output, mailbox.contents


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """Return `stream`, cut at these places."""
    ends = sorted({place % (len(stream) + 1) for place in places} | {0, len(stream)})
    return [stream[begin:end] for begin, end in itertools.pairwise(ends)]


# No QUIT: the number of replies after it depends on the pieces, in aiosmtpd as well.
words = st.lists(
    st.sampled_from([b"\r\n", b"\n", b"\r", b".", b"..", b"a", b"b" * 9, b"\r\n.\r\n", b"\xff", b"NOOP\r\n"]),
    max_size=24,
)


@given(sent=words, places=st.lists(st.integers(0, 400), max_size=6))
@example(sent=[b"a\n.\r\nMAIL FROM:<x@y>\r\n", b"\r\n.\r\n", b"NOOP\r\n"], places=[])
@example(sent=[b"a\r\n.\n", b"NOOP\r\n.\r\n"], places=[55])
@example(sent=[b"b" * 18, b"\r\n.\r\n"], places=[])
@example(sent=[b"b" * 19, b"\r\n.\r\n"], places=[])
@example(sent=[b"b" * 20, b"\r\n.\r\n"], places=[60])
@example(sent=[b"b" * 21, b"\r\n.\r\n"], places=[65])
@example(sent=[b"..", b"b" * 16, b"\r\n.\r\n"], places=[])
@example(sent=[b"b" * 18 + b"\r\n"] * 3 + [b".\r\nNOOP\r\n"], places=[])
@example(sent=[b"b" * 18 + b"\r\n"] * 4 + [b".\r\nNOOP\r\n"], places=[])
@settings(max_examples=300, deadline=None)
def test_any_octets_in_any_pieces_get_the_replies_of_aiosmtpd(sent: list[bytes], places: list[int]) -> None:
    """Replies and contents are equal, octet for octet."""
    stream = ENVELOPE + b"".join(sent)
    ours = asyncio.run(run_session(Small, cut(stream, places)))
    assert ours == asyncio.run(run_session(SmallStock, [stream]))
    assert ours[0].startswith(b"220 mx t\r\n250 mx\r\n250 OK\r\n250 OK\r\n354 ")


addresses = st.lists(
    st.sampled_from(
        [
            "<",
            ">",
            "@",
            ".",
            " ",
            "a",
            "b.c",
            "@d.e>",
            "é",
            "(c)",
            '"',
            "\\",
            "=?utf-8?q?a?=",
            "=",
            "?",
            "\t",
            "[",
            "1",
            "SIZE=1",
            "\xa0",
        ]
    ),
    max_size=12,
).map("".join)


@given(text=addresses)
@example(text="<a.b+c@d.e>")
@example(text="<a@d> SIZE=1 BODY=7BIT")
@example(text="<a@d>SIZE=1")
@example(text="<a@d> (note) SIZE=1")
@example(text="<a@d> \tSIZE=1")
@example(text="<a@d> SIZE=1 ")
@example(text="<a@d> ")
@example(text="<=?utf-8?q?a?=@d.e>")
@example(text="<a@[127.0.0.1]>")
@example(text="<>")
@example(text="<a@d.e>\n")
@example(text="<12345@d.e>")
@example(text="<123456@d.e>")
@settings(max_examples=1000, deadline=None)
def test_addresses_parse_as_in_aiosmtpd(text: str) -> None:
    """We parse plain addresses ourselves, and use aiosmtpd's parser for the rest. The results are equal."""
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        parsers = (Limited(Mailbox(), hostname="mx", loop=loop), LimitedStock(Mailbox(), hostname="mx", loop=loop))
        ours, stock = (parse_result(parser, text) for parser in parsers)
    assert ours == stock


class LimitedStock(aiosmtpd.smtp.SMTP):
    local_part_limit = 5


class Limited(SMTP):
    local_part_limit = 5


def parse_result(parser: aiosmtpd.smtp.SMTP, text: str) -> object:
    """Return the parsed address, or the type of the exception."""
    try:
        return parser._getaddr(text)
    except Exception as error:
        return type(error)


async def test_constructor_finds_same_verbs_and_mechanisms_as_aiosmtpd() -> None:
    """It finds verbs and mechanisms of the class, of its parents and of the object, and sets every attribute."""

    class More:
        async def auth_XMORE(self, server: object, args: list[str]) -> AuthResult:
            return AuthResult(success=True)

        async def smtp_XMORE(self, arg: str) -> None: ...

    def make(base: type[aiosmtpd.smtp.SMTP]) -> aiosmtpd.smtp.SMTP:
        class Made(More, base):  # type: ignore[misc, valid-type]
            def __init__(self, *arguments: Any, **keywords: Any) -> None:
                self.smtp_XOWN = self.smtp_XMORE
                super().__init__(*arguments, **keywords)

        return Made(Mailbox(), hostname="mx", loop=asyncio.get_running_loop())

    ours, stock = make(SMTP), make(aiosmtpd.smtp.SMTP)
    assert ours._smtp_methods.keys() == stock._smtp_methods.keys() >= {"XMORE", "XOWN", "DATA"}
    assert ours._auth_methods.keys() == stock._auth_methods.keys() >= {"XMORE", "PLAIN"}
    assert {name: mech.is_builtin for name, mech in ours._auth_methods.items()} == {
        name: mech.is_builtin for name, mech in stock._auth_methods.items()
    }
    assert ours._handle_hooks.keys() == stock._handle_hooks.keys()
    assert set(dir(stock)) <= set(dir(ours))
    # smtpd's own connections never run the constructor.
    assert "push" in dir(SMTP.__new__(SMTP))


@given(pieces=st.lists(st.binary(max_size=12), max_size=12), counts=st.lists(st.integers(0, 9), max_size=12))
def test_reader_returns_every_octet_once_in_order(pieces: list[bytes], counts: list[int]) -> None:
    """Reads by count and by line return every octet once, in order."""

    async def read() -> bytes:
        reader = Reader(1000, asyncio.get_running_loop())
        for piece in pieces:
            reader.feed_data(piece)
        reader.feed_eof()
        got = [await reader.read(count) for count in counts]
        return b"".join(got) + b"".join([line async for line in reader])

    assert asyncio.run(read()) == b"".join(pieces)


async def test_reader_behaves_like_asyncio_stream_reader() -> None:
    loop = asyncio.get_running_loop()
    for data, method, arguments, expected in [
        (b"ab\ncd", "readuntil", (), b"ab\n"),
        (b"ab\r\ncd", "readuntil", (b"\r\n",), b"ab\r\n"),
        (b"ab", "readuntil", (), asyncio.IncompleteReadError(b"ab", None)),
        (b"123456789", "readuntil", (), asyncio.LimitOverrunError("", 9)),
        (b"ab", "readline", (), b"ab"),
        (b"", "readline", (), b""),
        (b"123456789\nNOOP\n", "readline", (), ValueError()),
        (b"abc", "readexactly", (2,), b"ab"),
        (b"abc", "readexactly", (0,), b""),
        (b"abc", "readexactly", (4,), asyncio.IncompleteReadError(b"abc", 4)),
        (b"abc", "readexactly", (-1,), ValueError()),
        (b"abc", "read", (), b"abc"),
        (b"abc", "read", (2,), b"ab"),
        (b"", "read", (2,), b""),
        (b"abc", "read", (0,), b""),
    ]:
        for kind in (Reader, asyncio.StreamReader):
            reader = kind(8, loop)
            reader.feed_data(data)
            reader.feed_eof()
            assert facts(await outcome(getattr(reader, method)(*arguments))) == facts(expected), (kind, data, method)


async def outcome(reading: Awaitable[bytes]) -> object:
    """Return the data read, or the exception."""
    try:
        return await reading
    except (ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        return error


def facts(got: object) -> object:
    """Return the type and fields of an exception; any other value unchanged."""
    if not isinstance(got, Exception):
        return got
    return type(got), [getattr(got, name, None) for name in ("partial", "expected", "consumed")]


async def test_overlong_line_is_read_to_its_end() -> None:
    reader = Reader(8, asyncio.get_running_loop())
    reader.feed_data(bytearray(b"x" * 30))
    line = asyncio.ensure_future(reader.readline())
    await asyncio.sleep(0)
    reader.feed_data(b"x" * 30 + b"\r\nNOOP\r\n")
    with pytest.raises(ValueError):
        await line
    assert await reader.readline() == b"NOOP\r\n"


async def test_one_coroutine_may_wait_and_lost_connection_wakes_it() -> None:
    reader = Reader(8, asyncio.get_running_loop())
    first = asyncio.ensure_future(reader.readline())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError):
        await reader.readline()
    reader.set_exception(ConnectionResetError())
    with pytest.raises(ConnectionResetError):
        await first
    with pytest.raises(ConnectionResetError):
        await reader.readline()


async def test_reader_pauses_for_unread_commands_but_not_for_message() -> None:
    transport = MemoryTransport()
    reader = Reader(8, asyncio.get_running_loop())
    reader.set_transport(transport)
    reader.feed_data(b"NOOP\r\n" * 3)
    assert not transport.reading
    lines = [await reader.readline() for _ in range(2)]
    assert (lines, transport.reading) == ([b"NOOP\r\n"] * 2, True)
    message = asyncio.ensure_future(reader.message(line_octets=100, message_octets=10_000))
    await asyncio.sleep(0)
    for _ in range(50):
        reader.feed_data(b"text of a message\r\n")
        assert transport.reading
        assert not message.done()
    reader.feed_data(b".\r\n" + b"NOOP\r\n" * 3)
    assert not transport.reading
    assert await message == b"NOOP\r\n" + b"text of a message\r\n" * 50
    assert not transport.reading
    octets = asyncio.ensure_future(reader.readexactly(30))
    await asyncio.sleep(0)
    # A read that needs more than the limit resumes reading.
    assert transport.reading
    reader.feed_data(b"x" * 12)
    assert await octets == b"NOOP\r\n" * 3 + b"x" * 12


def test_intake_refuses_empty_separator() -> None:
    intake = SmtpIntake(8)
    with pytest.raises(ValueError):
        intake.take_line(b"")
    assert (intake.take_message(), intake.reads_message, len(intake)) == (None, False, 0)


@contextlib.contextmanager
def controlled(handler: object, kind: Callable[..., SMTP] = SMTP, **arguments: Any) -> Iterator[tuple[str, int]]:
    """Run a Controller with our class; yield its address."""

    class Ours(Controller):
        def factory(self) -> SMTP:
            return kind(self.handler, **self.SMTP_kwargs)

    port = free_port()
    controller = Ours(handler, hostname="127.0.0.1", port=port, **arguments)
    controller.start()
    try:
        yield "127.0.0.1", port
    finally:
        controller.stop()


def test_large_message_arrives_as_sent() -> None:
    mailbox = Mailbox()
    text = b"".join(b"%07d .\r\n.%s\r\n" % (at, b"x" * (at % 900)) for at in range(5000))
    with controlled(mailbox) as address, smtplib.SMTP(*address, timeout=PATIENCE_S) as client:
        for _ in range(2):
            client.sendmail("a@example.com", ["b@example.org"], text)
        assert client.noop()[0] == 250
    assert mailbox.contents == [text, text]


def test_subclass_verbs_work() -> None:
    class WithClock(SMTP):
        async def smtp_XCLOCK(self, arg: str | None) -> None:
            await self.push("334 which?")
            reply = await self._reader.readline()
            await self.push(b"250 " + reply.strip())

        async def smtp_DATA(self, arg: str | None) -> None:
            seen.append(arg)
            await super().smtp_DATA(arg)

    seen: list[str | None] = []
    mailbox = Mailbox()
    with controlled(mailbox, WithClock) as address, smtplib.SMTP(*address, timeout=PATIENCE_S) as client:
        assert client.docmd("XCLOCK") == (334, b"which?")
        assert client.docmd("that one") == (250, b"that one")
        client.sendmail("a@example.com", ["b@example.org"], b"text\r\n")
    assert (seen, mailbox.contents) == ([None], [b"text\r\n"])


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_auth_works_as_in_aiosmtpd(mechanism: str) -> None:
    def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: LoginPassword) -> AuthResult:
        return AuthResult(success=data == LoginPassword(b"user", b"secret"), handled=False)

    with controlled(Mailbox(), authenticator=authenticate, auth_require_tls=False) as address:
        for password, code in (("wrong", 535), ("secret", 235)):
            with smtplib.SMTP(*address, timeout=PATIENCE_S) as client:
                client.ehlo()
                client.user, client.password = "user", password
                method = getattr(client, f"auth_{mechanism.lower()}")
                if code == 235:
                    assert client.auth(mechanism, method)[0] == code
                else:
                    with pytest.raises(smtplib.SMTPAuthenticationError, match=str(code)):
                        client.auth(mechanism, method)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a key and a certificate for localhost."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*words, "-keyout", path, "-out", f"{path}.cert"], check=True, capture_output=True, timeout=60)
    with path.open("a") as file:
        file.write(Path(f"{path}.cert").read_text())
    return path


@pytest.mark.parametrize("pipelined", [b"NOOP\r\n", b"VRFY x\r\n" * 600], ids=["a command", "more than the limit"])
def test_commands_pipelined_after_starttls_are_discarded(certificate: Path, pipelined: bytes) -> None:
    """Commands before the handshake get no replies under TLS (CVE-2011-0411)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=f"{certificate}.cert")
    mailbox = Mailbox()
    with controlled(mailbox, tls_context=context) as address:
        plain = socket.create_connection(address, PATIENCE_S)
        greeting = plain.recv(1000)
        assert greeting.startswith(b"220 ")
        plain.sendall(b"STARTTLS\r\n" + pipelined)
        assert re.fullmatch(rb"220 Ready to start TLS\r\n", plain.recv(1000))
        with trusting.wrap_socket(plain, server_hostname="localhost") as client:
            client.sendall(ENVELOPE + b"text\r\n.\r\nQUIT\r\n")
            output = b""
            while piece := client.recv(1000):
                output += piece
    assert [line[:3] for line in output.splitlines()] == [b"250", b"250", b"250", b"354", b"250", b"221"]
    assert mailbox.contents == [b"text\r\n"]
