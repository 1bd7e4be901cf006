"""TLS in smtpd. One site on Postfix and on Postillion: dialogues, log, Received header, versions, ciphers, chains."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from support.certificates import RSA_KEY, Authority, Certificate
from support.mta import Site, local_user, running, wait_for
from support.peers import peer, postfix_home, root
from support.ports import free_port
from support.tls import CLOSED, TlsClient, context, negotiated, s_client

TLSMGR = "tlsmgr unix - - n 1000? 1 tlsmgr\n"
MAIL = ["MAIL FROM:<a@example.org>", f"RCPT TO:<{local_user()}@example.org>", "DATA"]
TLS_1_2 = ssl.TLSVersion.TLSv1_2
SERVICES = {
    "may": "",
    "encrypt": "smtpd_tls_security_level=encrypt",
    "wrapper": "smtpd_tls_wrappermode=yes",
    "ecdsa": "smtpd_tls_chain_files={ecdsa}",
    "ask": "smtpd_tls_ask_ccert=yes smtpd_tls_CAfile={ca}",
    "required": "smtpd_tls_security_level=encrypt smtpd_tls_req_ccert=yes smtpd_tls_CAfile={ca}",
    "required silent": "smtpd_tls_security_level=encrypt smtpd_tls_req_ccert=yes smtpd_tls_CAfile={ca}"
    " smtpd_tls_loglevel=0",
    "short": "smtpd_tls_security_level=encrypt smtpd_tls_req_ccert=yes smtpd_tls_CAfile={ca}"
    " smtpd_tls_ccert_verifydepth=0",
    "optional": "smtpd_tls_req_ccert=yes smtpd_tls_CAfile={ca}",
    "hidden": "smtpd_tls_received_header=no",
    "silent": "smtpd_tls_loglevel=0",
    "as under stress": "smtpd_junk_command_limit=1 smtpd_hard_error_limit=1",
    "chains": "smtpd_tls_chain_files={both}",
    "files": "smtpd_tls_chain_files= smtpd_tls_cert_file={rsa_cert} smtpd_tls_key_file={rsa_key}"
    " smtpd_tls_eccert_file={ecdsa_cert} smtpd_tls_eckey_file={ecdsa_key}",
}
"""Services of smtpd, each with its parameters beside those of `MAIN_CF`."""
MATRIX = {
    "defaults": "",
    "up to 1.2": "smtpd_tls_protocols=>=TLSv1.2,<=TLSv1.2",
    "from 1.2": "smtpd_tls_protocols=!SSLv2,!SSLv3,!TLSv1,!TLSv1.1",
    "by name": "smtpd_tls_protocols=TLSv1.1,TLSv1.3",
    "mandatory": "smtpd_tls_security_level=encrypt smtpd_tls_protocols=TLSv1 smtpd_tls_mandatory_protocols=>=TLSv1.3",
    "not mandatory": "smtpd_tls_mandatory_protocols=>=TLSv1.3 smtpd_tls_mandatory_ciphers=high",
    "high": "smtpd_tls_ciphers=high smtpd_tls_exclude_ciphers=AES256,CHACHA20",
    "mandatory ciphers": "smtpd_tls_security_level=encrypt smtpd_tls_mandatory_ciphers=high"
    " smtpd_tls_exclude_ciphers=AESGCM smtpd_tls_mandatory_exclude_ciphers=SHA384",
    "own list": "tls_medium_cipherlist=ECDHE-RSA-AES128-SHA256:AES128-SHA",
    "server first": "tls_preempt_cipherlist=yes tls_medium_cipherlist=AES128-SHA:ECDHE-RSA-AES256-GCM-SHA384",
    "curves": "tls_eecdh_auto_curves=P-521,X448",
    "strong": "smtpd_tls_eecdh_grade=strong",
    "ultra": "smtpd_tls_eecdh_grade=ultra",
    "none": "smtpd_tls_eecdh_grade=none",
    "strong with curves": "smtpd_tls_eecdh_grade=strong tls_eecdh_auto_curves=P-521",
}
"""The same for versions, ciphers and curves."""
CLIENTS = [
    "",
    "-tls1 -cipher ALL:@SECLEVEL=0",
    "-tls1_1 -cipher ALL:@SECLEVEL=0",
    "-tls1_2",
    "-tls1_2 -cipher aNULL:@SECLEVEL=0",
    "-tls1_2 -cipher kRSA",
    "-tls1_2 -cipher ECDHE-RSA-AES256-GCM-SHA384:AES128-SHA",
    "-tls1_2 -cipher DHE",
    "-tls1_2 -cipher CAMELLIA:ARIA:@SECLEVEL=0",
    "-tls1_3",
    "-tls1_3 -ciphersuites TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256",
    "-groups P-384:P-256",
    "-groups P-521",
    "-tls1_2 -groups X448:X25519",
]
"""Options of `openssl s_client`."""
MAIN_CF = {
    "smtpd_tls_security_level": "may",
    "smtpd_tls_chain_files": "{rsa}",
    "smtpd_tls_loglevel": "1",
    "smtpd_tls_received_header": "yes",
    "smtpd_client_port_logging": "yes",
    "smtpd_discard_ehlo_keywords": "silent-discard, etrn, requiretls",
    "smtpd_error_sleep_time": "0",
    "smtpd_hard_error_limit": "100",
}


class Keys(NamedTuple):
    """Certificates of the site and of its clients."""

    authority: Authority
    clients: dict[str, Certificate]
    files: dict[str, Path]

    def parameters(self, text: str) -> str:
        """Return `-o` options for parameters, with the files that their braces name."""
        words = text.format(**self.files).split(" ") if text else []
        return " ".join(f"-o {{ {name} = {value} }}" for name, _, value in (word.partition("=") for word in words))


def make_keys(directory: Path) -> Keys:
    """Return keys whose chains have an intermediate authority."""
    authority, other = Authority(directory, "authority"), Authority(directory, "other")
    middle = Authority(directory, "middle", authority)
    rsa = middle.sign("/CN=rsa.example", key=RSA_KEY)
    ecdsa = middle.sign("/CN=ecdsa.example")
    files = {"ca": authority.cert}
    for name, made in (("rsa", rsa), ("ecdsa", ecdsa)):
        chain = directory / f"{name}-chain.pem"
        chain.write_text(made.cert.read_text() + middle.cert.read_text())
        files[f"{name}_cert"], files[f"{name}_key"] = chain, made.key
        files[name] = directory / f"{name}.pem"
        files[name].write_text(made.key.read_text() + chain.read_text())
    files["both"] = directory / "both.pem"
    files["both"].write_text(files["rsa"].read_text() + files["ecdsa"].read_text())
    below = middle.sign("/CN=below.example")
    chain = directory / "below.pem"
    chain.write_text(below.cert.read_text() + middle.cert.read_text())
    lower = Authority(directory, "lower", middle)
    deep, deep_chain = lower.sign("/CN=deep.example"), directory / "deep.pem"
    deep_chain.write_text("".join(made.cert.read_text() for made in (deep, lower, middle)))
    clients = {
        "trusted": authority.sign("/CN=client.example"),
        "odd": other.sign('/CN=stranger (odd) "name'),
        "brackets": other.sign("/CN=a)b(c(d)"),
        "umlaut": other.sign("/CN=\u00fcber"),
        "control": other.sign("/CN=a\tb"),
        "expired": authority.sign_for("20000101000000Z", "20010101000000Z", "/CN=old.example"),
        "early": authority.sign_for("20990101000000Z", "21000101000000Z", "/CN=new.example"),
        "server": authority.sign("/CN=server.example", extensions=("extendedKeyUsage=serverAuth",)),
        "below": Certificate(chain, below.key),
        "deep": Certificate(deep_chain, deep.key),
        # Its chain ends at an authority that the client does not send.
        "loose": below,
        "self-signed": Certificate(other.cert, other.key),
    }
    return Keys(authority, clients, files)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    peer("openssl")
    return make_keys(tmp_path_factory.mktemp("keys"))


Script = Callable[[int], tuple[list[str], list[int]]]
"""Plays at a port; returns what the server said, and the client's ports whose sessions the log tells of."""


