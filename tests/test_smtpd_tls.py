"""TLS in smtpd: start-up, hostile handshakes, large messages, resumption, load, reload, and other clients."""

from __future__ import annotations

import asyncio
import contextlib
import re
import smtplib
import socket
import ssl
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from postillion.config import Config, ConfigError
from postillion.smtpd.mode import modes
from support.certificates import RSA_KEY, Authority, Certificate
from support.mta import Site, ended, local_user, processes, running, wait_for
from support.peers import absent, peer, postfix_home, root
from support.tls import CLOSED, TlsClient, context, negotiated, s_client

ALERT_FATAL = b"\x15\x03"
"""The begin of an alert record of TLS 1.0 to 1.3."""
CONTENT_OCTETS = 10 * 1024 * 1024
NOBODY = f"{local_user()}@example.org"


class Keys(NamedTuple):
    """Certificates of servers. `chain`: the file with the key and certificate of `first`."""

    authority: Authority
    first: Certificate
    second: Certificate
    rsa: Certificate
    encrypted: Path
    chain: Path


def write_chain(path: Path, certificate: Certificate) -> None:
    """Write key and certificate into one file, at once."""
    whole = path.with_suffix(".new")
    whole.write_text(certificate.key.read_text() + certificate.cert.read_text())
    whole.rename(path)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    directory = tmp_path_factory.mktemp("keys")
    authority = Authority(directory, "authority")
    first = authority.sign("/CN=mx.example.org", "DNS:mx.example.org")
    encrypted = directory / "encrypted.key"
    command = [peer("openssl"), "pkey", "-in", str(first.key), "-aes256", "-passout", "pass:secret"]
    encrypted.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    chain = directory / "chain.pem"
    write_chain(chain, first)
    second, rsa = authority.sign("/CN=second.example"), authority.sign("/CN=rsa.example", key=RSA_KEY)
    return Keys(authority, first, second, rsa, encrypted, chain)


def tls_site(directory: Path, keys: Keys, **main_cf: str) -> Site:
    """Return a site with STARTTLS."""
    settings = {"smtpd_tls_security_level": "may", "smtpd_tls_chain_files": str(keys.chain), "smtpd_tls_loglevel": "1"}
    return Site(directory, main_cf={**settings, **main_cf})


