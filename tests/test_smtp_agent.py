"""The agent smtp between a queue manager and servers: verdicts, log lines, connection reuse."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from postillion.delivery.smtp.agent import SmtpAgent
from support.agents import WAIT_S, FakeDaemon, Hub, Mail, Script, drop, hang, server, serving
from support.mta import listening, until
from support.ports import free_port


@pytest.fixture
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """Return the event loop policy of production."""
    uvloop = pytest.importorskip("uvloop")
    policy: asyncio.AbstractEventLoopPolicy = uvloop.EventLoopPolicy()
    return policy


@asynccontextmanager
async def smtp(directory: Path, more: str = "", protocol: str = "smtp") -> AsyncIterator[tuple[Hub, FakeDaemon]]:
    """Run the agent; yield the queue manager's end and the daemon."""
    daemon = FakeDaemon(directory, more, protocol)
    agent = lambda daemon: SmtpAgent(daemon, protocol, capacity=20)  # noqa: E731
    async with serving(directory, agent, daemon) as hub:
        yield hub, daemon


SINK = shutil.which("smtp-sink", path="/usr/sbin:/usr/bin")


@asynccontextmanager
async def sink(*options: str) -> AsyncIterator[int]:
    """Run Postfix's smtp-sink; yield its port."""
    if SINK is None:
        pytest.skip("smtp-sink is missing: apt-get install postfix")
    port = free_port()
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen([SINK, *user, *options, f"127.0.0.1:{port}", "100"], stderr=subprocess.DEVNULL)  # noqa: ASYNC220
    try:
        await until(lambda: listening(port))
        yield port
    finally:
        process.terminate()
        process.wait()


def mail(*recipients: str, **more: object) -> Mail:
    """Return a message for these recipients."""
    return Mail(0, list(recipients) or ["rcpt@example.com"], **more)  # type: ignore[arg-type]


async def test_message_is_sent_and_logged(tmp_path: Path) -> None:
    async with server(Script()) as script, smtp(tmp_path) as (hub, daemon):
        content = b"Subject: x\r\n\r\n..dot\r\n\xff\r\n"
        result = await hub.deliver(f"[127.0.0.1]:{script.port}", mail(content=content))
        assert (result.only.outcome, result.only.dsn) == ("sent", "2.0.0")
        assert result.only.text == "250 2.0.0 Ok: queued as X"
        assert result.only.remote == f"127.0.0.1[127.0.0.1]:{script.port}"
        assert script.received == [content + b".\r\n"]
        (line,) = daemon.logged()
        relay = re.escape(f"127.0.0.1[127.0.0.1]:{script.port}")
        assert re.fullmatch(
            rf"[0-9A-F]+: to=<rcpt@example\.com>, relay={relay}, delay=[\d.]+, delays=[\d.]+/[\d.]+/[\d.]+/[\d.]+, "
            rf"dsn=2\.0\.0, status=sent \(250 2\.0\.0 Ok: queued as X\)",
            line,
        )
        await until(lambda: script.commands[-1] == "QUIT")
        assert script.commands == [
            "EHLO mx.example.org",
            "MAIL FROM:<sender@example.org> SIZE=20",
            "RCPT TO:<rcpt@example.com> ORCPT=rfc822;rcpt@example.com",
            "DATA",
            "QUIT",
        ]


async def test_each_recipient_of_a_message_has_its_own_status(tmp_path: Path) -> None:
    replies = {
        "RCPT TO:<b@example.com> ORCPT=rfc822;b@example.com": "550 5.1.1 unknown",
        "RCPT TO:<c@example.com> ORCPT=rfc822;c@example.com": "450 4.2.0 greylisted",
    }
    async with server(Script(replies)) as script, smtp(tmp_path) as (hub, daemon):
        where = f"127.0.0.1[127.0.0.1]:{script.port}"
        result = await hub.deliver(
            f"[127.0.0.1]:{script.port}", mail("a@example.com", "b@example.com", "c@example.com")
        )
        assert [result.recipients[n].outcome for n in range(3)] == ["sent", "bounced", "deferred"]
        assert result.recipients[1].text == (
            "host 127.0.0.1[127.0.0.1] said: 550 5.1.1 unknown (in reply to RCPT TO command)"
        )
        assert result.site is None
        lines = daemon.logged()
        assert [re.search(r"to=<(\w)@", line)[1] for line in lines] == ["b", "c", "a"]  # type: ignore[index]
        assert all(f"relay={where}, " in line for line in lines)
        assert lines[1].endswith(
            "dsn=4.2.0, status=deferred "
            "(host 127.0.0.1[127.0.0.1] said: 450 4.2.0 greylisted (in reply to RCPT TO command))"
        )


