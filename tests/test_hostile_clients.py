"""Clients that break the protocol: each gets a correct reply or a clean close, and the next one is served.

The server is the real one, started once. After every test its smtpd processes are still the same, have hardly grown,
and take an honest client's message; in the end every acknowledged message has arrived.
"""

import contextlib
import random
import re
from collections.abc import Iterator

import pytest

from support.hostile import LARGE_OCTETS, Watch, Wire, watched
from support.mta import Site

DEFAULT_LIMITS = {"line": 2048, "junk": 100, "errors": 20}
SETTINGS = {
    "smtpd_client_port_logging": "yes",
    "smtpd_forbid_unauth_pipelining": "yes",
    # Errors are not slept for here: the file would last as long as they do.
    "smtpd_error_sleep_time": "0",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    """The server, and what it must still be like."""
    with watched(Site(tmp_path_factory.mktemp("hostile"), main_cf=SETTINGS)) as watch:
        yield watch


@pytest.fixture(autouse=True)
def unharmed(server: Watch) -> Iterator[None]:
    """After each test the server is as it was."""
    yield
    server.check()


@pytest.mark.parametrize(
    ("line", "said"),
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
def test_a_line_that_is_no_command_is_refused_and_the_session_goes_on(server: Watch, line: bytes, said: str) -> None:
    with Wire(server.site.port) as wire:
        reply = wire.ask(line)
        assert f"{reply.code} {reply.text}".startswith(said)
        assert wire.ask(b"NOOP\r\n").code == 250
        assert wire.ask(b"QUIT\r\n").code == 221
        assert wire.replies() == []


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
def test_another_protocol_is_turned_away_at_its_first_line(server: Watch, octets: bytes) -> None:
    with Wire(server.site.port) as wire:
        wire.send(octets)
        (reply,) = wire.replies()
    assert (reply.code, reply.text) == (221, "2.7.0 Error: I can break rules, too. Goodbye.")
    server.logged(f"non-SMTP command from unknown{wire.name}: ")


@pytest.mark.parametrize("octets", [b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"])
def test_a_client_of_another_protocol_that_waits_is_told_and_may_go(server: Watch, octets: bytes) -> None:
    with Wire(server.site.port) as wire:
        assert wire.ask(octets).code == 500
        assert wire.end() == []


@pytest.mark.parametrize("seed", range(10))
def test_garbage_ends_the_session_after_so_many_errors(server: Watch, seed: int) -> None:
    dice = random.Random(seed)
    alphabet = bytes(range(256)) if seed % 2 else b"\r\n\0 abcEHLOMAILRCPTDATA<>:@."
    with Wire(server.site.port) as wire:
        wire.send(bytes(dice.choices(alphabet, k=50_000)))
        replies = wire.end()
    assert len(replies) <= DEFAULT_LIMITS["errors"] + 1
    assert {reply.code for reply in replies} <= {214, 221, 250, 421, 500, 501, 502, 503}
    assert replies[-1].code in (221, 421)


def test_unknown_commands_are_errors_and_too_many_of_them_end_the_session(server: Watch) -> None:
    with Wire(server.site.port) as wire:
        wire.send(b"XYZZY\r\n" * 1000)
        replies = wire.replies()
    assert [reply.code for reply in replies] == [500] * DEFAULT_LIMITS["errors"] + [421]
    assert replies[-1].text == "4.7.0 mx.example.org Error: too many errors"
    server.logged(f"too many errors after UNKNOWN from unknown{wire.name}")


def test_a_thousand_resets_at_once_are_answered_up_to_the_same_limit(server: Watch) -> None:
    with Wire(server.site.port) as wire:
        # EHLO is the first command that brings no mail, and allows to send the others at once.
        codes = [wire.ask(b"EHLO x\r\n").code]
        wire.send(b"RSET\r\n" * 1000)
        codes += [reply.code for reply in wire.replies()]
    assert codes == [250] * (DEFAULT_LIMITS["junk"] + DEFAULT_LIMITS["errors"]) + [421]


@pytest.mark.parametrize("command", [b"RSET", b"NOOP", b"VRFY <postmaster@example.org>", b"HELP"])
def test_a_thousand_commands_that_lead_nowhere_end_the_session(server: Watch, command: bytes) -> None:
    with Wire(server.site.port) as wire:
        codes: list[int] = []
        while not codes or codes[-1] != 421:
            codes.append(wire.ask(command + b"\r\n").code)
        assert wire.replies() == []
    assert codes == [codes[0]] * (DEFAULT_LIMITS["junk"] + DEFAULT_LIMITS["errors"]) + [421]


def test_resets_between_messages_are_no_junk(server: Watch) -> None:
    with Wire(server.site.port) as wire:
        for _ in range(DEFAULT_LIMITS["junk"] + DEFAULT_LIMITS["errors"] + 5):
            wire.send(b"RSET\r\n")
            assert wire.reply().code == 250
            marker = server.marker()
            wire.transaction(server.recipient)
            assert wire.ask(f"X-Marker: {marker}\r\n\r\n.\r\n".encode()).code == 250
            server.acknowledged.append(marker)


def test_bytes_before_the_banner_are_answered_in_order_or_refused(server: Watch) -> None:
    for early in (b"E", b"EHLO x\r\n", b"EHLO x\r\nMAIL FROM:<>\r\n", b"NOOP\r\n" * 5, b"\r\n", b"x" * 100_000):
        with Wire(server.site.port, greeting=False) as wire:
            wire.send(early)
            first, *others = wire.end()
        if first.code == 554:
            assert (first.text, others) == ("5.5.0 Error: SMTP protocol synchronization", [])
        else:
            assert first.code == 220
            assert {reply.code for reply in others} <= {250, 500, 554}


@pytest.mark.parametrize("early", [b"MAIL FROM:<>\r\n", b"MAIL FROM:<>\r\nRCPT TO:<x@example.org>\r\nDATA\r\n"])
def test_a_client_that_does_not_wait_for_ehlos_reply_is_ended(server: Watch, early: bytes) -> None:
    with Wire(server.site.port) as wire:
        wire.send(b"EHLO x\r\n" + early)
        (reply,) = wire.replies()
    assert (reply.code, reply.text) == (554, "5.5.0 Error: SMTP protocol synchronization")
    server.logged(f"improper command pipelining after EHLO from unknown{wire.name}: ")


@pytest.mark.parametrize("behind", [b"Subject: early\r\n\r\nbody\r\n.\r\n", b"x", b"\0" * 100_000])
def test_content_before_the_reply_to_data_ends_the_session(server: Watch, behind: bytes) -> None:
    with Wire(server.site.port) as wire:
        assert wire.ask(b"EHLO x\r\n").code == 250
        wire.send(b"MAIL FROM:<>\r\nRCPT TO:<%s>\r\nDATA\r\n" % server.recipient.encode() + behind)
        replies = wire.replies()
    assert [reply.code for reply in replies] == [250, 250, 554]
    server.logged(f"improper command pipelining after DATA from unknown{wire.name}: ")


def test_commands_behind_the_final_dot_are_a_new_transaction(server: Watch) -> None:
    marker = server.marker()
    with Wire(server.site.port) as wire:
        wire.transaction(server.recipient)
        wire.send(f"X-Marker: {marker}\r\n\r\n.\r\nRCPT TO:<x@example.org>\r\n".encode())
        wire.send(b"MAIL FROM:<>\r\nRSET\r\nQUIT\r\n")
        replies = wire.replies()
    assert [reply.code for reply in replies] == [250, 503, 250, 250, 221]
    server.acknowledged.append(marker)


def test_a_line_of_ten_megabytes_costs_no_memory(server: Watch) -> None:
    with Wire(server.site.port) as wire:
        for _ in range(LARGE_OCTETS // 100_000):
            wire.send(b"x" * 100_000)
        reply = wire.ask(b"\r\n")
        assert (reply.code, reply.text) == (500, "5.5.2 Error: line too long")
        assert wire.ask(b"NOOP\r\n").code == 250
        wire.send(b"y" * LARGE_OCTETS)
        assert wire.end() == []
    server.logged(f"lost connection after NOOP from unknown{wire.name}")


def test_clients_that_send_a_byte_at_a_time_keep_nobody_waiting(server: Watch) -> None:
    dialogue = b"EHLO x\r\nMAIL FROM:<>\r\nRSET\r\n"
    with contextlib.ExitStack() as open_wires:
        slow = [open_wires.enter_context(Wire(server.site.port)) for _ in range(20)]
        for at in range(len(dialogue)):
            for wire in slow:
                wire.send(dialogue[at : at + 1])
            server.serve()
        for wire in slow:
            assert [wire.reply().code for _ in range(3)] == [250, 250, 250]


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
"""What the log says of a client that is lost now, and what it says next if it stays."""


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("half", [False, True], ids=["whole", "half a line"])
@pytest.mark.parametrize("steps", range(len(DIALOGUE)))
def test_a_client_may_be_lost_at_every_point(server: Watch, steps: int, half: bool, reset: bool) -> None:
    wire = Wire(server.site.port)
    for _, line in DIALOGUE[:steps]:
        wire.send(line)
        if line.startswith((b"EHLO", b"MAIL", b"RCPT", b"DATA")):
            assert wire.reply().code in (250, 354)
    if half:
        wire.send(DIALOGUE[steps][1][: len(DIALOGUE[steps][1]) // 2])
    if reset:
        wire.reset()
    else:
        wire.close()
    server.logged_like(f"lost connection after {DIALOGUE[steps][0]} from unknown{re.escape(wire.name)}")


def test_a_client_may_be_lost_before_it_hears_of_its_message(server: Watch) -> None:
    for reset in (False, True):
        marker = server.marker()
        wire = Wire(server.site.port)
        wire.transaction(server.recipient)
        wire.send(f"X-Marker: {marker}\r\n\r\nbody\r\n.\r\n".encode())
        if reset:
            wire.reset()
        else:
            # Lost to the client only: its side is closed, but the server's answer comes.
            (reply,) = wire.end()
            assert reply.code == 250
            server.acknowledged.append(marker)
            wire.close()
        server.logged(f"disconnect from unknown{wire.name}")