@pytest.fixture(scope="module")
def site(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = tls_site(
        tmp_path_factory.mktemp("site"),
        keys,
        smtpd_starttls_timeout="5s",
        smtpd_client_connection_count_limit="0",
        default_process_limit="1000",
        smtpd_junk_command_limit="100000",
        message_size_limit=str(2 * CONTENT_OCTETS),
        smtpd_client_port_logging="yes",
    )
    with running(made):
        yield made


def ended_session(site: Site, client: int) -> str:
    """Wait for the end of the last session of a client with this port; return its last lines in the log."""
    end = re.compile(rf".*\n.*disconnect from \S+:{client} .*")

    def lines() -> str:
        # An earlier client may have had the same port.
        return site.log_text().rpartition(f"connect from unknown[127.0.0.1]:{client}\n")[2]

    wait_for("the end of a session", lambda: end.search(lines()))
    found = end.search(lines())
    assert found is not None
    return found[0]


# Start-up.

UNUSABLE: dict[str, tuple[dict[str, str], str]] = {
    "other key": ({"smtpd_tls_cert_file": "{first.cert}", "smtpd_tls_key_file": "{second.key}"}, "smtpd_tls_key_file"),
    "other type": ({"smtpd_tls_cert_file": "{first.cert}", "smtpd_tls_key_file": "{rsa.key}"}, "smtpd_tls_key_file"),
    "no key": ({"smtpd_tls_cert_file": "{first.cert}"}, "smtpd_tls_key_file"),
    "missing certificate": ({"smtpd_tls_cert_file": "/missing"}, "smtpd_tls_cert_file"),
    "missing key": ({"smtpd_tls_cert_file": "{first.cert}", "smtpd_tls_key_file": "/missing"}, "smtpd_tls_key_file"),
    "missing chain": ({"smtpd_tls_chain_files": "{chain}, /missing"}, "smtpd_tls_chain_files"),
    "a directory": ({"smtpd_tls_chain_files": "/"}, "smtpd_tls_chain_files"),
    "a device": ({"smtpd_tls_chain_files": "/dev/zero"}, "smtpd_tls_chain_files"),
    "no PEM": ({"smtpd_tls_chain_files": "/etc/hostname"}, "smtpd_tls_chain_files"),
    "chain without key": ({"smtpd_tls_chain_files": "{first.cert}"}, "smtpd_tls_chain_files"),
    "chain without certificate": ({"smtpd_tls_chain_files": "{first.key}"}, "smtpd_tls_chain_files"),
    "encrypted key": (
        {"smtpd_tls_eccert_file": "{first.cert}", "smtpd_tls_eckey_file": "{encrypted}"},
        "smtpd_tls_eckey_file",
    ),
    "encrypted chain": ({"smtpd_tls_chain_files": "{encrypted}, {first.cert}"}, "smtpd_tls_chain_files"),
    "no certificate": ({"smtpd_tls_chain_files": ""}, "smtpd_tls_chain_files"),
    "everything excluded": ({"smtpd_tls_exclude_ciphers": "ALL"}, "ciphers"),
    "authorities": ({"smtpd_tls_ask_ccert": "yes", "smtpd_tls_CAfile": "/missing"}, "smtpd_tls_CAfile"),
}
"""Settings with which TLS cannot work, and the parameter that is named."""
BAD: dict[str, tuple[dict[str, str], str]] = {
    "version": ({"smtpd_tls_protocols": ">=TLSv1.4"}, "smtpd_tls_protocols"),
    "mandatory version": ({"smtpd_tls_mandatory_protocols": "!TLSv9"}, "smtpd_tls_mandatory_protocols"),
    "no version": ({"smtpd_tls_protocols": ">=TLSv1.3, <=TLSv1.2"}, "smtpd_tls_protocols"),
    "grade": ({"smtpd_tls_ciphers": "best"}, "smtpd_tls_ciphers"),
    "mandatory grade": ({"smtpd_tls_mandatory_ciphers": "best"}, "smtpd_tls_mandatory_ciphers"),
    "exclusion": ({"smtpd_tls_exclude_ciphers": "!RC4"}, "smtpd_tls_exclude_ciphers"),
    "mandatory exclusion": ({"smtpd_tls_mandatory_exclude_ciphers": "+RC4"}, "smtpd_tls_mandatory_exclude_ciphers"),
    "log level": ({"smtpd_tls_loglevel": "much"}, "smtpd_tls_loglevel"),
}
"""Settings that are never valid, and the parameter that the refusal names."""


def refused_site(directory: Path, keys: Keys, case: str, **others: str) -> tuple[Site, str, int | None]:
    """Return a site with settings of a case, the parameter that is to blame, and its line if it is set."""
    settings, parameter = (UNUSABLE | BAD)[case]
    settings = settings | others
    filled = {name: text.format(**keys._asdict()) for name, text in settings.items()}
    if any("cert_file" in name for name in settings):
        filled["smtpd_tls_chain_files"] = ""
    site = tls_site(directory, keys, **filled)
    lines = (site.etc / "main.cf").read_text().splitlines()
    # The key is in the certificate's file by default.
    names = [name for name in (parameter, parameter.replace("key", "cert")) if name in settings]
    numbers = [number for number, line in enumerate(lines, 1) if line.partition(" =")[0] in names[:1]]
    return site, parameter, numbers[-1] if numbers else None


@pytest.mark.parametrize("level", ["encrypt", "wrapper"])
@pytest.mark.parametrize("case", UNUSABLE)
def test_tls_that_cannot_work_is_refused_where_mail_needs_it(keys: Keys, tmp_path: Path, case: str, level: str) -> None:
    needs = {"smtpd_tls_wrappermode": "yes"} if level == "wrapper" else {"smtpd_tls_security_level": "encrypt"}
    site, parameter, line = refused_site(tmp_path, keys, case, **needs)
    with pytest.raises(ConfigError) as refusal:
        modes(Config.load(str(site.etc)), pytest.fail)
    assert refusal.value.line == line
    assert parameter in refusal.value.problem


@pytest.mark.parametrize("case", UNUSABLE)
def test_tls_that_cannot_work_is_a_warning_where_mail_does_without(keys: Keys, tmp_path: Path, case: str) -> None:
    site, parameter, line = refused_site(tmp_path, keys, case)
    warned: list[str] = []
    modes(Config.load(str(site.etc)), warned.append)
    assert len(warned) == 1
    assert parameter in warned[0]
    assert line is None or f"main.cf, line {line}: " in warned[0]
    assert warned[0].endswith(" (TLS is not offered)")


@pytest.mark.parametrize("case", BAD)
def test_a_bad_value_is_refused_with_its_line(keys: Keys, tmp_path: Path, case: str) -> None:
    site, parameter, line = refused_site(tmp_path, keys, case)
    with pytest.raises(ConfigError) as refusal:
        modes(Config.load(str(site.etc)), pytest.fail)
    assert refusal.value.line == line
    assert parameter in refusal.value.problem


def test_auth_that_needs_tls_is_refused_without_it(keys: Keys, tmp_path: Path) -> None:
    settings = {"smtpd_tls_auth_only": "yes", "smtpd_sasl_auth_enable": "yes"}
    site = tls_site(tmp_path, keys, smtpd_tls_security_level="none", **settings)
    checked = site.run("postillion", "check")
    assert checked.returncode != 0
    assert "smtpd_tls_auth_only = yes without TLS: no client could log in" in checked.stdout + checked.stderr


def test_check_refuses_a_key_with_the_line_of_its_parameter(keys: Keys, tmp_path: Path) -> None:
    site, parameter, line = refused_site(tmp_path, keys, "other key", smtpd_tls_security_level="encrypt")
    checked = site.run("postillion", "check")
    told = checked.stdout + checked.stderr
    assert checked.returncode != 0
    assert re.search(rf"main\.cf\b.*\b{line}\b.*{parameter}", told), told


def test_a_refused_key_keeps_the_site_from_its_start(keys: Keys, tmp_path: Path) -> None:
    settings = {"smtpd_tls_chain_files": str(keys.encrypted), "smtpd_tls_security_level": "encrypt"}
    site = tls_site(tmp_path, keys, **settings)
    with pytest.raises(RuntimeError, match="smtpd_tls_chain_files"), running(site):
        pass


def test_a_key_that_root_alone_can_read_is_used(keys: Keys, tmp_path: Path) -> None:
    root()
    mine = tmp_path / "key.pem"
    write_chain(mine, keys.first)
    mine.chmod(0o600)
    with running(tls_site(tmp_path / "site", keys, smtpd_tls_chain_files=str(mine))) as site:
        assert TlsClient(site.port).starttls(context())[-1] == "250 REQUIRETLS"


def test_no_certificate_at_may_is_a_warning(keys: Keys, tmp_path: Path) -> None:
    with running(tls_site(tmp_path, keys, smtpd_tls_chain_files="")) as site:
        client = TlsClient(site.port)
        client.reply()
        assert "250-STARTTLS" not in client.say("EHLO client.example")
        assert client.say("STARTTLS")[0].startswith("502 5.5.1 ")
        wait_for("the warning", lambda: "no certificate is set" in site.log_text())


# Handshakes of hostile clients.


def client_hello(tls: ssl.SSLContext) -> bytes:
    """Return the first octets of a client."""
    output = ssl.MemoryBIO()
    engine = tls.wrap_bio(ssl.MemoryBIO(), output, server_hostname="mx.example.org")
    with contextlib.suppress(ssl.SSLWantReadError):
        engine.do_handshake()
    return output.read()


def begun(site: Site) -> TlsClient:
    """Return a client whose handshake may begin."""
    client = TlsClient(site.port)
    client.reply()
    assert client.say("EHLO client.example", "STARTTLS")[-1] == "220 2.0.0 Ready to start TLS"
    return client


def time_out(site: Site, clients: list[TlsClient]) -> None:
    """Check that smtpd closes these sessions, and says why in the log."""
    for client in clients:
        assert client.reply() == [CLOSED]
        client.close()
    ended_session(site, clients[-1].port)
    log = site.log_text()
    for client in clients:
        assert f"SSL_accept error from unknown[127.0.0.1]:{client.port}: Connection timed out\n" in log
        assert f"lost connection after STARTTLS from unknown[127.0.0.1]:{client.port}\n" in log


def test_a_client_hello_that_stops_at_any_octet_times_out(site: Site) -> None:
    hello = client_hello(context())
    clients = [begun(site) for _ in range(len(hello))]
    for octets, client in enumerate(clients):
        client.socket.sendall(hello[:octets])
    # They hold up nobody.
    assert TlsClient(site.port).starttls(context())[-1] == "250 REQUIRETLS"
    time_out(site, clients)


def second_flight(client: TlsClient, tls: ssl.SSLContext) -> bytes:
    """Send a ClientHello, and return what the client would say to the server's first flight."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    engine = tls.wrap_bio(incoming, outgoing, server_hostname="mx.example.org")
    while True:
        with contextlib.suppress(ssl.SSLWantReadError):
            engine.do_handshake()
        said = outgoing.read()
        if said and incoming.pending == 0 and engine.cipher() is not None:
            return said
        client.socket.sendall(said)
        octets = client.socket.recv(65536)
        assert octets
        incoming.write(octets)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_end_of_a_handshake_that_stops_at_any_octet_times_out(site: Site, version: ssl.TLSVersion) -> None:
    tls = context()
    tls.minimum_version = tls.maximum_version = version
    first = begun(site)
    octets = len(second_flight(first, tls))
    first.close()
    clients = [begun(site) for _ in range(octets)]
    for sent, client in enumerate(clients):
        flight = second_flight(client, tls)
        assert len(flight) == octets
        client.socket.sendall(flight[:sent])
    assert TlsClient(site.port).starttls(context())[-1] == "250 REQUIRETLS"
    time_out(site, clients)


def test_a_client_that_sends_one_octet_at_a_time_is_served(site: Site) -> None:
    client = begun(site)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    engine = context().wrap_bio(incoming, outgoing, server_hostname="mx.example.org")

    def exchange(octets: bytes) -> None:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in octets:
            client.socket.sendall(bytes([octet]))

    def until_done() -> None:
        while True:
            try:
                engine.do_handshake()
            except ssl.SSLWantReadError:
                exchange(outgoing.read())
                incoming.write(client.socket.recv(65536))
            else:
                return exchange(outgoing.read())

    until_done()
    engine.write(b"EHLO client.example\r\n")
    exchange(outgoing.read())
    reply = b""
    while not reply.endswith(b"250 REQUIRETLS\r\n"):
        with contextlib.suppress(ssl.SSLWantReadError):
            reply += engine.read(65536)
            continue
        octets = client.socket.recv(65536)
        assert octets, reply
        incoming.write(octets)
    client.close()


@pytest.mark.parametrize("version", [b"\x03\x01", b"\x03\x03"])
def test_a_record_that_is_too_long_gets_an_alert(site: Site, version: bytes) -> None:
    client = begun(site)
    # 16 KiB of content, and one octet (RFC 8446 §5.1).
    length = 16 * 1024 + 1
    client.socket.sendall(b"\x16" + version + length.to_bytes(2, "big") + b"\x01" + bytes(length - 1))
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while octets := client.socket.recv(1000):
            received += octets
    assert received == b"" or received.startswith(ALERT_FATAL)
    log = ended_session(site, client.port)
    assert "lost connection after STARTTLS" in log
    assert f"SSL_accept error from unknown[127.0.0.1]:{client.port}: -1" in site.log_text()


def test_a_broken_record_of_an_open_session_gets_an_alert(site: Site) -> None:
    client = TlsClient(site.port)
    client.starttls(context())
    raw = socket.socket(fileno=client.socket.detach())
    raw.settimeout(60)
    raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while octets := raw.recv(1000):
            received += octets
    raw.close()
    # An encrypted alert, behind the tickets of the handshake.
    assert received
    assert "lost connection after EHLO" in ended_session(site, client.port)


@pytest.mark.parametrize("end", ["close", "reset", "close_notify"])
def test_a_message_that_is_cut_off_is_not_queued(site: Site, end: str) -> None:
    client = TlsClient(site.port)
    client.starttls(context())
    client.say("MAIL FROM:<a@example.org>", f"RCPT TO:<{NOBODY}>", "DATA")
    client.socket.sendall(f"Subject: cut by {end}\r\n\r\nbody\r\n".encode())
    if end == "reset":
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    elif end == "close_notify":
        assert isinstance(client.socket, ssl.SSLSocket)
        client.socket.unwrap()
    client.close()
    assert "lost connection after DATA (" in ended_session(site, client.port)
    deliver(site, f"behind {end}")
    assert not any(f"Subject: cut by {end}" in text for text in mailbox(site))


def mailbox(site: Site) -> list[str]:
    """Return the messages that were delivered."""
    return [path.read_text(errors="replace") for path in site.maildir(local_user())]


def deliver(site: Site, subject: str, body: str = "body\r\n", *, chunked: bool = False) -> str:
    """Deliver a message through TLS; return it as it is in the mailbox."""
    client = TlsClient(site.port)
    client.starttls(context())
    client.say("MAIL FROM:<a@example.org>", f"RCPT TO:<{NOBODY}>")
    content = f"Subject: {subject}\r\n\r\n{body}".encode()
    if chunked:
        half = len(content) // 2
        for part, last in ((content[:half], ""), (content[half:], " LAST")):
            client.socket.sendall(f"BDAT {len(part)}{last}\r\n".encode() + part)
            reply = client.reply()
            assert reply[0].startswith("250 "), reply
    else:
        assert client.say("DATA")[0].startswith("354 ")
        client.socket.sendall(content.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        reply = client.reply()
        assert reply[0].startswith("250 "), reply
    client.close()
    found: list[str] = []

    def arrived() -> bool:
        found.extend(text for text in mailbox(site) if f"\nSubject: {subject}\n" in text)
        return bool(found)

    wait_for(subject, arrived)
    return found[0]


@pytest.mark.parametrize("chunked", [True, False], ids=["BDAT", "DATA"])
def test_ten_mebibytes_come_as_they_were_sent(site: Site, chunked: bool) -> None:
    lines = "".join(f".{number:08d} {'x' * 60}\r\n" for number in range(CONTENT_OCTETS // 72))
    message = deliver(site, f"large {chunked}", lines, chunked=chunked)
    assert message.partition("\n\n")[2].rstrip("\n") == lines.replace("\r\n", "\n").rstrip("\n")


def test_thousands_of_pipelined_commands_are_answered_in_order(site: Site) -> None:
    client = TlsClient(site.port)
    client.starttls(context())
    count = 5000
    client.socket.sendall(b"MAIL FROM:<a@example.org>\r\nRSET\r\n" * count)
    assert [line for _ in range(2 * count) for line in client.reply()] == ["250 2.1.0 Ok", "250 2.0.0 Ok"] * count
    client.close()


def test_many_key_updates_are_harmless(site: Site) -> None:
    """At a line with `K`, s_client changes its key and asks for a new one of the server (RFC 8446 §4.6.3)."""
    command = [peer("openssl"), "s_client", "-connect", f"127.0.0.1:{site.port}", "-tls1_3", "-starttls", "smtp"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        assert client.stdin is not None
        assert client.stderr is not None
        for _ in range(300):
            # It looks at the first octet that it reads, so each line waits for the one before.
            client.stdin.write(b"K\n")
            client.stdin.flush()
            while line := client.stderr.readline():
                if line == b"KEYUPDATE\n":
                    break
            assert line
        client.stdin.write(b"quit\n")
        client.stdin.flush()
        assert client.stdout is not None
        assert b"221 2.0.0 Bye" in client.stdout.read()


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_session_is_resumed_by_its_ticket(site: Site, tmp_path: Path, version: str) -> None:
    session = tmp_path / "session"
    first = s_client(site.port, version, "-sess_out", str(session))
    assert "\nNew, TLSv1." in first
    for _ in range(2):
        assert "\nReused, TLSv1." in s_client(site.port, version, "-sess_in", str(session))


async def test_two_hundred_sessions_at_once(keys: Keys, tmp_path: Path) -> None:
    gate = asyncio.Barrier(200)
    settings = {"smtpd_client_connection_count_limit": "0", "default_process_limit": "1000"}
    site = tls_site(tmp_path, keys, **settings)

    async def talk() -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        await reader.readuntil(b"\r\n")
        writer.write(b"EHLO client.example\r\n")
        await reader.readuntil(b"250 CHUNKING\r\n")
        writer.write(b"STARTTLS\r\n")
        await reader.readuntil(b"TLS\r\n")
        await writer.start_tls(context(), server_hostname="mx.example.org")
        await gate.wait()
        writer.write(b"EHLO client.example\r\n")
        await reader.readuntil(b"250 REQUIRETLS\r\n")
        writer.write(b"QUIT\r\n")
        said = await reader.read()
        writer.close()
        return said.decode()

    with running(site):
        async with asyncio.timeout(60):
            said = await asyncio.gather(*(talk() for _ in range(200)))
    assert said == ["221 2.0.0 Bye\r\n"] * 200


# Reload, sleep, stress, secrets.


def test_reload_brings_a_new_certificate_and_keeps_open_sessions(keys: Keys, tmp_path: Path) -> None:
    chain = tmp_path / "chain.pem"
    write_chain(chain, keys.first)
    with running(tls_site(tmp_path / "site", keys, smtpd_tls_chain_files=str(chain))) as site:
        client = TlsClient(site.port)
        client.starttls(context())
        (before,) = processes(site, "smtpd")
        write_chain(chain, keys.second)
        assert site.run("postfix", "reload").returncode == 0
        wait_for("another smtpd", lambda: [pid for pid in processes(site, "smtpd") if pid != before])
        wait_for("the new certificate", lambda: "CN = second.example" in s_client(site.port))
        assert client.say("NOOP", "QUIT") == ["250 2.0.0 Ok", "221 2.0.0 Bye"]
        wait_for("the end of the first smtpd", lambda: ended(before))


def test_errors_before_starttls_delay_it_and_it_still_works(keys: Keys, tmp_path: Path) -> None:
    with running(tls_site(tmp_path, keys, smtpd_error_sleep_time="1s", smtpd_hard_error_limit="100")) as site:
        client = TlsClient(site.port)
        client.reply()
        client.say("EHLO client.example", *["FOO"] * 10)
        # The reply comes after a sleep.
        client.socket.sendall(b"STARTTLS\r\nMAIL FROM:<evil@example.org>\r\n")
        assert client.reply() == ["220 2.0.0 Ready to start TLS"]
        client.secure(context())
        assert client.say("RCPT TO:<b@example.org>") == ["503 5.5.1 Error: need MAIL command"]
        assert client.say("EHLO client.example")[-1] == "250 REQUIRETLS"
        client.close()


def test_sessions_under_stress_have_tls_of_their_own(keys: Keys, tmp_path: Path) -> None:
    site = tls_site(
        tmp_path,
        keys,
        smtpd_tls_protocols="${stress?{<=TLSv1.2}:{>=TLSv1.3}}",
        default_process_limit="2",
    )
    with running(site):
        # `running` has been a client, too.
        wait_for("its end", lambda: "disconnect from " in site.log_text())
        idle = TlsClient(site.port)
        # It takes the last place.
        assert negotiated(site.port).startswith("TLSv1.3 ")
        wait_for("stress", lambda: "stress mode is on" in site.log_text())
        assert negotiated(site.port).startswith("TLSv1.2 ")
        idle.close()


def test_no_key_is_in_the_log(keys: Keys, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    canary = "Y2FuYXJ5" * 8
    bad.write_text(f"-----BEGIN PRIVATE KEY-----\n{canary}\n-----END PRIVATE KEY-----\n{keys.first.cert.read_text()}")
    settings = {"smtpd_tls_chain_files": str(bad), "smtpd_tls_security_level": "encrypt"}
    site = tls_site(tmp_path / "site", keys, **settings)
    told = site.run("postillion", "check")
    assert told.returncode != 0
    with pytest.raises(RuntimeError), running(site):
        pass
    assert canary not in told.stdout + told.stderr + site.log_text()
    with running(tls_site(tmp_path / "other", keys, smtpd_tls_loglevel="4")) as site:
        client = TlsClient(site.port)
        client.starttls(context())
        client.close()
        begun(site).say("garbage")
        wait_for("both ends", lambda: site.log_text().count("disconnect from") >= 2)
        secrets = [line for path in (keys.first.key, keys.first.cert) for line in path.read_text().splitlines()]
        assert not [line for line in secrets if line in site.log_text()]


# AUTH.

AUTH = "AUTH PLAIN " + b64encode(b"\0user\0secret").decode()
HANDLER = """\
from aiosmtpd.smtp import AuthResult, LoginPassword


class Handler:
    @staticmethod
    def authenticator(server, session, envelope, mechanism, data):
        return AuthResult(success=data == LoginPassword(b"user", b"secret"), handled=False, auth_data=data)
"""


def test_auth_is_for_sessions_with_tls_alone(keys: Keys, tmp_path: Path) -> None:
    site = tls_site(
        tmp_path / "site",
        keys,
        smtpd_tls_auth_only="yes",
        smtpd_sasl_auth_enable="yes",
        smtpd_sasl_security_options="noanonymous",
        smtpd_python_handler="tls_only_handler:Handler",
        smtpd_relay_restrictions="permit_sasl_authenticated, reject_unauth_destination",
        mynetworks="",
    )
    (site.etc / "tls_only_handler.py").write_text(HANDLER)
    with running(site):
        client = TlsClient(site.port)
        client.reply()
        assert not [line for line in client.say("EHLO client.example") if "AUTH" in line]
        assert client.say(AUTH) == ["503 5.5.1 Error: authentication not enabled"]
        client.say("STARTTLS")
        client.secure(context())
        assert "250-AUTH LOGIN PLAIN" in client.say("EHLO client.example")
        assert client.say(AUTH) == ["235 2.7.0 Authentication successful"]
        said = client.say("MAIL FROM:<a@example.org>", f"RCPT TO:<{NOBODY}>", "DATA", "Subject: user\r\n\r\n.")
        assert said[-1].startswith("250 ")
        wait_for("delivery", lambda: any("with ESMTPSA id" in text for text in mailbox(site)))
        client.close()


# Other clients.


def test_smtplib_delivers_by_starttls(site: Site, keys: Keys) -> None:
    verifying = ssl.create_default_context(cafile=str(keys.authority.cert))
    verifying.check_hostname = False
    with smtplib.SMTP("127.0.0.1", site.port, timeout=60) as client:
        client.starttls(context=verifying)
        client.sendmail("a@example.org", [NOBODY], "Subject: smtplib\r\n\r\nbody\r\n")
    wait_for("delivery", lambda: any("\nSubject: smtplib\n" in text for text in mailbox(site)))


def test_swaks_delivers_by_starttls(site: Site) -> None:
    swaks = peer("swaks")
    module = [peer("perl"), "-MNet::SSLeay", "-e", ""]
    if subprocess.run(module, capture_output=True, check=False).returncode != 0:
        absent("perl's Net::SSLeay is not installed (Debian package libnet-ssleay-perl)")
    address = ["-s", f"127.0.0.1:{site.port}", "-f", "a@example.org", "-t", NOBODY]
    command = [swaks, *address, "--tls", "--header", "Subject: swaks"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    wait_for("delivery", lambda: any("\nSubject: swaks\n" in text for text in mailbox(site)))


def test_msmtp_delivers_by_starttls(site: Site, keys: Keys) -> None:
    tls = ["--tls=on", f"--tls-trust-file={keys.authority.cert}", "--tls-host-override=mx.example.org"]
    command = [peer("msmtp"), "-C", "/dev/null", "--host=127.0.0.1", f"--port={site.port}", *tls]
    command += ["--from=a@example.org", NOBODY]
    subprocess.run(command, input=b"Subject: msmtp\n\nend\n", check=True, capture_output=True, timeout=60)
    wait_for("delivery", lambda: any("\nSubject: msmtp\n" in text for text in mailbox(site)))


def test_gnutls_gets_a_session(site: Site, keys: Keys) -> None:
    command = [peer("gnutls-cli"), "--starttls-proto=smtp", f"--x509cafile={keys.authority.cert}"]
    command += ["--verify-hostname=mx.example.org", "127.0.0.1", "-p", str(site.port)]
    result = subprocess.run(command, input=b"QUIT\r\n", capture_output=True, timeout=60, check=False)
    assert b"221 2.0.0 Bye" in result.stdout, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("level", "settings", "verdict"),
    [
        ("encrypt", {}, "Untrusted"),
        ("encrypt", {"smtp_tls_CAfile": "{ca}"}, "Trusted"),
        ("verify", {"smtp_tls_CAfile": "{ca}"}, "Verified"),
        ("fingerprint", {"smtp_tls_fingerprint_cert_match": "{fingerprint}"}, "Verified"),
    ],
)
def test_postfix_delivers_by_starttls(
    site: Site, keys: Keys, tmp_path: Path, level: str, settings: dict[str, str], verdict: str
) -> None:
    root()
    postfix_home()
    command = [peer("openssl"), "x509", "-in", str(keys.first.cert), "-noout", "-fingerprint", "-sha256"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    words = {"ca": keys.authority.cert, "fingerprint": told.strip().partition("=")[2]}
    main_cf = {name: text.format(**words) for name, text in settings.items()}
    client = Site(
        tmp_path,
        main_cf={
            "smtp_tls_security_level": level,
            "smtp_tls_loglevel": "1",
            "smtp_tls_fingerprint_digest": "sha256",
            "smtp_tls_verify_cert_match": "mx.example.org",
            "smtp_tls_secure_cert_match": "mx.example.org",
            "mydestination": "",
            "local_recipient_maps": "",
            "default_transport": f"smtp:[127.0.0.1]:{site.port}",
            **main_cf,
        },
        master_cf="tlsmgr unix - - n 1000? 1 tlsmgr\n",
    )
    with running(client, "postfix"):
        with smtplib.SMTP("127.0.0.1", client.port, timeout=60) as sender:
            sender.sendmail("a@example.org", [NOBODY], f"Subject: Postfix {level} {verdict}\r\n\r\nbody\r\n")
        wait_for("delivery", lambda: " status=sent (250 2.0.0 Ok: queued as " in client.log_text())
        assert f"{verdict} TLS connection established to 127.0.0.1[127.0.0.1]:{site.port}: TLSv1.3" in client.log_text()
