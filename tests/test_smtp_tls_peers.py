"""Mail of smtp to Debian's Postfix inside TLS, as its own client sends it there, and mail of lmtp to Dovecot."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from postillion.delivery.smtp.agent import SmtpAgent
from support.agents import FakeDaemon, Mail, serving
from support.certificates import RSA_KEY, Authority, Certificate
from support.dovecot import Lmtp, dovecot_lmtp
from support.mta import Site, commands_of, running, wait_for
from support.peers import peer, postfix_home, root
from support.ports import free_port

USER = "nobody"
SERVERS = {
    "may": "smtpd_tls_security_level=may",
    "encrypt": "smtpd_tls_security_level=encrypt",
    "none": "smtpd_tls_security_level=none",
    "ask": "smtpd_tls_security_level=may smtpd_tls_ask_ccert=yes smtpd_tls_CAfile={ca}",
    "require": "smtpd_tls_security_level=encrypt smtpd_tls_req_ccert=yes smtpd_tls_CAfile={ca}",
    "1.2": "smtpd_tls_security_level=may smtpd_tls_protocols=<=TLSv1.2",
    "rsa": "smtpd_tls_security_level=may smtpd_tls_chain_files={rsa}",
    "wrapper": "smtpd_tls_wrappermode=yes",
}
"""Services of the server."""
CLIENTS = {
    "may": "smtp_tls_security_level=may",
    "encrypt": "smtp_tls_security_level=encrypt",
    "secure": "smtp_tls_security_level=secure smtp_tls_secure_cert_match=mx.example smtp_tls_CAfile={ca}",
    "certificate": "smtp_tls_security_level=encrypt smtp_tls_cert_file={cert} smtp_tls_key_file={key}",
    "stranger": "smtp_tls_security_level=encrypt smtp_tls_cert_file={other_cert} smtp_tls_key_file={other_key}",
    "wrapper": "smtp_tls_security_level=encrypt smtp_tls_wrappermode=yes",
}
"""Services of the client."""
ROWS = [
    *((server, client) for server in SERVERS for client in CLIENTS if (server == "wrapper") == (client == "wrapper")),
]


class Files(NamedTuple):
    """Certificates by the names in `SERVERS` and `CLIENTS`."""

    paths: dict[str, Path]
    server: Certificate

    def options(self, text: str) -> str:
        """Return `-o` options."""
        return "".join(f" -o {{{word}}}" for word in text.format(**self.paths).split())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Return the certificates of all."""
    directory = tmp_path_factory.mktemp("keys")
    authority, other = Authority(directory, "authority"), Authority(directory, "other")
    paths = {"ca": authority.cert}
    for name, key in (("chain", ()), ("rsa", RSA_KEY)):
        made = authority.sign("/CN=mx.example", "DNS:mx.example", *([key] if key else []))
        paths[name] = directory / f"{name}.pem"
        paths[name].write_text(made.key.read_text() + made.cert.read_text())
    client, stranger = authority.sign("/CN=client.example"), other.sign("/CN=stranger.example")
    paths |= {"cert": client.cert, "key": client.key, "other_cert": stranger.cert, "other_key": stranger.key}
    return Files(paths, authority.sign("/CN=mx.example", "DNS:mx.example"))


class Outcome(NamedTuple):
    """The Received header of the server, its log of the session, and the client's log with the status."""

    received: str
    server: list[str]
    client: list[str]


def outcomes(directory: Path, files: Files, program: str) -> list[Outcome]:
    """Return the outcome of each row with this client at Postfix's server."""
    ports = [free_port() for _ in ROWS]
    lines = "tlsmgr unix - - n 1000? 1 tlsmgr\n"
    for number, ((server, _), port) in enumerate(zip(ROWS, ports, strict=True)):
        options = files.options(f"syslog_name=t{number} {SERVERS[server]}")
        lines += f"127.0.0.1:{port} inet n - n - - smtpd{options}\n"
    main_cf = {
        "mydestination": " ".join(f"c{number}.example" for number in range(len(ROWS))),
        "smtpd_tls_chain_files": str(files.paths["chain"]),
        "smtpd_tls_loglevel": "1",
        "smtpd_tls_received_header": "yes",
    }
    site = Site(directory / "server", main_cf=main_cf, master_cf=lines)
    lines, routes = "tlsmgr unix - - n 1000? 1 tlsmgr\n", ""
    for number, ((_, client), port) in enumerate(zip(ROWS, ports, strict=True)):
        options = files.options(f"syslog_name=s{number} smtp_tls_loglevel=1 {CLIENTS[client]}")
        lines += f"s{number} unix - - n - 1 smtp{options}\n"
        routes += f"{{ c{number}.example = s{number}:[127.0.0.1]:{port} }} "
    sender = Site(directory / "client", main_cf={"transport_maps": f"inline:{{ {routes} }}"}, master_cf=lines)
    with running(site, "postfix"), running(sender, program):
        recipients = [f"{USER}@c{number}.example" for number in range(len(ROWS))]
        command = [str(commands_of(program) / "sendmail"), "-C", str(sender.etc), "-f", "s@example.org", *recipients]
        subprocess.run(command, input=b"Subject: x\n\nhi\n", check=True, timeout=60)
        status = re.compile(r" s\d+/smtp\[\d+\]: .* to=<.*status=(\w+)")
        wait_for("every status", lambda: len(status.findall(sender.log_text())) >= len(ROWS))
        sent = status.findall(sender.log_text()).count("sent")
        wait_for("the mail", lambda: len(site.maildir(USER)) >= sent)
        ends = re.compile(r" t\d+/smtpd\[\d+\]: disconnect from ")
        wait_for("the ends", lambda: len(ends.findall(site.log_text())) >= len(ROWS))
        told, heard = sender.log_text(), site.log_text()
        received = {found[1]: found[0] for text in site.maildir(USER) if (found := header(text.read_text()))}
    return [
        Outcome(received.get(str(number), ""), lines_of(heard, f"t{number}"), lines_of(told, f"s{number}"))
        for number in range(len(ROWS))
    ]


