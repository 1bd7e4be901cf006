"""The agent smtp with slow, hostile and greylisting servers: no message gets the verdict of another one."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from postillion._core.bench import BenchSink
from postillion.delivery.smtp.agent import SmtpAgent
from support import mta
from support.agents import FakeDaemon, Hub, Mail, Result, Script, server, serving
from support.peers import peer
from support.ports import free_port
from support.sink import Sink

PATIENCE_S = 60.0
BUFFER_OCTETS = 64 * 1024


@asynccontextmanager
async def smtp(directory: Path, more: str = "", capacity: int = 50) -> AsyncIterator[tuple[Hub, FakeDaemon]]:
    """Run the agent; yield the queue manager's end and the daemon."""
    daemon = FakeDaemon(directory, more)
    agent: Callable[[Any], SmtpAgent] = lambda daemon: SmtpAgent(daemon, "smtp", capacity=capacity)  # noqa: E731
    async with serving(directory, agent, daemon) as hub:
        yield hub, daemon


@pytest.mark.parametrize(
    ("more", "outcome"),
    [
        ("", "sent"),
        ("smtp_per_request_deadline = yes\nsmtp_min_data_rate = 1\n", "sent"),
        ("smtp_per_request_deadline = yes\nsmtp_min_data_rate = 2000000000\n", "deferred"),
    ],
)
async def test_slow_server_is_accepted_down_to_minimum_data_rate(tmp_path: Path, more: str, outcome: str) -> None:
    content = (b"x" * 998 + b"\r\n") * 9000

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"354 go\r\n")
        taken = bytearray()
        while not taken.endswith(b"\r\n.\r\n"):
            piece = await reader.read(4 * BUFFER_OCTETS)
            if not piece:
                raise ConnectionResetError
            taken += piece
            await asyncio.sleep(0.1)
        writer.write(b"250 taken\r\n")

    # Several times the longest pause of the server, and less than the whole message takes.
    more = f"smtp_data_xfer_timeout = 2s\n{more}"
    async with slow_server(slow) as port, smtp(tmp_path, more) as (hub, _):
        result = await hub.deliver(f"[127.0.0.1]:{port}", Mail(0, ["r@example.com"], content=content))
        assert result.only.outcome == outcome, result.only.text
        if outcome == "deferred":
            assert result.only.text.endswith("timed out while sending message body")


