"""Routes of addresses: `postillion.address` and Postfix's trivial-rewrite give the same answers."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from postillion._core.address import quote
from postillion.address.destination import Destination
from postillion.address.resolve import Resolver, Unresolved
from postillion.config import Config
from support.mta import Site, running
from support.peers import postfix_home, root
from support.trivial_rewrite import FAILED, MALFORMED, ROUTED, Resolved, TrivialRewrite, services

DOMAINS = {
    "virtual_alias_domains": "alias.example",
    "virtual_mailbox_domains": "box.example, büro.example",
    "relay_domains": "relay.example",
    "default_transport": "smtp",
    "transport_maps": "",
}
TRANSPORTS = (
    "{t.example=error:}, {.t.example=:[hub]}, {u+x@p.example=foo:bar}, {p.example=slow:}, {alias.example=smtp:[a]},"
    " {n.example=:}, {r.example=retry:}, {e.example=error:5.7.1 no way}, {MAILER-DAEMON@mx.example.org=md:x},"
    " {q.example=smtp:[192.0.2.1]:2525}, {gone@relay.example=foo:}, {box.example=lmtp:unix:private/x}"
)
BY_SENDER = {
    **DOMAINS,
    "relayhost": "[smart.example]:587",
    "recipient_delimiter": "+-",
    "sender_dependent_relayhost_maps": (
        "inline:{ {s@x.example=[relay.x]}, {@y.example=[relay.y]}, {d@example.org=DUNNO}, {u=[bare]}, {<>=[null]} }"
    ),
    "sender_dependent_default_transport_maps": (
        "inline:{ {s@x.example=xt:}, {@y.example=yt:[ynh]}, {<>=nullt:}, {e@x.example=}, {d@example.org=dunno} }"
    ),
    "transport_maps": f"inline:{{ {TRANSPORTS} }}",
    "relocated_maps": "inline:{ {gone@example.org=new@far.example}, {@moved.example=nowhere}, {u@ext.example=x},"
    " {gone@relay.example=y}, {left=us} }",
}
CONFIGURATIONS: dict[str, dict[str, str]] = {
    "plain": DOMAINS,
    "by sender": BY_SENDER,
    "null domain": {**DOMAINS, "resolve_null_domain": "yes", "resolve_dequoted_address": "no"},
    "no operators": {
        **DOMAINS,
        "allow_percent_hack": "no",
        "swap_bangpath": "no",
        "resolve_numeric_domain": "yes",
        "allow_min_user": "yes",
        "append_dot_mydomain": "yes",
    },
    "completed": {
        **DOMAINS,
        "append_dot_mydomain": "yes",
        "append_at_myorigin": "no",
        "empty_address_recipient": "nobody@relay.example",
        "recipient_delimiter": "+-",
    },
    "own next hops": {
        **DOMAINS,
        "local_transport": "local",
        "virtual_transport": "virtual:x",
        "relay_transport": "relay:[y]",
        "default_transport": "smtp:[z]",
        "relayhost": "smart.example",
        "show_user_unknown_table_name": "no",
        "transport_maps": "inline:{ {p.example=slow:}, {*=star:} }",
        "parent_domain_matches_subdomains": "transport_maps relay_domains",
        "relocated_prefix_enable": "yes",
        "relocated_maps": "inline:{ {gone@example.org=new@far.example} }",
    },
    "null keys": {
        **BY_SENDER,
        "empty_address_relayhost_maps_lookup_key": "u",
        "empty_address_default_transport_maps_lookup_key": "d@example.org",
    },
    "failing transport_maps": {**DOMAINS, "transport_maps": "fail:x"},
    "failing relocated_maps": {**DOMAINS, "relocated_maps": "fail:x"},
    "failing mydestination": {**DOMAINS, "mydestination": "example.org, fail:x"},
    "failing relay_domains": {**DOMAINS, "relay_domains": "fail:x"},
    "failing senders": {**DOMAINS, "sender_dependent_relayhost_maps": "fail:x"},
}
SENDER = "s@x.example"
CASES: list[tuple[str, list[str | tuple[str, str]]]] = [
    (
        "plain",
        [
            "",
            "u",
            "u@",
            "@",
            "@example.org",
            "u@example.org",
            "u@EXAMPLE.org.",
            "U@Far.Example",
            "u@relay.example",
            "u%far.example@example.org",
            "far.example!u@example.org",
            "u@far.example@example.org",
            "u@far.example..",
            "a b@far.example@example.org",
            "a b%relay.example@example.org",
            "relay.example!a b@example.org",
            "u%localhost@example.org",
            "u%far.example%localhost@example.org",
            "u%far.example@relay.example",
            "!u@example.org",
            "a!b%relay.example@example.org",
            "a.example!b.example!c@example.org",
            "%@example.org",
            "u%@example.org",
            "u@relay.example.@example.org",
            "u@host",
            "u%host@example.org",
            "u@1.2.3.4",
            "u@1.2",
            "u@[1.2.3.4]",
            "u@[127.0.0.1]",
            "u%u@[127.0.0.1]",
            "-x@example.org",
            "-x@far.example",
            "u@a..b",
            '""@example.org',
            "a b!c%relay.example@example.org",
            "u@[IPv6:::1]",
            "u@[::1]",
            "u@büro.example",
            "u%x@büro.example",
            "ü@far.example",
            "u@alias.example",
            "u@box.example",
            "u@sub.relay.example",
            "u@-b.example",
            "a,b@far.example",
            "u%box.example%alias.example@example.org",
            "u@mx.example.org",
        ],
    ),
    (
        "by sender",
        [
            "gone@example.org",
            "gone+x@example.org",
            "GONE@EXAMPLE.org",
            "a@moved.example",
            "u-y@ext.example",
            "left@example.org",
            "left+1@localhost",
            "left@far.example",
            "u@alias.example",
            "u@box.example",
            "u@relay.example",
            "gone@relay.example",
            "u@far.example",
            ("u@far.example", ""),
            ("u@far.example", "a@y.example"),
            ("u@far.example", "S@X.example"),
            ("u@far.example", "s+e@x.example"),
            ("u@far.example", "d@example.org"),
            ("u@far.example", "u@example.org"),
            ("u@far.example", "u+x@localhost"),
            ("u@far.example", "e@x.example"),
            ("u@relay.example", "d-1@example.org"),
            ("u@far.example", "u"),
            "u@t.example",
            "u@a.t.example",
            "u@p.example",
            "u+x@p.example",
            "u-x@p.example",
            "u@n.example",
            "u@r.example",
            "u@e.example",
            "u@q.example",
            "",
            "u%p.example@example.org",
            ("u@far.example", "who@else.example"),
        ],
    ),
    (
        "null domain",
        [
            "u@",
            "@",
            "u@far.example@example.org",
            "a b@far.example@example.org",
            "a b%far.example@example.org",
            "far.example!a b@example.org",
            "u%far.example@example.org",
            "u%@example.org",
            "!u@example.org",
            "%@example.org",
        ],
    ),
    (
        "no operators",
        [
            "u%far.example@example.org",
            "far.example!u@example.org",
            "u@far.example@example.org",
            "u@1.2.3.4",
            "u@127.0.0.1",
            "-x@far.example",
            "a b%far.example@example.org",
            "u@host@example.org",
            "u@1.2.3.4@example.org",
        ],
    ),
    (
        "completed",
        [
            "",
            "@example.org",
            "u",
            "u%localhost@example.org",
            "u%host@example.org",
            "a!b%c.example@example.org",
            "u+x@box.example",
        ],
    ),
    (
        "own next hops",
        [
            "u@example.org",
            "u@box.example",
            "u@relay.example",
            "u@far.example",
            "u@sub.relay.example",
            "u@a.p.example",
            "u@alias.example",
            "gone@example.org",
            "",
        ],
    ),
    ("null keys", [("u@far.example", ""), ("u@relay.example", "")]),
    ("failing transport_maps", ["u@example.org", "u@far.example", "u@alias.example", "u@"]),
    ("failing relocated_maps", ["u@example.org", "u@alias.example"]),
    ("failing mydestination", ["u@example.org", "u@far.example"]),
    ("failing relay_domains", ["u@example.org", "u@far.example", "u@box.example", "u@[1.2.3.4]"]),
    ("failing senders", ["u@example.org", "u@far.example", "u@box.example", "u@relay.example"]),
]
ROWS = [(name, *(case if isinstance(case, tuple) else (case, SENDER))) for name, cases in CASES for case in cases]
GENERATED = 200
SEED = 10
LOCALS = ("u", "gone", "u+x", "u-", "a b", "-x", "ü", "U", "", "a..b", "postmaster", "owner-u", "u\\", 'q"q')
PARTS = (
    "example.org",
    "localhost",
    "far.example",
    "relay.example",
    "box.example",
    "alias.example",
    "p.example",
    "t.example",
    "sub.t.example",
    "host",
    "EXAMPLE.ORG",
    "Relay.Example",
    "[127.0.0.1]",
    "127.0.0.1",
    "moved.example",
    "",
)
SENDERS = ("", "s@x.example", "a@y.example", "u@example.org", "d@example.org", "u-z@localhost", "u")


def generated() -> Iterator[tuple[str, str, str]]:
    """Yield configuration, address and sender of random cases, the same in each run."""
    rng = random.Random(SEED)
    names = [name for name in CONFIGURATIONS if not name.startswith("failing")]
    for _ in range(GENERATED):
        address = rng.choice(LOCALS)
        for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
            domain = rng.choice(PARTS)
            address = f"{domain}!{address}" if rng.random() < 0.3 else f"{address}%{domain}"
        if rng.random() < 0.1:
            address += f"@{rng.choice(PARTS)}"
        if rng.random() < 0.95:
            address += f"@{rng.choice(PARTS)}" + ("." if rng.random() < 0.05 else "")
        yield rng.choice(names), address, rng.choice(SENDERS)


class Peers:
    """Postfix with a service for each configuration, and our resolvers."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._names = list(CONFIGURATIONS)
        self._connections: dict[str, TrivialRewrite] = {}
        self._resolvers: dict[str, Resolver] = {}

    def theirs(self, name: str, address: str, sender: str) -> Resolved:
        """Return Postfix's answer."""
        if name not in self._connections:
            service = f"rewrite{self._names.index(name)}"
            self._connections[name] = TrivialRewrite(self._site.queue, service)
        return self._connections[name].resolve(address, sender)

    def resolver(self, name: str) -> Resolver:
        """Return our resolver."""
        if name not in self._resolvers:
            config = Config.load(str(self._site.etc), CONFIGURATIONS[name].items())
            self._resolvers[name] = Resolver(config, lambda _text: None)
        return self._resolvers[name]

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections.values():
            connection.close()


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    root()
    postfix_home()
    site = Site(tmp_path_factory.mktemp("rewrite"), master_cf=services(list(CONFIGURATIONS.values())))
    with running(site, "postfix"):
        found = Peers(site)
        yield found
        found.close()


