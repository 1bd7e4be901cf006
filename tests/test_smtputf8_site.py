"""SMTPUTF8 (RFC 6531): Postfix and Postillion accept, send and bounce the same mail."""

from __future__ import annotations

import re
import smtplib
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import pytest

from postillion.dns import to_ascii
from support.either import PROGRAMS, program
from support.mta import Site, commands_of, running, wait_for
from support.ports import free_port
from support.wire_sink import WireSink

VARIANTS = {
    "default": {},
    "all": {"smtputf8_autodetect_classes": "all", "enable_idna2003_compatibility": "yes"},
    "none": {"smtputf8_autodetect_classes": "verify", "strict_smtputf8": "yes"},
    "off": {"smtputf8_enable": "no"},
}
"""The parameters of each site."""
EXTENSIONS = ("PIPELINING", "8BITMIME", "DSN")
U_LABEL, A_LABEL = "m\u00fcnchen.example", "xn--mnchen-3ya.example"
OTHER_U, OTHER_A = "b\u00fccher.example", "xn--bcher-kva.example"
ASCII = "From: x@y.example\nSubject: x\n\nbody\n"
HEADER = "From: x@y.example\nSubject: \u00fc\n\nbody\n"
BODY = "From: x@y.example\nSubject: x\n\n\u00fc\n"
PART = "From: x@y.example\nContent-Type: multipart/mixed; boundary=b\n\n--b\nX-S: \u00fc\n\nx\n--b--\n"
ATTACHED = "From: x@y.example\nContent-Type: message/rfc822\n\nSubject: \u00fc\n\nx\n"
UNSUPPORTED = "555 5.5.4 Unsupported option: SMTPUTF8"
BOUNCED = "5.6.7"
UNDECLARED = "553 5.6.7 Must declare SMTPUTF8 to send unicode address"


class Case(NamedTuple):
    """One message, and its result at each site: the MAIL command at the next hop, a refusal, or `BOUNCED`.

    The next hop of no8.example has no SMTPUTF8. `parameters` None: sent with sendmail.
    """

    name: str
    sender: str
    recipient: str
    parameters: str | None
    text: str
    default: str
    all: str
    none: str
    off: str


def plain(sender: str) -> str:
    return f"MAIL FROM:<{sender}>"


def utf8(sender: str) -> str:
    return f"MAIL FROM:<{sender}> SMTPUTF8"


S, J = "s@y.example", "j\u00fcrgen@y.example"
R, RJ = "r@z.example", "j\u00fcrgen@z.example"
R8, RJ8 = "r@no8.example", "j\u00fcrgen@no8.example"
P = " SMTPUTF8"
CASES = [
    Case("sender", J, R, "", ASCII, plain(J), utf8(J), UNDECLARED, plain(J)),
    Case("sender, declared", J, R, P, ASCII, utf8(J), utf8(J), utf8(J), UNSUPPORTED),
    Case("sender, old next hop", J, R8, "", ASCII, plain(J), BOUNCED, UNDECLARED, plain(J)),
    Case("sender, declared, old next hop", J, R8, P, ASCII, BOUNCED, BOUNCED, BOUNCED, UNSUPPORTED),
    Case("recipient", S, RJ, "", ASCII, plain(S), utf8(S), UNDECLARED, plain(S)),
    Case("recipient, declared", S, RJ, P, ASCII, utf8(S), utf8(S), utf8(S), UNSUPPORTED),
    Case("recipient, declared, old next hop", S, RJ8, P, ASCII, BOUNCED, BOUNCED, BOUNCED, UNSUPPORTED),
    Case("declared without need", S, R, P, ASCII, utf8(S), utf8(S), utf8(S), UNSUPPORTED),
    Case("declared without need, old next hop", S, R8, P, ASCII, plain(S), plain(S), plain(S), UNSUPPORTED),
    Case("header, old next hop", S, R8, "", HEADER, plain(S), BOUNCED, plain(S), plain(S)),
    Case("header, declared, old next hop", S, R8, P, HEADER, BOUNCED, BOUNCED, BOUNCED, UNSUPPORTED),
    Case("body, declared, old next hop", S, R8, P, BODY, plain(S), plain(S), plain(S), UNSUPPORTED),
    Case("header of a part, declared, old next hop", S, R8, P, PART, BOUNCED, BOUNCED, BOUNCED, UNSUPPORTED),
    Case("attached header, declared, old next hop", S, R8, P, ATTACHED, BOUNCED, BOUNCED, BOUNCED, UNSUPPORTED),
    Case("sendmail, sender", J, R, None, ASCII, utf8(J), utf8(J), plain(J), plain(J)),
    Case("sendmail, recipient, old next hop", S, RJ8, None, ASCII, BOUNCED, BOUNCED, plain(S), plain(S)),
    Case("sendmail, header", S, R, None, HEADER, utf8(S), utf8(S), plain(S), plain(S)),
    Case("sendmail, header, old next hop", S, R8, None, HEADER, BOUNCED, BOUNCED, plain(S), plain(S)),
    Case("sendmail, body, old next hop", S, R8, None, BODY, plain(S), plain(S), plain(S), plain(S)),
    Case("sendmail, ascii", S, R, None, ASCII, plain(S), plain(S), plain(S), plain(S)),
]
NAMES = {
    "b\u00fccher": ("xn--bcher-kva", "xn--bcher-kva"),
    "stra\u00dfe": ("xn--strae-oqa", "strasse"),
    "\u0392\u038c\u039b\u039f\u03a3": ("xn--nxasmq6b", "xn--nxasmq6b"),
    "\uff26\uff35\uff2c\uff2c\u00fc": ("xn--full-3ra", "xn--full-3ra"),
}
"""Labels, and their form in DNS: by default, and with enable_idna2003_compatibility."""


