"""The resolver against a name server in the test, and the verified names of clients."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from postillion.config.domain import to_unicode
from postillion.dns import Answer, BadDomain, BadName, Failed, Mx, NoData, NoName, Records, Resolver, to_ascii
from postillion.smtpd.names import UNKNOWN, Name, Names
from support.icu import Icu
from support.mta import until

SOA = ("test.", 300, "IN", "SOA", "ns.test. hostmaster.test. 1 3600 900 86400 60")
ZONE = {
    ("a.test.", "A"): ("300", "127.0.0.2"),
    ("xn--bcher-kva.test.", "A"): ("300", "127.0.0.20"),
    ("strasse.test.", "A"): ("300", "127.0.0.21"),
    ("short.test.", "A"): ("0", "127.0.0.7"),
    ("long.test.", "A"): ("604800", "127.0.0.8"),
    ("both.test.", "A"): ("300", "127.0.0.6"),
    ("both.test.", "AAAA"): ("200", "::6"),
    ("half.test.", "A"): ("300", "127.0.0.9"),
    ("mail.test.", "MX"): ("300", "20 B.test.", "10 a.test."),
    ("null.test.", "MX"): ("300", "0 ."),
    ("1.2.0.192.in-addr.arpa.", "PTR"): ("250", "mx.client.test."),
    ("mx.client.test.", "A"): ("200", "192.0.2.9", "192.0.2.1"),
    ("2.2.0.192.in-addr.arpa.", "PTR"): ("300", "a.test."),
    ("3.2.0.192.in-addr.arpa.", "PTR"): ("300", "192.0.2.3."),
    ("4.2.0.192.in-addr.arpa.", "PTR"): ("300", "bad\\032name.test."),
    (f"1.{'0.' * 23}8.b.d.0.1.0.0.2.ip6.arpa.", "PTR"): ("300", "six.client.test."),
    ("six.client.test.", "AAAA"): ("300", "2001:db8::1"),
}
"""(name, kind) -> time to live and records. `broken.test` gives SERVFAIL, `silent.test` no response."""
V4, V6 = socket.AF_INET, socket.AF_INET6


class NameServer(asyncio.DatagramProtocol):
    """Responds from `ZONE`, and counts the queries."""

    def __init__(self) -> None:
        self.queries: Counter[str] = Counter()
        self.closed = False
        """Respond with SERVFAIL."""
        self.holds = False
        """Keep responses in `held` until `release`."""
        self.held: list[tuple[bytes, Any]] = []
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        question = dns.message.from_wire(data)
        name, kind = question.question[0].name.to_text().lower(), question.question[0].rdtype
        self.queries[f"{name.rstrip('.')} {kind.name}"] += 1
        if name == "silent.test.":
            return
        answer = dns.message.make_response(question)
        found = ZONE.get((name, kind.name))
        if self.closed or name == "broken.test." or (name, kind.name) == ("half.test.", "AAAA"):
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif found is not None:
            answer.answer.append(dns.rrset.from_text(name, int(found[0]), "IN", kind.name, *found[1:]))
            if name == "a.test." and question.flags & dns.flags.AD:
                answer.flags |= dns.flags.AD
        else:
            answer.authority.append(dns.rrset.from_text(*SOA))
            if not any(known == name for known, _ in ZONE):
                answer.set_rcode(dns.rcode.NXDOMAIN)
        self.held.append((answer.to_wire(), addr))
        if not self.holds:
            self.release()

    def release(self) -> None:
        """Send the responses, and hold no more."""
        self.holds = False
        for response, addr in self.held:
            self.transport.sendto(response, addr)
        self.held.clear()


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[NameServer, int]]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    try:
        yield server, transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


def resolver(port: int, **more: Any) -> Resolver:
    return Resolver(["127.0.0.1"], port, **{"timeout_s": 5.0, **more})


def test_programs_that_ask_dns_do_not_import_dnspython() -> None:
    programs = ("postillion.smtpd.service", "postillion.delivery.smtp.agent", "postillion.commands.explain")
    code = f"import sys, {', '.join(programs)}; print('dns' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("name", "families", "expected"),
    [
        ("a.test", (V4,), Records(("127.0.0.2",), 300.0, True)),
        ("A.Test.", (V4,), Records(("127.0.0.2",), 300.0, True)),
        ("both.test", (V4, V6), Records(("127.0.0.6", "::6"), 200.0, False)),
        ("both.test", (V6, V4), Records(("::6", "127.0.0.6"), 200.0, False)),
        ("a.test", (V4, V6), Records(("127.0.0.2",), 300.0, True)),
        ("half.test", (V4, V6), Records(("127.0.0.9",), 300.0, False)),
        ("short.test", (V4,), Records(("127.0.0.7",), 1.0, False)),
        ("long.test", (V4,), Records(("127.0.0.8",), 3600.0, False)),
        ("mail.test", (V4, V6), NoData("mail.test", "AAAA", 60.0)),
        ("nosuch.test", (V4,), NoName("nosuch.test", "A", 60.0)),
        ("a..b", (V4,), BadName("a..b")),
        (f"{'x' * 64}.test", (V4,), BadName(f"{'x' * 64}.test")),
    ],
)
async def test_addresses_are_found(
    name: str, families: tuple[socket.AddressFamily, ...], expected: Answer[str]
) -> None:
    async with serving() as (_, port):
        assert await resolver(port).addresses(name, families) == expected


async def test_failure_is_a_value_with_the_query() -> None:
    async with serving() as (_, port):
        broken = await resolver(port, timeout_s=1.0).addresses("broken.test", (V4,))
        assert isinstance(broken, Failed)
        assert (broken.name, broken.kind) == ("broken.test", "A")
        silent = await resolver(port, timeout_s=0.3).mx("silent.test")
        assert isinstance(silent, Failed)
        assert (silent.name, silent.kind) == ("silent.test", "MX")


async def test_mx_records_and_null_mx_are_found() -> None:
    async with serving() as (_, port):
        asker = resolver(port)
        found = await asker.mx("mail.test")
        assert isinstance(found, Records)
        assert sorted(found.list) == [Mx(10, "a.test"), Mx(20, "B.test")]
        assert await asker.mx("null.test") == Records((Mx(0, ""),), 300.0, False)


async def test_answers_stay_in_the_cache_for_their_time_to_live() -> None:
    now = 1000.0
    async with serving() as (server, port):
        asker = resolver(port, clock=lambda: now)
        for name in ("a.test", "short.test", "nosuch.test", "broken.test"):
            await asker.addresses(name, (V4,))
        server.closed = True
        now += 10
        assert await asker.addresses("A.test.", (V4,)) == Records(("127.0.0.2",), 290.0, True)
        assert await asker.addresses("nosuch.test", (V4,)) == NoName("nosuch.test", "A", 50.0)
        assert isinstance(await asker.addresses("short.test", (V4,)), Failed)
        assert isinstance(await asker.addresses("broken.test", (V4,)), Failed)
        now += 51
        assert isinstance(await asker.addresses("nosuch.test", (V4,)), Failed)


async def test_callers_with_the_same_query_share_one_answer() -> None:
    async with serving() as (server, port):
        asker = resolver(port)
        first = asyncio.ensure_future(asker.addresses("a.test", (V4,)))
        others = [asyncio.ensure_future(asker.addresses("a.test", (V4,))) for _ in range(50)]
        await asyncio.sleep(0)
        first.cancel()
        answers = await asyncio.gather(*others)
        assert {answer.list for answer in answers if isinstance(answer, Records)} == {("127.0.0.2",)}
        assert server.queries == {"a.test A": 1}
        assert asker._stub.open_questions == 0


async def test_cache_is_bounded() -> None:
    async with serving() as (server, port):
        asker = resolver(port, answers_max=2)
        for name in ("a.test", "both.test", "long.test", "both.test", "a.test"):
            await asker.addresses(name, (V4,))
        assert server.queries == {"a.test A": 2, "both.test A": 1, "long.test A": 1}
        assert asker._stub.cached_answers == 2


async def test_concurrent_queries_are_bounded() -> None:
    async with serving() as (server, port):
        server.holds = True
        asker = resolver(port, questions_max=2)
        callers = [asyncio.ensure_future(asker.mx(f"{n}.test")) for n in range(5)]
        await until(lambda: len(server.held) == 2)
        assert asker._stub.open_questions == 5
        server.release()
        answers = await asyncio.gather(*callers)
        assert [answer.name for answer in answers if isinstance(answer, NoName)] == [f"{n}.test" for n in range(5)]
        assert server.queries.total() == 5


async def test_query_that_waits_too_long_for_a_slot_fails() -> None:
    now = 1000.0
    async with serving() as (server, port):
        asker = resolver(port, questions_max=1, timeout_s=0.1, clock=lambda: now)
        callers = [asyncio.ensure_future(asker.mx(name)) for name in ("silent.test", "a.test")]
        await until(lambda: server.queries.total() == 1)
        now += 0.1
        answers = await asyncio.gather(*callers)
        assert answers == [
            Failed("silent.test", "MX", "no answer from 127.0.0.1"),
            Failed("a.test", "MX", "too many questions wait for name servers"),
        ]
        assert server.queries == {"silent.test MX": 1}


@pytest.mark.parametrize(
    ("address", "expected", "warns"),
    [
        ("192.0.2.1", Name("mx.client.test", "mx.client.test"), False),
        ("2001:db8::1", Name("six.client.test", "six.client.test"), False),
        ("192.0.2.2", Name(UNKNOWN, "a.test"), True),
        ("192.0.2.3", Name(UNKNOWN, UNKNOWN), False),
        ("192.0.2.4", Name(UNKNOWN, UNKNOWN), False),
        ("192.0.2.5", Name(UNKNOWN, UNKNOWN), False),
    ],
)
async def test_client_name_is_verified_in_both_directions(
    tmp_path: Path, address: str, expected: Name, warns: bool
) -> None:
    warnings: list[str] = []
    async with serving() as (_, port):
        names = Names(warnings.append, hosts=str(tmp_path / "hosts"), resolver=resolver(port))
        assert names.known(address) is None
        assert await names.lookup(address) == expected
        assert names.known(address) == expected
    claimed = expected.reverse_name
    assert warnings == ([f"hostname {claimed} does not resolve to address {address}"] if warns else [])


async def test_verified_name_stays_for_the_shorter_time_to_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("postillion.smtpd.names.time.monotonic", lambda: now)
    async with serving() as (_, port):
        names = Names(lambda _: None, hosts=str(tmp_path / "hosts"), resolver=resolver(port, clock=lambda: now))
        found = await names.lookup("192.0.2.1")
        now += 199
        assert names.known("192.0.2.1") == found
        now += 2
        assert names.known("192.0.2.1") is None


@pytest.mark.parametrize(
    ("name", "ascii_name", "idna2003"),
    [
        ("Example.ORG", "Example.ORG", "Example.ORG"),
        ("b\u00fccher.example", "xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("B\u00dcCHER.Example.", "xn--bcher-kva.example.", "xn--bcher-kva.example."),
        ("stra\u00dfe.test", "xn--strae-oqa.test", "strasse.test"),
        ("\u0392\u038c\u039b\u039f\u03a3", "xn--nxasmq6b", "xn--nxasmq6b"),
        ("a\u200db", "xn--ab-m1t", "ab"),
        ("\u30d5\u30a1\u30a4\u30eb", "xn--bckg9lpd", "xn--bckg9lpd"),
        ("\uff26\uff35\uff2c\uff2c\u00fc", "xn--full-3ra", "xn--full-3ra"),
        ("soft\u00ad\u00fc", "xn--soft-3ra", "xn--soft-3ra"),
        ("\u00fc\u3002x", "xn--tda.x", "xn--tda.x"),
        ("\u00fc_x", "xn--_x-wka", "xn--_x-wka"),
        ("\u2603.\U0001f600", "xn--n3h.xn--e28h", "xn--n3h.xn--e28h"),
        ("\u0130stanbul", "xn--istanbul-o0e", "xn--istanbul-o0e"),
        ("\u05d0\u05d1", "xn--4dbc", "xn--4dbc"),
        # Postfix checks neither directions of writing nor neighbours of joiners.
        ("a\u05d0", "xn--a-0hc", "xn--a-0hc"),
        ("\u200d\u0628", "xn--ngb173k", "xn--ngb"),
        ("xn--tda.\u00fc", "xn--tda.xn--tda", "xn--tda.xn--tda"),
        ("xn--strae-oqa.\u00fc", "xn--strae-oqa.xn--tda", "xn--strae-oqa.xn--tda"),
        ("\uff21\u3002\uff22", "a.b", "a.b"),
        ("\u13a0", "xn--58d", "xn--58d"),
        ("\u03f2", "xn--4xa", "xn--4xa"),
    ],
)
def test_names_in_utf8_become_a_labels(name: str, ascii_name: str, idna2003: str) -> None:
    assert (to_ascii(name), to_ascii(name, idna2003=True)) == (ascii_name, idna2003)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("mx.xn--bcher-kva.example", "mx.b\u00fccher.example"),
        ("MX.XN--Bcher-KVA.Example", "MX.b\u00fccher.Example"),
        ("mx.example", "mx.example"),
        ("xn--bcher-kvb-.example", "xn--bcher-kvb-.example"),
        ("xn--.example", "xn--.example"),
        ("xn--bcher-kva.xn--a", "b\u00fccher.xn--a"),
        ("xn--b\u00fc", "xn--b\u00fc"),
        ("", ""),
    ],
)
def test_valid_a_labels_are_decoded_for_people(name: str, shown: str) -> None:
    assert to_unicode(name) == shown


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("\u00fc-", 'the label "\u00fc-" has a hyphen at its end'),
        ("-\u00fc", 'the label "-\u00fc" has a hyphen at its start'),
        ("ab--\u00fc", 'the label "ab--\u00fc" has a hyphen in its third and fourth place'),
        ("\u0301ab", 'the label "\u0301ab" starts with a combining character'),
        ("\u00fc!x", "the label \"\u00fc!x\" contains '!', which is not allowed"),
        ("\u0378\u00fc", "the label \"\u0378\u00fc\" contains '\\u0378', which is not allowed"),
        ("\u00fc b", "the label \"\u00fc b\" contains ' ', which is not allowed"),
        ("\u00fc" * 60, 'the label "' + "\u00fc" * 60 + '" has more than 63 octets in DNS'),
        ("\u00fc." * 50, "the name has more than 253 octets in DNS"),
        ("a..\u00fc", "a label is empty"),
        (".\u00fc", "a label is empty"),
        ("ab--c.\u00fc", 'the label "ab--c" has a hyphen in its third and fourth place'),
        ("\u00fc.a-", 'the label "a-" has a hyphen at its end'),
        ("a b.\u00fc", "the label \"a b\" contains ' ', which is not allowed"),
        ("xn--a.\u00fc", 'the label "xn--a" does not decode to a valid label'),
        ("xn--.\u00fc", 'the label "xn--" does not decode to a valid label'),
        ("xn--bcher-kv.\u00fc", 'the label "xn--bcher-kv" is not valid punycode'),
        ("\u2024\u00fc", "'\\u2024' is not allowed"),
        ("\u115f", "'\\u115f' is not allowed"),
        ("\u2474", "the label \"(1)\" contains '(', which is not allowed"),
        ("\uff11.\uff12", "1.2 is a number"),
    ],
)
def test_a_name_that_dns_cannot_have_is_an_error(name: str, problem: str) -> None:
    with pytest.raises(BadDomain) as caught:
        to_ascii(name)
    assert str(caught.value) == problem


@pytest.mark.parametrize("idna2003", [False, True])
def test_names_have_the_a_labels_that_icu_gives_postfix(idna2003: bool) -> None:
    icu = Icu(idna2003=idna2003)
    characters = [chr(point) for point in range(0x80, 0xE0200) if not 0xD800 <= point < 0xF900]
    known = [c for c in characters if unicodedata.category(c) != "Cn" and icu.knows(c)]
    assert len(known) > 130_000
    parts = ["a", "1", "-", "_", ".", "xn--", "xn--tda", "xn--a", "xn--strae-oqa", "XN--TDA", "xn--fiq228c", "!"]
    parts += ["\u00fc", "\u00df", "\u0301", "\u200d", "\u3002", "\u05d0", "\u0661", "\u4e2d", "\u0130", "\u1112\u1161"]
    joined = ["".join(some) for some in itertools.product(parts, repeat=3)]
    wrong = []
    for name in (*known, *(f"a{c}b" for c in known), *joined):
        # A dot at the end is the root's, here.
        if name.isascii() or name.rstrip("\u200d").endswith((".", "\u3002")):
            continue
        try:
            found = to_ascii(name, idna2003=idna2003)
        except BadDomain:
            found = None
        if found != icu.host_name(name):
            wrong.append((name, found, icu.host_name(name)))
    assert wrong == []


async def test_names_in_utf8_are_asked_for_by_their_a_labels() -> None:
    async with serving() as (_, port):
        assert await resolver(port).addresses("b\u00fccher.test", (V4,)) == Records(("127.0.0.20",), 300.0, False)
        assert await resolver(port).mx("\u00fc-.test") == BadName("\u00fc-.test")
        assert await resolver(port).mx("stra\u00dfe.test") == NoName("xn--strae-oqa.test", "MX", 60.0)
        found = await resolver(port, idna2003=True).addresses("stra\u00dfe.test", (V4,))
        assert found == Records(("127.0.0.21",), 300.0, False)
