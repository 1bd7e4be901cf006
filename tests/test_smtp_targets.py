"""From next hops to hosts: the syntax, and MX and address records from a real name server (BIND)."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from postillion.delivery.smtp.agent import SmtpAgent
from postillion.delivery.smtp.nexthop import BadNextHop, NextHop, parse, parse_list
from postillion.delivery.smtp.targets import NoTargets, Target, TargetSettings, native_addresses, targets
from postillion.dns import Resolver, Search
from support.agents import FakeDaemon, Mail, Script, server, serving
from support.named import named

ZONE = """
one MX 10 a
two MX 20 b
two MX 10 a
four MX 10 four1
four MX 10 four2
four MX 20 four3
four MX 30 four4
four1 A 127.0.0.11
four2 A 127.0.0.12
four3 A 127.0.0.13
four4 A 127.0.0.14
a A 127.0.0.2
b A 127.0.0.3
b A 127.0.0.4
plain A 127.0.0.5
sixth AAAA ::1
both A 127.0.0.6
both AAAA ::6
null MX 0 .
nowhere MX 10 nosuch
alias CNAME plain
textonly TXT "no address"
mine MX 10 myself
backup MX 10 a
backup MX 20 myself
backup MX 30 b
second MX 10 nosuch
second MX 20 myself
myself A 127.0.0.99
short 1 A 127.0.0.7
"""


@pytest.fixture(scope="module")
def name_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run a name server for the zones `test` and `broken` (SERVFAIL); yield its port."""
    with named(tmp_path_factory.mktemp("named"), {"test": ZONE, "broken": None}) as port:
        yield port


def settings(**changes: object) -> TargetSettings:
    """Return the default settings, with `changes`."""
    defaults = TargetSettings(
        families=(socket.AF_INET, socket.AF_INET6),
        use_dns=True,
        host_lookup_dns=True,
        host_lookup_native=False,
        ignore_mx_lookup_error=False,
        defer_if_no_mx_address_found=False,
        address_preference="any",
        balance_inet_protocols=True,
        randomize_addresses=False,
        mx_address_limit=5,
        own_addresses=frozenset({"127.0.0.99"}),
    )
    return defaults._replace(**changes)  # type: ignore[arg-type]


async def find(port: int, nexthop: str, **changes: object) -> list[str]:
    """Return the addresses to try, as text."""
    resolver = Resolver(["127.0.0.1"], port, timeout_s=5)
    return [target.address for target in await targets(parse(nexthop, 25), settings(**changes), resolver)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("example.org", ("example.org", 25, True, None)),
        ("example.org:2525", ("example.org", 2525, True, None)),
        ("example.org:submission", ("example.org", 587, True, None)),
        ("[mx.example.org]", ("mx.example.org", 25, False, None)),
        ("[mx.example.org]:26", ("mx.example.org", 26, False, None)),
        ("[192.0.2.1]:26", ("192.0.2.1", 26, False, "192.0.2.1")),
        ("[2001:db8::1]", ("2001:db8::1", 25, False, "2001:db8::1")),
        ("[ipv6:2001:DB8::1]:26", ("ipv6:2001:DB8::1", 26, False, "2001:db8::1")),
        ("192.0.2.1", ("192.0.2.1", 25, False, "192.0.2.1")),
        ("[a_b.example.]", ("a_b.example.", 25, False, None)),
        ("münchen.example", ("münchen.example", 25, True, None)),
        ("x" * 63 + ".1", ("x" * 63 + ".1", 25, True, None)),
    ],
)
def test_next_hop_is_parsed(text: str, expected: tuple[str, int, bool, str | None]) -> None:
    assert parse(text, 25) == NextHop(text, *expected)


def test_next_hop_lists_and_lmtp_are_parsed() -> None:
    assert [site.host for site in parse_list("a, [b]:26\tc", 25)] == ["a", "b", "c"]
    assert parse("unix:private/dovecot", 24, lmtp=True).path == "private/dovecot"
    assert parse("inet:mail.example.org:2003", 24, lmtp=True)[1:4] == ("mail.example.org", 2003, False)
    assert parse_list("unix:/a b/c", 24, lmtp=True)[0].path == "/a b/c"


