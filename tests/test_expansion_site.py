"""Aliases that expand to thousands of addresses, chains and cycles of aliases: both programs end at the same place.

Lookups are counted, not seconds: a tcp: table tells the keys that it was asked for.
"""

from __future__ import annotations

import itertools
import json
import re
import smtplib
import subprocess
from collections.abc import Iterator

import pytest

from postillion.delivery.local.recipient import DEPTH_MAX
from support.either import PROGRAMS, Server, program
from support.mta import Site, delivered, keep_last, local_user, running
from support.ports import free_port
from support.tcp_table import TcpTable

MANY = 10_000
LIMIT = 1000
"""The default of virtual_alias_expansion_limit and virtual_alias_recursion_limit."""
RAISED = 20_000
DEPTH = 25
"""Maximum depth of the aliases of Postfix's local(8); ours is 100."""
NESTED = 100
"""A list of as many lists, each of as many addresses."""
TIMEOUT_S = 60
REFUSED = "451 4.6.0 Alias expansion error"
MASTER_CF = """\
127.0.0.1:{lists_port} inet n - n - - smtpd -o cleanup_service_name=lists
127.0.0.1:{raised_port} inet n - n - - smtpd -o cleanup_service_name=raised
127.0.0.1:{chains_port} inet n - n - - smtpd -o cleanup_service_name=chains
lists unix n - n - 0 cleanup -o virtual_alias_maps=hash:{etc}/virtual
raised unix n - n - 0 cleanup -o virtual_alias_maps=hash:{etc}/virtual -o virtual_alias_expansion_limit={raised}
chains unix n - n - 0 cleanup -o virtual_alias_maps=tcp:127.0.0.1:{tcp_port}
"""
SETTINGS = {
    "myorigin": "example.org",
    "header_checks": "pcre:{{/^Subject: hold/ HOLD}}",
    "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
    "smtpd_reject_unlisted_recipient": "no",
    "transport_maps": "inline:{{ {{ discard.example = discard: }} }}".replace("{{", "{").replace("}}", "}"),
    "local_recipient_maps": "",
}


def chain(name: str, length: int, end: str) -> dict[str, str]:
    """Return `length` aliases, each of the next one."""
    names = [*(f"{name}{at}@chain.example" for at in range(length)), end]
    return dict(itertools.pairwise(names))


CHAINS = {
    **chain("chain", MANY, "end@far.example"),
    **chain("cycle", MANY, "cycle0@chain.example"),
    **chain("deepest", LIMIT - 1, "end@far.example"),
    **chain("deeper", LIMIT, "end@far.example"),
    # Every alias adds one address.
    **{
        key: f"{value}, {key.replace('@chain', '@end')}"
        for key, value in chain("comb", MANY, "end@far.example").items()
    },
    "itself@chain.example": "itself@chain.example, other@far.example",
}


def addresses(number: int, name: str = "u") -> list[str]:
    """Return addresses that no table has."""
    return [f"{name}{at}@discard.example" for at in range(number)]