def header(message: str) -> tuple[str, str] | None:
    """Return the server's Received header without ID and date, and the number of the row."""
    first = re.search(r"^Received: .*\n(?:[ \t].*\n)*", message, re.MULTILINE)
    row = re.search(r"^(?:X-Original-To|Delivered-To): \w+@c(\d+)", message, re.MULTILINE)
    if first is None or row is None:
        return None
    text = re.sub(r"\d+\.example", "N.example", re.sub(r"; .*", "", first[0]))
    return re.sub(r" id \w+", " id ID", text), row[1]


def lines_of(log: str, name: str) -> list[str]:
    """Return the lines of a service without what differs from run to run."""
    found = re.findall(rf" {name}/\w+\[\d+\]: (.*)", log)
    kept = [re.sub(r" delays?=[^,]*,", "", line) for line in found]
    kept = [re.sub(r":\d{4,5}\b", ":PORT", re.sub(r"queued as \w+", "queued as ID", line)) for line in kept]
    return [re.sub(r"^[0-9A-F]{8,}: ", "ID: ", re.sub(r" commands=0/0", " commands=0", line)) for line in kept]


def test_postfix_sees_our_client_as_its_own(tmp_path: Path, files: Files) -> None:
    root()
    postfix_home()
    peer("openssl")
    expected = outcomes(tmp_path / "postfix", files, "postfix")
    found = outcomes(tmp_path / "postillion", files, "postillion")
    for row, theirs, ours in zip(ROWS, expected, found, strict=True):
        assert ours == theirs, row
    by_row = dict(zip(ROWS, found, strict=True))
    assert "TLSv1.3 with cipher" in by_row["may", "may"].received
    assert "(using " not in by_row["none", "may"].received
    assert '(Client CN "client.example", Issuer "authority" (verified OK))' in by_row["ask", "certificate"].received
    assert by_row["none", "secure"].received == ""


@pytest.fixture(scope="module")
def lmtp_server(tmp_path_factory: pytest.TempPathFactory, files: Files) -> Iterator[Lmtp]:
    """Run Dovecot."""
    with dovecot_lmtp(tmp_path_factory.mktemp("dovecot") / "lmtp", files.server) as server:
        yield server


@pytest.mark.parametrize("level", ["may", "encrypt", "secure"])
@pytest.mark.parametrize("way", ["starttls", "wrapper", "socket"])
async def test_dovecot_takes_mail_by_lmtp(
    tmp_path: Path, files: Files, lmtp_server: Lmtp, way: str, level: str
) -> None:
    more = f"lmtp_tls_security_level = {level}\nlmtp_tls_loglevel = 1\nlmtp_tls_CAfile = {files.paths['ca']}\n"
    more += "lmtp_tls_secure_cert_match = mx.example\n"
    if way == "wrapper":
        more += "lmtp_tls_wrappermode = yes\n"
    port = {"starttls": lmtp_server.starttls, "wrapper": lmtp_server.wrapper}.get(way)
    nexthop = f"unix:{lmtp_server.socket}" if port is None else f"inet:127.0.0.1:{port}"
    daemon = FakeDaemon(tmp_path, more, "lmtp")
    user = f"{way}-{level}"
    async with serving(tmp_path, lambda daemon: SmtpAgent(daemon, "lmtp", capacity=20), daemon) as hub:
        result = await hub.deliver(nexthop, Mail(0, [f"{user}@example.com"], content=b"Subject: x\r\n\r\nhi\r\n"))
    if (way, level) == ("wrapper", "may"):
        assert (result.only.outcome, result.only.dsn) == ("deferred", "4.3.0")
        return
    assert (result.only.outcome, result.only.dsn) == ("sent", "2.0.0"), (result, lmtp_server.log_text())
    trust = "Verified" if level == "secure" else "Trusted"
    assert re.match(rf"{trust} TLS connection established to \S+: TLSv1\.3 with cipher ", daemon.logged()[0])
    wait_for("the message", lambda: lmtp_server.messages(user))
    (message,) = lmtp_server.messages(user)
    assert message.endswith("Subject: x\n\nhi\n")
    assert re.search(r"^\s+\(using TLSv1\.3 with cipher .*\)$|with LMTPS", message, re.MULTILINE), message