async def test_refused_connection_defers_and_reports_the_site(tmp_path: Path) -> None:
    port = free_port()
    async with smtp(tmp_path) as (hub, daemon):
        result = await hub.deliver(f"[127.0.0.1]:{port}", mail("a@example.com", "b@example.com"))
        text = f"connect to 127.0.0.1[127.0.0.1]:{port}: Connection refused"
        assert (result.recipients[0].dsn, result.recipients[0].text) == ("4.4.1", text)
        assert result.site is not None
        assert result.site.text == text
        lines = daemon.logged()
        assert lines[0] == text
        assert len(lines) == 3
        assert "relay=none, delay=" in lines[1]
        assert lines[1].endswith(f"dsn=4.4.1, status=deferred ({text})")


@pytest.mark.parametrize(
    ("script", "dsn", "text", "site"),
    [
        (Script(greeting=drop), "4.4.2", "lost connection with {} while receiving the initial server greeting", True),
        (Script(greeting="421 4.3.2 busy"), "4.3.2", "host {} refused to talk to me: 421 4.3.2 busy", True),
        (Script(greeting="554 go away"), "4.0.0", "host {} refused to talk to me: 554 go away", True),
        (Script({"EHLO": drop}), "4.4.2", "lost connection with {} while performing the EHLO handshake", True),
        (
            Script({"EHLO": "502 no", "HELO": "550 5.7.1 no"}),
            "5.7.1",
            "host {} refused to talk to me: 550 5.7.1 no",
            False,
        ),
        (Script({"MAIL": drop}), "4.4.2", "lost connection with {} while sending MAIL FROM", True),
        (Script({"RCPT": drop}), "4.4.2", "lost connection with {} while sending RCPT TO", True),
        (Script({"DATA": drop}), "4.4.2", "lost connection with {} while sending DATA command", True),
        (
            Script({".": drop}),
            "4.4.2",
            "lost connection with {} while sending end of data -- message may be sent more than once",
            True,
        ),
        (
            Script({"RCPT": "421 4.3.2 stop"}),
            "4.3.2",
            "host {} said: 421 4.3.2 stop (in reply to RCPT TO command)",
            False,
        ),
        (Script({"MAIL": "421 stop"}), "4.0.0", "host {} said: 421 stop (in reply to MAIL FROM command)", False),
        (Script({".": "421 stop"}), "4.0.0", "host {} said: 421 stop (in reply to end of DATA command)", False),
        (Script({"DATA": "554 5.7.1 no"}), "5.7.1", "host {} said: 554 5.7.1 no (in reply to DATA command)", False),
        (
            Script({"DATA": "250 ok"}),
            "5.5.0",
            "Protocol error: host {} said: 250 ok (in reply to DATA command)",
            False,
        ),
        (
            Script(greeting=b"220 hi\r\n250 x\r\n250 y\r\n250 z\r\n354 w\r\n250 done\r\n"),
            "4.5.0",
            "host {} spoke out of turn",
            True,
        ),
        (
            Script({"RCPT": b"oops\r\n250 ok\r\n"}),
            "4.5.0",
            "Protocol error: host {} sent a line that is no reply while several replies were awaited",
            True,
        ),
        (Script(keywords=("SIZE 10",)), "5.3.4", "message size 17 exceeds size limit 10 of server {}", False),
    ],
)
async def test_every_error_has_its_text(tmp_path: Path, script: Script, dsn: str, text: str, site: bool) -> None:
    async with server(script), smtp(tmp_path) as (hub, _):
        result = await hub.deliver(f"[127.0.0.1]:{script.port}")
        assert (result.only.dsn, result.only.text) == (dsn, text.format("127.0.0.1[127.0.0.1]"))
        assert result.only.outcome == ("bounced" if dsn.startswith("5") else "deferred")
        assert (result.site is not None) == site