class Both:
    """The site on Postfix and on Postillion."""

    def __init__(self, sites: dict[str, Site], ports: dict[str, dict[str, int]]) -> None:
        self.sites = sites
        self.ports = ports

    def compare(self, service: str, script: Script) -> tuple[list[str], list[str]]:
        """Play a script at both; return dialogue and log, which are the same."""
        played = []
        for program, site in self.sites.items():
            before = len(site.log_text())
            said, clients = script(self.ports[program][service])
            log = [line for client in clients for line in session_log(site, client, before)]
            played.append((plain(said), plain(log)))
        assert played[0] == played[1]
        return played[0]

    def received(self, service: str, subject: str, tls: ssl.SSLContext, helo: str = "EHLO client.example") -> list[str]:
        """Deliver a message to both; return the Received header, which is the same."""
        headers = []
        for program, site in self.sites.items():
            client = TlsClient(self.ports[program][service])
            client.starttls(tls, helo)
            assert client.say(*MAIL, f"Subject: {subject}\r\n\r\n.", "QUIT")[-2].startswith("250 ")
            client.close()
            headers.append(received_header(site, subject))
        assert headers[0] == headers[1]
        return headers[0]


def plain(lines: list[str]) -> list[str]:
    """Return lines without what differs from session to session."""
    text = "\n".join(lines).replace(" commands=0/0", " commands=0")
    text = re.sub(r"(\[127\.0\.0\.1\]):\d+", r"\1", text)
    return re.sub(r"\b[0-9A-F]{8,}\b", "<ID>", text).splitlines()


