"""posttls-finger: output and exit status as Debian's, against the same servers."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from postillion.commands import posttls_finger
from support import peers, tls_server
from support.certificates import RSA_KEY, Authority, Certificate
from support.finger_site import OURS, ROWS
from support.mta import let_others_pass
from support.scripted import Scripted
from support.tls_peer import Kind, TlsPeer, by, silent

NAME = "mx.example.org"
PEM = re.compile(r"\n---\nCertificate chain\n(?: *\d+ subject: .*\n(?:.*\n)*?-----END CERTIFICATE-----\n)+")
CACHE_LINE = re.compile(r"posttls-finger: (?:looking for|reloaded|save) session .*\n")
DNSSEC_LINE = re.compile(r"posttls-finger: warning: (?:DNSSEC validation may|reason: dnssec_probe).*\n")
STEP_LINE = re.compile(r"posttls-finger: (?:initializing |setting up |SSL_connect:|\S+: (?:TLS cipher list|depth=))")
DIALOGUE = (b"220 mx ESMTP", b"250-mx\r\n250-STARTTLS\r\n250 8BITMIME", b"220 go")


class Keys(NamedTuple):
    """The files of the servers."""

    authority: Authority
    leaf: Certificate
    chain: Certificate
    fingerprint: str


class Said(NamedTuple):
    """The output of a program, in which the port of the server is PORT; the chain is not part of `lines`."""

    status: int
    lines: list[str]
    chain: str
    errors: str


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Certificates of an authority."""
    peers.peer("posttls-finger")
    authority = Authority(tmp_path_factory.mktemp("keys"), "authority")
    leaf = authority.sign(f"/O=Example/CN={NAME}", f"DNS:{NAME},DNS:*.w.example", key=RSA_KEY)
    chain = leaf.cert.with_suffix(".chain")
    chain.write_text(leaf.cert.read_text() + authority.cert.read_text())
    der = ssl.PEM_cert_to_DER_cert(leaf.cert.read_text())
    return Keys(authority, leaf, Certificate(chain, leaf.key), hashlib.sha256(der).hexdigest())


@pytest.fixture(scope="module")
def served(keys: Keys) -> Iterator[TlsPeer]:
    """A server with TLS."""
    with closing(TlsPeer(Kind(by(tls_server.context(keys.chain))))) as server:
        yield server


