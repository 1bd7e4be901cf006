"""Content and counts beyond every limit, and slow clients.

As in test_hostile_clients.py, all tests share one running site, and each test ends with a health check.
"""

import contextlib
import re
from collections.abc import Iterator

import pytest

from support.hostile import LARGE_OCTETS, RawClient, Reply, Watch, watched
from support.mta import Site, wait_for

HEADER_SIZE_LIMIT = 102_400
HOPCOUNT_LIMIT = 50
CONNECTION_COUNT_LIMIT = 50
MESSAGE_SIZE_LIMIT = 10_240_000
SLOW_TIMEOUT_S = 2
SLOW_BYTES_MAX = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    """Run the site; yield its `Watch`."""
    settings = {
        "smtpd_client_port_logging": "yes",
        # 127.0.0.1 is in mynetworks, 127.0.0.2 is not.
        "mynetworks": "127.0.0.1",
        "smtpd_timeout": f"{SLOW_TIMEOUT_S}s",
        "smtpd_per_request_deadline": "yes",
    }
    with watched(Site(tmp_path_factory.mktemp("hostile"), main_cf=settings)) as watch:
        yield watch


@pytest.fixture(autouse=True)
def unharmed(server: Watch) -> Iterator[None]:
    """Check after each test that the server is healthy."""
    yield
    server.check()


def deliver(server: Watch, content: bytes) -> Reply:
    """Send a message with a marker before `content`; return the reply to its end."""
    marker = server.marker()
    with RawClient(server.site.port) as client:
        client.transaction(server.recipient)
        client.send(f"X-Marker: {marker}\r\n".encode() + content)
        reply = client.ask(b"\r\n.\r\n")
        if reply.code == 250:
            server.acknowledged.append(marker)
        assert client.ask(b"NOOP\r\n").code == 250
        assert client.ask(b"QUIT\r\n").code == 221
    return reply


def delivered(server: Watch) -> bytes:
    """Return the last acknowledged message, as delivered."""
    return server.message(server.acknowledged[-1])


def test_content_line_of_ten_megabytes_arrives_whole(server: Watch) -> None:
    assert deliver(server, b"\r\n" + b"x" * LARGE_OCTETS).code == 250
    assert delivered(server).partition(b"\n\n")[2] == b"x" * LARGE_OCTETS + b"\n"


def test_message_above_size_limit_is_read_and_refused(server: Watch) -> None:
    reply = deliver(server, b"\r\n" + b"y" * (2 * MESSAGE_SIZE_LIMIT))
    assert (reply.code, reply.text) == (552, "5.3.4 Error: message file too big")


def test_eighty_thousand_header_lines_arrive(server: Watch) -> None:
    header = b"".join(b"X-Header-%d: %d\r\n" % (n, n) for n in range(80_000))
    assert deliver(server, header + b"\r\nbody").code == 250
    message = delivered(server)
    assert header.replace(b"\r\n", b"\n") in message
    assert message.endswith(b"\n\nbody\n")


def test_head_of_more_than_two_mebibytes_is_refused(server: Watch) -> None:
    header = b"".join(b"X-Header-%d: %d\r\n" % (n, n) for n in range(100_000))
    reply = deliver(server, header + b"\r\nbody")
    assert (reply.code, reply.text) == (552, "5.3.4 Error: message header too big")


def test_folded_header_is_truncated_at_header_size_limit(server: Watch) -> None:
    assert deliver(server, b"X-Long: start\r\n" + b" continued\r\n" * 100_000 + b"\r\nbody").code == 250
    header, _, body = delivered(server).partition(b"\n\n")
    assert body == b"body\n"
    # The limit counts octets on the client.
    assert HEADER_SIZE_LIMIT - 20 <= len(b" continued\r\n") * header.count(b" continued\n") <= HEADER_SIZE_LIMIT


def test_long_header_line_is_truncated_at_header_size_limit(server: Watch) -> None:
    assert deliver(server, b"X-Long: " + b"z" * 1_000_000 + b"\r\nX-Next: here\r\n\r\nbody").code == 250
    header, _, body = delivered(server).partition(b"\n\n")
    assert body == b"body\n"
    assert b"\nX-Next: here" in header
    assert HEADER_SIZE_LIMIT - 20 <= header.count(b"z") <= HEADER_SIZE_LIMIT


@pytest.mark.parametrize(("hops", "code"), [(HOPCOUNT_LIMIT - 2, 250), (HOPCOUNT_LIMIT, 554)])
def test_message_with_too_many_hops_is_refused(server: Watch, hops: int, code: int) -> None:
    reply = deliver(server, b"Received: from a by b; date\r\n" * hops + b"\r\nbody")
    assert reply.code == code
    if code == 554:
        assert reply.text == "5.4.0 Error: too many hops"