@pytest.mark.parametrize(
    ("replies", "stage", "text"),
    [
        ({"EHLO": hang}, "helo", "performing the EHLO handshake"),
        ({"MAIL": hang}, "mail", "sending MAIL FROM"),
        ({"RCPT": hang}, "rcpt", "sending RCPT TO"),
        ({"DATA": hang}, "data_init", "sending DATA command"),
        ({".": hang}, "data_done", "sending end of data -- message may be sent more than once"),
    ],
)
async def test_hanging_server_times_out(tmp_path: Path, replies: dict[str, object], stage: str, text: str) -> None:
    async with server(Script(replies)) as script, smtp(tmp_path, f"smtp_{stage}_timeout = 1s\n") as (hub, _):
        result = await hub.deliver(f"[127.0.0.1]:{script.port}")
        assert result.only.text == f"conversation with 127.0.0.1[127.0.0.1] timed out while {text}"
        assert (result.only.outcome, result.site is not None) == ("deferred", True)


@pytest.mark.parametrize(
    "reply", [b"250-line\r\n" * 5000 + b"250 ok\r\n", b"250 " + b"x" * 100_000 + b"\r\n"], ids=["lines", "line"]
)
async def test_long_reply_is_accepted(tmp_path: Path, reply: bytes) -> None:
    async with server(Script({"RCPT": reply})) as script, smtp(tmp_path) as (hub, _):
        assert (await hub.deliver(f"[127.0.0.1]:{script.port}")).only.outcome == "sent"


@pytest.mark.parametrize(
    ("replies", "outcome", "text"),
    [
        ({"RCPT": b"250-line\r\n" * 500_000}, "deferred", "sent a reply of more than 1048576 octets"),
        ({"RCPT": b"250" * 1_000_000}, "deferred", "sent a reply of more than 1048576 octets"),
        ({"RCPT": b"\0\xff" * 1_000_000}, "deferred", "sent a reply of more than 1048576 octets"),
        ({"EHLO": b"250 x\r\n" * 100_000}, "deferred", "spoke out of turn"),
        ({"MAIL": b"250 ok\r\n" * 100_000}, "bounced", "said: 250 ok (in reply to DATA command)"),
        ({".": b"250 ok\r\n" * 100_000}, "sent", "250 ok"),
        ({".": "354 more"}, "bounced", "said: 354 more (in reply to end of DATA command)"),
        ({".": "000 more"}, "bounced", "said: 000 more (in reply to end of DATA command)"),
    ],
)
async def test_server_with_excess_output_is_disconnected(
    tmp_path: Path, replies: dict[str, object], outcome: str, text: str
) -> None:
    async with server(Script(replies)) as script, server(Script()) as other, smtp(tmp_path) as (hub, _):
        for _ in range(2):
            result = await hub.deliver(f"[127.0.0.1]:{script.port}")
            assert result.only.outcome == outcome
            assert result.only.text.endswith(text)
        assert script.connections == 2
        assert (await hub.deliver(f"[127.0.0.1]:{other.port}")).only.outcome == "sent"


async def test_connection_is_reused_on_demand(tmp_path: Path) -> None:
    async with server(Script()) as script, smtp(tmp_path) as (hub, daemon):
        nexthop = f"[127.0.0.1]:{script.port}"
        for _ in range(5):
            assert (await hub.deliver(nexthop)).only.outcome == "sent"
        # The first message gets no connection reuse: demand starts with the second.
        assert script.connections == 2
        uses = [re.search(r"conn_use=(\d+)", line) for line in daemon.logged()]
        assert [use and use[1] for use in uses] == [None, None, "2", "3", "4"]
        assert script.commands.count("RSET") == 0


async def test_probe_ends_behind_rcpt_and_its_connection_serves_mail(tmp_path: Path) -> None:
    replies = {"RCPT TO:<no@example.com> ORCPT=rfc822;no@example.com": "550 5.1.1 no such user"}
    async with server(Script(replies)) as script, smtp(tmp_path) as (hub, daemon):
        nexthop = f"[127.0.0.1]:{script.port}"
        await hub.deliver(nexthop)
        for _ in range(2):
            result = await hub.deliver(nexthop, mail("rcpt@example.com", "no@example.com", trace="probe"))
            assert {status.outcome for status in result.recipients.values()} == {"deferred", "bounced"}
        assert (await hub.deliver(nexthop)).only.outcome == "sent"
        assert (len(script.received), script.connections) == (2, 2)
        assert script.commands.count("DATA") == 2
        # With the recipients of each probe, RSET; none before the mail behind them.
        assert script.commands.count("RSET") == 2
        lines = [line.partition("status=")[2] for line in daemon.logged()]
        assert lines[1:3] == [
            "deliverable (250 2.0.0 Ok)",
            "undeliverable (host 127.0.0.1[127.0.0.1] said: 550 5.1.1 no such user (in reply to RCPT TO command))",
        ]
        assert [action for _, _, action, _, _ in hub.traced] == ["deliverable", "undeliverable"] * 2


