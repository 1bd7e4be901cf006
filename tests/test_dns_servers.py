"""The stub resolver against name servers that lie, fail and stall, and beside dnspython against a real one (BIND)."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
import uvloop

from postillion.dns import Answer, Failed, Mx, NoData, NoName, Records, Resolver, Search, Srv
from postillion.dns.answer import Kind
from support.dnspython import Dnspython
from support.mta import until
from support.name_server import NameServers, Query, Response, name_servers
from support.named import named
from support.ports import free_port

V4 = socket.AF_INET
FIRST, SECOND = "127.0.0.1", "127.0.0.2"
ADDRESS = Records(("192.0.2.1",), 300.0, False)
KINDS: tuple[Kind, ...] = ("A", "AAAA", "MX", "PTR", "TXT", "TLSA", "SRV", "CNAME")


def resolver(servers: NameServers, *addresses: str, **more: Any) -> Resolver:
    return Resolver(addresses or (FIRST,), servers.port, **{"timeout_s": 5.0, **more})


def changed(query: Query, **changes: Any) -> dns.message.Message:
    """Return a response with a wrong address, and other changes of the message."""
    response = query.answer("A 192.0.2.66")
    for name, value in changes.items():
        setattr(response, name, value)
    return response


def other_question(query: Query, name: str, kind: str) -> dns.message.Message:
    return changed(query, question=[dns.rrset.from_text(name, 0, "IN", kind)])


@pytest.mark.parametrize(
    "forged",
    [
        lambda query: changed(query, id=query.message.id ^ 1),
        lambda query: changed(query, id=0),
        lambda query: changed(query, flags=0),
        lambda query: other_question(query, "b.test.", "A"),
        lambda query: other_question(query, "a.test.", "AAAA"),
        lambda query: changed(query, question=[]),
        lambda _query: b"",
        lambda _query: b"\xff" * 1000,
    ],
)
async def test_a_response_to_another_query_is_ignored(forged: Any) -> None:
    async with name_servers(lambda query: [*[forged(query)] * 9, query.answer("A 192.0.2.1")]) as servers:
        assert await resolver(servers).addresses("a.test", (V4,)) == ADDRESS
        assert servers.asked == [(FIRST, "udp")]


async def test_a_server_that_answers_wrong_ids_alone_is_left_for_the_next() -> None:
    def script(query: Query) -> Sequence[Response]:
        if query.server == SECOND:
            return [query.answer("A 192.0.2.1")]
        return [changed(query, id=(query.message.id + n) % 65536) for n in range(1, 100)]

    async with name_servers(script, FIRST, SECOND) as servers:
        begin = time.monotonic()
        assert await resolver(servers, FIRST, SECOND, timeout_s=60.0).addresses("a.test", (V4,)) == ADDRESS
        assert time.monotonic() - begin < 5.0, "the timeout of an attempt is 5 seconds"


async def test_a_response_from_another_address_is_ignored() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as forger:
        forger.bind(("127.0.0.3", 0))

        def script(query: Query) -> Sequence[Response]:
            forger.sendto(changed(query).to_wire(), query.client)
            return [query.answer("A 192.0.2.1")]

        async with name_servers(script) as servers:
            assert await resolver(servers).addresses("a.test", (V4,)) == ADDRESS


async def test_each_query_has_its_own_id_and_port() -> None:
    async with name_servers(lambda query: [query.answer(code=dns.rcode.NXDOMAIN)]) as servers:
        asker = resolver(servers)
        await asyncio.gather(*(asker.mx(f"{n}.test") for n in range(200)))
        ports = {query.client[1] for query in servers.queries}
        ids = [query.message.id for query in servers.queries]
        assert len(servers.queries) == 200
        # A port may be given again once its socket is closed, and two of 200 random IDs may be the same.
        assert len(ports) > 100
        assert len(set(ids)) > 190
        steps = [after - before for before, after in itertools.pairwise(ids)]
        assert len(set(steps)) > 150


async def test_duplicate_responses_answer_once() -> None:
    async with name_servers(lambda query: [query.answer("A 192.0.2.1")] * 5) as servers:
        asker = resolver(servers)
        for name in ("a.test", "b.test"):
            assert await asker.addresses(name, (V4,)) == ADDRESS
        assert len(servers.queries) == 2


async def test_a_truncated_response_is_asked_for_over_tcp() -> None:
    texts = [f'TXT "{n:05} {"x" * 200}"' for n in range(50)]

    def script(query: Query) -> Sequence[Response]:
        if query.tcp:
            return [query.answer(*texts)]
        response = query.answer()
        response.flags |= dns.flags.TC
        return [response]

    async with name_servers(script, FIRST, SECOND) as servers:
        answer = await resolver(servers, FIRST, SECOND).lookup("a.test", "TXT")
        assert isinstance(answer, Records)
        assert len(answer.list) == 50
        assert answer.list[7] == b"00007 " + b"x" * 200
        assert servers.asked == [(FIRST, "udp"), (FIRST, "tcp")]


async def test_an_answer_of_64_kib_is_used_and_bounded() -> None:
    def script(query: Query) -> Sequence[Response]:
        if not query.tcp:
            response = query.answer()
            response.flags |= dns.flags.TC
            return [response]
        # 256 strings in a record of 65,280 octets; or as many small records as fit.
        if query.name == "one.test":
            return [query.answer("TXT " + " ".join(['"' + "x" * 254 + '"'] * 255))]
        return [query.answer(*(f"A 192.0.{n // 256}.{n % 256}" for n in range(4000)))]

    async with name_servers(script) as servers:
        asker = resolver(servers)
        one = await asker.lookup("one.test", "TXT")
        assert isinstance(one, Records)
        assert one.list == (b"x" * 254 * 255,)
        many = await asker.addresses("many.test", (V4,))
        assert isinstance(many, Records)
        assert len(many.list) == 100
        assert asker._stub.cached_octets < 100_000
        small = resolver(servers)
        small._stub = type(small._stub)(nameservers=[FIRST], port=servers.port, octets_max=10_000)
        assert (await small.lookup("one.test", "TXT")).list == one.list  # type: ignore[union-attr]
        assert small._stub.cached_octets == 0


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        (["CNAME a.test."], None),
        (["CNAME b.test.", "b.test. CNAME a.test."], None),
        ([f"{n}.test. CNAME {n + 1}.test." for n in range(40)], None),
        (["CNAME b.test.", "b.test. A 192.0.2.1"], ADDRESS),
        (["b.test. A 192.0.2.1", "CNAME B.Test."], ADDRESS),
        (["CNAME b.test."], NoData("0.test", "A", 60.0)),
        (["b.test. A 192.0.2.1"], NoData("0.test", "A", 60.0)),
    ],
)
async def test_aliases_lead_to_records_or_to_an_end(records: list[str], expected: Answer[str] | None) -> None:
    loops = expected is None
    own = [text.replace("a.test.", "0.test.") for text in records]
    async with name_servers(lambda query: [query.answer(*own)]) as servers:
        answer = await resolver(servers).addresses("0.test", (V4,))
        if loops:
            assert answer == Failed("0.test", "A", f"CNAME loop, or too many CNAMEs from {FIRST}")
        else:
            assert answer == expected


def lame(query: Query) -> dns.message.Message:
    """Return a referral to the root, as of a server that does not have the zone."""
    response = query.answer()
    response.flags &= ~dns.flags.RA
    response.authority.append(dns.rrset.from_text(".", 300, "IN", "NS", "a.root-servers.net."))
    return response


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (lambda query: [query.answer(code=dns.rcode.SERVFAIL)], "SERVFAIL"),
        (lambda query: [query.answer(code=dns.rcode.REFUSED)], "REFUSED"),
        (lambda query: [changed(query, question=[], flags=0x8005)], "REFUSED"),
        (lambda query: [lame(query)], "lame delegation"),
        (lambda query: [query.answer("A 192.0.2.66").to_wire()[:-1]], "malformed reply"),
        (lambda query: [query.message.to_wire()[:2] + b"\x80\0\0\1" + b"\0" * 6], "malformed reply"),
    ],
)
async def test_after_an_error_the_next_server_is_asked(first: Any, why: str) -> None:
    def script(query: Query) -> Sequence[Response]:
        if query.server == FIRST or query.name == "bad.test":
            return list(first(query))
        return [query.answer("A 192.0.2.1")]

    async with name_servers(script, FIRST, SECOND) as servers:
        asker = resolver(servers, FIRST, SECOND)
        assert await asker.addresses("a.test", (V4,)) == ADDRESS
        assert servers.asked == [(FIRST, "udp"), (SECOND, "udp")]
        assert await asker.addresses("bad.test", (V4,)) == Failed("bad.test", "A", f"{why} from {SECOND}")
        # And the next question is served.
        assert await asker.addresses("c.test", (V4,)) == ADDRESS


async def test_a_server_without_edns_is_asked_without() -> None:
    def script(query: Query) -> Sequence[Response]:
        if query.message.edns >= 0:
            response = query.answer(code=dns.rcode.FORMERR)
            response.use_edns(-1)
            return [response]
        return [query.answer("A 192.0.2.1")]

    async with name_servers(script) as servers:
        assert await resolver(servers).addresses("a.test", (V4,)) == ADDRESS
        assert [query.message.payload for query in servers.queries] == [1232, 0]


async def test_a_server_that_does_not_answer_leaves_time_for_the_second() -> None:
    def script(query: Query) -> Sequence[Response]:
        return [query.answer("A 192.0.2.1")] if query.server == SECOND else []

    async with name_servers(script, FIRST, SECOND) as servers:
        asker = resolver(servers, FIRST, SECOND, timeout_s=4.0)
        assert await asker.addresses("a.test", (V4,)) == ADDRESS
        assert servers.asked == [(FIRST, "udp"), (SECOND, "udp")]
        # It is the last choice now.
        assert await asker.addresses("b.test", (V4,)) == ADDRESS
        assert servers.asked[2:] == [(SECOND, "udp")]


async def test_without_any_answer_a_query_ends_in_time_and_the_next_is_served() -> None:
    async with name_servers(lambda query: [query.answer("A 192.0.2.1")] if query.name == "a.test" else []) as servers:
        asker = resolver(servers, timeout_s=2.0)
        begin = time.monotonic()
        answers = await asyncio.gather(*(asker.mx(f"{n}.silent.test") for n in range(50)))
        assert time.monotonic() - begin < 10.0
        assert {answer.why for answer in answers if isinstance(answer, Failed)} == {f"no answer from {FIRST}"}
        assert len(answers) == 50
        assert await asker.addresses("a.test", (V4,)) == ADDRESS
        assert asker._stub.open_questions == 0


async def test_a_server_that_stalls_or_closes_over_tcp_does_not_answer() -> None:
    def script(query: Query) -> Sequence[Response]:
        if query.tcp:
            return [] if query.name == "closed.test" else [b"\0" * 7]
        response = query.answer()
        response.flags |= dns.flags.TC
        return [response]

    async with name_servers(script) as servers:
        for name in ("closed.test", "garbage.test"):
            answer = await resolver(servers, timeout_s=1.0).lookup(name, "TXT")
            assert isinstance(answer, Failed)
        assert {kind for _, kind in servers.asked} == {"udp", "tcp"}


async def test_without_a_server_on_the_port_a_query_fails_at_once() -> None:
    begin = time.monotonic()
    answer = await Resolver([FIRST, SECOND], free_port(), timeout_s=30.0).mx("a.test")
    assert answer == Failed("a.test", "MX", f"{SECOND}: Connection refused (os error 111)")
    assert time.monotonic() - begin < 5.0


async def test_a_cancelled_caller_leaves_nothing_behind() -> None:
    answers = asyncio.Event()
    async with name_servers(lambda query: [query.answer("A 192.0.2.1")] if answers.is_set() else []) as servers:
        asker = resolver(servers, timeout_s=2.0)
        caller = asyncio.ensure_future(asker.mx("a.test"))
        await until(lambda: len(servers.queries) > 0)
        caller.cancel()
        await until(lambda: asker._stub.open_questions == 0)
        await until(lambda: asker._loop is None)
        answers.set()
        assert await asker.addresses("b.test", (V4,)) == ADDRESS


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_resolver_serves_one_event_loop_after_another(run: Any) -> None:
    async def ask(asker: Resolver | None) -> tuple[Resolver, Answer[str]]:
        # The first loop ends with an open question.
        async with name_servers(lambda query: [query.answer("A 192.0.2.1")]) as servers:
            made = resolver(servers) if asker is None else asker
            asyncio.ensure_future(made.mx("open.test"))  # noqa: RUF006
            return made, await made.addresses("a.test", (V4,))

    asker, first = run(ask(None))
    assert first == ADDRESS
    second = run(ask(asker))[1]
    assert isinstance(second, Records)


async def test_a_changed_resolv_conf_is_read_within_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    file = tmp_path / "resolv.conf"
    monkeypatch.setattr("postillion.dns.resolver.RESOLV_CONF", str(file))
    async with name_servers(lambda query: [query.answer("A 192.0.2.1")], FIRST, SECOND) as servers:

        def write(address: str) -> None:
            (tmp_path / "new").write_text(f"nameserver {address}\noptions port:{servers.port}\n")
            os.replace(tmp_path / "new", file)

        write(FIRST)
        asker = Resolver(clock=lambda: now)
        await asker.mx("a.test")
        write(SECOND)
        now += 0.9
        await asker.mx("b.test")
        now += 0.2
        await asker.mx("c.test")
        file.unlink()
        now += 2.0
        await asker.mx("d.test")
        assert [server for server, _ in servers.asked] == [FIRST, FIRST, SECOND, SECOND]


@pytest.mark.parametrize(
    ("name", "options", "names"),
    [
        # The names that Postfix asks for with these values of smtp_dns_resolver_options.
        ("single", Search(), ["single"]),
        ("single", Search(defnames=True), ["single.one.test", "single"]),
        ("single", Search(dnsrch=True), ["single"]),
        ("single", Search(defnames=True, dnsrch=True), ["single.one.test", "single.two.test", "single"]),
        ("dot.ted", Search(), ["dot.ted"]),
        ("dot.ted", Search(defnames=True), ["dot.ted"]),
        ("dot.ted", Search(dnsrch=True), ["dot.ted", "dot.ted.one.test", "dot.ted.two.test"]),
        ("dot.ted", Search(defnames=True, dnsrch=True), ["dot.ted", "dot.ted.one.test", "dot.ted.two.test"]),
        ("single.", Search(defnames=True, dnsrch=True), ["single"]),
        ("host", Search(defnames=True, dnsrch=True), ["host.one.test", "host.two.test"]),
    ],
)
async def test_search_list_is_tried_where_a_caller_wants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: Search, names: list[str]
) -> None:
    def script(query: Query) -> Sequence[Response]:
        known = query.name == "host.two.test"
        return [query.answer("A 192.0.2.1") if known else query.answer(code=dns.rcode.NXDOMAIN)]

    file = tmp_path / "resolv.conf"
    monkeypatch.setattr("postillion.dns.resolver.RESOLV_CONF", str(file))
    async with name_servers(script) as servers:
        file.write_text(f"nameserver {FIRST}\nsearch one.test two.test\noptions port:{servers.port}\n")
        asker = Resolver(clock=lambda: 1000.0)
        expected = ADDRESS if name == "host" else NoName(name.rstrip("."), "A", 60.0)
        assert await asker.addresses(name, (V4,), options) == expected
        assert [query.name for query in servers.queries] == names
        # The cache has all of them.
        assert await asker.addresses(name, (V4,), options) == expected
        assert len(servers.queries) == len(names)


async def test_ad_bit_says_that_the_server_validated() -> None:
    def script(query: Query) -> Sequence[Response]:
        assert query.message.flags & dns.flags.AD
        response = query.answer("TLSA 3 1 1 " + "ab" * 32)
        if query.name == "safe.test":
            response.flags |= dns.flags.AD
        return [response]

    async with name_servers(script) as servers:
        asker = resolver(servers)
        for name, secure in (("safe.test", True), ("plain.test", False)):
            answer = await asker.lookup(name, "TLSA")
            assert isinstance(answer, Records)
            assert answer.secure is secure
            assert answer.list[0] == (3, 1, 1, b"\xab" * 32)


ZONE = r"""
addresses 100 A 192.0.2.1
addresses 100 A 192.0.2.2
addresses 200 AAAA 2001:db8::1
addresses 200 AAAA ::ffff:192.0.2.1
Mixed.Case A 192.0.2.3
mail MX 10 Mx.Example.ORG.
mail MX 20 b
null MX 0 .
pointer PTR name.test.
pointer PTR odd\032name\.\(x\)\"\\\255.test.
text TXT "v=spf1 " "-all"
text TXT "umlaut \195\188" "" "end"
large TXT "LONG"
_25._tcp.mail TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
_25._tcp.mail TLSA 2 0 0 3082
_sip._tcp SRV 10 60 5060 host
_none._tcp SRV 0 0 0 .
alias CNAME Alias2
alias2 CNAME addresses
dangling CNAME nosuch
outside CNAME www.elsewhere.
*.wild A 192.0.2.9
empty.non.terminal A 192.0.2.1
\097\046b A 192.0.2.4
"""


@pytest.fixture(scope="module")
def bind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run BIND for the zones `test` and `broken` (SERVFAIL); yield its port."""
    long = '" "'.join(["y" * 250] * 20)
    with named(tmp_path_factory.mktemp("named"), {"test": ZONE.replace("LONG", long), "broken": None}) as port:
        yield port