@pytest.mark.parametrize(
    "content",
    [
        b"\0" * 10_000,
        bytes(range(256)) * 100,
        b"\r" * 10_000,
        b"no header here\r\n" * 1000,
        b": no name\r\n :\r\n\t\r\n" * 1000,
        b"From: " + b"(" * 50_000 + b"\r\n\r\n",
        b"To: " + b'"' * 50_001 + b"<" * 1000 + b"\r\n\r\n",
        b"From: " + b"a@b," * 20_000 + b"\r\n\r\n",
        b"Message-Id: <" + b"m" * 50_000 + b">\r\n\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\nContent-Type: multipart/mixed\r\n\r\n" * 5000,
    ],
    ids=["NUL", "octets", "CR", "no header", "no names", "comments", "quotes", "addresses", "Message-Id", "nested"],
)
def test_malformed_content_is_accepted_and_delivered(server: Watch, content: bytes) -> None:
    assert deliver(server, content).code == 250
    delivered(server)


def test_only_recipients_above_the_limit_are_refused(server: Watch) -> None:
    with RawClient(server.site.port) as client:
        assert client.ask(b"EHLO client.example\r\n").code == 250
        assert client.ask(b"MAIL FROM:<>\r\n").code == 250
        codes = []
        for _ in range(20):
            client.send(b"RCPT TO:<%s>\r\n" % server.recipient.encode() * 100)
            codes += [client.reply().code for _ in range(100)]
        marker = server.marker()
        assert codes == [250] * 1000 + [452] * 1000
        assert client.ask(b"DATA\r\n").code == 354
        assert client.ask(f"X-Marker: {marker}\r\n\r\n.\r\n".encode()).code == 250
        server.acknowledged.append(marker)


@pytest.mark.parametrize("stage", ["CONNECT", "DATA"])
def test_client_of_one_byte_per_second_times_out(server: Watch, stage: str) -> None:
    with RawClient(server.site.port) as client:
        if stage == "DATA":
            client.transaction(server.recipient)
        client.socket.settimeout(1.0)
        octets, sent = b"", 0
        while not octets and sent < SLOW_BYTES_MAX:
            client.send(b"x")
            sent += 1
            with contextlib.suppress(TimeoutError):
                octets = client.socket.recv(1000)
            server.serve()
    assert octets == b"421 4.4.2 mx.example.org Error: timeout exceeded\r\n"
    assert sent >= SLOW_TIMEOUT_S
    server.logged_like(rf"timeout after {stage}.* from unknown{re.escape(client.name)}")


def test_server_stops_reading_when_replies_are_not_read(server: Watch) -> None:
    sent = 0
    with RawClient(server.site.port) as client:
        client.socket.settimeout(0.2)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while sent < 50_000_000:
                sent += client.socket.send(b"MAIL\r\nRSET\r\n" * 5000)
    assert sent < 50_000_000


def test_connection_limit_does_not_apply_to_mynetworks(server: Watch) -> None:
    with contextlib.ExitStack() as clients:

        def connect(source: str) -> Reply:
            client = clients.enter_context(RawClient(server.site.port, source=source, greeting=False))
            reply = client.reply()
            if reply.code == 421:
                assert client.replies() == []
            return reply

        replies = [connect("127.0.0.2") for _ in range(CONNECTION_COUNT_LIMIT + 10)]
        assert [reply.code for reply in replies] == [220] * CONNECTION_COUNT_LIMIT + [421] * 10
        assert replies[-1].text == "4.7.0 mx.example.org Error: too many connections from 127.0.0.2"
        server.logged("Connection concurrency limit exceeded: 51 from unknown[127.0.0.2] for service ")
        assert connect("127.0.0.3").code == 220
        assert [connect("127.0.0.1").code for _ in range(20)] == [220] * 20
        server.serve()

    def is_served() -> bool:
        with RawClient(server.site.port, source="127.0.0.2", greeting=False) as client:
            return client.reply().code == 220

    wait_for("the closed connections to be counted", is_served)


def test_hundred_idle_clients_time_out_and_free_their_slots(server: Watch) -> None:
    with contextlib.ExitStack() as clients:
        idle = [clients.enter_context(RawClient(server.site.port)) for _ in range(100)]
        # All slots are taken: the next client is served when the first idle one times out.
        with RawClient(server.site.port) as waiting:
            assert waiting.ask(b"NOOP\r\n").code == 250
        assert idle[0].reply().code == 421
