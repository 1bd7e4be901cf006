"""The queue manager over its real sockets, with a fake producer and fake delivery agents."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from postillion._core.delivery import AgentLink, DeliveryJob
from postillion._core.log import Log
from postillion._core.qmgr import check_settings
from postillion._core.queue import QueueError
from postillion.address.resolve import Resolver, Unresolved
from postillion.config import Config, ConfigError
from postillion.program import ipc
from postillion.qmgr.settings import Configuration
from postillion.qmgr.shell import Shell
from support.memory_config import config
from support.mta import until, wait_for
from support.queue_files import MAIN_CF, Message, announce, frame, write_segment

WAIT_S = 10.0
NOW_US = int(time.time() * 1e6)


def listen(path: Path) -> socket.socket:
    """Return a listening socket at `path`."""
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    listener.setblocking(False)
    return listener


class FakeDaemon:
    """The part of a `Daemon` that the shell needs."""

    def __init__(self, directory: Path, more: str = "") -> None:
        (directory / "main.cf").write_text(MAIN_CF.format(directory=directory) + more)
        self.program = self.service = "qmgr"
        self.config = Config.load(str(directory))
        self.log = Log("mx", "postfix", "qmgr", 1, 0, "memory:")
        self.stopping = asyncio.Event()
        self.draining = asyncio.Event()
        self.listeners = [listen(directory / "public" / "qmgr")]
        # As master does: a trigger connects, and an agent registers later.
        self.services = [listen(directory / "private" / name) for name in ("smtp", "relay", "bounce")]
        self.lines: list[str] = []

    def must_be_replaced(self, config: Config) -> bool:
        """Return False: the tables are readable."""
        return False

    def logged(self) -> list[str]:
        """Return all log lines so far."""
        self.lines += self.log.take_lines()
        return self.lines


@asynccontextmanager
async def qmgr(directory: Path, more: str = "") -> AsyncIterator[FakeDaemon]:
    """Run a queue manager in `directory` during the block."""
    os.chdir(directory)
    daemon = FakeDaemon(directory, more)
    shell = Shell(daemon, Configuration(daemon.config, daemon.log.warning))  # type: ignore[arg-type]
    serving = asyncio.create_task(shell.serve())
    await asyncio.sleep(0)
    try:
        yield daemon
    finally:
        daemon.stopping.set()
        await serving


class FakeAgent:
    """A delivery agent. `finish(job)` decides the result of each job; None keeps jobs pending."""

    def __init__(self, directory: Path, finish: Callable[[DeliveryJob], None] | None) -> None:
        self.link = AgentLink(Log("mx", "postfix", "smtp", 1, 0, "memory:"), str(directory))
        self.finish = finish
        self.jobs: list[DeliveryJob] = []
        self.received = asyncio.Event()

    async def connect(self, transport: str, capacity: int = 20) -> FakeAgent:
        reader, self.writer = await asyncio.open_unix_connection("private/qmgr")
        self.writer.write(self.link.register(transport, os.getpid(), capacity))
        self.task = asyncio.create_task(self._work(reader))
        return self

    async def _work(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65536):
            for job in self.link.receive(data):
                self.jobs.append(job)
                if self.finish is not None:
                    self.finish(job)
                    self.writer.write(job.result())
            self.received.set()

    async def close(self) -> None:
        self.writer.close()
        await self.task

    async def has(self, count: int) -> list[DeliveryJob]:
        """Wait for `count` jobs; return all jobs."""
        async with asyncio.timeout(WAIT_S):
            while len(self.jobs) < count:
                self.received.clear()
                await self.received.wait()
        return self.jobs


def outcome(status: str, dsn: str, text: str) -> Callable[[DeliveryJob], None]:
    def finish(job: DeliveryJob) -> None:
        for recipient in job.recipients:
            job.status(recipient.index, status, dsn, text)  # type: ignore[arg-type]

    return finish


SENT = outcome("sent", "2.0.0", "ok")
DEFERRED = outcome("deferred", "4.2.0", "come back later")
BOUNCED = outcome("bounced", "5.1.1", "no such user")


async def ask(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Send a control request as the commands do; return the replies."""
    return await asyncio.to_thread(lambda: list(ipc.ask("public/qmgr", request)))