class Peer:
    """A running site of one program, with two next hops: one with SMTPUTF8, and one without."""

    def __init__(self, site: Site, mta: str, variant: str, sinks: list[WireSink]) -> None:
        self.site = site
        self.mta = mta
        self.variant = variant
        self.sinks = sinks

    def talk(self, commands: list[str]) -> list[str]:
        """Return the last line of the reply to each command, after EHLO, up to the first refusal."""
        replies: list[str] = []
        with socket.create_connection(("127.0.0.1", self.site.port)) as connection, connection.makefile("rwb") as file:
            file.readline()
            for command in ["EHLO client.example", *commands, "QUIT"]:
                file.write(f"{command}\r\n".encode())
                file.flush()
                line = file.readline().decode()
                while line[3] == "-":
                    line = file.readline().decode()
                replies.append(line.rstrip())
                if line[0] in "45":
                    break
        return replies[1:]

    def sendmail(self, case: Case) -> None:
        """Send a message with the program's own sendmail."""
        sendmail = str(commands_of(self.mta) / "sendmail")
        command = [sendmail, "-C", str(self.site.etc), "-f", case.sender, case.recipient]
        subprocess.run(command, input=case.text.encode(), check=True, timeout=60)

    def send(self, case: Case) -> tuple[str, str]:
        """Return the result of a message, and the log since its start."""
        seen = len(self.site.log_text())
        for sink in self.sinks:
            sink.commands.clear()
            sink.messages.clear()

        def log() -> str:
            return self.site.log_text()[seen:]

        if case.parameters is None:
            self.sendmail(case)
        else:
            content = case.text.replace("\n", "\r\n") + "."
            mail = [f"MAIL FROM:<{case.sender}>{case.parameters}", f"RCPT TO:<{case.recipient}>", "DATA", content]
            replies = self.talk(mail)
            if replies[-1][0] == "5":
                return replies[-1], log()
        status = re.compile(r"to=<(?!s@y|j\S*@y).*dsn=(\S+), status=(\w+) \((.*)\)")
        wait_for("the status", lambda: status.search(log()))
        dsn, _, text = status.findall(log())[0]
        if dsn != "2.0.0":
            assert text == "SMTPUTF8 is required, but was not offered by host 127.0.0.1[127.0.0.1]"
            # The report goes to the sender.
            self.sinks[0].wait({case.sender})
            return dsn, log()
        commands = [command for sink in self.sinks for command in sink.commands if command.startswith("MAIL")]
        assert len(commands) == 1
        return re.sub(r" (SIZE=\d+|BODY=8BITMIME)", "", commands[0]), log()


RUNS = [(mta, variant) for variant in VARIANTS for mta in PROGRAMS]


@pytest.fixture(scope="module", params=RUNS, ids="-".join)
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    mta, variant = request.param
    request.param = mta
    program(request)
    site = Site(tmp_path_factory.mktemp(f"{mta}-{variant}"), main_cf={})
    old_port = free_port()
    hops = [f"no8.example=smtp:[127.0.0.1]:{old_port}", "stra\u00dfe.example=error:5.9.9 listed"]
    hops += [f"d{number}.example=smtp:[{name}.invalid]" for number, name in enumerate(NAMES)]
    values = {
        "transport_maps": "inline:{" + ", ".join("{" + hop + "}" for hop in hops) + "}",
        "default_transport": f"smtp:[127.0.0.1]:{site.next_port}",
        "mydestination": f"example.org, localhost, {U_LABEL}, {OTHER_A}",
        "local_transport": "error:5.8.8 local",
        "local_recipient_maps": "",
        **VARIANTS[variant],
    }
    lines = [line for line in (site.etc / "main.cf").read_text().splitlines() if line.split(" ")[0] not in values]
    lines += [f"{name} = {value}" for name, value in values.items()]
    (site.etc / "main.cf").write_text("\n".join(lines) + "\n")
    sinks = WireSink(site.next_port, (*EXTENSIONS, "SMTPUTF8")), WireSink(old_port, EXTENSIONS)
    with sinks[0], sinks[1], running(site, mta):
        yield Peer(site, mta, variant, list(sinks))


def test_mail_is_sent_and_bounced_as_its_addresses_and_headers_need(peer: Peer) -> None:
    found = {case.name: peer.send(case)[0] for case in CASES}
    assert found == {case.name: getattr(case, peer.variant) for case in CASES}