def session_log(site: Site, client: int, before: int) -> list[str]:
    """Wait for the end of a session; return its lines and those of its process between them, without their heads.

    `before`: the length of the log before the session. An earlier client of another service may have had its port.
    """
    end = rf"disconnect from \S+\[127\.0\.0\.1\]:{client} .*"
    wait_for("the end of a session", lambda: re.search(end, site.log_text()[before:]))
    lines: list[str] = []
    process = ""
    for line in site.log_text()[before:].splitlines():
        found = re.search(r"/smtpd\[(\d+)\]: (.*)", line)
        if found is None:
            continue
        if re.fullmatch(rf"connect from \S+\[127\.0\.0\.1\]:{client}", found[2]):
            process = found[1]
        if process == found[1]:
            lines.append(re.sub(r"error:[0-9A-F]{8}:.*", "error", found[2]))
        if re.fullmatch(end, found[2]):
            break
    return lines


def received_header(site: Site, subject: str) -> list[str]:
    """Wait for a message; return the lines of its first Received header without ID and date."""
    found: list[str] = []

    def arrived() -> bool:
        messages = (path.read_text() for path in site.maildir(local_user()))
        found.extend(text for text in messages if f"\nSubject: {subject}\n" in text)
        return bool(found)

    wait_for(subject, arrived)
    header = re.search(r"^Received: .*\n(?:[ \t].*\n)*", found[0], re.MULTILINE)
    assert header is not None
    text = re.sub(r" id \w+", " id <ID>", re.sub(r"; .*", "; <date>", header[0]))
    return text.splitlines()


