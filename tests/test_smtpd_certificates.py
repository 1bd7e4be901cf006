"""Client certificates in the rules of smtpd, on Postfix and on Postillion: relaying, and the completion of headers."""

from __future__ import annotations

import re
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support.certificates import Authority, Certificate
from support.mta import Site, let_others_pass, local_user, running, wait_for
from support.peers import peer, postfix_home, root
from support.ports import free_port
from support.tls import TlsClient, context

TLSMGR = "tlsmgr unix - - n 1000? 1 tlsmgr\n"
LIST = "smtpd_relay_restrictions"
SERVICES = {
    "listed": f"{LIST}=permit_tls_clientcerts,reject",
    "trusted": f"{LIST}=permit_tls_all_clientcerts,reject",
    "sha1": f"{LIST}=permit_tls_clientcerts,reject smtpd_tls_fingerprint_digest=sha1",
    "no table": f"{LIST}=permit_tls_clientcerts,reject relay_clientcerts=",
    "broken table": f"{LIST}=permit_tls_clientcerts,reject relay_clientcerts=fail:broken",
    "not asked": f"{LIST}=permit_tls_clientcerts,reject smtpd_tls_ask_ccert=no",
    "headers": "local_header_rewrite_clients=permit_tls_clientcerts",
    "headers of all": "local_header_rewrite_clients=permit_tls_all_clientcerts",
    "headers broken": "local_header_rewrite_clients=permit_tls_clientcerts relay_clientcerts=fail:broken",
}
MAY = "550 5.1.1 <a@elsewhere.example>: Recipient address rejected: no mail leaves this machine"
MAY_NOT = "554 5.7.1 <a@elsewhere.example>: Recipient address rejected: Access denied"
LATER = "451 4.3.0 <a@elsewhere.example>: Temporary lookup failure"
CLIENTS = ("authority", "certificate", "key", "stranger", None)
"""Clients with a certificate: of a trusted authority, two in the table, one that nobody knows; and one without."""
REPLIES = {
    "listed": (MAY_NOT, MAY, MAY, MAY_NOT, MAY_NOT),
    "trusted": (MAY, MAY, MAY, MAY_NOT, MAY_NOT),
    "sha1": (MAY_NOT, MAY_NOT, MAY_NOT, MAY_NOT, MAY_NOT),
    "no table": (MAY_NOT, MAY_NOT, MAY_NOT, MAY_NOT, MAY_NOT),
    "broken table": (LATER, LATER, LATER, LATER, MAY_NOT),
    "not asked": (MAY_NOT, MAY_NOT, MAY_NOT, MAY_NOT, MAY_NOT),
}


