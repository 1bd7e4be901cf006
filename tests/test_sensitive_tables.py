"""Tables whose results are commands, files and routes: nothing of what a stranger sends gets into a result.

Each test runs with Postillion and with Postfix.
"""

from __future__ import annotations

import contextlib
import re
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.either import PROGRAMS, Server, program
from support.mta import Site, delivered, local_user, running
from support.peers import postfix_home, root

SKIPPED = "regular expression substitution is not allowed: skipping this rule"
MAIN_CF = {
    "alias_maps": "proxy:pcre:{directory}/etc/proxied unionmap:{{proxy:regexp:{directory}/etc/united}}"
    " pipemap:{{pcre:{directory}/etc/first, regexp:{directory}/etc/second}} hash:{directory}/etc/aliases",
    "mailbox_command_maps": "pcre:{directory}/etc/commands",
    "local_recipient_maps": "",
    "transport_maps": "pcre:{directory}/etc/transport proxy:pcre:{directory}/etc/proxied_transport",
    "sender_dependent_default_transport_maps": "regexp:{directory}/etc/senders",
    "relocated_maps": "pcre:{directory}/etc/relocated",
    "proxy_read_maps": "proxy:pcre:{directory}/etc/proxied_transport",
}
FILES = {
    "proxied": "/^proxied-(.*)$/ $1\n/^fixed-/ {user}@example.org\n",
    "united": "/^united-(.*)$/ ${{1}}\n",
    "first": "/^piped-/ second\n",
    "second": "/^(sec)ond$/ $(1)\n",
    "commands": "/^(.*)$/ touch {directory}/$1-mailbox\n",
    "transport": "/^(.*)@routed\\.example$/ $1:\n/@routed\\.example$/ error:5.1.2 fixed route\n",
    "proxied_transport": "/^(.*)@proxied\\.example$/ $1:\n/@proxied\\.example$/ error:5.1.2 fixed route\n",
    "senders": "/^(.*)@s\\.example$/ $1:\n/@s\\.example$/ error:5.1.2 fixed sender\n",
    "relocated": "/^moved-(.*)@/ $1@new.example\n",
}


def write_files(site: Site) -> None:
    """Write the tables."""
    for name, text in FILES.items():
        path = site.etc / name
        path.write_text(text.format(directory=site.directory, user=local_user()))
        path.chmod(0o644)


@pytest.fixture(scope="module", params=PROGRAMS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    name = program(request)
    directory = tmp_path_factory.mktemp(name)
    values = {parameter: value.format(directory=directory) for parameter, value in MAIN_CF.items()}
    site = Site(directory, main_cf=values)
    write_files(site)
    with running(site, name):
        yield Server(site, name)


@pytest.mark.parametrize("prefix", ["proxied", "united", "piped"])
def test_an_address_of_a_stranger_is_no_command_and_no_file(server: Server, prefix: str) -> None:
    made = server.site.directory / "made"
    for destination in (f"|touch {made}", str(made)):
        queue_id = server.send("a@b.example", f'"{prefix}-{destination}"@example.org', "x")
        log = delivered(server.site, queue_id)
        assert "dsn=5.1.1" in log, log
        assert not made.exists()
    name = {"piped": "second"}.get(prefix, prefix)
    server.log(f"map {re.escape(str(server.site.etc))}/{name}, line 1: {SKIPPED}")


def test_a_rule_without_substitution_is_used(server: Server) -> None:
    queue_id = server.send("a@b.example", "fixed-x@example.org", "fixed alias")
    assert "status=sent" in delivered(server.site, queue_id)
    # Its mailbox_command_maps has one rule, which is skipped.
    assert not (server.site.directory / f"{local_user()}-mailbox").exists()
    server.log(f"pcre map {re.escape(str(server.site.etc))}/commands, line 1: {SKIPPED}")


def refusal(server: Server, sender: str, recipient: str) -> str:
    """Return the reply to a recipient."""
    with smtplib.SMTP("127.0.0.1", server.site.port) as client:
        client.ehlo("client.example")
        client.mail(sender)
        return client.rcpt(recipient)[1].decode()


@pytest.mark.parametrize(
    ("sender", "recipient", "said", "skipped"),
    [
        (
            "a@b.example",
            "discard@routed.example",
            "5.1.2 <discard@routed.example>:.*fixed route",
            "pcre map .*/transport",
        ),
        ("discard@s.example", "u@far.example", "5.1.2 <u@far.example>:.*fixed sender", "regexp map .*/senders"),
        ("a@b.example", "moved-x@example.org", "5.1.6 <moved-x@example.org>:.*x@new.example", ""),
    ],
)
def test_an_address_of_a_stranger_is_no_route(
    server: Server, sender: str, recipient: str, said: str, skipped: str
) -> None:
    assert re.search(said, refusal(server, sender, recipient))
    if skipped:
        server.log(f"{skipped}, line 1: {SKIPPED}")


def test_a_table_behind_proxy_follows_the_same_rule(server: Server) -> None:
    said = refusal(server, "a@b.example", "discard@proxied.example")
    if server.program == "postfix":
        # trivial-rewrite does not tell proxymap that it wants no text of the address.
        assert said == "2.1.5 Ok"
    else:
        assert re.search("5.1.2 <discard@proxied.example>:.*fixed route", said)
        server.log(f"pcre map .*/proxied_transport, line 1: {SKIPPED}")


@pytest.mark.parametrize(
    ("parameter", "table"),
    [
        ("alias_maps", "tcp:127.0.0.1:1"),
        ("alias_maps", "socketmap:inet:127.0.0.1:1:x"),
        ("alias_maps", "memcache:{etc}/memcache"),
        ("mailbox_command_maps", "proxy:unionmap:{{tcp:127.0.0.1:1}}"),
    ],
)
def test_a_table_that_anybody_may_answer_delivers_nothing_in_postfix(
    tmp_path: Path, parameter: str, table: str
) -> None:
    root()
    postfix_home()
    value = table.format(etc=tmp_path / "etc")
    site = Site(tmp_path, main_cf={parameter: value, "local_recipient_maps": ""})
    (site.etc / "memcache").write_text("memcache = inet:127.0.0.1:1\n")
    with running(site, "postfix"):
        server = Server(site, "postfix")
        log = delivered(site, server.send("a@b.example", server.user, "x"))
        assert "status=deferred" in log
        server.log("map is not allowed for security.sensitive data")


@pytest.mark.parametrize(
    ("parameter", "table"),
    [("alias_maps", "tcp:127.0.0.1:1"), ("mailbox_command_maps", "unionmap:{tcp:127.0.0.1:1}")],
)
def test_a_table_that_anybody_may_answer_is_refused_at_start(tmp_path: Path, parameter: str, table: str) -> None:
    site = Site(tmp_path, main_cf={parameter: table})
    with contextlib.ExitStack() as stack, pytest.raises(RuntimeError) as refused:
        stack.enter_context(running(site))
    assert re.search(rf"main\.cf, line \d+: {parameter}: .* a tcp table is not allowed .*: use a ", str(refused.value))