def written(address: str) -> str:
    """Return an address with quotes, from one without."""
    local, sign, domain = address.rpartition("@")
    return f"{quote(local)}@{domain}" if sign else quote(address)


def answers(peers: Peers, name: str, address: str, sender: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return Postfix's answer and ours, in one form."""
    theirs = peers.theirs(name, address, sender)
    if theirs.flags & FAILED:
        expected: tuple[str, ...] = ("4.3.0",)
    elif theirs.flags & MALFORMED:
        expected = ("5.1.3",)
    else:
        # The queue manager folds the case of a next hop.
        expected = theirs.transport, theirs.nexthop.lower(), written(theirs.recipient)
    given = written(address) if address else ""
    try:
        route = peers.resolver(name).resolve(given, written(sender) if sender else "")
    except Unresolved as problem:
        return expected, (problem.dsn,)
    recipient = route.recipient or given
    return expected, (route.transport, route.nexthop.lower(), recipient)


@pytest.mark.parametrize(("name", "address", "sender"), ROWS)
def test_route_is_that_of_trivial_rewrite(peers: Peers, name: str, address: str, sender: str) -> None:
    expected, found = answers(peers, name, address, sender)
    assert found == expected


@pytest.mark.parametrize("address", sorted({address for name, address, _ in ROWS if name == "plain" and address}))
def test_class_and_routing_are_those_of_trivial_rewrite(peers: Peers, address: str) -> None:
    theirs = peers.theirs("plain", address, SENDER)
    found: Destination = peers.resolver("plain").destinations.of(written(address))
    if not theirs.flags & MALFORMED:
        assert (found.kind.value, found.routed) == (theirs.kind, bool(theirs.flags & ROUTED))


def test_generated_addresses_have_the_routes_of_trivial_rewrite(peers: Peers) -> None:
    different = []
    for name, address, sender in generated():
        expected, found = answers(peers, name, address, sender)
        if expected != found:
            different.append((name, address, sender, expected, found))
    assert different == []
