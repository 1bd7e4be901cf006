"""Deliveries of Debian's smtp(8) to hosts in signed and unsigned zones, in a network of their own.

    unshare --mount --net python -m support.dane_site DIRECTORY NAME=VALUE...

The name server on port 53 is unbound, and the mail server on port 25 has TLS with `CERTIFICATE`. One line of JSON comes
out: for each domain of `DOMAINS` its log lines.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from support.certificates import Authority, Certificate
from support.mta import Site, running, wait_for
from support.peers import peer
from support.scripted import Scripted
from support.signed_zone import validating

HOST = "127.0.0.2"
"""Address of the mail server; 127.0.0.1 is the site itself."""
SMTP_PORT = 25
DNS_PORT = 53
UNUSABLE = "0 0 1 " + "00" * 32
WRONG = "3 1 1 " + "00" * 32
ODD = ("3 2 1 " + "00" * 32, "3 1 9 00", "3 1 1 00", "3 0 0 00", "3 1 0 00")
"""Records with a bad selector, matching type, length, certificate and public key."""

SIGNED = """
@ MX 10 good
wrong MX 10 wronghost
none MX 10 nonehost
unusable MX 10 unusablehost
alias MX 10 aliashost
both MX 10 bothhost
out MX 10 outhost
plainhost MX 10 mx.plain.test.
broken MX 10 brokenhost
anchor MX 10 anchorhost
mixed MX 10 mixedhost
odd MX 10 oddhost
cname CNAME direct
good A 127.0.0.2
_25._tcp.good TLSA {good}
wronghost A 127.0.0.2
_25._tcp.wronghost TLSA {wrong}
nonehost A 127.0.0.2
unusablehost A 127.0.0.2
_25._tcp.unusablehost TLSA {unusable}
aliashost CNAME good
bothhost CNAME nonehost
_25._tcp.bothhost TLSA {good}
outhost CNAME mx.plain.test.
_25._tcp.outhost TLSA {good}
brokenhost A 127.0.0.2
_25._tcp.brokenhost CNAME tlsa.bogus.test.
anchorhost A 127.0.0.2
_25._tcp.anchorhost TLSA {anchor}
mixedhost A 127.0.0.2
_25._tcp.mixedhost TLSA {unusable}
_25._tcp.mixedhost TLSA {good}
oddhost A 127.0.0.2
{odd}direct A 127.0.0.2
_25._tcp.direct TLSA {good}
"""
PLAIN = """
@ MX 10 mx
good MX 10 good.signed.test.
none MX 10 nonehost.signed.test.
unusable MX 10 unusablehost.signed.test.
mx A 127.0.0.2
_25._tcp.mx TLSA {good}
"""
DOMAINS = (
    *("signed.test", "wrong.signed.test", "none.signed.test", "unusable.signed.test", "alias.signed.test"),
    *("both.signed.test", "out.signed.test", "plainhost.signed.test", "broken.signed.test", "anchor.signed.test"),
    *("mixed.signed.test", "odd.signed.test", "cname.signed.test", "direct.signed.test", "[good.signed.test]"),
    *("plain.test", "good.plain.test", "none.plain.test", "unusable.plain.test", "mx.plain.test"),
)
"""The next hops of the deliveries."""


def zones(certificate: str, anchor: str) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Return the signed, unsigned and bogus zones. The arguments are SHA256 digests of the server and its authority."""
    good = f"3 0 1 {certificate}"
    odd = "".join(f"_25._tcp.oddhost TLSA {record}\n" for record in ODD)
    signed = SIGNED.format(good=good, anchor=f"2 0 1 {anchor}", wrong=WRONG, unusable=UNUSABLE, odd=odd)
    return {"signed.test": signed}, {"plain.test": PLAIN.format(good=good)}, {"bogus.test": f"tlsa TLSA {good}\n"}


def digest(file: Path) -> str:
    """Return the SHA-256 digest of a certificate."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(file.read_text())).hexdigest()


class TlsServer:
    """Takes mail after STARTTLS, without a dialogue worth the name."""

    def __init__(self, authority: Authority, certificate: Certificate) -> None:
        chain = certificate.cert.with_suffix(".chain")
        chain.write_text(certificate.cert.read_text() + authority.cert.read_text())
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(chain, certificate.key)

    def serve(self, client: socket.socket) -> None:
        """Answer one client."""
        client.sendall(b"220 mx\r\n")
        if self._commands(client, b"250-mx\r\n250 STARTTLS\r\n"):
            with self._tls.wrap_socket(client, server_side=True) as secured:
                self._commands(secured, b"250 mx\r\n")

    def _commands(self, client: socket.socket, greeting: bytes) -> bool:
        """Answer commands; return whether the client begins TLS."""
        in_data = False
        with client.makefile("rb") as lines:
            for line in lines:
                if in_data:
                    in_data = line != b".\r\n"
                    client.sendall(b"" if in_data else b"250 ok\r\n")
                elif line.startswith(b"STARTTLS"):
                    client.sendall(b"220 go\r\n")
                    return True
                elif line.startswith(b"EHLO"):
                    client.sendall(greeting)
                else:
                    in_data = line.startswith(b"DATA")
                    client.sendall(b"354 go\r\n" if in_data else b"250 ok\r\n")
        return False


@contextlib.contextmanager
def hosts(directory: Path) -> Iterator[None]:
    """Run the name server and the mail server of the zones in a network of this process's own."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    (directory / "resolv.conf").write_text("nameserver 127.0.0.1\noptions trust-ad\n")
    subprocess.run(["mount", "--bind", directory / "resolv.conf", "/etc/resolv.conf"], check=True)
    authority = Authority(directory, "authority")
    certificate = authority.sign("/CN=good.signed.test", "DNS:good.signed.test,DNS:anchorhost.signed.test")
    signed, unsigned, bogus = zones(digest(certificate.cert), digest(authority.cert))
    names = directory / "names"
    names.mkdir()
    server = Scripted(TlsServer(authority, certificate).serve, SMTP_PORT, HOST)
    with validating(names, signed, unsigned, bogus=bogus, port=DNS_PORT):
        yield
    server.close()


def main(directory: Path, settings: dict[str, str]) -> None:
    """Deliver a message to each domain, and print the lines of the log."""
    routes = " ".join(f"{{ d{at}.example = smtp:{domain} }}" for at, domain in enumerate(DOMAINS))
    main_cf = {
        "transport_maps": f"inline:{{ {routes} }}",
        "smtp_dns_support_level": "dnssec",
        "smtp_tls_loglevel": "1",
        **settings,
    }
    with hosts(directory):
        site = Site(directory, main_cf=main_cf, master_cf="tlsmgr unix - - n 1000? 1 tlsmgr\n")
        with running(site, "postfix"):
            print(json.dumps([_delivered(site, at) for at in range(len(DOMAINS))]))


def _delivered(site: Site, at: int) -> list[str]:
    """Deliver one message; return the lines of smtp(8) about it, without their begin."""
    before = len(site.log_text())
    command = [peer("sendmail"), "-C", str(site.etc), "-f", "a@example.org", f"u@d{at}.example"]
    subprocess.run(command, input="Subject: x\n\nx\n", text=True, check=True)
    done = re.compile(rf" to=<u@d{at}\.example>.* status=\w+ \(.*\n")
    wait_for("the delivery", lambda: done.search(site.log_text(), before))
    return re.findall(r"/smtp\[\d+\]: (.*)", site.log_text()[before:])


if __name__ == "__main__":
    main(Path(sys.argv[1]), dict(word.split("=", 1) for word in sys.argv[2:]))
