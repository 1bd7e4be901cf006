"""The agents error, retry and discard finish every recipient at once, with the next hop as the reason."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from postillion._core.delivery import DeliveryJob
from postillion._core.queue import QueueError
from postillion.delivery.agent import Agent
from postillion.services.discard import DiscardAgent
from postillion.services.error import ErrorAgent, split_status
from support.agents import FakeDaemon, Mail, serving


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5.7.1 no mail today", ("5.7.1", "no mail today")),
        ("  4.2.2  full", ("4.2.2", "full")),
        ("5.7.1", ("5.7.1", "")),
        ("5.7.1x no code", ("5.0.0", "5.7.1x no code")),
        ("5.7.1000 no code", ("5.0.0", "5.7.1000 no code")),
        ("3.1.1 no code", ("5.0.0", "3.1.1 no code")),
        ("mail is disabled", ("5.0.0", "mail is disabled")),
    ],
)
def test_next_hop_may_begin_with_enhanced_status_code(text: str, expected: tuple[str, str]) -> None:
    assert split_status(text, "5.0.0") == expected


@pytest.mark.parametrize(
    ("service", "agent", "nexthop", "outcome", "dsn"),
    [
        ("error", ErrorAgent, "5.1.2 no such domain", "bounced", "5.1.2"),
        ("error", ErrorAgent, "4.1.2 no such domain", "bounced", "5.1.2"),
        ("error", ErrorAgent, "no such domain", "bounced", "5.0.0"),
        ("retry", ErrorAgent, "4.4.1 no such domain", "deferred", "4.4.1"),
        ("retry", ErrorAgent, "no such domain", "deferred", "4.0.0"),
        ("discard", DiscardAgent, "no such domain", "sent", "2.0.0"),
    ],
)
async def test_every_recipient_is_finished(
    tmp_path: Path, service: str, agent: type[Agent], nexthop: str, outcome: str, dsn: str
) -> None:
    daemon = FakeDaemon(tmp_path, service=service)
    async with serving(tmp_path, lambda daemon: agent(daemon, capacity=5), daemon) as hub:
        result = await hub.deliver(nexthop, Mail(0, ["a@example.com", "b@example.com"]))
        assert {(status.outcome, status.dsn) for status in result.recipients.values()} == {(outcome, dsn)}
        lines = daemon.logged()
        assert len(lines) == 2
        assert lines[0].endswith(f"dsn={dsn}, status={outcome} (no such domain)")
        assert "relay=none, delay=" in lines[0]


@pytest.mark.parametrize(
    ("service", "agent", "nexthop", "dsn", "word"),
    [
        ("error", ErrorAgent, "5.1.2 no such domain", "5.1.2", "undeliverable"),
        ("retry", ErrorAgent, "4.4.1 no such domain", "4.4.1", "undeliverable"),
        ("discard", DiscardAgent, "no such domain", "2.0.0", "deliverable"),
    ],
)
async def test_probe_is_answered_and_nothing_is_sent(
    tmp_path: Path, service: str, agent: type[Agent], nexthop: str, dsn: str, word: str
) -> None:
    daemon = FakeDaemon(tmp_path, service=service)
    async with serving(tmp_path, lambda daemon: agent(daemon, capacity=5), daemon) as hub:
        result = await hub.deliver(nexthop, Mail(0, ["a@example.com", "b@example.com"], trace="probe"))
        assert "sent" not in {status.outcome for status in result.recipients.values()}
        traced = [(index, address, action, relay, status.text) for index, address, action, relay, status in hub.traced]
        assert traced == [
            (0, "a@example.com", word, "none", "no such domain"),
            (1, "b@example.com", word, "none", "no such domain"),
        ]
        lines = daemon.logged()
        assert len(lines) == 2
        assert lines[0].endswith(f"dsn={dsn}, status={word} (no such domain)")


class Sequential(Agent):
    """Delivers one job at a time, in the event loop's thread."""

    def deliver(self, job: DeliveryJob) -> None:
        """Finish the job, or fail."""
        if job.nexthop == "fail":
            raise OSError("no such thing")
        job.status(0, "sent", "2.0.0", "done")


class Concurrent(Agent):
    """Delivers each job in its own task."""

    running = 0
    peak = 0

    async def deliver(self, job: DeliveryJob) -> None:
        """Finish the job after a pause, or fail."""
        Concurrent.running += 1
        Concurrent.peak = max(Concurrent.peak, Concurrent.running)
        await asyncio.sleep(0.1)
        Concurrent.running -= 1
        if job.nexthop == "fail":
            raise OSError("no such thing")
        job.status(0, "sent", "2.0.0", "done")


@pytest.mark.parametrize("agent", [Sequential, Concurrent])
async def test_agent_deliver_is_function_or_coroutine(tmp_path: Path, agent: type[Agent]) -> None:
    daemon = FakeDaemon(tmp_path)
    async with serving(tmp_path, lambda daemon: agent(daemon, capacity=5), daemon) as hub:
        results = await asyncio.gather(*hub.send(*[hub.job("ok") for _ in range(10)], hub.job("fail")))
        assert [result.only.outcome for result in results] == ["sent"] * 10 + ["deferred"]
        assert any("delivery failed, deferring: OSError: no such thing" in line for line in daemon.logged())
        assert agent is Sequential or Concurrent.peak == 11
        content = b"Subject: x\r\n\r\n..dot\r\nend\r\n"
        job = hub.job("ok", Mail(0, ["r@example.com"], content=content))
        seen: list[bytes] = []

        def check(self: Agent, job: DeliveryJob) -> None:
            seen.extend((job.content(), job.text(), job.text(b"\r\n")))
            assert (job.sender, job.queue_id != "", job.kind, job.left) == ("sender@example.org", True, "deliver", 1)
            self.finish(job)

        agent.start, start = check, agent.start  # type: ignore[method-assign]
        try:
            (result,) = await asyncio.gather(*hub.send(job))
        finally:
            agent.start = start  # type: ignore[method-assign]
        assert seen == [content, b"Subject: x\n\n.dot\nend\n", b"Subject: x\r\n\r\n.dot\r\nend\r\n"]
        assert result.recipients == {}


@pytest.mark.parametrize("agent", [Sequential, Concurrent])
async def test_agent_that_knows_no_probes_gets_none(tmp_path: Path, agent: type[Agent]) -> None:
    daemon = FakeDaemon(tmp_path)
    async with serving(tmp_path, lambda daemon: agent(daemon, capacity=5), daemon) as hub:
        result = await hub.deliver("ok", Mail(0, ["r@example.com"], trace="probe"))
        assert (result.only.outcome, result.only.dsn) == ("deferred", "4.3.5")
        [line] = daemon.logged()
        assert line.endswith("dsn=4.3.5, status=undeliverable (smtp does not answer address probes)")


class Curious(Agent):
    """Tries to read the text of a probe."""

    answers_probes = True

    def deliver(self, job: DeliveryJob) -> None:
        """Try each way to the content."""
        for read in (job.content, job.text):
            with pytest.raises(QueueError, match="an address probe is not delivered"):
                read()
        job.status(0, "sent", "2.0.0", "it was not read")


async def test_no_agent_gets_the_text_of_a_probe(tmp_path: Path) -> None:
    daemon = FakeDaemon(tmp_path)
    async with serving(tmp_path, lambda daemon: Curious(daemon, capacity=5), daemon) as hub:
        result = await hub.deliver("ok", Mail(0, ["r@example.com"], trace="probe"))
        assert (result.only.outcome, result.only.text) == ("deferred", "it was not read")
