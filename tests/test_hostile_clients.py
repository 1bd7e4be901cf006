"""Clients that break the protocol get a correct reply or a clean close, and the next client is served.

All tests share one running site. After each test its smtpd processes are the same, have hardly grown, and accept an
honest client's message. At the end every acknowledged message has arrived.
"""

import contextlib
import random
import re
from collections.abc import Iterator

import pytest

from support.hostile import LARGE_OCTETS, RawClient, Watch, watched
from support.mta import Site

DEFAULT_LIMITS = {"line": 2048, "junk": 100, "errors": 20}
SETTINGS = {
    "smtpd_client_port_logging": "yes",
    "smtpd_forbid_unauth_pipelining": "yes",
    # No delay after errors: it would slow the tests down.
    "smtpd_error_sleep_time": "0",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    """Run the site; yield its `Watch`."""
    with watched(Site(tmp_path_factory.mktemp("hostile"), main_cf=SETTINGS)) as watch:
        yield watch


@pytest.fixture(autouse=True)
def unharmed(server: Watch) -> Iterator[None]:
    """Check after each test that the server is healthy."""
    yield
    server.check()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"\r\n", "500 5.5.2 Error: bad syntax"),
        (b" \t \r\n", "500 5.5.2 Error: bad syntax"),
        (b"\n", "500 5.5.2 Error: bad syntax"),
        (b"NO\0OP\r\n", "500 5.5.2 Error: bad syntax"),
        (b"\0" * 1000 + b"\r\n", "500 5.5.2 Error: bad syntax"),
        (b"\x80\xff\xfe\r\n", "500 5.5.2 Error: bad UTF-8 syntax"),
        (b"MAIL FROM:<\xc3\x28@example.net>\r\n", "500 5.5.2 Error: bad UTF-8 syntax"),
        (b"FOO\r\n", "500 5.5.2 Error: command not recognized"),
        (b"EHLO\r\n", "501 Syntax: EHLO hostname"),
        (b"EHLO \x01\x02\x1b[2J\r\n", "250"),
        (b"RCPT TO:<x@example.org>\r\n", "503 5.5.1 Error: need MAIL command"),
        (b"DATA\r\n", "503 5.5.1 Error: need RCPT command"),
        (b"MAIL\r\n", "501 5.5.4 Syntax: MAIL FROM:<address>"),
        (b"MAIL FROM:<" + b"<" * 1000 + b">\r\n", "501 5.1.7 Bad sender address syntax"),
        (
            b"MAIL FROM:<a@example.net> SIZE=99999999999999999999\r\n",
            "552 5.3.4 Message size exceeds file system imposed limit",
        ),
        (b"NOOP " + b"x" * DEFAULT_LIMITS["line"] + b"\r\n", "500 5.5.2 Error: line too long"),
        (b"x" * 100_000 + b"\r\n", "500 5.5.2 Error: line too long"),
    ],
)
def test_invalid_command_is_refused_and_session_continues(server: Watch, line: bytes, expected: str) -> None:
    with RawClient(server.site.port) as client:
        reply = client.ask(line)
        assert f"{reply.code} {reply.text}".startswith(expected)
        assert client.ask(b"NOOP\r\n").code == 250
        assert client.ask(b"QUIT\r\n").code == 221
        assert client.replies() == []


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\nHost: mx.example.org\r\nUser-Agent: curl\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\nEHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<x@example.org>\r\n",
        b"CONNECT mx.example.org:25 HTTP/1.1\r\n\r\n",
        b"Host: mx.example.org\r\n",
        b"{}\r\n",
        b"\x03\x01\r\n",
    ],
)
def test_client_of_another_protocol_is_disconnected_at_first_line(server: Watch, octets: bytes) -> None:
    with RawClient(server.site.port) as client:
        client.send(octets)
        (reply,) = client.replies()
    assert (reply.code, reply.text) == (221, "2.7.0 Error: I can break rules, too. Goodbye.")
    server.logged(f"non-SMTP command from unknown{client.name}: ")


