"""The agent's logins: keys of the password table, connections by sender, parameters, and no password in sight."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from postillion._core.log import Log
from postillion._core.smtp import SASL_MECHANISMS, SmtpClientSettings, SmtpLogin
from postillion.config import Config, ConfigError
from postillion.delivery.smtp.agent import SmtpAgent
from postillion.delivery.smtp.nexthop import parse
from postillion.delivery.smtp.sasl import Logins, allowed_mechanisms
from postillion.delivery.smtp.targets import Target
from postillion.tables.deferred import lookup
from postillion.tables.maps import open_maps
from postillion.tables.table import TableError
from support.agents import FakeDaemon, Hub, Mail, Script, server, serving
from support.remote_table import opened

CANARY = "canary-password-7f3a"
ENABLED = "smtp_sasl_auth_enable = yes\nsmtp_sasl_security_options = noanonymous\n"
KEYWORDS = ("PIPELINING", "AUTH PLAIN LOGIN")


def plain(user: str, password: str) -> str:
    """Return the command that logs in with PLAIN."""
    return "AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()).decode()


def table(entries: dict[str, str]) -> str:
    """Return the parameter with a password table of these entries."""
    return "smtp_sasl_password_maps = inline:{ " + ", ".join(f"{{{k} = {v}}}" for k, v in entries.items()) + " }\n"


@asynccontextmanager
async def smtp(directory: Path, more: str) -> AsyncIterator[tuple[Hub, FakeDaemon]]:
    """Run the agent; yield the queue manager's end and the daemon."""
    daemon = FakeDaemon(directory, ENABLED + more)
    async with serving(directory, lambda daemon: SmtpAgent(daemon, "smtp", capacity=20), daemon) as hub:
        yield hub, daemon


def logins(directory: Path, more: str, protocol: str = "smtp") -> Logins:
    """Return the logins of a configuration."""
    daemon = FakeDaemon(directory, ENABLED + more)
    return Logins(daemon.config, protocol, daemon.log.warning)


async def user(of: Logins, host: str, nexthop: str, sender: str = "s@x.example") -> str | None:
    """Return the user name for a server."""
    login = await of.of(Target(host, "192.0.2.1", 25), parse(nexthop, 25, lmtp=nexthop[4:5] == ":"), sender, "4bX", 0.0)
    found = None if login.core is None else re.search(r'user: "(.*?)"', repr(login.core))
    return found[1] if found else None if login.core is None else repr(login.core)


@pytest.mark.parametrize(
    ("entries", "sender", "expected"),
    [
        ({"mx.example": "a:p", "[next.example]:587": "b:p", "s@x.example": "c:p"}, "s@x.example", "a"),
        ({"[next.example]:587": "b:p", "@x.example": "c:p"}, "s@x.example", "b"),
        ({"next.example": "b:p"}, "s@x.example", None),
        ({"MX.Example": "a : p"}, "s@x.example", "a"),
    ],
)
async def test_keys_are_host_and_next_hop(
    entries: dict[str, str], sender: str, expected: str | None, tmp_path: Path
) -> None:
    of = logins(tmp_path, table(entries))
    assert await user(of, "mx.example", "[next.example]:587", sender) == expected
    assert not of.by_sender


@pytest.mark.parametrize(
    ("key", "sender", "fits"),
    [
        ("user+ext@sub.example", "User+Ext@Sub.Example", True),
        ("user@sub.example", "User+Ext@Sub.Example", True),
        ("@sub.example", "User+Ext@Sub.Example", True),
        ("user", "User+Ext@Sub.Example", False),
        ("sub.example", "User+Ext@Sub.Example", False),
        ("user+ext", "User+Ext@example.org", True),
        ("user", "User+Ext@example.org", True),
        ('"a b"@sub.example', '"a b"@sub.example', True),
        ("a b@sub.example", '"a b"@sub.example', True),
        ("user", "user", True),
        ("@sub.example", "", False),
    ],
)
async def test_keys_of_a_sender_come_first(key: str, sender: str, fits: bool, tmp_path: Path) -> None:
    more = "smtp_sender_dependent_authentication = yes\nrecipient_delimiter = +\nmydestination = example.org\n"
    if " " in key:
        (tmp_path / "logins").write_text(f"/^{key}$/ sender:p\n/^mx/ host:p\n")
        of = logins(tmp_path, f"{more}smtp_sasl_password_maps = pcre:{tmp_path}/logins\n")
    else:
        of = logins(tmp_path, more + table({key: "sender:p", "mx.example": "host:p"}))
    assert of.by_sender
    assert await user(of, "mx.example", "next.example", sender) == ("sender" if fits else "host")


async def test_keys_of_lmtp_have_no_prefix(tmp_path: Path) -> None:
    more = "lmtp_sasl_auth_enable = yes\nlmtp_sasl_password_maps = inline:{ {host:24 = a:p}, {mx.example.org = b:p} }\n"
    of = logins(tmp_path, more, "lmtp")
    assert await user(of, "other.example", "inet:host:24") == "a"
    assert await user(of, "localhost", "unix:/run/socket") == "b"