class Both(NamedTuple):
    """The sites, Postfix's first, with the ports of their services, and the certificates of the clients."""

    sites: tuple[Site, Site]
    ports: tuple[dict[str, int], dict[str, int]]
    clients: dict[str, Certificate]

    def tls(self, who: str | None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """Return the TLS of a client."""
        return context(version, certificate=None if who is None else self.clients[who])


def fingerprint(certificate: Certificate) -> str:
    """Return the fingerprint of a certificate."""
    command = [peer("openssl"), "x509", "-in", str(certificate.cert), "-noout", "-fingerprint", "-sha256"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().partition("=")[2]


def key_fingerprint(certificate: Certificate) -> str:
    """Return the fingerprint of a certificate's public key, in lower case."""
    command = [peer("openssl"), "pkey", "-in", str(certificate.key), "-pubout", "-outform", "DER"]
    key = subprocess.run(command, check=True, capture_output=True).stdout
    command = [peer("openssl"), "dgst", "-sha256", "-c"]
    return subprocess.run(command, input=key, check=True, capture_output=True).stdout.decode().split()[-1]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    peer("openssl")
    root()
    postfix_home()
    directory = tmp_path_factory.mktemp("keys")
    let_others_pass(directory)
    authority, other = Authority(directory, "authority"), Authority(directory, "other")
    clients = {"authority": authority.sign("/CN=authority.example")}
    clients |= {name: other.sign(f"/CN={name}.example") for name in ("certificate", "key", "stranger")}
    table = directory / "certificates"
    table.write_text(f"{fingerprint(clients['certificate'])} x\n{key_fingerprint(clients['key'])} x\n")
    own, chain = authority.sign("/CN=mx.example.org"), directory / "chain.pem"
    chain.write_text(own.key.read_text() + own.cert.read_text())
    main_cf = {
        "smtpd_tls_security_level": "may",
        "smtpd_tls_chain_files": str(chain),
        "smtpd_tls_ask_ccert": "yes",
        "smtpd_tls_CAfile": str(authority.cert),
        "smtpd_tls_loglevel": "2",
        "smtpd_client_port_logging": "yes",
        "relay_clientcerts": f"texthash:{table}",
    }
    ports = tuple({name: free_port() for name in SERVICES} for _ in range(2))
    sites = []
    for services in ports:
        lines = ""
        for name, port in services.items():
            words = (word.partition("=") for word in SERVICES[name].split())
            options = " ".join(f"-o {{ {parameter} = {value} }}" for parameter, _, value in words)
            lines += f"127.0.0.1:{port} inet n - n - - smtpd {options}\n"
        sites.append(Site(tmp_path_factory.mktemp("site"), main_cf=main_cf, master_cf=TLSMGR + lines))
    with running(sites[0], "postfix"), running(sites[1]):
        yield Both((sites[0], sites[1]), (ports[0], ports[1]), clients)


def asked(port: int, tls: ssl.SSLContext, *commands: str) -> list[str]:
    """Return the replies to commands inside TLS."""
    client = TlsClient(port)
    client.starttls(tls)
    replies = client.say(*commands)
    client.close()
    return replies


@pytest.mark.parametrize("service", REPLIES)
@pytest.mark.parametrize("who", CLIENTS)
def test_certificate_decides_about_relaying(both: Both, service: str, who: str | None) -> None:
    commands = ["MAIL FROM:<b@example.org>", "RCPT TO:<a@elsewhere.example>"]
    for ports in both.ports:
        assert asked(ports[service], both.tls(who), *commands)[1] == REPLIES[service][CLIENTS.index(who)]


def test_certificate_of_a_resumed_session_counts(both: Both) -> None:
    for ports in both.ports:
        tls = both.tls("key", ssl.TLSVersion.TLSv1_2)
        session = None
        for is_resumed in (False, True):
            client = TlsClient(ports["listed"])
            client.reply()
            client.say("EHLO client.example", "STARTTLS")
            secured = client.secure(tls, session)
            assert secured.session_reused is is_resumed
            session = secured.session
            replies = client.say("EHLO client.example", "MAIL FROM:<b@example.org>", "RCPT TO:<a@elsewhere.example>")
            assert replies[-1] == MAY
            client.close()


def test_no_certificate_counts_before_tls(both: Both) -> None:
    for ports in both.ports:
        client = TlsClient(ports["listed"])
        client.reply()
        client.say("EHLO client.example", "MAIL FROM:<b@example.org>")
        assert client.say("RCPT TO:<a@elsewhere.example>") == [MAY_NOT]
        client.close()


def test_restriction_that_needs_a_certificate_warns_if_no_client_is_asked(both: Both) -> None:
    for ports in both.ports:
        asked(ports["not asked"], both.tls("key"), "MAIL FROM:<b@example.org>", "RCPT TO:<a@elsewhere.example>")
    for site in both.sites:
        assert 'warning: permit_tls_clientcerts is requested, but "smtpd_tls_ask_ccert = no"\n' in site.log_text()


@pytest.mark.parametrize("who", ["authority", "key"])
def test_log_has_the_fingerprints(both: Both, who: str) -> None:
    certificate = both.clients[who]
    prints = f"fingerprint={fingerprint(certificate)}, pkey_fingerprint={key_fingerprint(certificate).upper()}"
    issuer = "authority" if who == "authority" else "other"
    for site, ports in zip(both.sites, both.ports, strict=True):
        asked(ports["listed"], both.tls(who), "NOOP")
        line = rf"unknown\[127\.0\.0\.1\]:\d+: subject_CN={who}\.example, issuer={issuer}, {prints}\n"
        wait_for("the line", lambda site=site, line=line: re.search(line, site.log_text()))  # type: ignore[misc]


@pytest.mark.parametrize("service", ["headers", "headers of all"])
@pytest.mark.parametrize("who", CLIENTS)
def test_certificate_decides_about_completed_headers(both: Both, service: str, who: str | None) -> None:
    subject = f"{service} {who}"
    recipient = f"RCPT TO:<{local_user()}@example.org>"
    message = f"From: bare\r\nSubject: {subject}\r\n\r\n."
    is_completed = who in ("certificate", "key") or (service == "headers of all" and who == "authority")
    for site, ports in zip(both.sites, both.ports, strict=True):
        replies = asked(ports[service], both.tls(who), "MAIL FROM:<b@example.org>", recipient, "DATA", message)
        assert replies[-1].startswith("250 ")
        found: list[str] = []

        def arrived(site: Site = site, found: list[str] = found) -> bool:
            found.extend(text for text in map(Path.read_text, site.maildir(local_user())) if f"{subject}\n" in text)
            return bool(found)

        wait_for(subject, arrived)
        assert ("From: bare@mx.example.org\n" if is_completed else "From: bare\n") in found[0]


def test_failed_lookup_of_a_client_whose_headers_may_be_completed(both: Both) -> None:
    recipient = f"RCPT TO:<{local_user()}@example.org>"
    for ports in both.ports:
        replies = asked(ports["headers broken"], both.tls("key"), "MAIL FROM:<b@example.org>", recipient, "DATA")
        assert any(reply.startswith("451 4.3.0 ") for reply in replies), replies
        assert asked(ports["headers broken"], both.tls(None), "MAIL FROM:<b@example.org>") == ["250 2.1.0 Ok"]