async def test_probes_among_mail_on_shared_connections_deliver_nothing(tmp_path: Path) -> None:
    async with server(Script()) as script, smtp(tmp_path) as (hub, _):
        nexthop = f"[127.0.0.1]:{script.port}"
        jobs = [hub.job(nexthop, mail(f"r{n}@example.com", trace="probe" if n % 2 else "")) for n in range(20)]
        results = await asyncio.wait_for(asyncio.gather(*hub.send(*jobs)), WAIT_S)
        assert [result.only.outcome for result in results] == ["sent", "deferred"] * 10
        assert (len(script.received), script.commands.count("DATA")) == (10, 10)
        assert {status.text for *_, status in hub.traced} == {"250 2.0.0 Ok"}


async def test_cached_connection_closed_by_server_is_replaced(tmp_path: Path) -> None:
    # The server closes the connection at the second message.
    async with (
        server(Script({"MAIL": ["250 ok", "250 ok", drop, "250 ok"]})) as script,
        smtp(tmp_path) as (hub, daemon),
    ):
        nexthop = f"[127.0.0.1]:{script.port}"
        for _ in range(3):
            assert (await hub.deliver(nexthop)).only.outcome == "sent"
        assert script.connections == 3
        assert len(script.received) == 3
        assert len(daemon.logged()) == 3


async def test_disabled_cache_keeps_no_connection(tmp_path: Path) -> None:
    more = "smtp_connection_cache_on_demand = no\n"
    async with server(Script()) as script, smtp(tmp_path, more) as (hub, _):
        for _ in range(3):
            await hub.deliver(f"[127.0.0.1]:{script.port}")
        assert script.connections == 3


async def test_idle_connection_closes_after_time_limit(tmp_path: Path) -> None:
    more = "smtp_connection_cache_time_limit = 2s\n"
    async with server(Script()) as script, smtp(tmp_path, more) as (hub, _):
        for _ in range(2):
            await hub.deliver(f"[127.0.0.1]:{script.port}")
        assert script.commands.count("QUIT") <= 1
        await until(lambda: script.commands.count("QUIT") == 2)


async def test_jobs_are_pipelined_only_up_to_the_reuse_count_limit(tmp_path: Path) -> None:
    more = "smtp_connection_reuse_count_limit = 2\n"
    async with server(Script()) as script, smtp(tmp_path, more) as (hub, daemon):
        nexthop = f"[127.0.0.1]:{script.port}"
        await hub.deliver(nexthop)
        results = await asyncio.wait_for(asyncio.gather(*hub.send(*(hub.job(nexthop) for _ in range(30)))), WAIT_S)
        assert {result.only.outcome for result in results} == {"sent"}
        uses = [int(use[1]) for line in daemon.logged() if (use := re.search(r"conn_use=(\d+)", line))]
        assert max(uses, default=1) <= 3


async def test_connection_is_not_reused_after_the_reuse_time_limit(tmp_path: Path) -> None:
    limit_s = 1.0
    runs: list[list[tuple[float, float]]] = [[]]
    """The messages of each connection: when the agent got it, and when it was delivered."""
    loop = asyncio.get_running_loop()
    more = f"smtp_connection_reuse_time_limit = {limit_s:g}s\n"
    async with server(Script()) as script, smtp(tmp_path, more) as (hub, daemon):
        begun = loop.time()
        while len(runs) < 4 and loop.time() - begun < 20:
            sent_s = loop.time()
            await hub.deliver(f"[127.0.0.1]:{script.port}")
            if "conn_use=" not in daemon.logged()[-1]:
                runs.append([])
            runs[-1].append((sent_s, loop.time()))
    # The first message does not keep its connection open.
    _, _, second, third = runs
    assert len(second) > 1
    # The connection begins between the two times of its first message.
    assert second[-1][0] <= second[0][1] + limit_s
    assert third[0][1] >= second[0][0] + limit_s