def run(program: str, port: int, *words: str) -> Said:
    """Run posttls-finger; `{port}` in a word is that of the server."""
    command = [program, *(word.format(port=port) for word in words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    output = done.stdout.replace(f":{port}", ":PORT")
    chain = PEM.search(output)
    output = CACHE_LINE.sub("", PEM.sub("", output))
    return Said(done.returncode, output.splitlines(), chain[0] if chain is not None else "", done.stderr)


def both(port: int, *words: str) -> tuple[Said, Said]:
    """Run our posttls-finger and Debian's."""
    return run(OURS, port, *words), run(peers.peer("posttls-finger"), port, *words)


def words_of(keys: Keys, text: str, server: str = "[127.0.0.1]:{port}") -> list[str]:
    """Return the arguments of a row: `AUTHORITY` and others are files and digests, `TO` is the server."""
    known = {
        "TO": server,
        "AUTHORITY": str(keys.authority.cert),
        "DIRECTORY": str(keys.authority.path),
        "FINGERPRINT": keys.fingerprint,
        "KEY": str(keys.leaf.key),
        "CERT": str(keys.leaf.cert),
        "OTHER": "00" * 32,
    }
    return [known.get(word, word) for word in text.split()]


@pytest.mark.parametrize(
    "text",
    [
        "TO",
        "-c TO",
        "-l none TO",
        "-l may TO",
        "-l encrypt TO",
        "-l may TO name.example",
        "-l verify TO",
        "-l secure TO",
        "-l dane-only TO",
        "-l secure -F AUTHORITY TO mx.example.org",
        "-l secure -P DIRECTORY TO mx.example.org",
        "-l verify -F AUTHORITY TO other.example",
        "-l verify -A AUTHORITY TO any.w.example",
        "-l secure -A CERT TO mx.example.org",
        "-l secure -F AUTHORITY TO .example.org",
        "-F AUTHORITY TO mx.example.org",
        "-l fingerprint TO FINGERPRINT",
        "-l fingerprint TO OTHER FINGERPRINT",
        "-l fingerprint TO OTHER",
        "-l fingerprint TO",
        "-l secure -d sha1 TO",
        "-l secure -d sha512 TO",
        "-l secure -L none TO",
        "-l encrypt -L none TO",
        "-l encrypt -L untrusted TO",
        "-l encrypt -L peercert TO",
        "-l encrypt -L certmatch,summary TO",
        "-l encrypt -L verbose,summary TO",
        "-l verify -F AUTHORITY -L verbose,summary TO other.example",
        "-l secure -F AUTHORITY -L verbose,summary TO mx.example.org",
        "-l secure -F AUTHORITY -L debug TO mx.example.org",
        "-l secure -g high TO",
        "-l secure -p TLSv1.2 TO",
        "-l secure -p <=TLSv1.2 TO",
        "-l secure -k CERT -K KEY TO",
        "-l secure -s mx.example.org TO",
        "-l secure -o myhostname=client.example TO",
        "-S -l secure TO",
        "-S -l secure inet:[127.0.0.1]:{port}",
        "-l secure -h native TO",
        "-l secure -a ipv4 TO",
        "-w -c -l secure TO",
        "-l secure -F AUTHORITY -r 1 TO mx.example.org",
        "-l encrypt -c -r 1 TO",
        "-l none -r 1 TO",
        "-l secure -m 3 -T 20 -t 20 -v -c [127.0.0.1]:1",
        "-l secure [127.0.0.1]:0",
        "-l secure [127.0.0.1]:nosuch",
        "-l secure nosuch.invalid",
        "-l nosuch TO",
        "-M nosuch TO",
        "-a nosuch TO",
        "-h nosuch TO",
    ],
)
def test_output_is_that_of_postfix(keys: Keys, served: TlsPeer, text: str) -> None:
    words = words_of(keys, text)
    ours, theirs = both(served.port, *words)
    expected = [line for line in theirs.lines if "warning: DNSSEC" not in line and "dnssec_probe" not in line]
    if "verbose,summary" in words or "debug" in words:
        expected = [line for line in expected if not STEP_LINE.match(line)]
        ours = ours._replace(lines=[line for line in ours.lines if "warning: -L debug" not in line])
    if "-v" in words:
        expected = [line for line in expected if "Failed to establish" in line]
    if words[-1].startswith("[127.0.0.1]:0"):
        # Debian's names the destination too.
        expected = [line.partition(" for destination")[0] for line in expected]
    assert ours._replace(errors="") == theirs._replace(errors="", lines=expected)
    assert ours.lines


@pytest.mark.parametrize("text", ["-C -l secure TO", "-cC -L none -l encrypt -d sha1 TO"])
def test_chain_is_printed_as_by_postfix(keys: Keys, served: TlsPeer, text: str) -> None:
    ours, theirs = both(served.port, *words_of(keys, text))
    assert ours == theirs
    assert ours.chain.count("-----BEGIN CERTIFICATE-----") == 2
    assert ours.chain.index(keys.leaf.cert.read_text()) < ours.chain.index(keys.authority.cert.read_text())


@pytest.mark.parametrize("names", [("mx.example",), ("a.example", "b.example"), ("a.example", "b.example", "c.test")])
@pytest.mark.parametrize("count", ["0", "2"])
def test_servers_are_told_apart_by_their_names(keys: Keys, names: tuple[str, ...], count: str) -> None:
    def shake(client: socket.socket) -> socket.socket | None:
        # A context of its own resumes no session.
        return by(tls_server.context(keys.chain))(client)

    text = f"-c -l secure -F AUTHORITY -r 1 -m {count} TO mx.example.org"
    said: list[Said] = []
    for program in (OURS, peers.peer("posttls-finger")):
        with closing(TlsPeer(Kind(shake, names=names))) as server:
            said.append(run(program, server.port, *words_of(keys, text)))
    assert said[0] == said[1]


def lines_server(*answers: bytes) -> Callable[[socket.socket], None]:
    """Return a server that says its lines one by one, waits for a command after each, and closes."""

    def serve(client: socket.socket) -> None:
        with client.makefile("rb") as commands:
            for answer in answers:
                client.sendall(answer + b"\r\n" if answer else b"")
                if not commands.readline():
                    return

    return serve


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("refused", (b"554 5.7.1 go away",)),
        ("several lines", (b"220-mx\r\n220 more", b"250 mx", b"221 bye")),
        ("odd octets", (b"220 \x1b[1m\xff mx", b"250-a\tb\r\n250 \xc3\xa4", b"221 bye")),
        ("no code", (b"hello",)),
        ("short code", (b"22 mx",)),
        ("ehlo refused", (b"220 mx", b"502 what")),
        ("ehlo refused in lines", (b"220 mx", b"502-what\r\n502 now")),
        ("closed at ehlo", (b"220 mx",)),
        ("without tls", (b"220 mx", b"250-mx\r\n250 SIZE", b"221 bye")),
        ("keyword in lower case", (b"220 mx", b"250-mx\r\n250 starttls", b"454 no")),
        ("keyword with value", (b"220 mx", b"250-mx\r\n250 STARTTLS=yes", b"454 no")),
        ("starttls refused", (*DIALOGUE[:2], b"454 4.7.0 not now")),
        ("closed at starttls", DIALOGUE[:2]),
        ("closed in the handshake", DIALOGUE),
        ("nonsense in the handshake", (*DIALOGUE[:2], b"220 go\r\nhello, this is no TLS record at all")),
        ("closed at quit", (b"220 mx", b"250 mx")),
    ],
)
def test_server_without_tls_is_told_as_by_postfix(name: str, answers: tuple[bytes, ...]) -> None:
    with closing(Scripted(lines_server(*answers))) as server:
        ours, theirs = both(server.port, "-l", "secure", "[127.0.0.1]:{port}")
    assert (name, ours) == (name, theirs)


