"""The agent smtp between a queue manager and servers: verdicts, log lines, connections used again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agents import FakeDaemon, Hub, Mail, Script, server, serving
from postillion.delivery.smtp.agent import SmtpAgent


@asynccontextmanager
async def smtp(directory: Path, more: str = "", protocol: str = "smtp") -> AsyncIterator[tuple[Hub, FakeDaemon]]:
    """The agent at work."""
    daemon = FakeDaemon(directory, more, protocol)
    agent = lambda daemon: SmtpAgent(daemon, protocol, capacity=20)  # noqa: E731
    async with serving(directory, agent, daemon) as hub:
        yield hub, daemon


def mail(*recipients: str, **more: object) -> Mail:
    """A message for these recipients."""
    return Mail(0, list(recipients) or ["rcpt@example.com"], **more)  # type: ignore[arg-type]


async def test_a_message_is_sent_and_logged(tmp_path: Path) -> None:
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
        for _ in range(50):
            if script.commands[-1] == "QUIT":
                break
            await asyncio.sleep(0.02)
        assert script.commands == [
            "EHLO mx.example.org",
            "MAIL FROM:<sender@example.org> SIZE=20",
            "RCPT TO:<rcpt@example.com> ORCPT=rfc822;rcpt@example.com",
            "DATA",
            "QUIT",
        ]