async def test_many_concurrent_jobs_are_delivered(tmp_path: Path) -> None:
    async with server(Script()) as script, smtp(tmp_path) as (hub, _):
        jobs = [hub.job(f"[127.0.0.1]:{script.port}") for _ in range(60)]
        results = await asyncio.wait_for(asyncio.gather(*hub.send(*jobs)), WAIT_S)
        assert {result.only.outcome for result in results} == {"sent"}
        assert len(script.received) == 60


async def test_large_message_arrives_whole(tmp_path: Path) -> None:
    content = b"Subject: large\r\n\r\n" + b"0123456789abcdef" * 62 + b"\r\n"
    content += (b"x" * 998 + b"\r\n") * 8000
    async with server(Script()) as script, smtp(tmp_path) as (hub, _):
        assert (await hub.deliver(f"[127.0.0.1]:{script.port}", mail(content=content))).only.outcome == "sent"
        assert script.received == [content + b".\r\n"]


@pytest.mark.parametrize(
    ("more", "lines"),
    [
        ("", [b"x" * 998, b" " + b"x" * 997, b" xxxxx", b"..y"]),
        ("smtp_line_length_limit = 1500\n", [b"x" * 1500, b" " + b"x" * 500, b"..y"]),
        ("smtp_line_length_limit = 0\n", [b"x" * 2000, b"..y"]),
    ],
)
async def test_long_lines_are_broken(tmp_path: Path, more: str, lines: list[bytes]) -> None:
    content = b"x" * 2000 + b"\r\n..y\r\n"
    async with server(Script()) as script, smtp(tmp_path, more) as (hub, _):
        assert (await hub.deliver(f"[127.0.0.1]:{script.port}", mail(content=content))).only.outcome == "sent"
        assert script.received[0].split(b"\r\n") == [*lines, b".", b""]


@pytest.mark.parametrize(
    ("source", "more", "outcome", "text", "seen"),
    [
        ("127.0.0.2", "", "sent", "250 .*", ["127.0.0.2"]),
        ("127.0.0.2", "smtp_bind_address_enforce = yes\n", "sent", "250 .*", ["127.0.0.2"]),
        ("192.0.2.9", "", "sent", "250 .*", ["127.0.0.1"]),
        ("192.0.2.9", "smtp_bind_address_enforce = yes\n", "deferred", "cannot connect from 192.0.2.9: .*", []),
    ],
)
async def test_connections_come_from_smtp_bind_address(
    tmp_path: Path, source: str, more: str, outcome: str, text: str, seen: list[str]
) -> None:
    peers: list[str] = []

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(writer.get_extra_info("peername")[0])
        writer.write(b"220 sink.example.com ESMTP\r\n")

    more += f"smtp_bind_address = {source}\n"
    async with server(Script(greeting=greet)) as script, smtp(tmp_path, more) as (hub, daemon):
        result = await hub.deliver(f"[127.0.0.1]:{script.port}")
        assert result.only.outcome == outcome
        assert re.fullmatch(text, result.only.text)
        assert peers == seen
        warned = any(f"warning: cannot connect from {source}: " in line for line in daemon.logged())
        assert warned is (seen != [source])


async def test_connection_to_listed_destination_is_kept_without_demand(tmp_path: Path) -> None:
    async with server(Script()) as script:
        nexthop = f"[127.0.0.1]:{script.port}"
        more = f"smtp_connection_cache_on_demand = no\nsmtp_connection_cache_destinations = {nexthop}\n"
        async with smtp(tmp_path, more) as (hub, _):
            for _ in range(3):
                await hub.deliver(nexthop)
            assert script.connections == 1


@pytest.mark.parametrize(
    ("more", "outcome"),
    [
        ("", "sent"),
        ("lmtp_per_request_deadline = yes\nlmtp_min_data_rate = 100000\n", "sent"),
        ("lmtp_per_request_deadline = yes\nlmtp_min_data_rate = 1000000\n", "deferred"),
    ],
)
async def test_server_below_minimum_data_rate_times_out(tmp_path: Path, more: str, outcome: str) -> None:
    # A local socket's buffers are much smaller than the message.
    content = (b"x" * 998 + b"\r\n") * 900
    taken = 0

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        writer.write(b"354 go\r\n")
        # At 200,000 octets a second, 256 KiB take longer than the timeout.
        while taken < len(content) + 3:
            data = await reader.read(80_000)
            if not data:
                raise ConnectionResetError
            taken += len(data)
            await asyncio.sleep(len(data) / 200_000)
        writer.write(b"250 taken\r\n")

    more += "lmtp_data_xfer_timeout = 1s\n"
    path = tmp_path / "lmtp.sock"
    listening = await asyncio.start_unix_server(Script({"DATA": slow}).serve, str(path), limit=32_768)
    async with smtp(tmp_path, more, "lmtp") as (hub, _):
        result = await asyncio.wait_for(hub.send(hub.job(f"unix:{path}", mail(content=content)))[0], 30)
    listening.close()
    assert result.only.outcome == outcome
    if outcome == "sent":
        assert taken >= len(content) + 3
    else:
        assert re.fullmatch("conversation with .* timed out while sending message body", result.only.text)


