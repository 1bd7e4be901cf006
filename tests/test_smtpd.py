"""smtpd as a process or an object: behaviour that transcripts cannot show."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from postillion._core.log import Log
from postillion._core.pickup import MaildropReader
from postillion.services.anvil import ClientCounts
from postillion.services.anvil import Session as AnvilSession
from postillion.smtpd.counts import Counts
from postillion.smtpd.mode import modes
from postillion.smtpd.names import UNKNOWN, Names
from support.dialogue import Client, Server, site
from support.mta import until, wait_for
from support.queue_files import read_queue

GREETING = b"220 mx.example.org ESMTP Postfix\r\n"
EHLO = b"EHLO client.example\r\n"
ENVELOPE = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<user@example.org>\r\nDATA\r\n"
CHUNK = b"x" * 65536


class Process:
    """A running smtpd, as master starts it."""

    def __init__(self, directory: Path, options: list[str], *, sessions: int = 0) -> None:
        log = [f"maillog_file = {directory}/log", f"maillog_file_prefixes = {directory}"]
        site(directory, [*log, *options])
        self.directory = directory
        self.log = directory / "log"
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(128)
            self.port: int = listener.getsockname()[1]
            ours, theirs = os.pipe()
            # High numbers first: 3 and 4 may be any of the descriptors that are moved.
            high = [(os.POSIX_SPAWN_DUP2, ours, 103), (os.POSIX_SPAWN_DUP2, listener.fileno(), 104)]
            actions = [*high, (os.POSIX_SPAWN_DUP2, 103, 3), (os.POSIX_SPAWN_DUP2, 104, 4)]
            words = ["-m", "postillion.smtpd", "-n", "smtp", "-t", "inet", "-m", str(sessions), "-s", "1"]
            command = [sys.executable, *words, "-c", str(directory)]
            self.pid = os.posix_spawn(sys.executable, command, dict(os.environ), file_actions=actions)
            os.close(ours)
        self.lifeline = theirs
        self.status: int | None = None

    def connect(self) -> socket.socket:
        """Return a connection after the greeting."""
        client = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        assert client.recv(1000) == GREETING
        return client

    def greet(self) -> socket.socket:
        """Return a connection after EHLO, so that the client may pipeline commands."""
        client = self.connect()
        send_until(client, EHLO, b"250 CHUNKING\r\n")
        return client

    def log_text(self) -> str:
        """Return the log so far."""
        return self.log.read_text() if self.log.exists() else ""

    def memory_kib(self) -> int:
        """Return the resident memory."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))

    def wait(self) -> int:
        """Wait for the process to end; return its exit status."""
        if self.status is None:
            _, status = os.waitpid(self.pid, 0)
            self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def close(self) -> None:
        """Stop the process with SIGTERM."""
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
            assert self.wait() == 0
        with contextlib.suppress(OSError):
            os.close(self.lifeline)


@contextlib.contextmanager
def running(directory: Path, options: list[str] | None = None, *, sessions: int = 0) -> Iterator[Process]:
    """Run smtpd during the block."""
    process = Process(directory, options or [], sessions=sessions)
    try:
        yield process
    finally:
        process.close()


def queued(directory: Path) -> list[dict[str, object]]:
    """Return the messages in the queue."""
    return [json.loads(line) for line in read_queue(str(directory / "queue"))]


def send_until(client: socket.socket, octets: bytes, until: bytes) -> bytes:
    """Send octets; return the reply up to and including `until`."""
    client.sendall(octets)
    reply = b""
    while until not in reply:
        piece = client.recv(65536)
        assert piece, reply
        reply += piece
    return reply