async def test_message_is_delivered_by_agent_of_its_transport_and_removed(tmp_path: Path) -> None:
    async with qmgr(tmp_path) as daemon:
        agent = await FakeAgent(tmp_path, SENT).connect("smtp")
        message = Message(NOW_US, ["a@example.net", "b@example.net", "c@example.edu"])
        producer = announce(tmp_path, 1, [message])
        jobs = await agent.has(2)
        assert sorted((job.nexthop, [to.address for to in job.recipients]) for job in jobs) == [
            ("example.edu", ["c@example.edu"]),
            ("example.net", ["a@example.net", "b@example.net"]),
        ]
        await until(lambda: f"{message.id}: removed" in daemon.logged())
        size = len(message.content)
        assert f"{message.id}: from=<sender@example.org>, size={size}, nrcpt=3 (queue active)" in daemon.lines
        await until(lambda: not list((tmp_path / "incoming").glob("0*1")))
        producer.close()
        await agent.close()


async def test_restarted_queue_manager_restores_its_state(tmp_path: Path) -> None:
    began = time.time()
    done, late, held = (Message(time.time_ns() // 1000 + n, [f"r{n}@example.net"]) for n in range(3))
    async with qmgr(tmp_path) as daemon:
        first = await FakeAgent(
            tmp_path, lambda job: (SENT if "r0" in job.recipients[0].address else DEFERRED)(job)
        ).connect("smtp")
        producer = announce(tmp_path, 1, [done, late, held])
        await first.has(3)
        await until(lambda: f"{done.id}: removed" in daemon.logged())
        await until(lambda: len(first.jobs) == 3)
        [reply] = await ask({"verb": "hold", "ids": [held.id]})
        assert reply == {"done": [held.id]}
        producer.close()
    async with qmgr(tmp_path) as daemon:
        rows = {row["queue_id"]: row for row in await ask({"verb": "list"})}
        assert rows.keys() == {late.id, held.id}
        assert rows[held.id]["queue_name"] == "hold"
        assert rows[late.id]["queue_name"] == "deferred"
        assert rows[late.id]["recipients"] == [{"address": "r1@example.net", "delay_reason": "come back later"}]
        assert rows[late.id]["attempts"] == 1
        assert int(began) + 300 <= rows[late.id]["next_attempt"] <= time.time() + 300
        second = await FakeAgent(tmp_path, SENT).connect("smtp")
        assert await ask({"verb": "flush"}) == [{"done": 1}]
        [job] = await second.has(1)
        assert job.queue_id == late.id
        await ask({"verb": "release"})
        assert (await second.has(2))[1].queue_id == held.id
        await until(lambda: f"{held.id}: removed" in daemon.logged())
        assert await ask({"verb": "list"}) == []


async def test_unannounced_mail_is_found_at_start_and_by_trigger(tmp_path: Path) -> None:
    write_segment(tmp_path, 1, [Message(NOW_US, ["a@example.net"])])
    async with qmgr(tmp_path):
        agent = await FakeAgent(tmp_path, SENT).connect("smtp")
        await agent.has(1)
        write_segment(tmp_path, 2, [Message(NOW_US + 9, ["b@example.net"])])
        with socket.socket(socket.AF_UNIX) as trigger:
            trigger.connect("public/qmgr")
            trigger.sendall(b"W")
        assert (await agent.has(2))[1].recipients[0].address == "b@example.net"


async def test_bounce_is_reported_before_message_is_removed(tmp_path: Path) -> None:
    async with qmgr(tmp_path) as daemon:
        smtp = await FakeAgent(tmp_path, BOUNCED).connect("smtp")
        message, from_null_sender = (
            Message(NOW_US, ["a@example.net"]),
            Message(NOW_US + 1, ["a@example.net"], sender=""),
        )
        announce(tmp_path, 1, [message, from_null_sender]).close()
        await smtp.has(2)
        assert ": removed" not in "".join(daemon.logged())
        bounce = await FakeAgent(tmp_path, SENT).connect("bounce")
        reports = await bounce.has(2)
        assert sorted((report.kind, report.queue_id) for report in reports) == [
            ("bounce", message.id),
            ("bounce", from_null_sender.id),
        ]
        await until(lambda: f"{from_null_sender.id}: removed" in daemon.logged())
        [report] = [report for report in reports if report.queue_id == message.id]
        status = report.recipients[0].status
        assert status is not None
        assert (status.outcome, status.dsn, status.text) == ("bounced", "5.1.1", "no such user")
        await until(lambda: f"{message.id}: removed" in daemon.logged())


async def test_transport_without_agents_defers_its_mail(tmp_path: Path) -> None:
    async with qmgr(tmp_path) as daemon:
        message = Message(NOW_US, ["a@mailbox.example"])
        announce(tmp_path, 1, [message]).close()
        [line] = await until(lambda: [line for line in daemon.logged() if "status=deferred" in line])
        assert line.startswith(f"{message.id}: to=<a@mailbox.example>, relay=none, delay=")
        assert line.endswith(", dsn=4.3.0, status=deferred (mail transport unavailable)")
        assert any(line.startswith("warning: connect to transport private/virtual: ") for line in daemon.logged())


async def test_dead_destination_suspends_only_its_own_mail(tmp_path: Path) -> None:
    def finish(job: DeliveryJob) -> None:
        if job.nexthop == "dead.example":
            job.site_failed("4.4.1", "connect to dead.example[192.0.2.1]:25: Connection refused")
            DEFERRED(job)
        else:
            SENT(job)

    async with qmgr(tmp_path) as daemon:
        agent = await FakeAgent(tmp_path, finish).connect("smtp", capacity=100)
        dead = [Message(NOW_US + n, ["x@dead.example"]) for n in range(20)]
        announce(tmp_path, 1, [*dead, Message(NOW_US + 99, ["y@alive.example"])]).close()
        await until(lambda: any(job.nexthop == "alive.example" for job in agent.jobs))
        text = "(delivery temporarily suspended: connect to dead.example[192.0.2.1]:25: Connection refused)"
        suspended = await until(
            lambda: found if len(found := [line for line in daemon.logged() if line.endswith(text)]) == 15 else []
        )
        assert all("relay=none" in line and "dsn=4.4.1, status=deferred" in line for line in suspended)
        assert sum(job.nexthop == "dead.example" for job in agent.jobs) == 5, (
            "the initial concurrency, then the destination is dead"
        )


async def test_jobs_of_lost_agent_go_to_another_agent(tmp_path: Path) -> None:
    async with qmgr(tmp_path) as daemon:
        lost = await FakeAgent(tmp_path, None).connect("smtp")
        messages = [Message(NOW_US + n, [f"r{n}@example.net"]) for n in range(3)]
        announce(tmp_path, 1, messages).close()
        await lost.has(3)
        await lost.close()
        other = await FakeAgent(tmp_path, SENT).connect("smtp")
        await other.has(3)
        for message in messages:
            await until(lambda id=message.id: f"{id}: removed" in daemon.logged())  # type: ignore[misc]


async def test_second_queue_manager_is_refused(tmp_path: Path) -> None:
    async with qmgr(tmp_path):
        again = FakeDaemon(tmp_path)
        configuration = Configuration(again.config, again.log.warning)
        with pytest.raises(QueueError, match="another queue manager"):
            Shell(again, configuration)  # type: ignore[arg-type]


async def test_only_hostile_peers_are_disconnected(tmp_path: Path) -> None:
    async with qmgr(tmp_path) as daemon:
        agent = await FakeAgent(tmp_path, SENT).connect("smtp")
        for path in ("private/qmgr", "public/qmgr"):
            noise = random.Random(1).randbytes(4096)
            for garbage in (b"EHLO x\r\n", noise, frame(99, b""), frame(4, b"\xff" * 8), b"\xff" * 6):
                reader, writer = await asyncio.open_unix_connection(path)
                writer.write(garbage)
                if garbage[:1] != b"\xff":
                    async with asyncio.timeout(WAIT_S):
                        assert await reader.read() == b""
                writer.close()
        assert any("is disconnected" in line for line in daemon.logged())
        announce(tmp_path, 1, [Message(NOW_US, ["a@example.net"])]).close()
        await agent.has(1)
        assert (await ask({"verb": "nonsense"}))[0]["error"] == "unknown verb 'nonsense'"
        assert "error" in (await ask({"verb": "list", "more": 1}))[0]
        assert (await ask({"verb": "place", "id": "../etc"}))[0]["path"] is None


async def test_reload_applies_new_routes_and_survives_bad_main_cf(tmp_path: Path) -> None:
    async with qmgr(tmp_path) as daemon:
        smtp = await FakeAgent(tmp_path, SENT).connect("smtp")
        relay = await FakeAgent(tmp_path, SENT).connect("relay")
        announce(tmp_path, 1, [Message(NOW_US, ["a@example.net"])]).close()
        await smtp.has(1)
        (tmp_path / "main.cf").write_text("minimal_backoff_time = 10x\n")
        daemon.draining.set()
        await until(lambda: any("the old configuration stays in force" in line for line in daemon.logged()))
        (tmp_path / "main.cf").write_text(MAIN_CF.format(directory=tmp_path) + "relay_domains = example.net\n")
        daemon.draining.set()
        await until(lambda: any(line.startswith("reload -- ") for line in daemon.logged()))
        announce(tmp_path, 2, [Message(NOW_US + 1, ["a@example.net"])]).close()
        await relay.has(1)


@pytest.mark.parametrize(
    ("address", "route"),
    [
        ("user@example.org", ("local", "mx.example.org", None)),
        ("user", ("smtp", "mx.example.org", "user@mx.example.org")),
        ("user@EXAMPLE.com", ("relay", "example.com", None)),
        ("user@sub.example.com", ("relay", "sub.example.com", None)),
        ("user@mailbox.example", ("virtual", "mailbox.example", None)),
        ("user@alias.example", ("error", "5.1.1 User unknown in virtual alias table", None)),
        ("user@example.net", ("smtp", "example.net", None)),
        ('"a@b"@example.net', ("smtp", "example.net", None)),
        ("user@[192.0.2.7]", ("smtp", "[192.0.2.7]", None)),
        ("user@[127.0.0.1]", ("local", "mx.example.org", None)),
    ],
)
def test_address_class_decides_the_route(tmp_path: Path, address: str, route: tuple[str, str, str | None]) -> None:
    (tmp_path / "main.cf").write_text(MAIN_CF.format(directory=tmp_path))
    resolver = Resolver(Config.load(str(tmp_path)), pytest.fail)
    assert tuple(resolver.resolve(address)) == route
    assert resolver.by_domain


def test_relayhost_and_transport_maps_override_the_route(tmp_path: Path) -> None:
    table = "inline:{ a@example.net=slow:, .example.net=:[gw], example.org=discard:, {bad.example=error:5.0.0 no} }"
    more = f"relayhost = [hub.example]:587\nrecipient_delimiter = +\ntransport_maps = {table}\n"
    (tmp_path / "main.cf").write_text(MAIN_CF.format(directory=tmp_path) + more)
    resolver = Resolver(Config.load(str(tmp_path)), pytest.fail)
    assert not resolver.by_domain
    for address, route in {
        "b@example.net": ("smtp", "[hub.example]:587"),
        "a@example.net": ("slow", "example.net"),
        "a+ext@example.net": ("slow", "example.net"),
        "b@sub.example.net": ("smtp", "[gw]"),
        "b@example.org": ("discard", "example.org"),
        "b@bad.example": ("error", "5.0.0 no"),
    }.items():
        assert tuple(resolver.resolve(address))[:2] == route, address


def test_transport_table_without_addresses_allows_routing_by_domain(tmp_path: Path) -> None:
    (tmp_path / "transport").write_text("example.net slow:\n")
    (tmp_path / "main.cf").write_text(
        MAIN_CF.format(directory=tmp_path) + f"transport_maps = texthash:{tmp_path}/transport\n"
    )
    resolver = Resolver(Config.load(str(tmp_path)), pytest.fail)
    assert resolver.by_domain
    (tmp_path / "transport").write_text("a@example.net slow:\n")
    os.utime(tmp_path / "transport", (1, 1))
    wait_for("the change of the table", lambda: not resolver.by_domain)


def test_bad_addresses_and_failing_tables_are_unresolved(tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text(MAIN_CF.format(directory=tmp_path) + "transport_maps = fail:x\n")
    resolver = Resolver(Config.load(str(tmp_path)), lambda _text: None)
    for address, dsn in {"user@": "5.1.3", "user@a..b": "5.1.3", "a@example.net": "4.3.0"}.items():
        with pytest.raises(Unresolved) as caught:
            resolver.resolve(address)
        assert caught.value.dsn == dsn


def test_value_that_only_the_core_refuses_is_named_as_in_main_cf() -> None:
    bad = config(mine_destination_concurrency_positive_feedback="0/inf")
    for transport, refused in (("mine", True), ("other", False)):
        expected = pytest.raises(ConfigError, match='"0/inf" for mine_destination_concurrency_positive_feedback')
        with expected if refused else contextlib.nullcontext():
            check_settings(bad, [transport])
