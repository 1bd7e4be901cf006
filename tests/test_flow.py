"""Flow control (in_flow_delay): a queue manager that falls behind slows acceptance down, and nothing else."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from postillion._core.log import Log
from postillion._core.queue import Journal
from postillion._core.smtpd import Request, SmtpdConfig, SmtpdService
from postillion.pickup.maildrop import Maildrop as Directory
from postillion.pickup.service import Pickup
from postillion.pickup.service import Site as PickupSite
from postillion.program.producer import BEHIND_OCTETS, Producer, Tickets
from support.hostile import RawClient, high_water_kib
from support.memory_config import cleanup_settings, config
from support.mta import Site, processes, running, until, wait_for
from support.queue_files import Message, announce
from test_pickup import record_file
from test_producer import FakeJournal, Manager, NoCommits
from test_qmgr import SENT, FakeAgent, qmgr

DELAY_S = 2
SLEEPING = Request.WakeUp
WAIT_S = 10.0
ENVELOPE = b"EHLO x\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"
NOW_US = int(time.time() * 1e6)


def flow_frame(behind: bool) -> bytes:
    return struct.pack("<IBBB", 3, 1, 9, behind)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(str(tmp_path))
    yield journal
    journal.close()


class Client:
    """A client of a service, with the test's clock."""

    def __init__(self, journal: Journal, *, delay_s: int) -> None:
        log = Log("mx", "postfix", "smtpd", 1, 0, "memory:")
        site = config(smtpd_forbid_unauth_pipelining="no", in_flow_delay=f"{delay_s}s")
        self.config = SmtpdConfig(site, log, cleanup_settings(), journal, asks=set(), auth_mechanisms=[])
        self.service = SmtpdService("smtp", self.config, None, journal)
        self.socket, theirs = socket.socketpair()
        with theirs:
            self.key, _ = self.service.adopt(theirs, "192.0.2.1", 1, 0.0)
        self.service.begin(self.key, "192.0.2.1", "client", "client", 0.0, group=0)
        self.service.remember(0, "b@example.org", 1000.0)
        self.codes()

    def send(self, data: bytes, now: float) -> list[type]:
        """Send data at time `now`; return the kinds of the service's requests."""
        self.socket.sendall(data)
        return [type(request) for request in self.service.poll(now) or []]

    def codes(self) -> list[str]:
        """Return the codes of the replies so far."""
        try:
            output = self.socket.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        return [line[:3].decode() for line in output.splitlines() if line[3:4] == b" "]


def test_message_waits_once_while_queue_manager_is_behind(journal: Journal) -> None:
    client = Client(journal, delay_s=DELAY_S)
    client.config.fall_behind(True)
    assert client.send(ENVELOPE, 100.0) == [SLEEPING]
    assert client.codes() == []
    session = client.service.session(client.key)
    assert session is not None
    assert session.deadline == 100.0 + DELAY_S
    client.service.wake(client.key, 100.0 + DELAY_S / 2)
    assert client.codes() == []
    client.service.wake(client.key, 100.0 + DELAY_S)
    assert client.codes() == ["250", "250", "250", "354"]
    # The content does not wait again, and a later message does not wait at all.
    assert client.send(b"x\r\n.\r\n", 103.0) == []
    assert client.codes() == []
    assert select.select([journal.fileno()], [], [], WAIT_S)[0]
    client.service.collect()
    client.service.finish(104.0)
    assert client.codes() == ["250"]
    client.config.fall_behind(False)
    assert client.send(ENVELOPE, 105.0) == []
    assert client.codes() == ["250", "250", "250", "354"]


def test_zero_delay_disables_flow_control(journal: Journal) -> None:
    client = Client(journal, delay_s=0)
    client.config.fall_behind(True)
    assert client.send(ENVELOPE, 1.0) == []
    assert client.codes() == ["250", "250", "250", "354"]