@pytest.fixture(scope="module")
def both(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    root()
    postfix_home()
    main_cf = {name: value.format(**keys.files) for name, value in MAIN_CF.items()}
    sites: dict[str, Site] = {}
    ports: dict[str, dict[str, int]] = {}
    for program in ("postfix", "postillion"):
        ports[program] = {name: free_port() for name in (*SERVICES, *MATRIX)}
        lines = [
            f"127.0.0.1:{ports[program][name]} inet n - n - - smtpd {keys.parameters(text)}\n"
            for name, text in (*SERVICES.items(), *MATRIX.items())
        ]
        sites[program] = Site(tmp_path_factory.mktemp(program), main_cf=main_cf, master_cf=TLSMGR + "".join(lines))
    with running(sites["postfix"], "postfix"), running(sites["postillion"]):
        yield Both(sites, ports)


def test_dialogue_where_tls_is_offered(both: Both) -> None:
    def script(port: int) -> tuple[list[str], list[int]]:
        client = TlsClient(port)
        said = [*client.reply(), *client.say("STARTTLS x", "EHLO a.example", "STARTTLS x", "starttls")]
        client.secure(context())
        said += client.say("MAIL FROM:<b@example.org>", "RSET", "STARTTLS", "EHLO a.example", "STARTTLS", "STARTTLS x")
        return said + client.say(*MAIL, "Subject: x\r\n\r\nhi\r\n.", "QUIT"), [client.port]

    said, log = both.compare("may", script)
    assert said.count("250-STARTTLS") == 1
    assert said.count("554 5.5.1 Error: TLS already active") == 2
    assert "TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)" in log[1]


def test_dialogue_where_tls_is_required(both: Both) -> None:
    commands = ["NOOP", *MAIL, "RSET", "VRFY root", "FOO", "AUTH PLAIN", "BDAT 3 LAST", "HELO x", *MAIL, "EHLO x"]

    def script(port: int) -> tuple[list[str], list[int]]:
        client = TlsClient(port)
        said = client.reply()
        for command in commands:
            said += [command, *client.say(command)]
        said += client.say("STARTTLS")
        client.secure(context(TLS_1_2))
        return said + client.say("EHLO x", MAIL[0], "RCPT TO:<b@elsewhere.example>", "QUIT"), [client.port]

    said, _ = both.compare("encrypt", script)
    assert said.count("530 5.7.0 Must issue a STARTTLS command first") >= 2 * len(MAIL)


def test_starttls_works_with_the_limits_of_stress(both: Both) -> None:
    def script(port: int) -> tuple[list[str], list[int]]:
        client = TlsClient(port)
        said = client.starttls(context())
        return [*said, *client.say(MAIL[0], "RSET", "RSET")], [client.port]

    said, _ = both.compare("as under stress", script)
    assert said[-3:] == ["250 2.1.0 Ok", "250 2.0.0 Ok", "421 4.7.0 mx.example.org Error: too many errors"]


def test_quit_needs_no_tls(both: Both) -> None:
    def script(port: int) -> tuple[list[str], list[int]]:
        client = TlsClient(port)
        return [*client.reply(), *client.say("QUIT"), *client.reply()], [client.port]

    both.compare("encrypt", script)


def test_dialogue_in_wrapper_mode(both: Both) -> None:
    def script(port: int) -> tuple[list[str], list[int]]:
        client = TlsClient(port, context())
        said = [*client.reply(), *client.say("EHLO a.example", "STARTTLS", *MAIL)]
        return said + client.say("Subject: w\r\n\r\nhi\r\n.", "QUIT"), [client.port]

    said, _ = both.compare("wrapper", script)
    assert "250-STARTTLS" not in said


def test_plaintext_in_wrapper_mode_is_not_answered(both: Both) -> None:
    def script(port: int) -> tuple[list[str], list[int]]:
        client = TlsClient(port)
        return client.say("EHLO a.example"), [client.port]

    said, log = both.compare("wrapper", script)
    assert said == [CLOSED]
    assert any("SSL_accept error from unknown[127.0.0.1]: -1" in line for line in log)


def test_close_notify_ends_the_session(both: Both) -> None:
    def script(port: int) -> tuple[list[str], list[int]]:
        client = TlsClient(port)
        said = client.starttls(context())
        assert isinstance(client.socket, ssl.SSLSocket)
        # It waits for the server's.
        with contextlib.suppress(ssl.SSLEOFError):
            client.socket.unwrap()
        return said, [client.port]

    _, log = both.compare("may", script)
    assert "lost connection after EHLO from unknown[127.0.0.1]" in log


@pytest.mark.parametrize("rest", ["NOOP\r\n", "EHLO b\r\nMAIL FROM:<evil@example.org>\r\n", "MAIL FROM"])
def test_plaintext_behind_starttls_has_no_effect(both: Both, rest: str) -> None:
    def script(port: int) -> tuple[list[str], list[int]]:
        client = TlsClient(port)
        said = [*client.reply(), *client.say("EHLO a.example")]
        client.socket.sendall(f"STARTTLS\r\n{rest}".encode())
        said += client.reply()
        client.secure(context())
        return said + client.say("RCPT TO:<b@example.org>", "EHLO b", "QUIT"), [client.port]

    said, log = both.compare("may", script)
    assert "503 5.5.1 Error: need MAIL command" in said
    assert " noop=" not in log[-1]


def refused(port: int, act: Callable[[TlsClient], object]) -> tuple[list[str], list[int]]:
    """Play a handshake that fails: STARTTLS, then `act`."""
    client = TlsClient(port)
    said = [*client.reply(), *client.say("EHLO a.example", "STARTTLS")]
    try:
        act(client)
    except ssl.SSLError as error:
        said.append(str(error.reason))
    return said, [client.port]


def say_garbage(client: TlsClient) -> None:
    assert client.say("EHLO b\r\nthis is no TLS") == [CLOSED]


FAILURES: dict[str, Callable[[TlsClient], object]] = {
    "garbage": say_garbage,
    "leaves": TlsClient.close,
    "no shared cipher": lambda client: client.secure(context(TLS_1_2, "ECDHE-ECDSA-AES128-GCM-SHA256")),
    "no shared version": lambda client: client.secure(context(ssl.TLSVersion.TLSv1_3)),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_failed_handshake_ends_the_session(both: Both, failure: str) -> None:
    service = "up to 1.2" if failure == "no shared version" else "may"
    _, log = both.compare(service, lambda port: refused(port, FAILURES[failure]))
    assert any("SSL_accept error from unknown[127.0.0.1]: " in line for line in log)
    assert log[-2].startswith("lost connection after STARTTLS from ")


@pytest.mark.parametrize(
    ("service", "version", "helo", "words"),
    [
        ("may", None, "EHLO client.example", "server-signature RSA-PSS (2048 bits) server-digest SHA256"),
        ("may", None, "HELO client.example", "with SMTP id"),
        ("may", TLS_1_2, "EHLO client.example", "using TLSv1.2 with cipher ECDHE-RSA-AES256-GCM-SHA384"),
        ("ecdsa", None, "EHLO client.example", "server-signature ECDSA (prime256v1) server-digest SHA256"),
        ("ask", None, "EHLO client.example", "Client did not present a certificate"),
        ("hidden", None, "EHLO client.example", "with ESMTPS id"),
        ("encrypt", None, "EHLO client.example", "No client certificate requested"),
    ],
)
def test_received_header(both: Both, service: str, version: ssl.TLSVersion | None, helo: str, words: str) -> None:
    subject = f"{service} {helo[:4]} {version}"
    header = both.received(service, subject, context(version), helo)
    assert words in " ".join(line.strip() for line in header), header


VERDICTS = {
    "trusted": ("authority", "verified OK"),
    **dict.fromkeys(("odd", "brackets", "umlaut", "control"), ("other", "not verified")),
}
"""In the Received header: the name of the issuer, and whether the certificate is trusted."""


@pytest.mark.parametrize("version", [None, TLS_1_2])
@pytest.mark.parametrize("which", VERDICTS)
def test_client_certificate_in_header(both: Both, keys: Keys, which: str, version: ssl.TLSVersion | None) -> None:
    header = both.received("ask", f"certificate {which} {version}", context(version, certificate=keys.clients[which]))
    issuer, verdict = VERDICTS[which]
    (line,) = [line for line in header if line.startswith("\t(Client CN ")]
    assert line.endswith(f'Issuer "{issuer}" ({verdict}))')


def served(tls: ssl.SSLContext) -> Script:
    """Return a script of one session by STARTTLS."""

    def script(port: int) -> tuple[list[str], list[int]]:
        client = TlsClient(port)
        said = client.starttls(tls)
        return [*said, *(client.say("QUIT") if said[-1][:3] == "250" else client.reply())], [client.port]

    return script


CERTIFICATES = ["trusted", "odd", "expired", "early", "server", "below", "deep", "self-signed", "loose"]


@pytest.mark.parametrize("service", ["ask", "required", "required silent", "short"])
@pytest.mark.parametrize("which", CERTIFICATES)
def test_log_of_a_client_certificate(both: Both, keys: Keys, service: str, which: str) -> None:
    said, log = both.compare(service, served(context(certificate=keys.clients[which])))
    is_trusted = which in ("trusted", "below") or (which == "deep" and service != "short")
    is_refused = not is_trusted and not service.startswith("ask")
    assert ("421 4.7.1 mx.example.org Error: Client certificate not trusted" in said) == is_refused
    is_logged = service != "required silent"
    assert any(line.startswith("Trusted TLS connection ") for line in log) == (is_trusted and is_logged)


@pytest.mark.parametrize("service", ["required", "optional"])
@pytest.mark.parametrize("which", ["none", "odd", "trusted"])
def test_required_client_certificate(both: Both, keys: Keys, service: str, which: str) -> None:
    tls = context(certificate=keys.clients.get(which))
    said, log = both.compare(service, served(tls))
    problem = {"none": "No client certificate presented", "odd": "Client certificate not trusted", "trusted": ""}
    is_refused = service == "required" and which != "trusted"
    assert (f"421 4.7.1 mx.example.org Error: {problem[which]}" in said) == is_refused
    assert (f"NOQUEUE: abort: TLS from unknown[127.0.0.1]: {problem[which]}" in log) == is_refused


def test_log_level_0_tells_nothing_of_tls(both: Both) -> None:
    _, log = both.compare("silent", served(context()))
    assert [line.partition(" ")[0] for line in log] == ["connect", "disconnect"]


@pytest.mark.parametrize("service", MATRIX)
def test_versions_ciphers_and_curves(both: Both, service: str) -> None:
    """The same handshakes succeed, with the same version, cipher and curve."""
    rows = [(program, words) for program in both.sites for words in CLIENTS]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda row: negotiated(both.ports[row[0]][service], *row[1].split()), rows))
    postfix, ours = (dict(zip(CLIENTS, part, strict=True)) for part in (found[: len(CLIENTS)], found[len(CLIENTS) :]))
    assert ours == postfix
    assert len(set(ours.values())) > 1


@pytest.mark.parametrize("service", ["chains", "files"])
@pytest.mark.parametrize(("algorithm", "name"), [("RSA-PSS+SHA256", "rsa"), ("ECDSA+SHA256", "ecdsa")])
def test_client_gets_the_chain_of_the_key_that_it_wants(
    both: Both, keys: Keys, service: str, algorithm: str, name: str
) -> None:
    words = ["-CAfile", str(keys.authority.cert), "-sigalgs", algorithm, "-verify_return_error", "-showcerts"]
    chains = []
    for program in both.sites:
        output = s_client(both.ports[program][service], *words)
        assert "Verify return code: 0 (ok)" in output
        chains.append(re.findall(r"^ *\d+ s:(.*)", output, re.MULTILINE))
    assert chains[0] == chains[1] == [f"CN = {name}.example", "CN = middle"]


def test_sessions_are_served_side_by_side(both: Both) -> None:
    """A client in the middle of its handshake holds up no other."""
    port = both.ports["postillion"]["wrapper"]
    with socket.create_connection(("127.0.0.1", port)) as waiting:
        waiting.sendall(b"\x16\x03\x01")
        assert TlsClient(port, context()).reply() == ["220 mx.example.org ESMTP Postfix"]