async def test_server_that_does_not_read_times_out(tmp_path: Path) -> None:
    async def no_reads(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"354 go\r\n")
        await asyncio.Event().wait()

    content = (b"x" * 998 + b"\r\n") * 10_000
    more = "smtp_data_xfer_timeout = 1s\n"
    async with server(Script({"DATA": no_reads})) as script, smtp(tmp_path, more) as (hub, _):
        result = await hub.deliver(f"[127.0.0.1]:{script.port}", mail(content=content))
        assert result.only.text == "conversation with 127.0.0.1[127.0.0.1] timed out while sending message body"


async def test_damaged_message_is_not_delivered(tmp_path: Path) -> None:
    async with server(Script()) as script, smtp(tmp_path) as (hub, daemon):
        number, data = hub.job(f"[127.0.0.1]:{script.port}")
        path = tmp_path / "incoming" / f"{number:016X}"
        path.write_bytes(path.read_bytes().replace(b"body", b"BODY"))
        result = await asyncio.wait_for(hub.send((number, data))[0], WAIT_S)
        assert (result.only.outcome, result.only.text) == ("deferred", "unreadable mail queue entry")
        assert script.received == []
        assert result.site is None, "the destination is not at fault"
        assert any("checksum does not match" in line for line in daemon.logged())


async def test_smtputf8_mail_bounces_unless_server_offers_smtputf8(tmp_path: Path) -> None:
    async with (
        server(Script()) as modern,
        server(Script(keywords=("PIPELINING",))) as old,
        smtp(tmp_path) as (hub, _),
    ):
        utf8 = mail("grüße@example.com", smtputf8=True, body=2)
        assert (await hub.deliver(f"[127.0.0.1]:{modern.port}", utf8)).only.outcome == "sent"
        assert "MAIL FROM:<sender@example.org> SIZE=17 BODY=8BITMIME SMTPUTF8" in modern.commands
        result = await hub.deliver(f"[127.0.0.1]:{old.port}", utf8)
        assert (result.only.outcome, result.only.dsn) == ("bounced", "5.6.7")
        assert result.only.text == "SMTPUTF8 is required, but was not offered by host 127.0.0.1[127.0.0.1]"
        plain = mail(smtputf8=True, content=b"Subject: x\r\n\r\n\xc3\xbc\r\n")
        assert (await hub.deliver(f"[127.0.0.1]:{old.port}", plain)).only.outcome == "sent"
        header = mail(smtputf8=True, content=b"Subject: \xc3\xbc\r\n\r\nx\r\n")
        assert (await hub.deliver(f"[127.0.0.1]:{old.port}", header)).only.dsn == "5.6.7"


async def test_dsn_options_are_passed_on(tmp_path: Path) -> None:
    async with server(Script()) as script, smtp(tmp_path) as (hub, _):
        message = mail("a@example.com", notify=4 | 8, ret=2, envid="Q+2B1", orcpt="rfc822;old@example.com")
        await hub.deliver(f"[127.0.0.1]:{script.port}", message)
        assert script.commands[1:3] == [
            "MAIL FROM:<sender@example.org> SIZE=17 ENVID=Q+2B1 RET=HDRS",
            "RCPT TO:<a@example.com> ORCPT=rfc822;old@example.com NOTIFY=FAILURE,DELAY",
        ]


async def test_next_hop_list_is_tried_in_order(tmp_path: Path) -> None:
    replies = {"RCPT TO:<a@example.com> ORCPT=rfc822;a@example.com": "450 4.2.0 later"}
    async with server(Script(replies)) as first, server(Script()) as second, smtp(tmp_path) as (hub, daemon):
        nexthop = f"[127.0.0.1]:{free_port()}, [127.0.0.1]:{first.port} [127.0.0.1]:{second.port}"
        result = await hub.deliver(nexthop, mail("a@example.com", "b@example.com"))
        assert [status.outcome for status in result.recipients.values()] == ["sent", "sent"]
        assert (len(first.received), len(second.received)) == (1, 1)
        lines = daemon.logged()
        assert lines[0].endswith("Connection refused")
        assert lines[1].endswith(": host 127.0.0.1[127.0.0.1] said: 450 4.2.0 later (in reply to RCPT TO command)")
        assert result.site is None


