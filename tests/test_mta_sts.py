"""MTA-STS: record, policy, HTTPS client, cache, and what they mean for a delivery (RFC 8461)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import dns.flags
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postillion.config import ConfigError
from postillion.delivery.smtp.nexthop import NextHop
from postillion.delivery.smtp.nexthop import parse as parse_next_hop
from postillion.delivery.smtp.targets import Target
from postillion.delivery.smtp.tls import mta_sts, sts_fetch
from postillion.delivery.smtp.tls.mta_sts import DIRECTORY, REFRESH_S, RETRY_S, MtaSts
from postillion.delivery.smtp.tls.policies import TlsPolicies
from postillion.delivery.smtp.tls.policy import NoPolicy
from postillion.delivery.smtp.tls.sts_cache import FILE_MAX_OCTETS, Cached, StsCache
from postillion.delivery.smtp.tls.sts_fetch import FetchFailed, StsFetcher
from postillion.delivery.smtp.tls.sts_policy import (
    MAX_AGE_MAX_S,
    MX_MAX,
    POLICY_MAX_OCTETS,
    BadPolicy,
    StsPolicy,
    parse,
    record_id,
)
from postillion.dns import Resolver
from support.certificates import Authority
from support.memory_config import config
from support.mta import until
from support.name_server import Query, Response, name_servers
from support.ports import free_port
from support.scripted import Scripted

RECORDS: list[tuple[str, list[bytes], str | None]] = [
    ("the example of the RFC", [b"v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
    ("no final delimiter", [b"v=STSv1;id=1"], "1"),
    ("blanks", [b"v=STSv1 ; id=a1 ; "], "a1"),
    ("an extension", [b"v=STSv1; id=1; x-y.z=a:b;"], "1"),
    ("id twice: the first one", [b"v=STSv1; id=1; id=2"], "1"),
    ("others beside it", [b"v=spf1 -all", b"v=STSv1; id=1"], "1"),
    ("none", [], None),
    ("two", [b"v=STSv1; id=1", b"v=STSv1; id=2"], None),
    ("version behind the id", [b"id=1; v=STSv1"], None),
    ("another version", [b"v=STSv2; id=1"], None),
    ("another case", [b"v=stsv1; id=1"], None),
    ("version with a tail", [b"v=STSv1x; id=1"], None),
    ("no id", [b"v=STSv1;"], None),
    ("no delimiter", [b"v=STSv1"], None),
    ("empty id", [b"v=STSv1; id="], None),
    ("long id", [b"v=STSv1; id=" + b"a" * 33], None),
    ("id with a hyphen", [b"v=STSv1; id=a-b"], None),
    ("two delimiters", [b"v=STSv1;; id=1"], None),
    ("a field without a value", [b"v=STSv1; id=1; x"], None),
    ("octets that are no text", [b"v=STSv1; id=1; x=\xff"], None),
]


@pytest.mark.parametrize(("records", "expected"), [row[1:] for row in RECORDS], ids=[row[0] for row in RECORDS])
def test_record_gives_the_id(records: list[bytes], expected: str | None) -> None:
    assert record_id(records) == expected


GOOD = b"version: STSv1\nmode: enforce\nmx: mail.example.com\nmx: *.example.net\nmax_age: 604800\n"
PATTERNS = ("mail.example.com", "*.example.net")
POLICIES: list[tuple[str, bytes, tuple[str, int, tuple[str, ...]]]] = [
    ("the example of the RFC", GOOD, ("enforce", 604800, PATTERNS)),
    ("CRLF", GOOD.replace(b"\n", b"\r\n"), ("enforce", 604800, PATTERNS)),
    ("no final line end", GOOD.rstrip(), ("enforce", 604800, PATTERNS)),
    ("no blank behind the colon", GOOD.replace(b": ", b":"), ("enforce", 604800, PATTERNS)),
    ("blanks at the ends", GOOD.replace(b"\n", b" \t\n"), ("enforce", 604800, PATTERNS)),
    ("an empty line", GOOD + b"\r\n", ("enforce", 604800, PATTERNS)),
    ("another order", b"max_age: 1\nmx: a.b\nmode: testing\nversion: STSv1", ("testing", 1, ("a.b",))),
    ("an extension", GOOD + "x_y: grüße und mehr\n".encode(), ("enforce", 604800, PATTERNS)),
    ("fields twice: the first ones", GOOD + b"mode: none\nmax_age: 1\n", ("enforce", 604800, PATTERNS)),
    ("mx twice", GOOD + b"mx: MAIL.example.com\n", ("enforce", 604800, PATTERNS)),
    ("mode none without mx", b"version: STSv1\nmode: none\nmax_age: 86400\n", ("none", 86400, ())),
    ("longer than allowed", GOOD.replace(b"604800", b"9999999999"), ("enforce", MAX_AGE_MAX_S, PATTERNS)),
]
BAD_POLICIES: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "the version is not STSv1"),
    ("another version", GOOD.replace(b"STSv1", b"STSv2"), "the version is not STSv1"),
    ("version in another case", GOOD.replace(b"version", b"Version"), "the version is not STSv1"),
    ("no mode", GOOD.replace(b"mode: enforce\n", b""), "the mode is not"),
    ("another mode", GOOD.replace(b"enforce", b"Enforce"), "the mode is not"),
    ("no max_age", GOOD.replace(b"max_age: 604800\n", b""), "max_age is no number"),
    ("max_age with a unit", GOOD.replace(b"604800", b"7d"), "max_age is no number"),
    ("max_age with a sign", GOOD.replace(b"604800", b"+1"), "max_age is no number"),
    ("max_age too long", GOOD.replace(b"604800", b"1" * 11), "max_age is no number"),
    ("no mx", b"version: STSv1\nmode: enforce\nmax_age: 1\n", "no mx is given"),
    ("mx with a star inside", GOOD.replace(b"*.example", b"a.*.example"), "is no host name"),
    ("mx of a star alone", GOOD.replace(b"*.example.net", b"*"), "is no host name"),
    ("mx with two stars", GOOD.replace(b"*.", b"*.*."), "is no host name"),
    ("mx not in ASCII", GOOD.replace(b"mail", "bücher".encode()), "is no host name"),
    ("mx with a dot at its end", GOOD.replace(b"mail.example.com", b"mail.example.com."), "is no host name"),
    ("mx of an address", GOOD.replace(b"mail.example.com", b"192.0.2.1"), "is no host name"),
    ("too many mx", GOOD + b"".join(b"mx: a%d.example\n" % n for n in range(MX_MAX)), "more than"),
    ("a web page", b"<!DOCTYPE html>\n<html>\n", "is no field"),
    ("a name without a value", GOOD + b"x:\n", "is no field"),
    ("a control character", GOOD + b"x: a\x01b\n", "is no field"),
    ("CR alone", GOOD.replace(b"\n", b"\r"), "is no field"),
    ("no UTF-8", GOOD + b"x: \xff\n", "not UTF-8"),
    ("too large", GOOD + b"x: " + b"a" * POLICY_MAX_OCTETS, "more than 65536 octets"),
]


@pytest.mark.parametrize(("octets", "expected"), [row[1:] for row in POLICIES], ids=[row[0] for row in POLICIES])
def test_policy_is_parsed(octets: bytes, expected: tuple[str, int, tuple[str, ...]]) -> None:
    policy = parse(octets)
    assert (policy.mode, policy.max_age_s, policy.mx) == expected
    assert parse("\n".join(policy.lines).encode()) == policy


@pytest.mark.parametrize(("octets", "problem"), [row[1:] for row in BAD_POLICIES], ids=[row[0] for row in BAD_POLICIES])
def test_bad_policy_is_refused(octets: bytes, problem: str) -> None:
    with pytest.raises(BadPolicy, match=problem):
        parse(octets)


NOW = 1_800_000_000.0
POLICY = parse(GOOD)
CACHED = Cached(POLICY, "1", NOW)


def test_cached_policy_holds_until_its_end(tmp_path: Path) -> None:
    warnings: list[str] = []
    cache = StsCache(tmp_path / "sts", warnings.append)
    assert cache.load("example.org", NOW) is None
    cache.store("example.org", CACHED)
    assert cache.load("example.org", NOW + 604_799) == CACHED
    assert cache.load("example.org", NOW + 604_800) is None
    assert cache.load("example.org", NOW - 10) == CACHED
    assert cache.load("example.net", NOW) is None
    assert warnings == []
    assert (tmp_path / "sts").stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "sts").iterdir()] == [0o600]


DAMAGES: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("cut", lambda octets: octets[: len(octets) // 2]),
    ("empty", lambda octets: b""),
    ("no JSON", lambda octets: b"\xff"),
    ("another format", lambda octets: octets.replace(b'"format": 1', b'"format": 2')),
    ("another domain", lambda octets: octets.replace(b"example.org", b"example.net")),
    ("a list", lambda octets: b"[]"),
    ("no policy", lambda octets: octets.replace(b"enforce", b"bogus")),
    ("lines that are none", lambda octets: octets.replace(b'"mode: enforce"', b"7")),
    ("a time out of range", lambda octets: octets.replace(b"1800000000.0", b"-1")),
    ("no time", lambda octets: octets.replace(b"1800000000.0", b'"now"')),
    ("too large", lambda octets: octets + b" " * FILE_MAX_OCTETS),
    ("deep", lambda octets: b"[" * 100_000),
]


@pytest.mark.parametrize("damage", [row[1] for row in DAMAGES], ids=[row[0] for row in DAMAGES])
def test_damaged_file_counts_as_missing(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    warnings: list[str] = []
    cache = StsCache(tmp_path, warnings.append)
    cache.store("example.org", CACHED)
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert cache.load("example.org", NOW) is None
    assert len(warnings) == 1
    cache.store("example.org", CACHED)
    assert cache.load("example.org", NOW) == CACHED


def test_number_of_cached_policies_is_limited(tmp_path: Path) -> None:
    cache = StsCache(tmp_path, pytest.fail, entries_max=5)
    for number in range(8):
        cache.store(f"d{number}.example", CACHED)
        for path in tmp_path.iterdir():
            os.utime(path, (path.stat().st_mtime - 10,) * 2)
    assert [cache.load(f"d{number}.example", NOW) is not None for number in range(8)] == [False] * 3 + [True] * 5


def test_problem_of_the_disk_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    warnings: list[str] = []
    cache = StsCache(tmp_path / "file", warnings.append)
    cache.store("example.org", CACHED)
    assert cache.load("example.org", NOW) is None
    assert [line.partition(" in ")[0] for line in warnings] == [
        "MTA-STS policy of example.org cannot be written",
        "MTA-STS policy of example.org",
    ]


@dataclass
class World:
    """A domain with a record and a policy, and a clock. `record` None: no answer of the name server."""

    directory: Path
    record: bytes | None = b"v=STSv1; id=1"
    policy: StsPolicy | FetchFailed = POLICY
    now: float = NOW
    fetched: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    gate: asyncio.Event | None = None
    changes: int = 0

    def publish(self, record: bytes | None, policy: StsPolicy | FetchFailed | None = None) -> None:
        """Change record and policy; no cache has the former record any more."""
        self.record, self.policy = record, policy or self.policy
        self.changes += 1

    def clock(self) -> float:
        """Return the time of the resolver, which goes on by itself."""
        return asyncio.get_running_loop().time() + self.now - NOW + 10 * self.changes

    def script(self, query: Query) -> list[Response]:
        """Answer a question about a record, never from a cache."""
        if self.record is None:
            return []
        if not query.name.startswith("_mta-sts."):
            return [query.answer()]
        return [query.answer(f'TXT "{self.record.decode()}"', ttl=0)]

    async def fetch(self, domain: str) -> StsPolicy:
        """Return the policy, when the gate is open."""
        self.fetched.append(domain)
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.policy, FetchFailed):
            raise self.policy
        return self.policy

    async def close(self) -> None:
        """Do nothing."""

    def client(self, resolver: Resolver) -> MtaSts:
        """Return a client, as a process that has just started has it."""
        return MtaSts(
            resolver, self, StsCache(self.directory, self.warnings.append), self.warnings.append, lambda: self.now
        )


@contextlib.asynccontextmanager
async def resolving(world: World) -> AsyncIterator[Resolver]:
    """Run a name server with the world's script; yield a resolver that asks it."""
    async with name_servers(world.script) as servers:
        yield Resolver(["127.0.0.1"], servers.port, timeout_s=0.3, clock=world.clock)