def test_ehlo_offers_smtputf8_as_the_site_says(peer: Peer) -> None:
    with smtplib.SMTP("127.0.0.1", peer.site.port) as client:
        client.ehlo("client.example")
        assert client.has_extn("SMTPUTF8") == (peer.variant != "off")


def test_vrfy_takes_an_address_in_utf8_with_the_parameter(peer: Peer) -> None:
    bad = "501 5.1.3 Bad recipient address syntax"
    declared = bad if peer.variant == "off" else f"550 5.8.8 <j\u00fc@{U_LABEL}>: Recipient address rejected: local"
    for command, expected in [
        (f"VRFY j\u00fc@{U_LABEL} SMTPUTF8", declared),
        (f"VRFY j\u00fc@{U_LABEL}", bad),
        ("VRFY r@example.org smtputf8", declared.replace(f"j\u00fc@{U_LABEL}", "r@example.org")),
    ]:
        assert peer.talk([command])[0] == expected, command


def test_tables_have_the_form_of_a_domain_that_they_list(peer: Peer) -> None:
    if peer.variant != "default":
        pytest.skip("the same at each site with SMTPUTF8")
    local, listed, relayed = "550 5.8.8", "550 5.9.9", "250 2.1.5"
    for domain, expected in [
        (U_LABEL, local),
        (U_LABEL.upper(), local),
        (A_LABEL, relayed),
        (OTHER_U, relayed),
        (OTHER_A, local),
        ("stra\u00dfe.example", listed),
        ("xn--strae-oqa.example", relayed),
        # Case folding makes the sharp s the same as ss.
        ("strasse.example", listed),
        ("\u00fc-.example", "501 5.1.3"),
        ("-\u00fc.example", "501 5.1.3"),
    ]:
        replies = peer.talk(["MAIL FROM:<s@y.example> SMTPUTF8", f"RCPT TO:<r@{domain}>"])
        assert replies[1].startswith(expected), domain


def test_names_have_the_a_labels_that_postfix_asks_dns_for(peer: Peer) -> None:
    if peer.variant not in ("default", "all"):
        pytest.skip("the same as the default")
    idna2003 = peer.variant == "all"
    for number, (label, forms) in enumerate(NAMES.items()):
        name = f"{forms[idna2003]}.invalid"
        assert to_ascii(f"{label}.invalid", idna2003=idna2003) == name
        if peer.mta == "postfix":
            peer.talk(["MAIL FROM:<>", f"RCPT TO:<r@d{number}.example>", "DATA", "Subject: x\r\n\r\nx\r\n."])
            asked = re.compile(rf"to=<r@d{number}\.example>.*Name service error for name=(\S+) type=A")
            wait_for(f"a question for {name}", partial(found_in, peer.site, asked))
            found = asked.search(peer.site.log_text())
            assert found is not None
            assert found[1] == name


def found_in(site: Site, pattern: re.Pattern[str], start: int = 0) -> bool:
    return pattern.search(site.log_text(), start) is not None


def test_an_original_recipient_goes_on_in_ascii(peer: Peer) -> None:
    if peer.variant != "default":
        pytest.skip("the same at each site with SMTPUTF8")
    for given in ("utf-8;j\u00fcrgen@o.example", r"utf-8;j\x{FC}rgen@o.example"):
        seen = len(peer.site.log_text())
        peer.sinks[0].commands.clear()
        rcpt = f"RCPT TO:<{RJ}> ORCPT={given} NOTIFY=FAILURE"
        peer.talk([f"MAIL FROM:<{S}> SMTPUTF8", rcpt, "DATA", "Subject: x\r\n\r\nx\r\n."])
        wait_for("the delivery", partial(found_in, peer.site, re.compile(r"status=sent"), seen))
        assert rf"RCPT TO:<{RJ}> ORCPT=utf-8;j\x{{FC}}rgen@o.example NOTIFY=FAILURE" in peer.sinks[0].commands
    peer.send(Case("", S, RJ, None, ASCII, "", "", "", ""))
    assert rf"RCPT TO:<{RJ}> ORCPT=utf-8;j\x{{FC}}rgen@z.example" in peer.sinks[0].commands


def test_the_report_about_an_address_in_utf8_is_in_utf8(peer: Peer) -> None:
    if peer.variant != "default":
        pytest.skip("the same at each site with SMTPUTF8")
    peer.send(Case("", J, RJ8, " SMTPUTF8", HEADER, "", "", "", ""))
    commands = peer.sinks[0].commands
    assert re.sub(" BODY=8BITMIME", "", next(line for line in commands if line.startswith("MAIL"))) == utf8("")
    # Postfix may break a line inside a character.
    report = peer.sinks[0].messages[J][0].decode(errors="replace")
    for line in (
        "Content-Type: message/global-delivery-status",
        f"Final-Recipient: utf-8; {RJ8}",
        "Status: 5.6.7",
        "Content-Type: message/global",
    ):
        assert f"\r\n{line}\r\n" in report, line