def test_silent_server_is_a_timeout() -> None:
    with closing(Scripted(silent)) as server:
        ours, theirs = both(server.port, "-t", "1", "-l", "secure", "[127.0.0.1]:{port}")
    assert ours == theirs
    assert ours.lines[-1] == "posttls-finger: timeout while reading server greeting"


def test_wrapper_mode_begins_with_tls(keys: Keys) -> None:
    with closing(TlsPeer(Kind(by(tls_server.context(keys.chain)), wrapper=True))) as server:
        ours, theirs = both(server.port, "-w", "-l", "secure", "[127.0.0.1]:{port}")
    assert ours == theirs
    assert "posttls-finger: < 220 mx.example ESMTP" in ours.lines


def test_server_without_certificate_is_anonymous() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("aNULL@SECLEVEL=0")
    with closing(TlsPeer(Kind(by(context)))) as server:
        ours, theirs = both(server.port, "-l", "may", "-C", "[127.0.0.1]:{port}")
        refused = both(server.port, "-c", "-l", "secure", "[127.0.0.1]:{port}")
    assert ours == theirs
    assert "posttls-finger: Server is anonymous" in ours.lines
    assert refused[0] == refused[1]


def test_socket_of_lmtp_is_probed(tmp_path: Path) -> None:
    # Debian's says that the session failed, and nothing else, also when it is connected.
    peers.root()
    path = tmp_path / "socket"
    # posttls-finger connects as mail_owner.
    let_others_pass(tmp_path)
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen()
        listener.settimeout(30)
        process = subprocess.Popen([OURS, "-S", f"unix:{path}"], stdout=subprocess.PIPE, text=True)
        client, _ = listener.accept()
        with client:
            lines_server(b"220 mx", b"250 mx", b"221 bye")(client)
        output, _ = process.communicate(timeout=60)
    said = [line.removeprefix("posttls-finger: ") for line in output.splitlines()]
    assert re.fullmatch(rf"Connected to \S+\[{path}\]", said[0])
    assert [line for line in said if line[0] == "<"] == ["< 220 mx", "< 250 mx", "< 221 bye"]
    assert said[2].startswith("> LHLO ")