@asynccontextmanager
async def slow_server(data: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> AsyncIterator[int]:
    """Run a server with small buffers, which reads messages by `data`; yield its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"220 slow\r\n")
            while line := await reader.readline():
                if line == b"DATA\r\n":
                    await data(reader, writer)
                else:
                    writer.write(b"250 ok\r\n")
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    bound = socket.create_server(("127.0.0.1", 0))
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_OCTETS)
    # The loopback's default segments of 64 KiB let the client buffer the whole message.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1460)
    listening = await asyncio.start_server(serve, sock=bound, limit=4 * BUFFER_OCTETS)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


STAGES = ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "."]
HOSTILE: dict[str, bytes] = {
    "100,000 lines without an end": b"250-x\r\n" * 100_000,
    "no line end": b"2" * 1_500_000,
    "noise": bytes(range(1, 256)) * 20 + b"\r\n",
    "no code": b"hello\r\n",
    "codes of no class": b"999 x\r\n",
    "a code too low": b"099 x\r\n",
    "a code in letters": b"two fifty\r\n",
    "more replies than commands": b"250 2.0.0 Ok\r\n" * 12,
    "unexpected 354": b"354 go\r\n" * 3,
    "half a reply": b"250-first\r\n250",
}


def hostile_at(stage: str, reply: bytes) -> Script:
    """Return a server that sends `reply` at `stage`, and then nothing more."""

    async def hostile(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply)
        await writer.drain()
        await reader.read()
        raise ConnectionResetError

    return Script(greeting=hostile) if stage == "greeting" else Script({stage: hostile})


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_reply_delivers_nothing_and_affects_no_other_job(tmp_path: Path, name: str) -> None:
    times = "".join(f"smtp_{name}_timeout = 1s\n" for name in ("helo", "mail", "rcpt", "data_init", "data_done"))
    async with AsyncExitStack() as stack:
        hub, _ = await stack.enter_async_context(smtp(tmp_path, times))
        honest = await stack.enter_async_context(server(Script()))
        ports = {}
        for stage in STAGES:
            script = await stack.enter_async_context(server(hostile_at(stage, HOSTILE[name])))
            ports[stage] = script.port
        jobs = [(stage, hub.job(f"[127.0.0.1]:{port}")) for stage, port in ports.items() for _ in range(2)]
        others = hub.send(*(hub.job(f"[127.0.0.1]:{honest.port}") for _ in range(5)))
        waiting = hub.send(*(job for _, job in jobs))
        for other in await asyncio.wait_for(asyncio.gather(*others), PATIENCE_S):
            assert other.only.outcome == "sent"
        results = await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE_S)
        for (stage, _), result in zip(jobs, results, strict=True):
            # Only a reply to the end of data can accept the message.
            accepted = stage == "." and name == "more replies than commands"
            assert (result.only.outcome == "sent") == accepted, (stage, result.only)
            assert len(result.only.text) < 5000
            assert result.only.text.isprintable()


@contextmanager
def bench_sink(*faults: str) -> Iterator[tuple[int, BenchSink]]:
    """Run a sink in a thread; yield its port and the sink."""
    sink = BenchSink("127.0.0.1", 0, faults=faults)
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            sink.run(0.05)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield sink.port, sink
    finally:
        ended.set()
        worker.join()


RESULTS = {
    "good.example": ("sent", r"250 .*"),
    "later.example": ("deferred", r"host .* said: 450 .* \(in reply to end of DATA command\)"),
    "never.example": ("bounced", r"host .* said: 550 .* \(in reply to RCPT TO command\)"),
    "spam.example": ("bounced", r"host .* said: 554 .* \(in reply to end of DATA command\)"),
    "gone.example": ("deferred", r"lost connection with .* while sending end of data -- message may be sent more.*"),
}


async def test_each_of_many_messages_has_its_own_verdict(tmp_path: Path) -> None:
    faults = ["later.example=450@dot", "never.example=550@rcpt", "spam.example=554@dot", "gone.example=disconnect@dot"]
    domains = [domain for domain in RESULTS for _ in range(3 if domain == "good.example" else 1)]
    with bench_sink(*faults) as (port, sink):
        async with smtp(tmp_path) as (hub, daemon):
            sent_to: list[str] = []
            waiting: list[asyncio.Future[Result]] = []
            for n in range(60):
                # Send new jobs while others are in delivery, as a queue manager does.
                some = [domains[(n * 5 + k * 3) % len(domains)] for k in range(7)]
                sent_to += some
                mails = [Mail(0, [f"r{n}@{domain}"]) for domain in some]
                waiting += hub.send(*(hub.job(f"[127.0.0.1]:{port}", mail) for mail in mails))
                await asyncio.wait(waiting[-7:], return_when=asyncio.FIRST_COMPLETED)
            results = await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE_S)
            for domain, result in zip(sent_to, results, strict=True):
                outcome, text = RESULTS[domain]
                assert result.only.outcome == outcome, (domain, result.only)
                assert re.fullmatch(text, result.only.text), (domain, result.only)
            lines = daemon.logged()
            assert sum("conn_use=" in line for line in lines) > len(results) / 3, "connections are reused"
    assert sink.counts()["messages"] >= sent_to.count("good.example")


@dataclass
class Greylisting:
    """A server that refuses the first RCPT for `grey@x`, and sends the replies to one read in one write.

    `received`: (recipient, content) of each message. Its reply to RSET is slow, so that commands after it wait.
    """

    received: list[tuple[str, bytes]] = field(default_factory=list)
    refuses: bool = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        writer.write(b"220 x ESMTP\r\n")
        recipient, content, buffer, in_data, good = "", bytearray(), b"", False, False
        while data := await reader.read(65536):
            *lines, buffer = (buffer + data).split(b"\r\n")
            replies = bytearray()
            for line in lines:
                verb = line[:4].upper()
                if in_data and line != b".":
                    content += line
                elif in_data:
                    in_data = False
                    self.received.append((recipient, bytes(content)))
                    content.clear()
                    replies += b"250 taken for %s\r\n" % recipient.encode()
                elif verb == b"EHLO":
                    replies += b"250-x\r\n250 PIPELINING\r\n"
                elif verb == b"RCPT":
                    recipient = line.decode().split("<")[1].split(">")[0]
                    good = recipient != "grey@x" or not self.refuses
                    self.refuses = self.refuses and good
                    replies += b"250 ok\r\n" if good else b"450 4.2.0 greylisted\r\n"
                elif verb == b"DATA":
                    in_data = good
                    replies += b"354 go\r\n" if good else b"554 5.5.1 no recipients\r\n"
                else:
                    if verb == b"RSET":
                        await asyncio.sleep(0.2)
                    replies += b"250 ok\r\n"
            writer.write(replies)
        writer.close()


async def test_pipelined_job_with_early_verdict_does_not_affect_the_next_job(tmp_path: Path) -> None:
    """All replies to a pipelined job come with the verdict before it; the next job must still send its own mail."""
    greylisting = Greylisting()
    listening = await asyncio.start_server(greylisting.serve, "127.0.0.1", 0)
    nexthop = f"[127.0.0.1]:{listening.sockets[0].getsockname()[1]}"

    def mail(to: str) -> Mail:
        return Mail(0, [to], content=b"for %s\r\n" % to.encode())

    async with smtp(tmp_path) as (hub, _):
        for n in range(3):
            assert (await hub.deliver(nexthop, mail(f"warm{n}@x"))).only.outcome == "sent"
        both = hub.send(hub.job(nexthop, mail("one@x")), hub.job(nexthop, mail("grey@x")))
        first, second = await asyncio.wait_for(asyncio.gather(*both), PATIENCE_S)
        third = await hub.deliver(nexthop, mail("secret@x"))
    listening.close()
    assert first.only.text == "250 taken for one@x"
    assert second.only.outcome == "deferred"
    assert "450 4.2.0 greylisted" in second.only.text
    assert third.only.text == "250 taken for secret@x"
    assert all(content == b"for %s" % to.encode() for to, content in greylisting.received)


@contextmanager
def next_hop(program: str, directory: Path) -> Iterator[tuple[int, Callable[[], int]]]:
    """Run a server for next.example; yield its port and a function that returns its number of messages."""
    if program == "aiosmtpd":
        with Sink(free_port()) as sink:
            yield sink.port, lambda: len(sink.messages)
        return
    if program == "postfix":
        peer("postfix")
    # The server refuses early commands, or disconnects (smtpd_forbid_unauth_pipelining).
    main_cf = {"smtpd_data_restrictions": "reject_unauth_pipelining"}
    site = mta.Site(directory, main_cf=main_cf)
    with Sink(site.next_port), mta.running(site, program):
        yield site.port, lambda: site.log_text().count("relay=127.0.0.1[127.0.0.1]:")


@pytest.mark.parametrize("program", ["postfix", "postillion", "aiosmtpd"])
async def test_servers_accept_commands_pipelined_after_a_message(tmp_path: Path, program: str) -> None:
    (tmp_path / "agent").mkdir()
    with next_hop(program, tmp_path / "next") as (port, count):
        # The client needs another name than the server: the same name means a loop.
        async with smtp(tmp_path / "agent", "myhostname = client.example.org\n") as (hub, daemon):
            waiting: list[asyncio.Future[Result]] = []
            rounds = 20
            for n in range(rounds):
                mails = [Mail(0, [f"r{n}.{k}@next.example"]) for k in range(4)]
                waiting += hub.send(*(hub.job(f"[127.0.0.1]:{port}", mail) for mail in mails))
                await asyncio.wait(waiting[-4:], return_when=asyncio.FIRST_COMPLETED)
            results = await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE_S)
            assert {result.only.outcome for result in results} == {"sent"}, results[0].only
            replies = [result.only.text for result in results]
            # Each message has its own queue ID of the server.
            assert len(set(replies)) == len(replies) or program == "aiosmtpd"
            # At the end of each round, a connection is free for a message of the next one.
            assert sum("conn_use=" in line for line in daemon.logged()) >= rounds - 1
        await mta.until(lambda: count() >= len(results))
        assert count() == len(results)


async def test_hanging_server_delays_only_one_message(tmp_path: Path) -> None:
    """When a fast server hangs, the jobs pipelined after its message soon use another connection."""
    hanging, released = asyncio.Event(), asyncio.Event()

    async def dot(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if hanging.is_set():
            hanging.clear()
            await released.wait()
        writer.write(b"250 2.0.0 taken\r\n")

    async with server(Script({".": dot})) as script, smtp(tmp_path) as (hub, _):
        nexthop = f"[127.0.0.1]:{script.port}"
        for _ in range(3):
            assert (await hub.deliver(nexthop)).only.outcome == "sent"
        hanging.set()
        slow, pipelined = hub.send(hub.job(nexthop), hub.job(nexthop))
        # The server's own time is smtp_data_done_timeout, 600 s.
        assert (await asyncio.wait_for(pipelined, PATIENCE_S)).only.outcome == "sent"
        assert not slow.done()
        released.set()
        assert (await asyncio.wait_for(slow, PATIENCE_S)).only.outcome == "sent"
