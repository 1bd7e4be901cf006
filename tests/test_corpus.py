"""Every message of the corpus arrives byte for byte, by DATA and by BDAT, for any split of the stream.

The corpus itself lists the expected changes, message by message.
"""

import random
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from postillion._core.cleanup import Intake, Options
from postillion._core.log import Log
from postillion._core.pickup import HeaderRecipients
from postillion._core.queue import Journal, read_message
from support.corpus import HEADER_SIZE_LIMIT, MESSAGES, Message, stuffed
from support.hostile import RawClient
from support.memory_config import cleanup_settings
from support.mta import Site, running
from support.wire_sink import WireSink

RECEIVED = re.compile(rb"Received: from client\.example \([^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)+")
"""The folded header that smtpd adds."""
CHANGED_MAX = 30
"""Maximum number of messages that do not arrive as sent."""
COMMIT_MAX_S = 30.0
EDGE_OCTETS = 64 * 1024
"""Octets at both ends of a message that arrive one by one."""

every_message = pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)


def address(method: str, message: Message) -> str:
    """Return the recipient that identifies a message at the next hop."""
    return f"{method}-{list(MESSAGES).index(message.name)}@next.example"


def send_data(client: RawClient, message: Message) -> None:
    """Send a message by DATA."""
    assert client.ask(b"MAIL FROM:<a@example.net>\r\n").code == 250
    assert client.ask(b"RCPT TO:<%s>\r\n" % address("data", message).encode()).code == 250
    assert client.ask(b"DATA\r\n").code == 354
    assert client.ask(message.wire).code == 250, message.name


def send_bdat(client: RawClient, message: Message) -> None:
    """Send by BDAT, in two chunks cut at a random place."""
    assert client.ask(b"MAIL FROM:<a@example.net> BODY=8BITMIME\r\n").code == 250
    assert client.ask(b"RCPT TO:<%s>\r\n" % address("bdat", message).encode()).code == 250
    cut = random.Random(message.name).randrange(len(message.sent) + 1)
    if cut > 0:
        assert client.ask(b"BDAT %d\r\n" % cut + message.sent[:cut]).code == 250
    rest = message.sent[cut:]
    assert client.ask(b"BDAT %d LAST\r\n" % len(rest) + rest).code == 250, message.name


@pytest.fixture(scope="module")
def arrived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[bytes]]]:
    """Send the corpus twice over one connection; yield the content on the wire at the next hop, by recipient."""
    # The client is not local: smtpd adds missing headers to local mail only.
    # Long lines stay whole: tests/test_smtp_agent.py tests that they are broken by default.
    settings = {"local_header_rewrite_clients": "", "smtp_line_length_limit": "0"}
    site = Site(tmp_path_factory.mktemp("corpus"), main_cf=settings)
    with WireSink(site.next_port) as sink, running(site):
        with RawClient(site.port) as client:
            assert client.ask(b"EHLO client.example\r\n").code == 250
            for message in MESSAGES.values():
                send_data(client, message)
                send_bdat(client, message)
            assert client.ask(b"QUIT\r\n").code == 221
        sink.wait({address(method, message) for method in ("data", "bdat") for message in MESSAGES.values()})
        yield sink.messages


@pytest.mark.parametrize("method", ["data", "bdat"])
@every_message
def test_message_is_relayed_byte_for_byte(arrived: dict[str, list[bytes]], message: Message, method: str) -> None:
    (wire,) = arrived[address(method, message)]
    received = RECEIVED.match(wire)
    assert received, wire[:500]
    assert b" by mx.example.org (" in received[0].replace(b"\r\n\t", b" ")
    assert wire[received.end() :] == stuffed(message.arrives)


def splits(content: bytes) -> dict[str, list[bytes]]:
    """Return content whole, byte by byte, and cut at random places.

    Byte by byte means the two ends of a long content; its middle is one piece.
    """
    rng = random.Random(len(content))
    cuts = sorted(rng.choices(range(len(content) + 1), k=min(1000, len(content))))
    random_pieces = [content[begin:end] for begin, end in pairwise([0, *cuts, len(content)])]
    head = min(len(content), EDGE_OCTETS)
    tail = max(head, len(content) - EDGE_OCTETS)
    return {
        "whole": [content],
        "byte by byte": [*singles(content[:head]), *filter(None, [content[head:tail]]), *singles(content[tail:])],
        "at random": random_pieces,
    }


def singles(content: bytes) -> list[bytes]:
    """Return the octets of content, each for itself."""
    return [content[at : at + 1] for at in range(len(content))]


@every_message
def test_cleanup_gives_same_result_for_any_split(tmp_path: Path, message: Message) -> None:
    journal = Journal(str(tmp_path))
    log = Log("mx", "postfix", "cleanup", 1, 0, "memory:")
    settings = cleanup_settings(myorigin="mx.example.org", header_size_limit=str(HEADER_SIZE_LIMIT))
    found: dict[str, object] = {}
    committed: dict[str, str] = {}
    for name, pieces in splits(message.sent).items():
        recipients = HeaderRecipients()
        intake = Intake(
            settings,
            journal,
            log,
            Options.INTERNAL,
            "s@example.net",
            [("r@example.org", None, None, 0)],
            wall_now=1.0,
            local=False,
        )
        for piece in pieces:
            recipients.feed(piece)
            intake.write(piece)
        committed[name] = intake.commit(len(committed))
        found[name] = recipients.finish()
    tickets: list[tuple[int, str | None]] = []
    while len(tickets) < len(committed):
        more = journal.wait(COMMIT_MAX_S)
        assert more, "no commit completed"
        tickets += more
    assert all(error is None for _, error in tickets)
    journal.close()
    expected = message.arrives.replace(b"\r\n", b"\n")
    for name, queue_id in committed.items():
        stored = read_message(str(tmp_path), queue_id)
        assert stored is not None
        assert stored.text() == expected, name
        assert stored.size_octets == len(expected), name
    assert found["byte by byte"] == found["whole"] == found["at random"]


def test_corpus_is_varied_and_mostly_unchanged() -> None:
    assert len(MESSAGES) >= 60
    changed = [message.name for message in MESSAGES.values() if message.arrives != message.sent]
    assert len(changed) <= CHANGED_MAX, changed
    assert max(len(message.sent) for message in MESSAGES.values()) >= 1_000_000
    for message in MESSAGES.values():
        assert message.wire.count(b"\r\n.\r\n") + message.wire.startswith(b".\r\n") == 1, message.name