def comparable(text: str) -> list[str]:
    """Return the lines of a run for DANE: warnings once and in one order.

    Debian's also warns of the root zone, which nobody signs here, and has one more line behind unusable records.
    """
    lines = dict.fromkeys(DNSSEC_LINE.sub("", text).splitlines())
    warnings = [line for line in lines if "warning: " in line and "all TLSA records unusable" not in line]
    return sorted(warnings) + [line for line in lines if "warning: " not in line]


def test_dane_is_that_of_postfix(tmp_path: Path) -> None:
    peers.root()
    peers.peer("posttls-finger")
    command = [peers.peer("unshare"), "--mount", "--net", sys.executable, "-m", "support.finger_site", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent, timeout=300)
    outputs = json.loads(run.stdout.splitlines()[-1])
    found = {row: comparable(ours) for row, (ours, _) in zip(ROWS, outputs, strict=True)}
    assert found == {row: comparable(theirs) for row, (_, theirs) in zip(ROWS, outputs, strict=True)}


# Ours


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("-X TO", "-X is not supported"),
        ("-w -l none TO", "level none has no TLS"),
        ("-H AUTHORITY -k CERT TO", "-H has chains and keys"),
        ("[fe80::1%lo]:25", "valid hostname or network address required"),
        ("-L nosuch TO", 'unknown -L option value "nosuch"'),
        ("-t 0 TO", "bad '-t' option value: 0"),
        ("-T x TO", "bad '-T' option value: x"),
        ("-m -1 TO", "bad '-m' option value: -1"),
        ("-r 99999999999 TO", "bad '-r' option value"),
        ("-o nothing TO", "bad '-o' option value"),
        ("-g nosuch TO", 'bad value "nosuch" for smtp_tls_ciphers'),
        ("-p nosuch TO", 'bad value "nosuch" for smtp_tls_protocols'),
        ("-d nosuch TO", 'unknown digest "nosuch"'),
        ("-F /nosuch TO", "/nosuch: no authorities are there"),
        ("-k /nosuch TO", "/nosuch: No such file or directory"),
        ("-l secure -A /nosuch TO", "/nosuch: No such file or directory"),
    ],
)
def test_bad_option_is_refused_in_one_line(
    keys: Keys, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    assert posttls_finger.main(words_of(keys, text, "[127.0.0.1]:1")) == 1
    output = capsys.readouterr().out
    assert output.startswith("posttls-finger: fatal: ")
    assert said in output
    assert output.count("\n") == 1


def test_nothing_is_imported_after_the_rights_were_dropped(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    hook = Path(__file__).parent / "support" / "late_imports"
    peers.root()
    environment = {**os.environ, "PYTHONPATH": str(hook), "LATE_IMPORTS": str(notes)}
    for words in ["-h native nosuch.invalid", "-h native [xn--mnchen-3ya.invalid]", "-l none [127.0.0.1]:1"]:
        command = [sys.executable, "-P", "-m", "postillion.commands.posttls_finger", *words.split()]
        subprocess.run(command, env=environment, check=True, capture_output=True)
    assert notes.read_text() == ""


@pytest.mark.parametrize("words", [[], ["-Z"], ["-c"], ["-l"]])
def test_usage_is_printed(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert posttls_finger.main(words) == 1
    assert "usage: posttls-finger [-acCfSvw] " in capsys.readouterr().err


def test_steps_of_the_handshake_are_a_warning(keys: Keys, served: TlsPeer) -> None:
    said = run(OURS, served.port, *words_of(keys, "-c -L ssl-debug,none -l encrypt TO"))
    assert (said.status, len(said.lines)) == (0, 1)
    assert said.lines[0].startswith("posttls-finger: warning: -L ssl-debug: no steps of the handshake are shown")


def test_session_with_another_server_is_not_cached(keys: Keys, served: TlsPeer) -> None:
    said = run(OURS, served.port, *words_of(keys, "-c -l secure -r 1 TO"))
    assert said.status == 0
    assert said.lines[-1].endswith("The session is not cached, because the server does not match. Done reconnecting.")
