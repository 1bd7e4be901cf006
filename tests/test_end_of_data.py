"""End of data: twelve line-end sequences, split at every octet. Only CRLF.CRLF ends a message.

RFC 5321 §2.3.8 and §4.1.1.4; CVE-2023-51764 and related CVEs (SMTP smuggling). The octets after any other sequence are
content, although they look like a second message.
"""

import json
from pathlib import Path

import pytest

from support.dialogue import Server, site
from support.queue_files import read_queue

BEGIN = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<user@example.org>\r\nDATA\r\n"
BEHIND = b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<user@example.org>\r\nRSET\r\n"
SEQUENCES = {
    "CRLF.CRLF": (b"\r\n.\r\n", True),
    "LF.LF": (b"\n.\n", False),
    "LF.CR": (b"\n.\r", False),
    "CR.LF": (b"\r.\n", False),
    "CR.CR": (b"\r.\r", False),
    "LF.CRLF": (b"\n.\r\n", False),
    "CR.CRLF": (b"\r.\r\n", False),
    "CRLF.LF": (b"\r\n.\n", False),
    "CRLF.CR": (b"\r\n.\r", False),
    "CRLF NUL.CRLF": (b"\r\n\0.\r\n", False),
    "CRLF.NUL CRLF": (b"\r\n.\0\r\n", False),
    "CRLF.CR CRLF": (b"\r\n.\r\r\n", False),
}
QUEUED = b"250 2.0.0 Ok: queued as "


@pytest.mark.parametrize(("sequence", "ends"), SEQUENCES.values(), ids=SEQUENCES.keys())
async def test_only_crlf_dot_crlf_ends_a_message_in_any_split(tmp_path: Path, sequence: bytes, ends: bool) -> None:
    server = Server(site(tmp_path, ["smtpd_forbid_bare_newline_exclusions ="]))
    octets = b"Subject: x\r\n\r\ntext" + sequence + BEHIND
    # In two pieces, split at each octet around the sequence; and octet by octet.
    splits = [(at,) for at in range(len(octets) - len(BEHIND) - len(sequence) - 1, len(octets) - len(BEHIND) + 8)]
    for split in [*splits, tuple(range(1, len(octets)))]:
        client = server.connect()
        client.send(b"EHLO client.example\r\n")
        client.send(BEGIN)
        client.written.clear()
        for begin, end in zip((0, *split), (*split, len(octets)), strict=True):
            client.send(octets[begin:end])
            server.finish_commits(client)
        reply = bytes(client.written)
        if ends:
            assert reply.startswith(QUEUED)
            assert reply.endswith(b"\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.0.0 Ok\r\n")
        else:
            assert reply == b""
            client.send(b"\r\n.\r\n")
            server.finish_commits(client)
            assert client.written.startswith(QUEUED)
            assert client.written.count(b"\r\n") == 1
        client.leave()
    server.journal.close()
    messages = [json.loads(line) for line in read_queue(str(tmp_path / "queue"))]
    assert len(messages) == len(splits) + 1
    assert {message["sender"] for message in messages} == {"a@example.com"}
