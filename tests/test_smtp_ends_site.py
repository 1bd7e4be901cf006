"""The end of a connection whose message a server does not want: the commands of Postfix's client and of ours."""

from __future__ import annotations

import re
import subprocess
from functools import partial
from pathlib import Path

from support.mta import Site, commands_of, running, wait_for
from support.peers import postfix_home, root
from support.tls_peer import Kind, TlsPeer

REPLIES: dict[str, dict[str, str]] = {
    "taken": {},
    "sender": {"MAIL": "550 5.1.0 no"},
    "sender later": {"MAIL": "450 4.1.0 later"},
    "recipient": {"RCPT": "550 5.1.1 no"},
    "recipient later": {"RCPT": "450 4.1.1 later"},
    "data": {"DATA": "554 5.5.1 no valid recipients"},
    "recipient and data": {"RCPT": "550 5.1.1 no", "DATA": "554 5.5.1 no valid recipients"},
    "message": {".": "554 5.6.0 no"},
    "message later": {".": "451 4.3.0 later"},
}
"""The refusals of a server, by what it refuses."""
KEYWORDS = {"": ("8BITMIME",), "pipelined ": ("PIPELINING", "8BITMIME")}
RECIPIENTS_MAX = 2


def kinds() -> dict[str, Kind]:
    """Return the servers by their names."""
    return {
        f"{prefix}{name}": Kind(offers=False, replies=replies, keywords=keywords)
        for prefix, keywords in KEYWORDS.items()
        for name, replies in REPLIES.items()
    }


def heard(directory: Path, program: str) -> dict[str, list[str]]:
    """Return the client's lines at each server, for a message to one recipient, and then for one to two."""
    servers = {name: TlsPeer(kind) for name, kind in kinds().items()}
    routes = "".join(
        f"{{ c{number}.example = smtp:[127.0.0.1]:{server.port} }} " for number, server in enumerate(servers.values())
    )
    main_cf = {"transport_maps": f"inline:{{ {routes} }}", "smtp_host_lookup": "native", "minimal_backoff_time": "1h"}
    site = Site(directory, main_cf=main_cf, master_cf="smtp unix - - n - 1 smtp\n")
    status = re.compile(r" to=<(r\d@c\d+)\.example>.* status=")
    sendmail = [str(commands_of(program) / "sendmail"), "-C", str(site.etc), "-f", "s@example.org"]
    recipients_done = 0

    def is_done(count: int) -> bool:
        ended = all(server.heard.count("QUIT") >= count for server in servers.values())
        return ended and len(status.findall(site.log_text())) >= recipients_done

    with running(site, program):
        for count in range(1, RECIPIENTS_MAX + 1):
            for number in range(len(servers)):
                recipients = [f"r{of}@c{number}.example" for of in range(count)]
                subprocess.run([*sendmail, *recipients], input=b"Subject: x\n\nhi\n", check=True, timeout=60)
            recipients_done += count * len(servers)
            wait_for("every status", partial(is_done, count))
    for server in servers.values():
        server.close()
    return {name: [re.sub(r" SIZE=\d+", "", line) for line in server.heard] for name, server in servers.items()}


def test_a_server_that_wants_no_message_hears_what_postfix_says(tmp_path: Path) -> None:
    root()
    postfix_home()
    expected, found = heard(tmp_path / "postfix", "postfix"), heard(tmp_path / "postillion", "postillion")
    for name, lines in expected.items():
        assert found[name] == lines, name
    assert found["recipient"][-3:] == ["RCPT TO:<r1@c3.example>", "RSET", "QUIT"]