def test_message_is_on_disk_before_its_250(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        with smtplib.SMTP("127.0.0.1", process.port, timeout=10) as client:
            client.sendmail("a@example.com", ["user@example.org"], b"Subject: x\r\n\r\nbody\r\n")
            assert len(queued(tmp_path)) == 1
        content = b"".join(path.read_bytes() for path in (tmp_path / "queue" / "incoming").glob("????????????????"))
        assert b"\tby mx.example.org (Postfix) with ESMTP id " in content
        assert b"\tfor <user@example.org>; " in content


def test_message_is_queued_when_client_closes_after_final_dot(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        for _ in range(5):
            client = process.greet()
            client.sendall(ENVELOPE)
            reply = client.recv(1000)
            while b"354" not in reply:
                reply += client.recv(1000)
            client.sendall(b"text\r\n.\r\n")
            client.close()
        wait_for("five messages", lambda: len(queued(tmp_path)) == 5)


def test_half_closed_client_still_gets_replies(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        client = process.greet()
        client.sendall(ENVELOPE.replace(b"DATA\r\n", b"NOOP\r\n"))
        client.shutdown(socket.SHUT_WR)
        reply = b""
        while piece := client.recv(1000):
            reply += piece
        assert reply.endswith(b"250 2.0.0 Ok\r\n")


def test_line_of_ten_megabytes_costs_no_memory(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        process.connect().close()
        before = process.memory_kib()
        client = process.greet()
        for _ in range(160):
            client.sendall(CHUNK)
        assert send_until(client, b"\r\n", b"\r\n") == b"500 5.5.2 Error: line too long\r\n"
        send_until(client, ENVELOPE, b"354 ")
        for _ in range(140):
            client.sendall(CHUNK)
        assert b"queued as" in send_until(client, b"\r\n.\r\n", b"\r\n")
        assert process.memory_kib() - before < 24 * 1024
        client.close()


def test_server_stops_reading_from_client_that_reads_no_replies(tmp_path: Path) -> None:
    with running(tmp_path, ["smtpd_junk_command_limit = 100000000"]) as process:
        client = process.greet()
        before = process.memory_kib()
        client.settimeout(2)
        with contextlib.suppress(TimeoutError):
            for _ in range(1000):
                client.sendall(b"RSET\r\n" * 10_000)
        assert process.memory_kib() - before < 24 * 1024
        process.connect().close()
        client.close()


def test_idle_client_gets_421_after_timeout(tmp_path: Path) -> None:
    with running(tmp_path, ["smtpd_timeout = 1s"]) as process:
        client = process.connect()
        assert client.recv(1000) == b"421 4.4.2 mx.example.org Error: timeout exceeded\r\n"
        assert client.recv(1000) == b""
        wait_for("the log", lambda: "timeout after CONNECT from unknown[127.0.0.1]" in process.log_text())


def test_errors_delay_replies_to_that_client_only(tmp_path: Path) -> None:
    with running(tmp_path, ["smtpd_soft_error_limit = 1", "smtpd_error_sleep_time = 1s"]) as process:
        client = process.connect()
        send_until(client, b"FOO\r\n", b"\r\n")
        started = time.monotonic()
        send_until(client, b"FOO\r\n", b"\r\n")
        assert time.monotonic() - started > 0.9
        other = process.connect()
        assert send_until(other, b"NOOP\r\n", b"\r\n") == b"250 2.0.0 Ok\r\n"


def test_sessions_above_limit_wait_for_a_free_slot(tmp_path: Path) -> None:
    with running(tmp_path, sessions=2) as process:
        first, second = process.connect(), process.connect()
        third = socket.create_connection(("127.0.0.1", process.port), timeout=10)
        third.settimeout(0.3)
        with pytest.raises(TimeoutError):
            third.recv(1000)
        send_until(first, b"QUIT\r\n", b"221 ")
        third.settimeout(10)
        assert third.recv(1000) == GREETING
        second.close()


def test_stress_mode_lowers_limits_for_new_sessions_only(tmp_path: Path) -> None:
    with running(tmp_path, sessions=2) as process:
        first, second = process.greet(), process.greet()
        full = 'warning: service "smtp" has reached its process limit "2": stress mode is on'
        wait_for("the warning", lambda: full in process.log_text())
        send_until(first, b"QUIT\r\n", b"221 ")
        third = process.connect()
        # smtpd_hard_error_limit = ${stress?{1}:{20}}
        assert b"421 4.7.0 mx.example.org Error: too many errors" in send_until(third, b"FOO\r\n", b"421 ")
        # An older session keeps its limits.
        assert send_until(second, b"FOO\r\n", b"\r\n") + send_until(second, b"NOOP\r\n", b"\r\n") == (
            b"500 5.5.2 Error: command not recognized\r\n250 2.0.0 Ok\r\n"
        )
        assert process.log_text().count("stress mode is on") == 1


def test_site_handler_decides_and_hanging_hook_does_not_block_exit(tmp_path: Path) -> None:
    (tmp_path / "policy.py").write_text(
        "import time\n\n\nclass Policy:\n"
        "    async def handle_MAIL(self, server, session, envelope, address, options):\n"
        "        return '250 2.1.0 welcome' if session.peer[0] == '127.0.0.1' else '550 no'\n\n"
        "    def handle_NOOP(self, server, session, envelope, argument):\n"
        "        time.sleep(1000)\n"
    )
    options = ["smtpd_python_handler = policy:Policy", "smtpd_python_handler_timeout = 1s"]
    with running(tmp_path, options) as process:
        client = process.greet()
        assert send_until(client, b"MAIL FROM:<>\r\n", b"\r\n") == b"250 2.1.0 welcome\r\n"
        assert send_until(client, b"NOOP\r\n", b"\r\n") == b"451 4.3.0 Error: no answer from the site's policy\r\n"
        client.close()
    assert "statistics: handle_NOOP calls=1 failed=0 late=1" in process.log_text()


class VirtualLoop:
    """An event loop with a clock that the test sets."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: list[float]) -> None:
        self._loop, self._clock = loop, clock

    def time(self) -> float:
        return self._clock[0]

    def __getattr__(self, name: str) -> object:
        return getattr(self._loop, name)


async def test_stress_mode_uses_short_request_deadlines_until_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(site(tmp_path), session_limit=1)
    clock = [1000.0]
    monkeypatch.setattr(server.service, "loop", VirtualLoop(server.service.loop, clock))
    # The session that reaches the limit is not under stress yet. The next one is.
    client = server.connect()
    assert client.core is not None
    assert client.core.deadline == 1300.0
    client.leave()
    client = server.connect()
    client.send(EHLO)
    client.written.clear()
    assert client.core is not None
    for clock[0] in (1003.0, 1006.0, 1009.0):
        client.send(b"N")
        assert client.core.deadline == 1010.0
    clock[0] = 1010.0
    server.service.core.sweep(clock[0])
    client.receive()
    assert client.written == b"421 4.4.2 mx.example.org Error: timeout exceeded\r\n"
    assert client.closed
    client.leave()
    # After the stress, the timeout is 300 s for each read again.
    clock[0] = 2000.0
    client = server.connect()
    assert client.core is not None
    client.send(EHLO)
    clock[0] += 100.0
    client.send(b"N")
    assert client.core.deadline == clock[0] + 300.0
    client.leave()
    server.journal.close()


async def test_message_below_minimum_data_rate_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["smtpd_per_request_deadline = yes", "smtpd_min_data_rate = 100", "smtpd_timeout = 10s"]
    for rate, ends_at in ((50, 19), (75, 37), (101, None)):
        server = Server(site(tmp_path / str(rate), options))
        clock = [0.0]
        monkeypatch.setattr(server.service, "loop", VirtualLoop(server.service.loop, clock))
        client = server.connect()
        client.send(EHLO)
        client.send(ENVELOPE)
        ended = None
        for second in range(1, 2000):
            clock[0] = float(second)
            server.service.core.sweep(clock[0])
            client.receive()
            if client.closed:
                ended = second
                break
            client.send(b"x" * rate)
        assert ended == ends_at
        client.leave()
        server.journal.close()


def test_sigterm_ends_idle_sessions_and_finishes_message_in_flight(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        idle, busy = process.connect(), process.greet()
        send_until(busy, ENVELOPE, b"354 ")
        os.kill(process.pid, signal.SIGTERM)
        assert idle.recv(1000).startswith(b"421 4.3.2 mx.example.org Service not available")
        assert b"queued as" in send_until(busy, b"text\r\n.\r\n", b"\r\n")
        assert process.wait() == 0
        assert len(queued(tmp_path)) == 1


def epoll_entries(pid: int) -> int:
    """Return the number of sockets and pipes that a process polls with epoll."""
    count = 0
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        # A descriptor may be closed between the listing and the reading.
        with contextlib.suppress(FileNotFoundError):
            count += path.read_text().count("tfd:")
    return count


def test_sighup_stops_accepting_and_finishes_open_sessions(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        client = process.greet()
        before = epoll_entries(process.pid)
        os.kill(process.pid, signal.SIGHUP)
        wait_for("smtpd to stop accepting clients", lambda: epoll_entries(process.pid) < before)
        send_until(client, ENVELOPE, b"354 ")
        assert b"queued as" in send_until(client, b".\r\n", b"\r\n")
        assert b"221 " in send_until(client, b"QUIT\r\n", b"\r\n")
        assert process.wait() == 0


def test_closing_the_lifeline_stops_smtpd(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        process.connect().close()
        os.close(process.lifeline)
        assert process.wait() == 0


def test_unknown_restriction_is_one_fatal_line_at_start(tmp_path: Path) -> None:
    process = Process(tmp_path, ["smtpd_recipient_restrictions = reject_nothing"])
    assert process.wait() == 1
    os.close(process.lifeline)
    fatal = [line for line in process.log_text().splitlines() if "fatal: " in line]
    assert len(fatal) == 1
    assert "main.cf, line" in fatal[0]
    assert '"reject_nothing" is no restriction' in fatal[0]


def test_garbage_does_not_affect_the_next_client(tmp_path: Path) -> None:
    with running(tmp_path, ["smtpd_error_sleep_time = 0"]) as process:
        noise = random.Random(1).randbytes(100_000)
        for garbage in (noise, b"\0" * 5000, b"\r\n" * 5000, b"\x16\x03\x01\x02\x00\x01" + CHUNK):
            client = socket.create_connection(("127.0.0.1", process.port), timeout=10)
            with contextlib.suppress(OSError):
                client.sendall(garbage)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
            client.close()
        assert send_until(process.connect(), b"NOOP\r\n", b"\r\n") == b"250 2.0.0 Ok\r\n"


@pytest.mark.parametrize("eol", [b"\r\n", b"\n"], ids=["CRLF", "LF"])
def test_smtp_on_standard_input_goes_to_maildrop(tmp_path: Path, eol: bytes) -> None:
    site(tmp_path, [f"maillog_file = {tmp_path}/log", f"maillog_file_prefixes = {tmp_path}"])
    envelope = ENVELOPE.replace(b"user@example.org", b"x@far.example").replace(b".com>", b".com> RET=HDRS ENVID=e1")
    words = b"EHLO me\r\n" + envelope + b"Subject: x\r\n\r\n..dot\r\n.\r\n"
    command = [sys.executable, "-m", "postillion.smtpd", "-S", "-c", str(tmp_path)]
    words = (words + b"QUIT\r\n").replace(b"\r\n", eol)
    ran = subprocess.run(command, input=words, capture_output=True, timeout=30, check=True)
    assert b"250 2.0.0 Ok: queued as " in ran.stdout
    assert ran.stdout.endswith(b"221 2.0.0 Bye\r\n")
    (file,) = (tmp_path / "queue" / "maildrop").iterdir()
    assert file.stat().st_mode & 0o777 == 0o744
    reader = MaildropReader()
    assert reader.feed(file.read_bytes()) == b"Subject: x\n\n.dot\n"
    drop = reader.finish()
    assert (drop.sender, [recipient[0] for recipient in drop.recipients]) == ("a@example.com", ["x@far.example"])
    assert (drop.ret, drop.envid) == ("HDRS", "e1")


async def test_pipelined_commands_get_replies_in_one_write(tmp_path: Path) -> None:
    server = Server(site(tmp_path))
    client = server.connect(kind=socket.SOCK_SEQPACKET)
    client.send(EHLO)
    reads = client.reads
    client.send(ENVELOPE)
    assert client.reads == reads + 1
    client.leave()
    server.journal.close()


async def test_failed_commit_is_451_and_session_continues(tmp_path: Path) -> None:
    server = Server(site(tmp_path))
    client = server.connect()
    client.send(EHLO)
    client.send(ENVELOPE)
    server.journal.close()
    client.send(b"x\r\n.\r\nNOOP\r\n")
    server.finish_commits(client)
    assert client.written.endswith(b"451 4.3.0 Error: queue file write error\r\n250 2.0.0 Ok\r\n")
    client.leave()
    server.journal.close()


async def test_input_is_bounded_while_a_commit_is_pending(tmp_path: Path) -> None:
    server = Server(site(tmp_path, ["smtpd_junk_command_limit = 100000"]))
    client = server.connect()
    client.send(EHLO)
    client.send(ENVELOPE)
    assert client.send(b".\r\n" + b"RSET\r\n" * 40_000) > 0
    server.finish_commits(client)
    assert client.unread() == 0
    assert client.written.count(b"250 2.0.0 Ok\r\n") == 40_000
    client.leave()
    server.journal.close()


async def test_sessions_keep_the_restriction_lists_of_their_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [
        "smtpd_restriction_classes = guarded",
        "guarded = ${stress?{reject}:{permit_mynetworks}}",
        "smtpd_sender_restrictions = ${stress?{reject_non_fqdn_sender}} guarded",
        "local_recipient_maps = ${stress?{inline:{user=x}}:{static:x}}",
        "smtpd_hard_error_limit = 20",
        "smtpd_junk_command_limit = 100",
    ]
    server = Server(site(tmp_path, options), session_limit=2)
    clock = [1000.0]
    monkeypatch.setattr(server.service, "loop", VirtualLoop(server.service.loop, clock))
    envelope = b"RSET\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<user@example.org>\r\n"
    accepted = b"250 2.0.0 Ok\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n"
    refused = accepted.replace(b"250 2.1.5 Ok", b"554 5.7.1 <a@example.com>: Sender address rejected: Access denied")

    def greeted() -> Client:
        client = server.connect()
        client.send(EHLO)
        return client

    def replies(client: Client, commands: bytes) -> bytes:
        client.written.clear()
        client.send(commands)
        return bytes(client.written)

    # The session that takes the last place is not under stress yet. The next one is.
    first, second = greeted(), greeted()
    first.leave()
    third = greeted()
    # The calm session's acceptance is cached, for calm sessions alone.
    for client, expected in ((second, accepted), (third, refused), (second, accepted)):
        assert replies(client, envelope) == expected
    assert replies(second, b"RCPT TO:<nobody@example.org>\r\n") == b"250 2.1.5 Ok\r\n"
    clock[0] = 2000.1
    second.leave()
    fourth = greeted()
    for client, expected in ((fourth, accepted), (third, refused)):
        assert replies(client, envelope) == expected
        client.leave()
    server.journal.close()


async def test_both_modes_share_lists_that_do_not_depend_on_stress(tmp_path: Path) -> None:
    warnings: list[str] = []
    calm, stressed = modes(site(tmp_path), warnings.append)
    assert stressed[1:] == calm[1:]
    assert (calm.config.seconds("smtpd_timeout"), stressed.config.seconds("smtpd_timeout")) == (300, 10)
    config = site(tmp_path, ["mynetworks = ${stress?{}:{192.0.2.0/24}}", "transport_maps = ${stress?{static:smtp}}"])
    calm, stressed = modes(config, warnings.append)
    assert [mode.access.mynetworks.matches("192.0.2.1", "") for mode in (calm, stressed)] == [True, False]
    # trivial-rewrite of Postfix does not know about stress.
    assert stressed.access.resolver is calm.access.resolver
    assert warnings == []


async def test_server_does_not_read_before_client_name_is_known(tmp_path: Path) -> None:
    server = Server(site(tmp_path, ["smtpd_peername_lookup = yes"]))
    client = server.connect("192.0.2.1")
    assert client.written == b""
    assert client.send(b"x" * 100) >= 100
    client.leave()
    server.journal.close()


async def test_client_names_come_from_hosts_file(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("# x\n192.0.2.1 one.example one # y\n192.0.2.2 bad_\x01name\n::1 six\n")
    names = Names(lambda _: None, hosts=str(hosts))
    found = names.known("192.0.2.1")
    assert found == ("one.example", "one.example")
    assert names.known("192.0.2.2") is None
    assert names.known("127.0.0.9") == (UNKNOWN, UNKNOWN)
    assert Names(lambda _: None, enabled=False).known("192.0.2.1") == (UNKNOWN, UNKNOWN)


def test_internal_error_in_a_decision_is_451(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def session() -> bytes:
        server = Server(site(tmp_path))
        client = server.connect()
        monkeypatch.setattr(server.service.mode(stressed=False).access, "rcpt", lambda *_: 1 / 0)
        client.send(EHLO)
        client.send(b"MAIL FROM:<>\r\nRCPT TO:<user@example.org>\r\nNOOP\r\n")
        client.leave()
        server.journal.close()
        assert any("ZeroDivisionError" in line for line in server.log.take_lines())
        return bytes(client.written)

    assert asyncio.run(session()).endswith(b"451 4.3.0 Error: internal error\r\n250 2.0.0 Ok\r\n")


async def test_internal_error_before_greeting_ends_that_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(site(tmp_path))
    clients = server.service.mode(stressed=False).clients
    monkeypatch.setattr(clients, "known", lambda _: None)
    monkeypatch.setattr(clients, "identify", lambda _: 1 / 0)
    client = server.connect("192.0.2.1")
    await until(lambda: client.receive() or client.closed)
    client.leave()
    assert any("ZeroDivisionError" in line for line in server.log.take_lines())
    assert len(server.service.core) == 0
    server.journal.close()


class Anvil:
    """anvil on its own socket."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.counts = ClientCounts(60)
        self.log = Log("mx", "postfix", "anvil", 1, 0, "memory:")
        self.server: asyncio.Server | None = None

    def connections(self) -> int:
        """Return the number of counted connections of all clients."""
        return sum(record.connections for record in self.counts._clients.values())

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_unix_server(lambda: AnvilSession(self.counts, self.log), self.path)


async def greeted(server: Server, address: str) -> Client:
    """Connect a client; return it after the server's first reply."""
    client = server.connect(address)
    await until(lambda: client.receive() or client.written)
    return client


async def replied(client: Client, lines: int) -> None:
    """Wait until a client has this number of lines."""

    def has_replies() -> bool:
        client.receive()
        return client.written.count(b"\r\n") >= lines

    await until(has_replies)


async def test_connections_per_client_network_are_limited(tmp_path: Path) -> None:
    anvil = Anvil(tmp_path / "anvil")
    await anvil.start()
    config = site(tmp_path, ["smtpd_client_connection_count_limit = 2", "smtpd_client_ipv4_prefix_length = 24"])
    server = Server(config, counts=Counts("smtp", lambda _: None, path=anvil.path))
    clients = [await greeted(server, address) for address in ("192.0.2.1", "192.0.2.2")]
    assert [client.written for client in clients] == [GREETING] * 2
    refused = await greeted(server, "192.0.2.3")
    assert refused.written == b"421 4.7.0 mx.example.org Error: too many connections from 192.0.2.3\r\n"
    other = await greeted(server, "198.51.100.1")
    assert other.written == GREETING
    lines = server.log.take_lines()
    assert "warning: Connection concurrency limit exceeded: 3 from unknown[192.0.2.3] for service smtp" in lines
    for _ in range(5):
        # Clients in mynetworks are not counted.
        assert (await greeted(server, "127.0.0.1")).written == GREETING
    for client in clients:
        client.leave()
    await until(lambda: anvil.connections() == 1)
    assert not other.closed
    assert (await greeted(server, "192.0.2.1")).written == GREETING
    server.journal.close()


async def test_messages_and_recipients_per_client_are_limited(tmp_path: Path) -> None:
    anvil = Anvil(tmp_path / "anvil")
    await anvil.start()
    options = ["smtpd_client_message_rate_limit = 1", "smtpd_client_recipient_rate_limit = 1"]
    server = Server(site(tmp_path, options), counts=Counts("smtp", lambda _: None, path=anvil.path))
    client = await greeted(server, "192.0.2.1")
    client.send(EHLO)
    client.written.clear()
    client.send(b"MAIL FROM:<>\r\nRCPT TO:<user@example.org>\r\nRCPT TO:<user@example.org>\r\nRSET\r\nMAIL FROM:<>\r\n")
    await replied(client, 5)
    assert bytes(client.written) == (
        b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n450 4.7.1 Error: too many recipients from 192.0.2.1\r\n"
        b"250 2.0.0 Ok\r\n450 4.7.1 Error: too much mail from 192.0.2.1\r\n"
    )
    client.leave()
    server.journal.close()


async def test_limits_of_a_client_may_depend_on_stress(tmp_path: Path) -> None:
    anvil = Anvil(tmp_path / "anvil")
    await anvil.start()
    options = [
        "smtpd_client_message_rate_limit = ${stress?{1}:{0}}",
        "smtpd_junk_command_limit = 100",
        "smtpd_hard_error_limit = 20",
    ]
    counts = Counts("smtp", lambda _: None, path=anvil.path)
    server = Server(site(tmp_path, options), counts=counts, session_limit=2)
    clients = [await greeted(server, "192.0.2.1") for _ in range(3)]
    for client, second in zip(clients, (b"250", b"250", b"450"), strict=True):
        client.send(EHLO)
        client.written.clear()
        client.send(b"MAIL FROM:<>\r\nRSET\r\nMAIL FROM:<>\r\n")
        await replied(client, 3)
        assert [line[:3] for line in client.written.splitlines()] == [b"250", b"250", second]
        client.leave()
    server.journal.close()


async def test_mail_is_accepted_without_anvil(tmp_path: Path) -> None:
    warnings: list[str] = []
    server = Server(site(tmp_path), counts=Counts("smtp", warnings.append, path=str(tmp_path / "nobody")))
    for _ in range(3):
        assert (await greeted(server, "192.0.2.1")).written == GREETING
    assert len(warnings) == 1
    assert warnings[0].startswith("problem talking to service anvil: ")
    server.journal.close()


async def test_anvil_drops_counts_of_a_dead_process(tmp_path: Path) -> None:
    anvil = Anvil(tmp_path / "anvil")
    await anvil.start()
    first = Counts("smtp", lambda _: None, path=anvil.path)
    second = Counts("smtp", lambda _: None, path=anvil.path)
    assert await first.connected("192.0.2.1") == (1, 1)
    assert await first.connected("192.0.2.1") == (2, 2)
    assert await second.connected("192.0.2.1") == (3, 3)
    first.close()
    await until(lambda: anvil.connections() == 1)
    assert await second.connected("192.0.2.1") == (2, 4)
    second.ended("192.0.2.1")
    assert await second.connected("192.0.2.1") == (2, 5)
    second.close()


async def test_anvil_ignores_triggers_and_survives_garbage(tmp_path: Path) -> None:
    anvil = Anvil(tmp_path / "anvil")
    await anvil.start()
    for words, warned in ((b"W", 0), (b"\xff\n", 1), (b"connect\n", 1), (b"x" * 1000, 1), (b"dance a\n", 1)):
        reader, writer = await asyncio.open_unix_connection(anvil.path)
        writer.write(words)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        assert len(anvil.log.take_lines()) == warned, words
    assert await Counts("smtp", lambda _: None, path=anvil.path).connected("192.0.2.1") == (1, 1)


def test_rates_reset_with_each_time_unit() -> None:
    counts = ClientCounts(60)
    assert [counts.event("mail", "a", now)[1] for now in (0, 59, 60, 61)] == [1, 2, 1, 2]
    counts.sweep(200)
    assert len(counts) == 0
    counts.hold("a", 200)
    counts.sweep(500)
    assert len(counts) == 1


def test_many_concurrent_clients_are_all_served(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        failures: list[Exception] = []

        def send() -> None:
            try:
                with smtplib.SMTP("127.0.0.1", process.port, timeout=20) as client:
                    for _ in range(5):
                        client.sendmail("a@example.com", ["user@example.org"], b"x\r\n")
            except (OSError, smtplib.SMTPException) as failure:
                failures.append(failure)

        threads = [threading.Thread(target=send) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(queued(tmp_path)) == 100