@pytest.mark.parametrize(
    ("value", "delimiter", "login"),
    [
        ("user:pass", ":", ("user", "pass")),
        ("user:a:b c", ":", ("user", "a:b c")),
        ("user", ":", ("user", "")),
        ("us:er|pass", "|", ("us:er", "pass")),
        ("üser:pässword", ":", ("üser", "pässword")),
    ],
)
async def test_a_value_is_a_name_and_a_password(
    value: str, delimiter: str, login: tuple[str, str], tmp_path: Path
) -> None:
    script = Script(keywords=KEYWORDS, replies={"AUTH": "235 ok"})
    more = f"smtp_sasl_password_result_delimiter = {delimiter}\nsmtp_sasl_mechanism_filter = plain\n"
    async with server(script), smtp(tmp_path, table({"127.0.0.1": value}) + more) as (hub, daemon):
        result = await hub.deliver(f"[127.0.0.1]:{script.port}")
    if login[1]:
        assert result.only.outcome == "sent"
        assert plain(*login) in script.commands
    else:
        assert result.only.text.endswith("generic failure")
    assert login[1] == "" or login[1] not in "".join(daemon.logged())


async def test_a_failed_table_defers_mail_if_the_server_offers_auth(tmp_path: Path) -> None:
    for keywords, outcome in ((KEYWORDS, "deferred"), (("PIPELINING",), "sent")):
        script = Script(keywords=keywords)
        async with server(script), smtp(tmp_path, "smtp_sasl_password_maps = fail:x\n") as (hub, daemon):
            result = await hub.deliver(f"[127.0.0.1]:{script.port}")
        assert result.only.outcome == outcome
        if outcome == "deferred":
            assert result.only.dsn == "4.3.0"
            assert result.only.text == "local data error while talking to 127.0.0.1[127.0.0.1]"
        assert any(": smtp_sasl_password_maps lookup error: " in line for line in daemon.logged())


async def test_a_remote_table_is_awaited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = opened(monkeypatch)
    monkeypatch.setattr(remote, "lookup", lambda key: lookup(remote, key))
    script = Script(keywords=KEYWORDS, replies={"AUTH": "235 ok"})
    more = "smtp_sender_dependent_authentication = yes\nsmtp_sasl_password_maps = remote:test\n"
    async with server(script), smtp(tmp_path, more) as (hub, _):
        nexthop = f"[127.0.0.1]:{script.port}"
        waiting = hub.send(hub.job(nexthop, Mail(0, ["r@y.example"], sender="a@x.example")))[0]
        keys = await remote.answer(lambda key: "user:pass" if key == nexthop else None, rounds=4)
        result = await asyncio.wait_for(waiting, 60)
        assert result.only.outcome == "sent"
        assert keys == ["a@x.example", "@x.example", "127.0.0.1", nexthop]
        waiting = hub.send(hub.job(nexthop, Mail(0, ["r@y.example"], sender="a@x.example")))[0]
        await remote.answer(TableError("down"))
        assert (await asyncio.wait_for(waiting, 60)).only.dsn == "4.3.0"
    assert plain("user", "pass") in script.commands


async def test_accounts_of_senders_have_connections_of_their_own(tmp_path: Path) -> None:
    entries = {"127.0.0.1": "host:p", "a@x.example": "a:p", "b@x.example": "b:p"}
    for by_sender, connections in (("no", 1), ("yes", 3)):
        script = Script(keywords=KEYWORDS, replies={"AUTH": "235 ok"})
        nexthop = ""
        more = f"smtp_sender_dependent_authentication = {by_sender}\n" + table(entries)
        async with server(script), smtp(tmp_path, more) as (hub, _):
            nexthop = f"[127.0.0.1]:{script.port}"
            for sender in ("a", "a", "b"):
                result = await hub.deliver(nexthop, Mail(0, ["r@y.example"], sender=f"{sender}@x.example"))
                assert result.only.outcome == "sent"
        assert script.connections <= connections + (by_sender == "no")
        logged_in = [line for line in script.commands if line.startswith("AUTH")]
        if by_sender == "yes":
            assert logged_in == [plain("a", "p"), plain("a", "p"), plain("b", "p")]
        else:
            assert set(logged_in) == {plain("host", "p")}
            assert len(logged_in) == script.connections


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", None),
        ("plain, login", ["PLAIN", "LOGIN"]),
        ("XOAUTH2", ["XOAUTH2"]),
        ("!plain, !scram-sha-1, static:all", sorted(set(SASL_MECHANISMS) - {"PLAIN", "SCRAM-SHA-1"})),
        ("inline:{ {cram-md5 = x} }", ["CRAM-MD5"]),
        ("gssapi", []),
    ],
)
def test_the_filter_is_a_match_list(words: str, expected: list[str] | None, tmp_path: Path) -> None:
    config = FakeDaemon(tmp_path, ENABLED + f"smtp_sasl_mechanism_filter = {words}\n").config
    found = allowed_mechanisms(config, "smtp")
    assert (found and sorted(found)) == (expected and sorted(expected))
    assert (found is None) == (expected is None)