@pytest.mark.parametrize(
    "text",
    [
        *("", "[", "[]", "[a", "[a]b", ":25", "a:0", "a:65536", "a:99999999999", "a:nosuch", "-a.org", "a-.org"),
        *("a..org", ".a.org", "a/b", "a@b", "!a", "1.2", "x" * 64, "x." * 128),
    ],
)
def test_bad_next_hop_is_refused(text: str) -> None:
    with pytest.raises(BadNextHop):
        parse(text, 25)


@pytest.mark.parametrize(
    ("nexthop", "addresses"),
    [
        ("one.test", ["127.0.0.2"]),
        ("two.test", ["127.0.0.2", "127.0.0.3", "127.0.0.4"]),
        ("[two.test]", None),
        ("plain.test", ["127.0.0.5"]),
        ("alias.test", ["127.0.0.5"]),
        ("sixth.test", ["::1"]),
        ("both.test", ["127.0.0.6", "::6"]),
        ("[b.test]", ["127.0.0.3", "127.0.0.4"]),
        ("backup.test", ["127.0.0.2"]),
        ("localhost", ["127.0.0.1", "::1"]),
        ("[192.0.2.1]", ["192.0.2.1"]),
    ],
)
async def test_hosts_are_found_in_order_of_preference(
    name_server: int, nexthop: str, addresses: list[str] | None
) -> None:
    if addresses is None:
        with pytest.raises(NoTargets):
            await find(name_server, nexthop)
    else:
        found = await find(name_server, nexthop)
        # A name server rotates the addresses of a host.
        assert sorted(found) == addresses
        assert nexthop != "two.test" or found[0] == "127.0.0.2"


NOT_FOUND = "Host or domain name not found. Name service error for name={} type={}: "


@pytest.mark.parametrize(
    ("nexthop", "dsn", "text"),
    [
        ("null.test", "5.1.0", "Domain null.test does not accept mail (nullMX)"),
        ("nosuch.test", "5.4.4", NOT_FOUND.format("nosuch.test", "AAAA") + "Host not found"),
        (
            "textonly.test",
            "5.4.4",
            NOT_FOUND.format("textonly.test", "AAAA") + "Host found but no data record of requested type",
        ),
        ("nowhere.test", "5.4.4", NOT_FOUND.format("nosuch.test", "AAAA") + "Host not found"),
        ("x.broken", "4.4.3", NOT_FOUND.format("x.broken", "MX") + "Host not found, try again"),
        ("[x.broken]", "4.4.3", NOT_FOUND.format("x.broken", "A") + "Host not found, try again"),
        ("mine.test", "5.4.6", "mail for mine.test loops back to myself"),
        ("[myself.test]", "5.4.6", "mail for myself.test loops back to myself"),
        ("second.test", "4.4.4", "unable to find primary relay for second.test"),
    ],
)
async def test_failed_lookup_has_dsn_and_reason(name_server: int, nexthop: str, dsn: str, text: str) -> None:
    with pytest.raises(NoTargets) as caught:
        await find(name_server, nexthop)
    assert (caught.value.dsn, str(caught.value)) == (dsn, text)


async def test_settings_change_the_addresses(name_server: int) -> None:
    assert await find(name_server, "both.test", families=(socket.AF_INET,)) == ["127.0.0.6"]
    assert await find(name_server, "both.test", address_preference="ipv6") == ["::6", "127.0.0.6"]
    assert await find(name_server, "four.test:26", mx_address_limit=2) in (
        ["127.0.0.11", "127.0.0.12"],
        ["127.0.0.12", "127.0.0.11"],
    )
    assert len(await find(name_server, "four.test", mx_address_limit=0)) == 4
    # On another port, our own address is not a loop.
    assert await find(name_server, "mine.test:2525") == ["127.0.0.99"]
    with pytest.raises(NoTargets, match="Host not found") as caught:
        await find(name_server, "nowhere.test", defer_if_no_mx_address_found=True)
    assert caught.value.dsn == "4.4.4"
    with pytest.raises(NoTargets, match="all network protocols are disabled"):
        await find(name_server, "one.test", families=())


async def test_hosts_with_equal_preference_are_randomized(name_server: int) -> None:
    seen = set()
    for _ in range(60):
        found = await find(name_server, "four.test:26", randomize_addresses=True)
        assert sorted(found[:2]) == ["127.0.0.11", "127.0.0.12"]
        assert found[2:] == ["127.0.0.13", "127.0.0.14"]
        seen.add(found[0])
    assert len(seen) == 2