async def test_site_is_not_dead_when_one_host_replied(tmp_path: Path) -> None:
    async with server(Script({"RCPT": "450 4.2.0 later"})) as script, smtp(tmp_path) as (hub, _):
        result = await hub.deliver(f"[127.0.0.1]:{script.port}, [127.0.0.1]:{free_port()}")
        assert result.only.text.endswith("Connection refused")
        assert result.site is None, "a host of the destination completed a transaction"


@pytest.mark.parametrize(
    ("nexthop", "text"),
    [
        ("[127.0.0.1", 'missing "]", or text after it, in server description: [127.0.0.1'),
        ("[127.0.0.1]:0", "bad network port: 0"),
        ("[127.0.0.1]:nosuchservice", "unknown service: nosuchservice/tcp"),
        ("", "null destination"),
        ("[]", "missing host name in server description: []"),
        ("[mx..example.com]", "valid hostname or network address required in server description: [mx..example.com]"),
        ('"a b"', 'valid hostname or network address required in server description: "a'),
        ("192.0.2", "valid hostname or network address required in server description: 192.0.2"),
    ],
)
async def test_invalid_next_hop_defers(tmp_path: Path, nexthop: str, text: str) -> None:
    async with smtp(tmp_path) as (hub, _):
        result = await hub.deliver(nexthop)
        assert (result.only.outcome, result.only.dsn, result.only.text) == ("deferred", "4.3.5", text)


async def test_bad_relayhost_defers(tmp_path: Path) -> None:
    more = "relayhost = [nosuch.invalid]:2525\n"
    async with smtp(tmp_path, more) as (hub, daemon):
        result = await hub.deliver("[nosuch.invalid]:2525")
        assert (result.only.outcome, result.only.dsn) in [("deferred", "4.3.5"), ("deferred", "4.4.4")]
        if result.only.dsn == "4.3.5":
            assert "warning: relayhost configuration problem" in daemon.logged()


async def test_soft_bounce_defers_instead_of_bouncing(tmp_path: Path) -> None:
    async with server(Script({"RCPT": "550 5.1.1 no"})) as script, smtp(tmp_path, "soft_bounce = yes\n") as (hub, _):
        result = await hub.deliver(f"[127.0.0.1]:{script.port}")
        assert (result.only.outcome, result.only.dsn) == ("deferred", "4.1.1")


async def test_lmtp_delivers_over_unix_socket(tmp_path: Path) -> None:
    script = Script({".": b"250 2.1.5 a\r\n452 4.2.2 full\r\n"})
    listening = await asyncio.start_unix_server(script.serve, str(tmp_path / "lmtp.sock"))
    async with smtp(tmp_path, protocol="lmtp") as (hub, daemon):
        result = await hub.deliver(f"unix:{tmp_path}/lmtp.sock", mail("a@example.com", "b@example.com"))
        assert [status.outcome for status in result.recipients.values()] == ["sent", "deferred"]
        assert script.commands[0] == "LHLO mx.example.org"
        assert f"relay=localhost[{tmp_path}/lmtp.sock], " in daemon.logged()[0]
    listening.close()


async def test_stopping_defers_deliveries_in_flight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postillion.delivery.agent.STOP_GRACE_S", 0.3)
    async with server(Script({"RCPT": hang})) as script, smtp(tmp_path) as (hub, daemon):
        (waiting,) = hub.send(hub.job(f"[127.0.0.1]:{script.port}"))
        await until(lambda: script.commands and script.commands[-1].startswith("RCPT"))
        daemon.stopping.set()
        result = await asyncio.wait_for(waiting, WAIT_S)
        assert result.recipients == {}, "a recipient without a status is deferred"
        assert hub.capacities[-1] == 0