async def test_tokens_need_a_filter(tmp_path: Path) -> None:
    script = Script(keywords=("AUTH XOAUTH2 OAUTHBEARER",), replies={"AUTH": "235 ok"})
    entries = table({"127.0.0.1": "u@x.example:ya29.token"})
    for words, sent in (("", None), ("xoauth2", b"user=u@x.example\1auth=Bearer ya29.token\1\1")):
        async with server(script), smtp(tmp_path, f"{entries}smtp_sasl_mechanism_filter = {words}\n") as (hub, _):
            result = await hub.deliver(f"[127.0.0.1]:{script.port}")
        if sent is None:
            assert result.only.text.endswith("no mechanism available")
        else:
            assert f"AUTH XOAUTH2 {base64.b64encode(sent).decode()}" in script.commands


ERRORS = [
    ("", "smtp_sasl_auth_enable = yes needs accounts, and smtp_sasl_password_maps is empty"),
    (table({"x": "u:p"}) + "smtp_sasl_type = dovecot\n", 'smtp_sasl_type: "dovecot" is no type of SASL client'),
    (table({"x": "u:p"}) + "smtp_sasl_security_options = nonsense\n", "nonsense"),
    (table({"x": "u:p"}) + "smtp_sasl_tls_security_options = nonsense\n", "nonsense"),
    (table({"x": "u:p"}) + "smtp_sasl_mechanism_filter = fail:x\n", "smtp_sasl_mechanism_filter: "),
    ("smtp_sasl_password_maps = nosuch:x\n", "nosuch"),
]


@pytest.mark.parametrize(("more", "problem"), ERRORS)
def test_bad_parameters_are_errors_only_where_a_client_logs_in(more: str, problem: str, tmp_path: Path) -> None:
    def read(text: str) -> None:
        config = FakeDaemon(tmp_path, text).config
        Logins(config, "smtp", Log("mx", "postfix", "smtp", 1, 0, "memory:").warning)
        SmtpClientSettings(config, "smtp", None, allowed_mechanisms(config, "smtp"))

    with pytest.raises(ConfigError, match=re.escape(problem)):
        read(ENABLED + more)
    read(more)


class Told:
    """A listener to lookups."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def lookup(self, parameter: str, table: str, key: str, answer: str | None) -> None:
        """Note a lookup."""
        self.said.append(f"{parameter} {table} {key} {answer}")

    def failed(self, parameter: str, table: str, key: str, problem: str) -> None:
        """Note a failure."""
        self.said.append(f"{parameter} {table} {key} {problem}")

    def note(self, text: str) -> None:
        """Note a step."""
        self.said.append(text)


@pytest.mark.parametrize("parameter", ["smtp_sasl_password_maps", "lmtp_sasl_password_maps"])
def test_no_trace_shows_a_password(parameter: str, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text(f"x u:{CANARY}\n{CANARY}\n")
    (tmp_path / "main.cf").write_text(
        f"compatibility_level = 3.6\n{parameter} = debug:texthash:{passwords} debug:texthash:{passwords}\n"
    )
    config = Config.load(str(tmp_path))
    told, lines = Told(), list[str]()
    config.trace, config.log, config.warn = told, lines.append, lines.append
    maps = open_maps(parameter, config)
    assert maps.lookup("x") == f"u:{CANARY}"
    assert maps.lookup("y") is None
    assert told.said[0].endswith("x [password]")
    assert told.said[1].endswith("y None")
    assert CANARY not in str(told.said + lines)


async def test_no_log_line_shows_a_password(tmp_path: Path) -> None:
    entries = table({"127.0.0.1": f"user:{CANARY}"})
    encoded = base64.b64encode(CANARY.encode()).decode().rstrip("=")
    for keywords, replies in (
        (KEYWORDS, {"AUTH": "535 5.7.8 no"}),
        (KEYWORDS, {"AUTH": "334 !"}),
        (("AUTH LOGIN",), {"AUTH": "334 ", "dXNlcg==": "334 ", base64.b64encode(CANARY.encode()).decode(): "535 no"}),
        (("AUTH SCRAM-SHA-1",), {"AUTH": "334 cg=="}),
        (("AUTH FOO",), {}),
    ):
        script = Script(keywords=keywords, replies=dict(replies))
        async with server(script), smtp(tmp_path, entries) as (hub, daemon):
            result = await hub.deliver(f"[127.0.0.1]:{script.port}")
        assert result.only.outcome == "deferred"
        shown = f"{daemon.logged()} {result}"
        assert CANARY not in shown
        assert encoded not in shown


def test_a_login_does_not_show_its_password() -> None:
    shown = repr(SmtpLogin("user", CANARY.encode()))
    assert "user" in shown
    assert CANARY not in shown
    with pytest.raises(UnicodeEncodeError):
        SmtpLogin("\udce4", b"x")