NAMES = sorted(
    {line.split()[0] for line in ZONE.splitlines() if line and not line[0].isspace()}
    | {"nosuch", "x.wild", "non.terminal", "terminal.non", "ADDRESSES", "@"}
)


def comparable(answer: Answer[Any]) -> Answer[Any]:
    """Return an answer without the order of records, which the server changes, and without the text of a failure."""
    if isinstance(answer, Records):
        return Records(tuple(sorted(answer.list)), answer.ttl, answer.secure)
    if isinstance(answer, Failed):
        return Failed(answer.name, answer.kind, "")
    return answer


@pytest.mark.parametrize("kind", KINDS)
async def test_answers_are_those_of_dnspython(bind: int, kind: Kind) -> None:
    ours, other = Resolver([FIRST], bind, clock=lambda: 1000.0), Dnspython(bind)
    found = 0
    for name in [*(f"{name}.test" for name in NAMES if name != "@"), "test", "x.broken", "elsewhere", "", "a..b"]:
        mine, theirs = comparable(await ours.lookup(name, kind)), comparable(await other.lookup(name, kind))
        assert mine == theirs, name
        found += isinstance(mine, Records)
    assert found > 0


async def test_real_server_gives_what_its_zone_has(bind: int) -> None:
    asker = Resolver([FIRST], bind)
    for name, kind, expected in [
        ("mail.test", "MX", {Mx(10, "Mx.Example.ORG"), Mx(20, "b.test")}),
        ("null.test", "MX", {Mx(0, "")}),
        ("text.test", "TXT", {b"v=spf1 -all", b"umlaut \xc3\xbcend"}),
        ("large.test", "TXT", {b"y" * 5000}),
        ("_sip._tcp.test", "SRV", {Srv(10, 60, 5060, "host.test")}),
        ("alias.test", "A", {"192.0.2.1", "192.0.2.2"}),
        ("alias.test", "CNAME", {"Alias2.test"}),
        ("pointer.test", "PTR", {"name.test", 'odd\\032name\\.\\(x\\)\\"\\\\\\255.test'}),
    ]:
        answer = await asker.lookup(name, kind)  # type: ignore[arg-type]
        assert isinstance(answer, Records)
        assert set(answer.list) == expected
    assert await asker.lookup("nosuch.test", "A") == NoName("nosuch.test", "A", 60.0)
    assert await asker.lookup("mail.test", "A") == NoData("mail.test", "A", 60.0)
