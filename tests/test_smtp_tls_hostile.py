"""Servers that harm a client by TLS: mail waits or goes out as the level says, in bounded time and memory."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from support.agents import WAIT_S, FakeDaemon, Hub
from support.certificates import Authority, Certificate
from support.hostile import high_water_kib
from support.peers import peer
from support.ports import free_port
from support.scripted import Scripted
from support.tls_peer import (
    HEADER,
    Handshake,
    Kind,
    TlsPeer,
    by,
    closing,
    read_line,
    resetting,
    saying,
    silent,
    take_record,
)
from test_smtp_agent import mail, smtp

TIMEOUT_S = 1
"""smtp_starttls_timeout, and the other timeouts of the client."""
BOUND_S = 10.0
"""Longest time of a delivery to a hostile server: the timeout, the interval of its checks, and a busy machine."""
GROWTH_MAX_KIB = 24 * 1024
STEP_OCTETS = 23
"""The flight of a server is cut behind each of its octets at this distance."""
SIGNATURE_VARIES_OCTETS = 16
RECORD_MAX_OCTETS = 16 * 1024
CHAIN_LENGTH = 100
FAILED = ("4.7.5", "Cannot start TLS: handshake failure")
LEVELS = ("may", "encrypt")
APPLICATION_DATA, HANDSHAKE = 23, 22


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return an authority that the site trusts."""
    return Authority(tmp_path_factory.mktemp("ca"), "authority")


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    """Return a certificate of mx.example."""
    return authority.sign("/CN=mx.example", "DNS:mx.example")