@pytest.mark.parametrize("octets", [b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"])
def test_unknown_protocol_gets_500_and_clean_close(server: Watch, octets: bytes) -> None:
    with RawClient(server.site.port) as client:
        assert client.ask(octets).code == 500
        assert client.end() == []


@pytest.mark.parametrize("seed", range(10))
def test_garbage_ends_the_session_at_the_error_limit(server: Watch, seed: int) -> None:
    rng = random.Random(seed)
    alphabet = bytes(range(256)) if seed % 2 else b"\r\n\0 abcEHLOMAILRCPTDATA<>:@."
    with RawClient(server.site.port) as client:
        client.send(bytes(rng.choices(alphabet, k=50_000)))
        replies = client.end()
    assert len(replies) <= DEFAULT_LIMITS["errors"] + 1
    assert {reply.code for reply in replies} <= {214, 221, 250, 421, 500, 501, 502, 503}
    assert replies[-1].code in (221, 421)


def test_unknown_commands_end_the_session_at_the_error_limit(server: Watch) -> None:
    with RawClient(server.site.port) as client:
        client.send(b"XYZZY\r\n" * 1000)
        replies = client.replies()
    assert [reply.code for reply in replies] == [500] * DEFAULT_LIMITS["errors"] + [421]
    assert replies[-1].text == "4.7.0 mx.example.org Error: too many errors"
    server.logged(f"too many errors after UNKNOWN from unknown{client.name}")


def test_pipelined_resets_end_the_session_at_the_junk_limit(server: Watch) -> None:
    with RawClient(server.site.port) as client:
        # EHLO counts as the first junk command, and permits pipelining.
        codes = [client.ask(b"EHLO x\r\n").code]
        client.send(b"RSET\r\n" * 1000)
        codes += [reply.code for reply in client.replies()]
    assert codes == [250] * (DEFAULT_LIMITS["junk"] + DEFAULT_LIMITS["errors"] + 1) + [421]


@pytest.mark.parametrize("command", [b"RSET", b"NOOP", b"VRFY <postmaster@example.org>", b"HELP"])
def test_junk_commands_end_the_session_at_the_junk_limit(server: Watch, command: bytes) -> None:
    with RawClient(server.site.port) as client:
        codes: list[int] = []
        while not codes or codes[-1] != 421:
            codes.append(client.ask(command + b"\r\n").code)
        assert client.replies() == []
    assert codes == [codes[0]] * (DEFAULT_LIMITS["junk"] + DEFAULT_LIMITS["errors"] + 1) + [421]


def test_resets_between_messages_are_not_junk(server: Watch) -> None:
    with RawClient(server.site.port) as client:
        for _ in range(DEFAULT_LIMITS["junk"] + DEFAULT_LIMITS["errors"] + 5):
            client.send(b"RSET\r\n")
            assert client.reply().code == 250
            marker = server.marker()
            client.transaction(server.recipient)
            assert client.ask(f"X-Marker: {marker}\r\n\r\n.\r\n".encode()).code == 250
            server.acknowledged.append(marker)


def test_input_before_the_banner_gets_replies_in_order_or_554(server: Watch) -> None:
    for early in (b"E", b"EHLO x\r\n", b"EHLO x\r\nMAIL FROM:<>\r\n", b"NOOP\r\n" * 5, b"\r\n", b"x" * 100_000):
        with RawClient(server.site.port, greeting=False) as client:
            client.send(early)
            first, *others = client.end()
        if first.code == 554:
            assert (first.text, others) == ("5.5.0 Error: SMTP protocol synchronization", [])
        else:
            assert first.code == 220
            assert {reply.code for reply in others} <= {250, 500, 554}


@pytest.mark.parametrize("early", [b"MAIL FROM:<>\r\n", b"MAIL FROM:<>\r\nRCPT TO:<x@example.org>\r\nDATA\r\n"])
def test_command_before_the_reply_to_ehlo_ends_the_session(server: Watch, early: bytes) -> None:
    with RawClient(server.site.port) as client:
        client.send(b"EHLO x\r\n" + early)
        (reply,) = client.replies()
    assert (reply.code, reply.text) == (554, "5.5.0 Error: SMTP protocol synchronization")
    server.logged(f"improper command pipelining after EHLO from unknown{client.name}: ")


@pytest.mark.parametrize("content", [b"Subject: early\r\n\r\nbody\r\n.\r\n", b"x", b"\0" * 100_000])
def test_content_before_the_reply_to_data_ends_the_session(server: Watch, content: bytes) -> None:
    with RawClient(server.site.port) as client:
        assert client.ask(b"EHLO x\r\n").code == 250
        client.send(b"MAIL FROM:<>\r\nRCPT TO:<%s>\r\nDATA\r\n" % server.recipient.encode() + content)
        replies = client.replies()
    assert [reply.code for reply in replies] == [250, 250, 554]
    server.logged(f"improper command pipelining after DATA from unknown{client.name}: ")


def test_commands_after_the_final_dot_start_a_new_transaction(server: Watch) -> None:
    marker = server.marker()
    with RawClient(server.site.port) as client:
        client.transaction(server.recipient)
        client.send(f"X-Marker: {marker}\r\n\r\n.\r\nRCPT TO:<x@example.org>\r\n".encode())
        client.send(b"MAIL FROM:<>\r\nRSET\r\nQUIT\r\n")
        replies = client.replies()
    assert [reply.code for reply in replies] == [250, 503, 250, 250, 221]
    server.acknowledged.append(marker)


def test_command_line_of_ten_megabytes_costs_no_memory(server: Watch) -> None:
    with RawClient(server.site.port) as client:
        for _ in range(LARGE_OCTETS // 100_000):
            client.send(b"x" * 100_000)
        reply = client.ask(b"\r\n")
        assert (reply.code, reply.text) == (500, "5.5.2 Error: line too long")
        assert client.ask(b"NOOP\r\n").code == 250
        client.send(b"y" * LARGE_OCTETS)
        assert client.end() == []
    server.logged(f"lost connection after NOOP from unknown{client.name}")


def test_slow_clients_do_not_delay_others(server: Watch) -> None:
    dialogue = b"EHLO x\r\nMAIL FROM:<>\r\nRSET\r\n"
    with contextlib.ExitStack() as clients:
        slow = [clients.enter_context(RawClient(server.site.port)) for _ in range(20)]
        for at in range(len(dialogue)):
            for client in slow:
                client.send(dialogue[at : at + 1])
            server.serve()
        for client in slow:
            assert [client.reply().code for _ in range(3)] == [250, 250, 250]


CONTENT = r"DATA \(\d+ bytes\)"
DIALOGUE = (
    ("CONNECT", b"EHLO client.example\r\n"),
    ("EHLO", b"MAIL FROM:<>\r\n"),
    ("MAIL", b"RCPT TO:<postmaster@example.org>\r\n"),
    ("RCPT", b"DATA\r\n"),
    (CONTENT, b"Subject: never whole\r\n"),
    (CONTENT, b"\r\n"),
    (CONTENT, b"body\r\n"),
    (CONTENT, b"."),
    (CONTENT, b"\r"),
)
"""(stage in the log line about a lost client, the client's next line)."""


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("half", [False, True], ids=["whole", "half a line"])
@pytest.mark.parametrize("steps", range(len(DIALOGUE)))
def test_lost_client_is_logged_at_every_stage(server: Watch, steps: int, half: bool, reset: bool) -> None:
    client = RawClient(server.site.port)
    for _, line in DIALOGUE[:steps]:
        client.send(line)
        if line.startswith((b"EHLO", b"MAIL", b"RCPT", b"DATA")):
            assert client.reply().code in (250, 354)
    if half:
        client.send(DIALOGUE[steps][1][: len(DIALOGUE[steps][1]) // 2])
    if reset:
        client.reset()
    else:
        client.close()
    server.logged_like(f"lost connection after {DIALOGUE[steps][0]} from unknown{re.escape(client.name)}")


def test_client_lost_after_final_dot_does_not_disturb_the_server(server: Watch) -> None:
    for reset in (False, True):
        marker = server.marker()
        client = RawClient(server.site.port)
        client.transaction(server.recipient)
        client.send(f"X-Marker: {marker}\r\n\r\nbody\r\n.\r\n".encode())
        if reset:
            client.reset()
        else:
            # The client only shuts down its sending side: it still gets the reply.
            (reply,) = client.end()
            assert reply.code == 250
            server.acknowledged.append(marker)
            client.close()
        server.logged(f"disconnect from unknown{client.name}")