async def test_policy_is_fetched_once_and_outlasts_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with resolving(world) as resolver:
        client = world.client(resolver)
        found = await asyncio.gather(
            *(client.policy_of(name) for name in ("example.org", "EXAMPLE.org", "example.org."))
        )
        assert found == [POLICY] * 3
        assert await world.client(resolver).policy_of("example.org") == POLICY
        assert world.fetched == ["example.org"]


async def test_names_without_a_policy_ask_nobody(tmp_path: Path) -> None:
    world = World(tmp_path, record=None)
    async with resolving(world) as resolver:
        client = world.client(resolver)
        for name in ("localhost", "192.0.2.1", "a..b", "", "ü\u0600.example"):
            assert await client.policy_of(name) is None


@pytest.mark.parametrize("record", [None, b"v=spf1 -all"], ids=["no answer", "no record"])
async def test_policy_holds_without_its_record(record: bytes | None, tmp_path: Path) -> None:
    world = World(tmp_path)
    async with resolving(world) as resolver:
        assert await world.client(resolver).policy_of("example.org") == POLICY
        world.publish(record)
        client = world.client(resolver)
        assert await client.policy_of("example.org") == POLICY
        world.now += POLICY.max_age_s
        assert await client.policy_of("example.org") is None


async def test_new_id_brings_the_new_policy_and_a_failed_fetch_keeps_the_old_one(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with resolving(world) as resolver:
        client = world.client(resolver)
        await client.policy_of("example.org")
        world.publish(b"v=STSv1; id=2", FetchFailed("sts-webpki-invalid", "expired"))
        assert await client.policy_of("example.org") == POLICY
        assert client.failure_of("example.org") == "sts-webpki-invalid"
        assert world.warnings == ["MTA-STS policy of example.org: sts-webpki-invalid: expired"]
        world.policy = none = parse(b"version: STSv1\nmode: none\nmax_age: 86400")
        world.now += RETRY_S - 1
        assert await client.policy_of("example.org") == POLICY
        assert len(world.fetched) == 2, "a failed fetch is repeated after five minutes"
        world.now += 1
        assert await client.policy_of("example.org") == none
        assert client.failure_of("example.org") == ""


async def test_domain_whose_policy_never_came_has_none(tmp_path: Path) -> None:
    world = World(tmp_path, policy=FetchFailed("sts-policy-fetch-error", "HTTP status 404"))
    async with resolving(world) as resolver:
        client = world.client(resolver)
        assert await client.policy_of("example.org") is None
        assert await client.policy_of("example.org") is None
        world.publish(b"v=STSv1; id=2")
        assert await client.policy_of("example.org") is None
        assert len(world.fetched) == 2


async def test_policy_is_refreshed_in_the_background(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with resolving(world) as resolver:
        client = world.client(resolver)
        await client.policy_of("example.org")
        world.now += REFRESH_S
        world.gate = asyncio.Event()
        newer = world.policy = parse(GOOD.replace(b"enforce", b"testing"))
        assert await client.policy_of("example.org") == POLICY, "a delivery does not wait for a refresh"
        world.gate.set()
        await until(lambda: client._holding("example.org", world.now) is not None and not client._fetching)
        assert await client.policy_of("example.org") == newer
        await client.close()


async def test_policy_of_another_process_is_taken_from_disk(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with resolving(world) as resolver:
        client = world.client(resolver)
        await client.policy_of("example.org")
        newer = parse(GOOD.replace(b"enforce", b"testing"))
        StsCache(tmp_path, pytest.fail).store("example.org", Cached(newer, "2", NOW + 1))
        world.publish(b"v=STSv1; id=2")
        assert await client.policy_of("example.org") == newer
        assert len(world.fetched) == 1


async def test_cancelled_delivery_leaves_the_fetch_to_the_others(tmp_path: Path) -> None:
    world = World(tmp_path, gate=asyncio.Event())
    async with resolving(world) as resolver:
        client = world.client(resolver)
        first, second = (asyncio.create_task(client.policy_of("example.org")) for _ in range(2))
        await until(lambda: world.fetched)
        first.cancel()
        assert world.gate is not None
        world.gate.set()
        assert await second == POLICY
        assert world.fetched == ["example.org"]


async def test_close_ends_a_fetch(tmp_path: Path) -> None:
    world = World(tmp_path, gate=asyncio.Event())
    async with resolving(world) as resolver:
        client = world.client(resolver)
        waiting = asyncio.create_task(client.policy_of("example.org"))
        await until(lambda: world.fetched)
        await client.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_number_of_domains_in_memory_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mta_sts, "DOMAINS_MAX", 2)
    world = World(tmp_path)
    async with resolving(world) as resolver:
        client = world.client(resolver)
        for number in range(4):
            await client.policy_of(f"d{number}.example")
        assert list(client._known) == ["d2.example", "d3.example"]


class Web:
    """An HTTPS server with a test's answer. Its certificate names mta-sts.example.org."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory, "web")
        self.chain = self.authority.sign("/CN=policies", "DNS:mta-sts.example.org,DNS:mta-sts.other.example")
        self.stranger = Authority(directory, "stranger").sign("/CN=policies", "DNS:mta-sts.example.org")
        self.answer = b""
        self.use(self.chain)
        self.requests: list[bytes] = []
        self.server = Scripted(self._serve, free_port())

    def use(self, certificate: object) -> None:
        """Use another certificate."""
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate.cert, certificate.key)  # type: ignore[attr-defined]

    def _serve(self, client: socket.socket) -> None:
        with self._tls.wrap_socket(client, server_side=True) as secured:
            request = b""
            while not request.endswith(b"\r\n\r\n") and (octets := secured.recv(65536)):
                request += octets
            self.requests.append(request)
            secured.sendall(self.answer)
            if not self.answer:
                secured.recv(1)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """Run the server."""
    made = Web(tmp_path_factory.mktemp("web"))
    yield made
    made.server.close()


def http(body: bytes, status: str = "200 OK", kind: str = "text/plain", headers: str = "") -> bytes:
    """Return an answer of HTTP."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def of_policy_hosts(query: Query) -> list[Response]:
    """Answer with the address of the server, but for nosuch.example."""
    is_known = query.name.startswith("mta-sts.") and query.name != "mta-sts.nosuch.example"
    is_known &= query.message.question[0].rdtype == dns.rdatatype.A
    return [query.answer("A 127.0.0.1") if is_known else query.answer()]


async def fetched(web: Web, domain: str = "example.org") -> StsPolicy | str:
    """Return what the client fetches, or the failure."""
    async with name_servers(of_policy_hosts) as servers:
        resolver = Resolver(["127.0.0.1"], servers.port, timeout_s=5)
        fetcher = StsFetcher(config(), resolver, port=web.server.port, trusted=str(web.authority.cert))
        try:
            return await fetcher.fetch(domain)
        except FetchFailed as problem:
            return problem.failure
        except BadPolicy as problem:
            return f"bad: {problem}"
        finally:
            await fetcher.close()


FETCH_ERROR = "sts-policy-fetch-error"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWERS: list[tuple[str, bytes, StsPolicy | str]] = [
    ("good", http(GOOD), POLICY),
    ("with parameters", http(GOOD, kind="Text/Plain; charset=utf-8"), POLICY),
    ("in chunks", CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD), POLICY),
    ("chunks too large", CHUNKED + b"ffffffff\r\n" + b"x" * (POLICY_MAX_OCTETS + 1), "sts-policy-invalid"),
    ("until the end", b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + GOOD, POLICY),
    ("not found", http(GOOD, "404 Not Found"), FETCH_ERROR),
    ("no content", http(b"", "204 No Content"), FETCH_ERROR),
    ("moved", http(GOOD, "301 Moved", headers="Location: https://mta-sts.other.example/\r\n"), FETCH_ERROR),
    ("a page", http(GOOD, kind="text/html"), FETCH_ERROR),
    ("no media type", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", FETCH_ERROR),
    ("compressed", http(GOOD, headers="Content-Encoding: gzip\r\n"), FETCH_ERROR),
    ("too large", http(GOOD + b"x: " + b"a" * POLICY_MAX_OCTETS), "sts-policy-invalid"),
    ("cut", http(GOOD)[:-10], FETCH_ERROR),
    ("no HTTP", b"250 ok\r\n", FETCH_ERROR),
    ("no policy", http(b"hello"), 'bad: "hello" is no field'),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "expected"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
async def test_only_a_plain_answer_gives_a_policy(answer: bytes, expected: StsPolicy | str, web: Web) -> None:
    web.answer = answer
    web.requests.clear()
    assert await fetched(web) == expected
    (request,) = web.requests
    assert request.startswith(b"GET /.well-known/mta-sts.txt HTTP/1.1\r\nHost: mta-sts.example.org:")
    assert b"\r\nAccept-Encoding: identity\r\n" in request


async def test_certificate_must_be_valid_for_the_policy_host(web: Web) -> None:
    web.answer = http(GOOD)
    assert await fetched(web, "wrong.example") == "sts-webpki-invalid"
    web.use(web.stranger)
    try:
        assert await fetched(web) == "sts-webpki-invalid"
    finally:
        web.use(web.chain)
    assert await fetched(web, "nosuch.example") == FETCH_ERROR


async def test_fetch_has_a_time_limit(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sts_fetch, "FETCH_MAX_S", 0.2)
    web.answer = b""
    assert await fetched(web) == FETCH_ERROR


def test_fetch_imports_nothing_after_the_start(web: Web, tmp_path: Path) -> None:
    web.answer = http(GOOD)
    notes = tmp_path / "notes"
    code = (
        "\nimport asyncio, sys, dns.rdata, test_mta_sts as t\n"
        "from postillion.delivery.smtp.tls.sts_fetch import StsFetcher\n"
        # Those of the name server in the test.
        "for kind in (1, 2, 6, 28): dns.rdata.get_rdata_class(1, kind)\n"
        "fetcher = StsFetcher(t.config(), None, port=int(sys.argv[1]), trusted=sys.argv[2])\n"
        "async def fetch():\n"
        "    async with t.name_servers(t.of_policy_hosts) as s:\n"
        "        fetcher._resolver = t.Resolver(['127.0.0.1'], s.port, timeout_s=5)\n"
        "        print((await fetcher.fetch('example.org')).mode)\n"
        "        await fetcher.close()\n"
        "asyncio.run(fetch())\n"
    )
    tests = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{tests}/support/late_imports:{tests}", "LATE_IMPORTS": str(notes)}
    command = [sys.executable, "-P", "-c", code, str(web.server.port), str(web.authority.cert)]
    run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert run.stdout == "enforce\n"
    assert [line for line in notes.read_text().splitlines() if not line.startswith("dns.")] == []


@given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from([b"version: STSv1\n", b"mode: none", b"mx: ", b"\r\n", b"\xff", b":"])).map(b"".join)
)
def test_any_octets_are_a_policy_or_a_refusal(octets: bytes) -> None:
    with contextlib.suppress(BadPolicy):
        assert parse(octets).mode in ("enforce", "testing", "none")
    record_id([octets, b"v=STSv1;" + octets])


MX = Target("mail.example.com", "192.0.2.1", 25, secure=True, mx_secure=True)
BASE = {"smtp_mta_sts": "yes", "smtp_tls_CAfile": "/etc/hosts", "smtp_tls_security_level": "may"}
DANE = {**BASE, "smtp_tls_security_level": "dane", "smtp_dns_support_level": "dnssec"}
TESTING = parse(GOOD.replace(b"enforce", b"testing"))
NONE = parse(b"version: STSv1\nmode: none\nmax_age: 86400")
OTHER = "4.7.5 MX host mx.other.example is not in the MTA-STS policy of example.org"
DELIVERIES: list[tuple[str, StsPolicy, dict[str, str], str, Target, str]] = [
    ("enforce", POLICY, BASE, "example.org", MX, "secure mail.example.com"),
    ("pattern", POLICY, BASE, "example.org", MX._replace(host="A.Example.NET"), "secure a.example.net"),
    ("other host", POLICY, BASE, "example.org", MX._replace(host="mx.other.example"), OTHER),
    ("testing", TESTING, BASE, "example.org", MX._replace(host="mx.other.example"), "may"),
    ("mode none", NONE, BASE, "example.org", MX, "may"),
    ("at encrypt", POLICY, {**BASE, "smtp_tls_security_level": "encrypt"}, "example.org", MX,
     "secure mail.example.com"),
    ("at none", POLICY, {**BASE, "smtp_tls_security_level": "none"}, "example.org", MX, "none"),
    ("at verify", POLICY, {**BASE, "smtp_tls_security_level": "verify"}, "example.org", MX, "verify mail.example.com"),
    ("off", POLICY, {**BASE, "smtp_mta_sts": "no"}, "example.org", MX, "may"),
    ("no MX", POLICY, BASE, "[example.org]", MX, "may"),
    ("table first", POLICY, {**BASE, "smtp_tls_policy_maps": "inline:{example.org=encrypt}"}, "example.org", MX,
     "encrypt"),
    ("other entry", POLICY, {**BASE, "smtp_tls_policy_maps": "inline:{b.example=none}"}, "example.org", MX,
     "secure mail.example.com"),
    ("per site first", POLICY, {**BASE, "smtp_tls_per_site": "static:MAY"}, "example.org", MX, "may"),
    ("DANE first", POLICY, DANE, "example.org", MX._replace(host="dane.example"), "dane"),
    ("MX not secure", POLICY, DANE, "example.org", MX._replace(host="dane.example", mx_secure=False),
     "4.7.5 MX host dane.example is not in the MTA-STS policy of example.org"),
    ("MX not secure, but named", POLICY, DANE, "example.org", MX._replace(host="dane.example.net", mx_secure=False),
     "half-dane"),
    ("DANE not there", POLICY, DANE, "example.org", MX, "secure mail.example.com"),
    ("DANE fails", POLICY, DANE, "example.org", MX._replace(host="broken.example"),
     "4.7.5 TLSA lookup error for broken.example:25"),
    ("pattern check is not optional", POLICY, {**BASE, "smtp_tls_enforce_sts_mx_patterns": "no"}, "example.org",
     MX._replace(host="mx.other.example"), OTHER),
]  # fmt: skip


async def shown(policies: TlsPolicies, site: NextHop, target: Target) -> str:
    """Return level and names in one line, or the status of a host that is not tried."""
    try:
        found = await policies.policy_for(site, target)
    except NoPolicy as none:
        return f"{none.dsn} {none}"
    return " ".join((found.level, *found.names))


@pytest.mark.parametrize(
    ("published", "values", "site", "target", "expected"),
    [row[1:] for row in DELIVERIES],
    ids=[row[0] for row in DELIVERIES],
)
async def test_policy_of_a_domain_decides_where_nothing_else_does(
    published: StsPolicy, values: dict[str, str], site: str, target: Target, expected: str, tmp_path: Path
) -> None:
    world = World(tmp_path, policy=published)

    def script(query: Query) -> list[Response]:
        if query.name in ("_25._tcp.dane.example", "_25._tcp.dane.example.net"):
            response = query.answer("TLSA 3 1 1 " + "00" * 32)
            response.flags |= dns.flags.AD
            return [response]
        return [] if query.name == "_25._tcp.broken.example" else world.script(query)

    async with name_servers(script) as servers:
        resolver = Resolver(["127.0.0.1"], servers.port, timeout_s=0.3)
        policies = TlsPolicies(config(**values, data_directory=str(tmp_path)), "smtp", resolver, lambda _text: None)
        if policies._sts is not None:
            policies._sts._fetcher = world
        outcome = await shown(policies, parse_next_hop(site, 25), target)
        assert outcome == expected
        if outcome.startswith("secure"):
            found = await policies.policy_for(parse_next_hop(site, 25), target)
            assert found.servername == found.names[0]
            assert found.why.endswith("; MTA-STS policy of example.org, mode enforce")
            assert (tmp_path / DIRECTORY).is_dir()
        await policies.close()


def test_mta_sts_without_authorities_stops_the_start() -> None:
    with pytest.raises(ConfigError, match="no authority is trusted"):
        TlsPolicies(config(smtp_mta_sts="yes"), "smtp", Resolver(["127.0.0.1"], 9), lambda _text: None)


def test_mta_sts_without_its_library_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(ConfigError, match=r"pip install 'postillion\[mta-sts\]'"):
        TlsPolicies(config(**BASE), "smtp", Resolver(["127.0.0.1"], 9), lambda _text: None)