async def test_draining_finishes_deliveries_in_flight(tmp_path: Path) -> None:
    requested, released = asyncio.Event(), asyncio.Event()

    async def slow(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requested.set()
        await released.wait()
        writer.write(b"250 slow\r\n")

    async with server(Script({"RCPT": slow})) as script, smtp(tmp_path) as (hub, daemon):
        (waiting,) = hub.send(hub.job(f"[127.0.0.1]:{script.port}"))
        await asyncio.wait_for(requested.wait(), WAIT_S)
        daemon.draining.set()
        released.set()
        assert (await asyncio.wait_for(waiting, WAIT_S)).only.outcome == "sent"


async def test_agent_reconnects_to_restarted_queue_manager(tmp_path: Path) -> None:
    async with server(Script()) as script, smtp(tmp_path) as (hub, _):
        await hub.deliver(f"[127.0.0.1]:{script.port}")
        hub.registered.clear()
        hub.writer.close()
        await asyncio.wait_for(hub.registered.wait(), WAIT_S)
        assert (await hub.deliver(f"[127.0.0.1]:{script.port}")).only.outcome == "sent"


@pytest.mark.parametrize(
    ("options", "outcome", "text"),
    [
        ((), "sent", r"250 2\.0\.0 Ok"),
        (("-p",), "sent", r"250 2\.0\.0 Ok"),
        (("-e",), "sent", r"250 2\.0\.0 Ok"),
        (("-8", "-N"), "sent", r"250 2\.0\.0 Ok"),
        (("-r", "mail"), "deferred", r"host .* said: 450 .* \(in reply to MAIL FROM command\)"),
        (("-r", "rcpt"), "deferred", r"host .* said: 450 .* \(in reply to RCPT TO command\)"),
        (("-r", "data"), "deferred", r"host .* said: 450 .* \(in reply to DATA command\)"),
        (("-r", "."), "deferred", r"host .* said: 450 .* \(in reply to end of DATA command\)"),
        (("-f", "rcpt"), "bounced", r"host .* said: 500 .* \(in reply to RCPT TO command\)"),
        (("-f", "."), "bounced", r"host .* said: 500 .* \(in reply to end of DATA command\)"),
        (("-q", "mail"), "deferred", r"lost connection with .* while sending MAIL FROM"),
        (("-q", "data"), "deferred", r"lost connection with .* while sending DATA command"),
        (("-q", "."), "deferred", r"lost connection with .* while sending end of data -- message may be sent.*"),
        (("-Q", "rcpt"), "deferred", r"host .* said: 421 .* \(in reply to RCPT TO command\)"),
        (("-f", "connect"), "deferred", r"host .* refused to talk to me: 521 .*|host .* refused to talk to me: 500.*"),
        (("-W", "connect:1:0"), "sent", r"250 2\.0\.0 Ok"),
    ],
)
async def test_replies_of_postfix_smtp_sink_are_understood(
    tmp_path: Path, options: tuple[str, ...], outcome: str, text: str
) -> None:
    async with sink(*options) as port, smtp(tmp_path) as (hub, _):
        result = await hub.deliver(f"[127.0.0.1]:{port}", mail("a@example.com", "b@example.com"))
        for status in result.recipients.values():
            assert status.outcome == outcome, status
            assert re.fullmatch(text, status.text), status
        assert len(result.recipients) == 2


async def test_many_messages_to_smtp_sink_share_connections(tmp_path: Path) -> None:
    async with sink() as port, smtp(tmp_path) as (hub, daemon):
        jobs = [hub.job(f"[127.0.0.1]:{port}", mail(f"r{n}@example.com")) for n in range(200)]
        waiting: list[asyncio.Future[object]] = []
        for at in range(0, 200, 20):
            waiting += hub.send(*jobs[at : at + 20])  # type: ignore[arg-type]
            await asyncio.gather(*waiting)
        assert {result.only.outcome for result in await asyncio.gather(*waiting)} == {"sent"}  # type: ignore[attr-defined]
        lines = daemon.logged()
        assert len(lines) == 200
        assert sum("conn_use=" in line for line in lines) >= 150


async def test_bug_in_the_search_for_a_server_ends_only_one_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def bug(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("postillion.delivery.smtp.agent.targets", bug)
    async with server(Script()) as script, smtp(tmp_path) as (hub, daemon):
        result = await hub.deliver("mx.example.org")
        assert (result.only.outcome, result.only.dsn) == ("deferred", "4.3.0")
        assert any("delivery failed, deferring: ValueError: a bug" in line for line in daemon.logged())
        assert (await hub.deliver(f"[127.0.0.1]:{script.port}")).only.outcome == "sent"