def context(certificate: Certificate, *versions: ssl.TLSVersion) -> ssl.SSLContext:
    """Return the settings of a server."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(*certificate)
    if versions:
        made.minimum_version = made.maximum_version = versions[0]
    return made


@asynccontextmanager
async def agent(directory: Path, level: str, more: str = "") -> AsyncIterator[tuple[Hub, FakeDaemon]]:
    """Run the agent with short timeouts."""
    names = ("smtp_starttls_timeout", "smtp_helo_timeout", "smtp_data_done_timeout", "smtp_data_xfer_timeout")
    timeouts = "".join(f"{name} = {TIMEOUT_S}s\n" for name in names)
    text = f"smtp_tls_security_level = {level}\nsmtp_tls_loglevel = 1\n{timeouts}{more}"
    async with smtp(directory, text) as (hub, daemon):
        yield hub, daemon


@contextmanager
def serving(kind: Kind) -> Iterator[TlsPeer]:
    """Run a server."""
    server = TlsPeer(kind)
    try:
        yield server
    finally:
        server.close()


async def check(hub: Hub, honest: TlsPeer) -> None:
    """Check that the next job is served."""
    assert (await hub.deliver(f"[127.0.0.1]:{honest.port}")).only.outcome == "sent"


def record(kind: int, octets: bytes) -> bytes:
    """Return a record of TLS 1.2 and above."""
    return HEADER.pack(kind, 0x0303, len(octets)) + octets


TOO_LARGE = {
    "a record of 16 KiB and one octet in the clear": record(HANDSHAKE, bytes(RECORD_MAX_OCTETS + 1)),
    "a record of 64 KiB": record(HANDSHAKE, bytes(2**16 - 1)),
    "a message of 16 MiB in many records": record(HANDSHAKE, b"\x02\xff\xff\xff" + bytes(1000))
    + record(HANDSHAKE, bytes(RECORD_MAX_OCTETS)) * 500,
    "empty records": record(HANDSHAKE, b"") * 50_000,
    "change_cipher_spec without end": record(20, b"\x01") * 50_000,
    "warnings": record(21, b"\x01\x5a") * 50_000,
    "plaintext": b"250 2.0.0 fine\r\n" * 50_000,
    "application data": record(APPLICATION_DATA, bytes(1000)),
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", TOO_LARGE)
async def test_octets_in_place_of_server_hello_end_the_delivery(
    tmp_path: Path, certificate: Certificate, name: str, level: str
) -> None:
    with serving(Kind(saying(TOO_LARGE[name]))) as server, serving(Kind(by(context(certificate)))) as honest:
        async with agent(tmp_path, level) as (hub, _):
            await check(hub, honest)
            before, begun = high_water_kib(_own()), time.monotonic()
            result = await hub.deliver(f"[127.0.0.1]:{server.port}")
            assert (result.only.outcome, result.only.dsn, result.only.text) == ("deferred", *FAILED)
            assert time.monotonic() - begun < BOUND_S
            assert high_water_kib(_own()) - before < GROWTH_MAX_KIB
            assert (server.heard, server.messages) == (["EHLO mx.example.org", "STARTTLS"], [])
            await check(hub, honest)


def _own() -> int:
    return int(Path("/proc/self/stat").read_text().split()[0])


def first_flight(settings: ssl.SSLContext, hello: bytes) -> bytes:
    """Return what a server says to a ClientHello. In TLS 1.3 it is its whole part of the handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    incoming.write(hello)
    server = settings.wrap_bio(incoming, outgoing, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    return outgoing.read()


def flight_octets(settings: ssl.SSLContext) -> int:
    """Return the length of a server's first flight. Signatures of ECDSA vary by some octets."""
    hello = ssl.MemoryBIO()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(ssl.SSLWantReadError):
        client.wrap_bio(ssl.MemoryBIO(), hello).do_handshake()
    return len(first_flight(settings, hello.read()))


def stopping(settings: ssl.SSLContext, octets: int, *, closes: bool) -> Handshake:
    """Return a handshake of a server that says a part of its first flight, then nothing more."""

    def shake(client: socket.socket) -> None:
        client.sendall(first_flight(settings, take_record(client))[:octets])
        if closes:
            client.shutdown(socket.SHUT_WR)
        silent(client)

    return shake


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("closes", [True, False])
async def test_handshake_that_stops_anywhere_ends_within_its_timeout(
    tmp_path: Path, certificate: Certificate, closes: bool, version: ssl.TLSVersion
) -> None:
    settings = context(certificate, version)
    cuts = range(0, flight_octets(settings) - SIGNATURE_VARIES_OCTETS, STEP_OCTETS)
    servers = [TlsPeer(Kind(stopping(settings, at, closes=closes))) for at in cuts]
    with serving(Kind(by(context(certificate)))) as honest:
        more = f"smtp_tls_mandatory_protocols = {version.name.replace('_', '.')}\ntls_fast_shutdown_enable = yes\n"
        async with agent(tmp_path, "encrypt", more) as (hub, daemon):
            begun = time.monotonic()
            for some in (servers[at : at + 20] for at in range(0, len(servers), 20)):
                jobs = hub.send(*(hub.job(f"[127.0.0.1]:{server.port}") for server in some))
                for result in await asyncio.wait_for(asyncio.gather(*jobs), WAIT_S):
                    assert (result.only.outcome, result.only.dsn, result.only.text) == ("deferred", *FAILED)
            assert time.monotonic() - begun < BOUND_S * (1 + len(servers) // 20)
            await check(hub, honest)
            reason = "lost connection" if closes else "Connection timed out"
            told = [line for line in daemon.logged() if line.startswith("SSL_connect error to ")]
            assert [line for line in told if not line.endswith(reason)] == []
            assert len(told) == len(servers)
    for server in servers:
        server.close()
        assert (server.heard, server.messages) == (["EHLO mx.example.org", "STARTTLS"], [])


async def test_reset_in_the_handshake_has_the_reason_of_the_system(tmp_path: Path, certificate: Certificate) -> None:
    with serving(Kind(resetting)) as server, serving(Kind(by(context(certificate)))) as honest:
        async with agent(tmp_path, "encrypt") as (hub, daemon):
            result = await hub.deliver(f"[127.0.0.1]:{server.port}")
            assert (result.only.outcome, result.only.dsn, result.only.text) == ("deferred", *FAILED)
            told = [line for line in daemon.logged() if line.startswith("SSL_connect error to ")]
            assert told == [f"SSL_connect error to 127.0.0.1[127.0.0.1]:{server.port}: Connection reset by peer"]
            await check(hub, honest)


@pytest.mark.parametrize("behind", [b"250 2.0.0 fine\r\n", b"250-evil\r\n250 AUTH PLAIN\r\n", b"x" * 100_000, bytes(7)])
async def test_plaintext_behind_220_is_dropped(tmp_path: Path, certificate: Certificate, behind: bytes) -> None:
    kind = Kind(by(context(certificate)), behind=behind)
    with serving(kind) as server, serving(Kind(by(context(certificate)))) as honest:
        async with agent(tmp_path, "encrypt") as (hub, _):
            result = await hub.deliver(f"[127.0.0.1]:{server.port}")
            # Octets that arrive with the reply are dropped. Later ones are no TLS.
            if result.only.outcome == "sent":
                assert server.heard[:4] == ["EHLO mx.example.org", "STARTTLS", "(TLS)", "EHLO mx.example.org"]
            else:
                assert (result.only.dsn, result.only.text) == FAILED
                assert server.messages == []
            assert len(behind) > 10_000 or result.only.outcome == "sent"
            await check(hub, honest)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("answers 454", Kind(answer="454 4.7.0 later"), "refused to start TLS: 454 4.7.0 later"),
        ("answers nothing", Kind(answer="220-go", handshake=silent), "timed out while performing the EHLO handshake"),
        ("hangs behind 220", Kind(silent), FAILED[1]),
        ("closes", Kind(closing), FAILED[1]),
    ],
)
async def test_offer_of_starttls_that_comes_to_nothing(
    tmp_path: Path, certificate: Certificate, level: str, name: str, kind: Kind, text: str
) -> None:
    with serving(kind) as server, serving(Kind(by(context(certificate)))) as honest:
        async with agent(tmp_path, level) as (hub, _):
            begun = time.monotonic()
            result = await hub.deliver(f"[127.0.0.1]:{server.port}")
            assert time.monotonic() - begun < BOUND_S
            if level == "may" and name == "answers 454":
                assert result.only.outcome == "sent"
            else:
                assert result.only.outcome == "deferred"
                assert text in result.only.text, result.only
                assert server.messages == []
            await check(hub, honest)