def virtual() -> str:
    """Return the text of a table with long lists."""
    rows = {f"list{number}": addresses(number) for number in (LIMIT, LIMIT + 1, MANY)}
    for name, number in (("nested", MANY), ("wide", RAISED)):
        rows |= {f"{name}{at}": addresses(number // NESTED, f"{at}-") for at in range(NESTED)}
        rows[name] = [f"{name}{at}@list.example" for at in range(NESTED)]
    rows["wider"] = [*rows["wide"], "one@discard.example"]
    return "".join(f"{name}@list.example {', '.join(found)}\n" for name, found in rows.items())


def write_local(site: Site) -> None:
    """Write aliases and :include: files of the local users."""
    rows = {"many": ", ".join(addresses(MANY)), "included": f":include:{site.etc}/many"}
    rows |= {f"chain{at}": f"chain{at + 1}" for at in range(MANY)}
    rows |= {f"cycle{at}": f"cycle{(at + 1) % MANY}" for at in range(MANY)}
    rows |= {f"deep{at}": f"deep{at + 1}" for at in range(DEPTH - 2)} | {f"deep{DEPTH - 2}": local_user()}
    (site.etc / "aliases").write_text("".join(f"{name}: {value}\n" for name, value in rows.items()))
    (site.etc / "many").write_text("".join(f"{address}\n" for address in addresses(MANY)))


class Lists(Server):
    """A running site of either program, with the ports of its listeners."""

    def __init__(self, site: Site, program: str, ports: dict[str, int], table: TcpTable) -> None:
        super().__init__(site, program)
        self.ports = ports
        self.table = table

    def sent(self, listener: str, recipient: str) -> str | list[str]:
        """Return the reply to a message if it is refused, else its recipients in the queue, without the original."""
        with smtplib.SMTP("127.0.0.1", self.ports[listener], timeout=TIMEOUT_S) as client:
            client.ehlo("client.example")
            client.mail("ann@a.example")
            assert client.rcpt(recipient)[0] == 250
            code, reply = client.data(b"Subject: hold\r\n\r\nbody\r\n")
        if code != 250:
            return f"{code} {reply.decode()}"
        queue_id = reply.decode().rsplit(" ", 1)[1]
        entries = (json.loads(line) for line in self.command("postqueue", "-j").splitlines())
        [entry] = [entry for entry in entries if entry["queue_id"] == queue_id]
        assert entry["queue_name"] == "hold"
        self.command("postsuper", "-d", queue_id)
        return [to["address"] for to in entry["recipients"]]


@pytest.fixture(scope="module", params=PROGRAMS)
def lists(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lists]:
    """Run the site with one of the programs."""
    name = program(request)
    directory = tmp_path_factory.mktemp("lists")
    ports = {listener: free_port() for listener in ("lists", "raised", "chains")}
    tcp_port = free_port()
    named = {f"{listener}_port": port for listener, port in ports.items()}
    master_cf = MASTER_CF.format(**named, tcp_port=tcp_port, etc=directory / "etc", raised=RAISED)
    site = Site(directory, main_cf=SETTINGS, master_cf=master_cf)
    keep_last(site.etc / "main.cf")
    (site.etc / "virtual").write_text(virtual())
    postmap = site.command("postmap", name)
    subprocess.run([*postmap, f"hash:{site.etc}/virtual"], check=True, timeout=60)
    write_local(site)
    with TcpTable(tcp_port, CHAINS) as table, running(site, name):
        yield Lists(site, name, ports, table)


@pytest.mark.parametrize(
    ("listener", "name", "expected"),
    [
        ("lists", f"list{LIMIT}", LIMIT),
        ("lists", f"list{LIMIT + 1}", None),
        ("lists", "nested", None),
        ("raised", f"list{LIMIT + 1}", LIMIT + 1),
        ("raised", f"list{MANY}", MANY),
        ("raised", "nested", MANY),
        ("raised", "wide", RAISED),
        ("raised", "wider", None),
    ],
)
def test_virtual_alias_expands_up_to_its_limit(lists: Lists, listener: str, name: str, expected: int | None) -> None:
    found = lists.sent(listener, f"{name}@list.example")
    if expected is None:
        assert found == REFUSED
        return
    parts = [address for at in range(NESTED) for address in addresses(expected // NESTED, f"{at}-")]
    assert sorted(found) == sorted(addresses(expected) if name.startswith("list") else parts)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chain0", REFUSED),
        ("cycle0", REFUSED),
        ("deepest0", ["end@far.example"]),
        ("deeper0", REFUSED),
        ("comb0", REFUSED),
        ("itself", ["itself@chain.example", "other@far.example"]),
    ],
)
def test_chain_of_virtual_aliases_ends_at_its_limit(lists: Lists, name: str, expected: str | list[str]) -> None:
    before = len(lists.table.keys)
    assert lists.sent("chains", f"{name}@chain.example") == expected
    asked = lists.table.keys[before:]
    # An alias is found by its address; the address at the end has one key, and its domain another one.
    assert len(asked) <= LIMIT + 4
    if expected == REFUSED:
        assert len(asked) == LIMIT


def log_of(lists: Lists, name: str) -> str:
    """Send mail to a local user; return what the log says of its only line, once it is over."""
    with smtplib.SMTP("127.0.0.1", lists.site.port, timeout=TIMEOUT_S) as client:
        client.ehlo("client.example")
        client.mail("ann@a.example")
        client.rcpt(f"{name}@example.org")
        code, reply = client.data(b"Subject: x\r\n\r\nbody\r\n")
    assert code == 250
    queue_id = reply.decode().rsplit(" ", 1)[1]
    [found] = re.findall(r" to=<.*?>.* dsn=([\d.]+), status=(.*)", delivered(lists.site, queue_id))
    return " ".join(found)


@pytest.mark.parametrize("name", ["many", "included"])
def test_alias_and_include_file_of_thousands_are_forwarded_as_one_message(lists: Lists, name: str) -> None:
    sent = re.fullmatch(r"2\.0\.0 sent \(forwarded as (\w+)\)", log_of(lists, name))
    assert sent is not None
    lists.log(rf" {sent[1]}: from=<ann@a\.example>, size=\d+, nrcpt={MANY} \(queue active\)")
    lists.command("postsuper", "-d", sent[1])


@pytest.mark.parametrize("name", ["chain", "cycle"])
def test_chain_of_aliases_bounces(lists: Lists, name: str) -> None:
    depth = DEPTH if lists.program == "postfix" else DEPTH_MAX + 1
    assert log_of(lists, f"{name}0") == f"5.4.6 bounced (alias database loop for {name}{depth})"


def test_deep_chain_of_aliases_is_delivered(lists: Lists) -> None:
    assert log_of(lists, "deep0") == "2.0.0 sent (delivered to maildir)"
