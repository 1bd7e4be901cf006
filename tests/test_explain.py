"""postillion explain: the steps that decide about an address."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from postillion.commands import postillion

MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {directory}/none
myhostname = mx.example.org
myorigin = example.org
mydestination = example.org
mydomain = example.org
mynetworks = 192.0.2.0/28
inet_interfaces = 127.0.0.1
smtpd_peername_lookup = no
recipient_delimiter = +
append_dot_mydomain = yes
relayhost = [198.51.100.9]:587
local_recipient_maps = texthash:{directory}/users
alias_maps = texthash:{directory}/aliases
transport_maps = texthash:{directory}/transport
relocated_maps = inline:{{ {{gone@example.org=there}} {{canary@example.org=hidden}} }}
sender_dependent_relayhost_maps = texthash:{directory}/senders
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_sender_restrictions = reject_non_fqdn_sender
"""
MASTER_CF = """\
smtp inet n - n - - smtpd
 -o smtpd_client_restrictions=permit_mynetworks,reject
smtp unix - - n - - smtp
local unix - n n - - local
error unix - - n - - error
slow unix - - n - - smtp
 -o inet_protocols=ipv4
"""
TABLES = {
    "users": "list x\nuser x\n",
    "aliases": "list: user, far@far.example\n",
    "transport": "slow.example slow:\nlit.example smtp:[192.0.2.77]:2525\nodd.example nowhere:\n",
    "senders": "@a.example [198.51.100.1]\n",
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "main.cf").write_text(MAIN_CF.format(directory=tmp_path))
    (tmp_path / "master.cf").write_text(MASTER_CF)
    for name, text in TABLES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def explained(site: Path, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """Return the lines of `postillion explain`, with DIR for the site's directory."""
    assert postillion.main(["-c", str(site), "explain", *words]) == 0
    return [line.strip().replace(str(site), "DIR") for line in capsys.readouterr().out.splitlines()]


def test_each_step_of_a_local_recipient_is_told(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = explained(site, capsys, "list+x")
    assert lines == [
        "address list+x, sender <>",
        "rewriting",
        "append_at_myorigin = yes",
        "list+x -> list+x@example.org",
        "class",
        "example.org: local, a domain of mydestination",
        "recipient check",
        "local_recipient_maps: texthash:DIR/users: list+x@example.org -> not found",
        "local_recipient_maps: texthash:DIR/users: list@example.org -> not found",
        "local_recipient_maps: texthash:DIR/users: list+x -> not found",
        "local_recipient_maps: texthash:DIR/users: list -> x",
        "the recipient is known, or its class has no list of recipients",
        "aliases",
        "alias_maps: texthash:DIR/aliases: list+x -> not found",
        "alias_maps: texthash:DIR/aliases: list -> user, far@far.example",
        "alias_maps: texthash:DIR/aliases: owner-list -> not found",
        "alias_maps: texthash:DIR/aliases: user -> not found",
        "route",
        "local_transport = local:mx.example.org",
        "transport_maps: texthash:DIR/transport: list+x@example.org -> not found",
        "transport_maps: texthash:DIR/transport: list@example.org -> not found",
        "transport_maps: texthash:DIR/transport: example.org -> not found",
        "transport_maps: texthash:DIR/transport: .org -> not found",
        "transport_maps: texthash:DIR/transport: * -> not found",
        "relocated_maps: inline:...: list+x@example.org -> not found",
        "relocated_maps: inline:...: list@example.org -> not found",
        "relocated_maps: inline:...: list+x -> not found",
        "relocated_maps: inline:...: list -> not found",
        "relocated_maps: inline:...: @example.org -> not found",
        "transport local, next hop mx.example.org",
        "program local (DIR/master.cf, line 4)",
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["u@far.example"],
            ["relayhost = [198.51.100.9]:587", "[198.51.100.9]:587: 198.51.100.9[198.51.100.9] port 587"],
        ),
        (
            ["u@far.example", "--sender", "s@a.example"],
            [
                "sender_dependent_relayhost_maps: texthash:DIR/senders: s@a.example -> not found",
                "sender_dependent_relayhost_maps: texthash:DIR/senders: @a.example -> [198.51.100.1]",
                "transport smtp, next hop [198.51.100.1]",
            ],
        ),
        (
            ["u%lit.example@example.org"],
            [
                "u%lit.example is a local part of this site that names u@lit.example",
                "transport_maps: texthash:DIR/transport: lit.example -> smtp:[192.0.2.77]:2525",
                "recipient u@lit.example",
                "[192.0.2.77]:2525: 192.0.2.77[192.0.2.77] port 2525",
            ],
        ),
        (["u@host"], ["append_dot_mydomain = yes", "u@host -> u@host.example.org"]),
        (
            ["gone@example.org"],
            [
                "smtpd refuses the recipient: 550 5.1.6 User has moved to there",
                "relocated_maps: inline:...: gone@example.org -> there",
                "transport error, next hop 5.1.6 User has moved to there",
            ],
        ),
        (["nosuch@example.org"], ["smtpd refuses the recipient: 550 5.1.1 User unknown in local recipient table"]),
        (["u@"], ["mail bounces: 5.1.3 bad address syntax"]),
        (["u@odd.example"], ["master.cf has no service nowhere: mail waits"]),
        (["u@localhost.slow.example"], ["transport smtp, next hop [198.51.100.9]:587"]),
    ],
)
def test_step_that_decides_is_told(
    words: list[str], expected: list[str], site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = explained(site, capsys, *words)
    assert [line for line in expected if line not in lines] == []
    assert not any("hidden" in line for line in lines)


@pytest.mark.parametrize(
    ("client", "recipient", "expected"),
    [
        ("192.0.2.1", "u@far.example", "rcpt: accepts, by permit_mynetworks (DIR/main.cf, line 18)"),
        (
            "198.51.100.7",
            "u@example.org",
            "rcpt: 554 5.7.1 <unknown[198.51.100.7]>: Client host rejected: Access denied,"
            " by reject (DIR/master.cf, line 1)",
        ),
    ],
)
def test_client_is_told_what_the_lists_answer(
    client: str, recipient: str, expected: str, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = explained(site, capsys, recipient, "--client", client, "--sender", "s@a.example")
    assert f"client unknown[{client}], EHLO [{client}] (smtpd service smtp, DIR/master.cf, line 1)" in lines
    assert expected in lines


def test_failed_lookup_is_told(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "transport").unlink()
    lines = explained(site, capsys, "u@far.example")
    assert any(line.startswith("transport_maps: texthash:DIR/transport: u@far.example -> failed: ") for line in lines)
    assert any(line.startswith("mail waits: 4.3.0") for line in lines)


def test_each_lookup_in_a_remote_table_is_told_once(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.closing(sqlite3.connect(site / "routes.db")) as base:
        base.execute("CREATE TABLE routes (name, way)")
        base.execute("INSERT INTO routes VALUES ('far.example', 'smtp:[192.0.2.33]')")
        base.commit()
    (site / "routes.cf").write_text(f"dbpath = {site}/routes.db\nquery = SELECT way FROM routes WHERE name='%s'\n")
    with (site / "main.cf").open("a") as file:
        file.write(f"transport_maps = sqlite:{site}/routes.cf\n")
    lines = explained(site, capsys, "u@far.example", "--client", "192.0.2.1")
    assert lines.count("transport_maps: sqlite:DIR/routes.cf: far.example -> smtp:[192.0.2.33]") == 2
    assert "transport smtp, next hop [192.0.2.33]" in lines


@pytest.mark.parametrize("words", [[], ["a", "b"], ["a", "--client", "here"], ["a", "--what"], ["--sender", "x"]])
def test_wrong_usage_is_an_error(words: list[str], site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert postillion.main(["-c", str(site), "explain", *words]) == 1
    assert "usage: postillion" in capsys.readouterr().err