class Abrupt:
    """A server that takes mail inside TLS, and closes without close_notify. `after`: `DATA` or `.`.

    `with_reply`: it has accepted the message before.
    """

    def __init__(self, settings: ssl.SSLContext, after: str, *, with_reply: bool = False) -> None:
        self._settings = settings
        self._after = after
        self._with_reply = with_reply
        self._server = Scripted(self._serve)
        self.port = self._server.port
        self.close = self._server.close

    def _serve(self, client: socket.socket) -> None:
        client.sendall(b"220 mx ESMTP\r\n")
        read_line(client)
        client.sendall(b"250-mx\r\n250 STARTTLS\r\n")
        read_line(client)
        client.sendall(b"220 go\r\n")
        secured = self._settings.wrap_socket(client, server_side=True)
        for reply in (b"250 mx\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
            read_line(secured)
            secured.sendall(reply)
        while self._after == "." and read_line(secured) != b".\r\n":
            pass
        if self._with_reply:
            secured.sendall(b"250 2.0.0 taken\r\n")
        # The socket of TLS closes without a word.
        secured.shutdown(socket.SHUT_RDWR)
        secured.close()


CUT = "lost connection with 127.0.0.1[127.0.0.1] while sending "


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("after", "with_reply", "status"),
    [
        ("DATA", False, ("deferred", "4.4.2", f"{CUT}message body")),
        (".", False, ("deferred", "4.4.2", f"{CUT}end of data -- message may be sent more than once")),
        (".", True, ("sent", "2.0.0", "250 2.0.0 taken")),
    ],
)
async def test_close_without_close_notify(
    tmp_path: Path,
    certificate: Certificate,
    version: ssl.TLSVersion,
    after: str,
    with_reply: bool,
    status: tuple[str, str, str],
) -> None:
    server = Abrupt(context(certificate, version), after, with_reply=with_reply)
    with serving(Kind(by(context(certificate)))) as honest:
        async with agent(tmp_path, "may") as (hub, _):
            content = b"x" * 70 + b"\r\n"
            message = mail(content=content * (100_000 if after == "DATA" else 1))
            result = await hub.deliver(f"[127.0.0.1]:{server.port}", message)
            assert (result.only.outcome, result.only.dsn, result.only.text) == status
            await check(hub, honest)
    server.close()