def test_truncated_address_list_keeps_both_protocols() -> None:
    from postillion.delivery.smtp.targets import _ordered

    found = [Target("h", f"::{n}", 25) for n in range(1, 8)] + [Target("h", "192.0.2.1", 25)]
    kept = _ordered(found, settings(mx_address_limit=3), lambda _: None)
    assert [target.address for target in kept] == ["::1", "::2", "192.0.2.1"]
    unbalanced = settings(mx_address_limit=3, balance_inet_protocols=False)
    assert [target.address for target in _ordered(found, unbalanced, lambda _: None)] == ["::1", "::2", "::3"]


async def test_native_lookup_reads_the_hosts_file() -> None:
    assert await native_addresses("localhost", (socket.AF_INET,)) == ["127.0.0.1"]
    with pytest.raises(NoTargets, match=r"unable to look up host nosuch\.invalid: "):
        await native_addresses("nosuch.invalid", (socket.AF_INET,))


async def test_mail_goes_to_next_mx_when_first_is_down(tmp_path: Path, name_server: int) -> None:
    daemon = FakeDaemon(tmp_path, "smtp_host_lookup = dns\n")
    resolver = Resolver(["127.0.0.1"], name_server)

    def agent(daemon: FakeDaemon) -> SmtpAgent:
        return SmtpAgent(daemon, "smtp", capacity=5, resolver=resolver)  # type: ignore[arg-type]

    # two.test: a.test is 127.0.0.2, without a listener; b.test is 127.0.0.3 and 127.0.0.4.
    async with server(Script(), host="127.0.0.3") as script, serving(tmp_path, agent, daemon) as hub:
        result = await hub.deliver(f"two.test:{script.port}", Mail(0, ["rcpt@two.test"]))
        assert result.only.outcome == "sent"
        assert result.only.remote == f"b.test[127.0.0.3]:{script.port}"
        lines = daemon.logged()
        assert lines[0] == f"connect to a.test[127.0.0.2]:{script.port}: Connection refused"
        result = await hub.deliver("null.test", Mail(0, ["rcpt@null.test"]))
        assert (result.only.outcome, result.only.dsn) == ("bounced", "5.1.0")
        assert (await hub.deliver("x.broken", Mail(0, ["rcpt@x.broken"]))).only.outcome == "deferred"


@pytest.mark.parametrize(
    ("value", "search"),
    [
        ("", Search()),
        ("res_defnames", Search(defnames=True)),
        ("res_dnsrch, res_defnames", Search(defnames=True, dnsrch=True)),
    ],
)
async def test_resolver_options_apply_the_search_list_to_hosts_alone(
    tmp_path: Path, name_server: int, value: str, search: Search
) -> None:
    config = FakeDaemon(tmp_path, f"smtp_dns_resolver_options = {value}\n").config
    assert TargetSettings.of(config, "smtp").search == search
    conf = tmp_path / "resolv.conf"
    conf.write_text(f"nameserver 127.0.0.1\nsearch test\noptions port:{name_server}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("postillion.dns.resolver.RESOLV_CONF", str(conf))
        resolver = Resolver(timeout_s=5)
    wanted = settings(search=search)
    if search.defnames:
        found = await targets(parse("[plain]", 25), wanted, resolver)
        assert [target.address for target in found] == ["127.0.0.5"]
    # one.test has an MX record, and no address.
    for nexthop in ["one", *([] if search.defnames else ["[plain]"])]:
        with pytest.raises(NoTargets):
            await targets(parse(nexthop, 25), wanted, resolver)


def test_own_addresses_follow_inet_interfaces(tmp_path: Path) -> None:
    def own(more: str) -> frozenset[str]:
        return TargetSettings.of(FakeDaemon(tmp_path, more).config, "smtp").own_addresses

    os.chdir(tmp_path)
    assert "127.0.0.1" in own("")
    assert own("inet_interfaces = loopback-only\ninet_protocols = ipv4\n") <= {"127.0.0.1", "::1"}
    listed = "inet_interfaces = 192.0.2.1, [2001:db8::1]\nproxy_interfaces = 198.51.100.1\n"
    assert own(listed + "inet_protocols = ipv4\n") == {"192.0.2.1", "198.51.100.1"}
    assert own("inet_interfaces = localhost, 192.0.2.1\ninet_protocols = ipv4\n") == {"127.0.0.1", "192.0.2.1"}
    assert own(listed + "inet_protocols = all\n") == {
        "192.0.2.1",
        "2001:db8::1",
        "198.51.100.1",
    }