async def test_unread_announcements_mean_behind_and_cost_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "qmgr"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.setblocking(False)
        journal, states = FakeJournal(), asyncio.Queue[bool]()
        producer = Producer(
            journal, Tickets(journal, lambda *_: None), fall_behind=states.put_nowait, path=str(path), pid=7
        )
        producer.start()
        loop = asyncio.get_running_loop()
        manager, _ = await asyncio.wait_for(loop.sock_accept(listener), WAIT_S)
        await until(lambda: producer.connected)
        sent = 0
        while not producer.behind:
            journal.frames += b"x" * 100_000
            sent += 100_000
            producer.poll()
        assert await states.get() is True
        assert sent <= BEHIND_OCTETS + 2 * 1024 * 1024, "no more than the sockets hold"
        for _ in range(50):
            journal.frames += b"x" * 100_000
            producer.poll()
        assert journal.unannounced_octets == 50 * 100_000, "the rest stays in the journal, which bounds it"
        with manager:
            left = sent + 50 * 100_000 + len(b"hello 7 at 0\n")
            while left:
                left -= len(await asyncio.wait_for(loop.sock_recv(manager, 1 << 20), WAIT_S))
            assert await asyncio.wait_for(states.get(), WAIT_S) is False
            assert not producer.behind
            await producer.close()


async def test_unannounced_mail_counts_as_backlog(tmp_path: Path) -> None:
    journal, states = FakeJournal(), asyncio.Queue[bool]()
    manager = Manager(tmp_path / "late")
    producer = Producer(
        journal, Tickets(journal, lambda *_: None), fall_behind=states.put_nowait, path=str(manager.path), pid=7
    )
    producer.start()
    journal.frames = b"x" * BEHIND_OCTETS
    producer.poll()
    assert not producer.behind
    journal.frames += b"x"
    producer.poll()
    assert await states.get() is True
    await manager.listen()
    assert await asyncio.wait_for(states.get(), WAIT_S) is False
    await producer.close()
    await manager.die()


@pytest.mark.parametrize("step", [1, 3, 100])
async def test_producer_follows_flow_frames_of_queue_manager(tmp_path: Path, step: int) -> None:
    manager = Manager(tmp_path / "qmgr")
    await manager.listen()
    states = asyncio.Queue[bool]()
    producer = Producer(FakeJournal(), NoCommits(), fall_behind=states.put_nowait, path=str(manager.path), pid=7)
    producer.start()
    await manager.next_line()
    frames = flow_frame(True)
    for at in range(0, len(frames), step):
        manager.writers[0].write(frames[at : at + step])
        await manager.writers[0].drain()
    assert await asyncio.wait_for(states.get(), WAIT_S) is True
    manager.writers[0].write(b"\xff" * 100)
    # An invalid frame: the producer discards the peer's state and reconnects.
    assert await asyncio.wait_for(states.get(), WAIT_S) is False
    assert await manager.next_line() == "hello 7 at 0"
    await producer.close()
    await manager.die()


async def test_full_active_queue_slows_producers_until_it_has_room(tmp_path: Path) -> None:
    async with qmgr(tmp_path, "qmgr_message_active_limit = 1\n"):
        agent = await FakeAgent(tmp_path, None).connect("smtp")
        messages = [Message(NOW_US + number, ["a@example.net"]) for number in range(110)]
        producer = announce(tmp_path, 1, messages)
        producer.settimeout(WAIT_S)
        assert await asyncio.to_thread(producer.recv, 100) == flow_frame(True)
        with announce(tmp_path, 2, [Message(NOW_US + 999, ["a@example.net"])]) as late:
            late.settimeout(WAIT_S)
            assert await asyncio.to_thread(late.recv, 100) == flow_frame(True), (
                "a later producer gets the state as well"
            )
        agent.finish = SENT
        [job] = await agent.has(1)
        SENT(job)
        agent.writer.write(job.result())
        assert await asyncio.to_thread(producer.recv, 100) == flow_frame(False)
        producer.close()
        await agent.close()