async def test_chain_of_many_certificates(tmp_path: Path, authority: Authority) -> None:
    directory = tmp_path / "long"
    directory.mkdir()
    issuers = [Authority(directory, "0")]
    for number in range(1, CHAIN_LENGTH):
        issuers.append(Authority(directory, str(number), issuers[-1]))
    leaf = issuers[-1].sign("/CN=mx.example", "DNS:mx.example")
    chain = directory / "chain.pem"
    chain.write_text("".join(made.read_text() for made in (leaf.cert, *(issuer.cert for issuer in reversed(issuers)))))
    settings = context(Certificate(chain, leaf.key))
    trust = f"smtp_tls_CAfile = {issuers[0].cert}\nsmtp_tls_secure_cert_match = mx.example\n"
    with serving(Kind(by(settings))) as server:
        for level, status in (("secure", ("deferred", "4.7.5", "Server certificate not verified")), ("encrypt", None)):
            async with agent(tmp_path, level, trust) as (hub, daemon):
                begun = time.monotonic()
                result = await hub.deliver(f"[127.0.0.1]:{server.port}")
                assert time.monotonic() - begun < BOUND_S
                expected = status or ("sent", "2.0.0", "250 2.0.0 taken")
                assert (result.only.outcome, result.only.dsn, result.only.text) == expected
                assert any("Untrusted TLS connection" in line for line in daemon.logged())
                if status is not None:
                    assert any("certificate chain longer than limit(10)" in line for line in daemon.logged())


@pytest.mark.parametrize("level", ["encrypt", "secure"])
async def test_request_for_another_handshake_ends_the_session(
    tmp_path: Path, authority: Authority, certificate: Certificate, level: str
) -> None:
    port = free_port()
    command = [peer("openssl"), "s_server", "-tls1_2", "-accept", f"127.0.0.1:{port}", "-naccept", "1"]
    command += ["-cert", str(certificate.cert), "-key", str(certificate.key)]
    pipe = subprocess.PIPE
    server = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT)  # noqa: ASYNC220
    assert server.stdin is not None
    assert server.stdout is not None
    trust = f"smtp_tls_CAfile = {authority.cert}\nsmtp_tls_secure_cert_match = mx.example\nsmtp_tls_wrappermode = yes\n"
    async with agent(tmp_path, level, trust) as (hub, daemon):
        while server.stdout.readline() != b"ACCEPT\n":
            pass
        begun = time.monotonic()
        (delivery,) = hub.send(hub.job(f"[127.0.0.1]:{port}"))
        server.stdin.write(b"220 mx ESMTP\n")
        server.stdin.flush()
        while not (await asyncio.to_thread(server.stdout.readline)).startswith(b"EHLO "):
            pass
        # A line that begins with r asks for another handshake.
        server.stdin.write(b"r\n")
        server.stdin.flush()
        result = await asyncio.wait_for(delivery, WAIT_S)
        assert (result.only.outcome, result.only.dsn) == ("deferred", "4.4.2"), result.only
        assert time.monotonic() - begun < BOUND_S
        assert sum("TLS connection established" in line for line in daemon.logged()) == 1
    server.stdin.close()
    output = server.stdout.read()
    server.wait()
    assert b"MAIL FROM" not in output