async def test_pickup_takes_one_message_per_delay_while_behind(tmp_path: Path) -> None:
    for name in ("maildrop", "corrupt", "incoming"):
        (tmp_path / name).mkdir()
    for number in range(5):
        path = tmp_path / "maildrop" / f"A{number}"
        path.write_bytes(record_file())
        path.chmod(0o744)
    journal = Journal(str(tmp_path))
    directory = Directory(None, str(tmp_path / "maildrop"), str(tmp_path / "corrupt"))
    log = Log("mx", "postfix", "pickup", 7, 0, "memory:")
    settings = cleanup_settings()
    site = PickupSite("mx.example.org", True)
    pickup = Pickup(site, directory, settings, journal, log, lambda *_: None, in_flow_delay_s=1000.0)
    pickup.fall_behind(True)
    scan = asyncio.ensure_future(pickup.scan())
    await until(lambda: pickup.in_flight)
    for _ in range(100):
        await asyncio.sleep(0)
    assert pickup.in_flight == 1
    pickup.fall_behind(False)
    await asyncio.wait_for(scan, WAIT_S)
    assert pickup.in_flight == 5
    journal.close()
    directory.close()


SESSIONS = 20
LONG_DOMAIN = ".".join(["x" * 60] * 3) + ".example"
RECIPIENTS = [f"recipient-{number}@{LONG_DOMAIN}" for number in range(200)]
"""The announcement of a message is about 50 kB: a few messages fill the socket buffer of a stopped reader."""
PROBES = 10
ROUNDS_MAX = 20
GROWTH_MAX_KIB = 64 * 1024


def test_stopped_queue_manager_slows_acceptance_and_loses_no_mail(tmp_path: Path) -> None:
    site = Site(tmp_path, main_cf={"in_flow_delay": "2s", "default_transport": "discard"})
    envelope = b"MAIL FROM:<a@example.net>\r\n" + b"".join(b"RCPT TO:<%s>\r\n" % to.encode() for to in RECIPIENTS)
    accepted = 0
    with running(site):
        clients = [RawClient(site.port) for _ in range(SESSIONS)]
        probe = RawClient(site.port)
        for client in [*clients, probe]:
            assert client.ask(b"EHLO client.example\r\n").code == 250
        wait_for("the queue manager", lambda: processes(site, "qmgr"))
        (qmgr,) = processes(site, "qmgr")
        before = {pid: high_water_kib(pid) for pid in processes(site, "smtpd")}
        os.kill(qmgr, signal.SIGSTOP)
        try:
            delayed_rounds = 0
            for _ in range(ROUNDS_MAX):
                for client in clients:
                    client.send(envelope)
                    assert [client.reply().code for _ in range(len(RECIPIENTS) + 1)] == [250] * (len(RECIPIENTS) + 1)
                for client in clients:
                    client.send(b"DATA\r\n")
                # A delayed session gets no reply, while other sessions do.
                for _ in range(PROBES):
                    assert probe.ask(b"MAIL FROM:<>\r\n").code == 250
                    assert probe.ask(b"RSET\r\n").code == 250
                delayed = [client for client in clients if not readable(client)]
                for client in clients:
                    assert client.reply().code == 354
                    assert client.ask(b"Subject: x\r\n\r\n.\r\n").code == 250
                    accepted += 1
                delayed_rounds = delayed_rounds + 1 if len(delayed) == SESSIONS else 0
                probe.close()
                probe = RawClient(site.port)
                assert probe.ask(b"EHLO client.example\r\n").code == 250
                if delayed_rounds == 2:
                    break
            assert delayed_rounds == 2
            assert processes(site, "smtpd") == list(before)
            growth = {pid: high_water_kib(pid) - size for pid, size in before.items()}
            assert max(growth.values()) <= GROWTH_MAX_KIB, growth
        finally:
            os.kill(qmgr, signal.SIGCONT)
        wait_for("all mail to be delivered", lambda: site.log_text().count(": removed") == accepted)
        assert processes(site, "qmgr") == [qmgr]
        for client in [*clients, probe]:
            client.close()
        assert "reject" not in site.log_text()


def readable(client: RawClient) -> bool:
    """Return whether the server has sent unread data."""
    return bool(select.select([client.socket], [], [], 0)[0])
