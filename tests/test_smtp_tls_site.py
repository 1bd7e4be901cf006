"""TLS of Postfix's client and of ours at the same scripted servers: log, status of the mail, lines of the client."""

from __future__ import annotations

import hashlib
import re
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from support.certificates import RSA_KEY, Authority, Certificate
from support.mta import Site, commands_of, running, wait_for
from support.peers import peer, postfix_home, root
from support.tls_peer import Kind, TlsPeer, by, closing, resetting, saying, silent

pytestmark = pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1 is deprecated")
LEVELS = ("none", "may", "encrypt", "verify", "secure")
SPECIAL = ("silent", "refuses 500", "refuses 550")
"""Servers that only some rows have."""
WRAPPERS = ("wrapper", "wrapper secure", "wrapper may")
OLD = "ALL:@SECLEVEL=0"
NAME = "mx.example"
OLDER_S = 3
"""Smallest age of mail that may go out in the clear after TLS has failed; a first attempt comes before."""
ALERT = bytes.fromhex("15030300020228")
"""handshake_failure (RFC 8446 §6.2)."""
SERVER_HELLO = bytes.fromhex("160303002a02000026")
"""The first octets of a ServerHello whose rest has no sense."""


class Keys(NamedTuple):
    """The authority that the site trusts, its client's certificate, and certificates of servers."""

    authority: Authority
    client: Certificate
    servers: dict[str, Certificate]


def make_keys(directory: Path) -> Keys:
    """Return a certificate for each way to be right or wrong."""
    authority, other = Authority(directory, "authority"), Authority(directory, "other")
    middle = Authority(directory, "middle", authority)
    below, chain = middle.sign(f"/CN={NAME}", f"DNS:{NAME}"), directory / "below.pem"
    chain.write_text(below.cert.read_text() + middle.cert.read_text())
    alone = Authority(directory, "alone")
    servers = {
        "right": authority.sign(f"/CN={NAME}", f"DNS:{NAME}"),
        "rsa": authority.sign(f"/CN={NAME}", f"DNS:{NAME}", RSA_KEY),
        "common name": authority.sign(f"/CN={NAME}"),
        "chain": Certificate(chain, below.key),
        "loose": below,
        "wrong name": authority.sign("/CN=other.example", "DNS:other.example"),
        "address": authority.sign("/CN=x", "IP:127.0.0.1"),
        "address as a name": authority.sign("/CN=x", "DNS:127.0.0.1"),
        "wildcard": authority.sign("/CN=x", "DNS:*.example"),
        "expired": authority.sign_for("20000101000000Z", "20010101000000Z", f"/CN={NAME}", f"DNS:{NAME}"),
        "early": authority.sign_for("20990101000000Z", "21000101000000Z", f"/CN={NAME}", f"DNS:{NAME}"),
        "untrusted": other.sign(f"/CN={NAME}", f"DNS:{NAME}"),
        "self-signed": Certificate(alone.cert, alone.key),
        "for clients": authority.sign(f"/CN={NAME}", f"DNS:{NAME}", extensions=("extendedKeyUsage=clientAuth",)),
    }
    return Keys(authority, authority.sign("/CN=client.example"), servers)


def context(keys: Keys, which: str = "right", *versions: ssl.TLSVersion, ciphers: str = "") -> ssl.SSLContext:
    """Return the settings of a server. `versions`: the first and the last one."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(*keys.servers[which])
    if ciphers:
        made.set_ciphers(ciphers)
    if versions:
        made.minimum_version, made.maximum_version = versions[0], versions[-1]
    return made


def asking(keys: Keys, verify: ssl.VerifyMode, *versions: ssl.TLSVersion) -> ssl.SSLContext:
    """Return the settings of a server that asks for a client's certificate."""
    made = context(keys, "right", *versions)
    made.load_verify_locations(keys.authority.cert)
    made.verify_mode = verify
    return made


def kinds(keys: Keys) -> dict[str, Kind]:
    """Return the servers."""
    v = ssl.TLSVersion
    return {
        "without STARTTLS": Kind(offers=False),
        "refuses 454": Kind(answer="454 4.7.0 TLS not available"),
        "refuses 454 without a code": Kind(answer="454 later"),
        "refuses 421": Kind(answer="421 4.3.2 going down"),
        "says 250": Kind(by(context(keys)), answer="250 2.0.0 fine"),
        "says 250, then text": Kind(saying(b"220 2.0.0 go\r\n"), answer="250 2.0.0 fine"),
        "plaintext behind 220": Kind(by(context(keys)), behind=b"250-evil\r\n250 AUTH PLAIN\r\n"),
        "text": Kind(saying(b"500 5.5.1 what is that?\r\n")),
        "null octets": Kind(saying(bytes(1000))),
        "half a record": Kind(saying(SERVER_HELLO)),
        "nonsense": Kind(saying(SERVER_HELLO + bytes(range(38)))),
        "alert": Kind(saying(ALERT)),
        "closes": Kind(closing),
        "rsa": Kind(by(context(keys, "rsa"))),
        "1.0": Kind(by(context(keys, "rsa", v.TLSv1, ciphers=OLD))),
        "1.2": Kind(by(context(keys, "right", v.TLSv1_2))),
        "1.2 rsa": Kind(by(context(keys, "rsa", v.TLSv1_2, ciphers="AES128-SHA"))),
        "1.2 dhe": Kind(by(context(keys, "rsa", v.TLSv1_2, ciphers="DHE-RSA-AES256-GCM-SHA384"))),
        "1.2 anonymous": Kind(by(context(keys, "right", v.TLSv1_2, ciphers="aNULL:@SECLEVEL=0"))),
        "1.2 without encryption": Kind(by(context(keys, "rsa", v.TLSv1_2, ciphers="eNULL:@SECLEVEL=0"))),
        "1.3": Kind(by(context(keys, "right", v.TLSv1_3))),
        **{which: Kind(by(context(keys, which))) for which in keys.servers if which != "rsa"},
        **{f"1.2 {which}": Kind(by(context(keys, which, v.TLSv1_2))) for which in ("expired", "untrusted")},
        "asks": Kind(by(asking(keys, ssl.CERT_OPTIONAL))),
        "needs": Kind(by(asking(keys, ssl.CERT_REQUIRED))),
        "1.2 needs": Kind(by(asking(keys, ssl.CERT_REQUIRED, v.TLSv1_2))),
        "silent": Kind(silent),
        "refuses 500": Kind(answer="500 what?"),
        "refuses 550": Kind(answer="550 5.7.1 never"),
        "resets": Kind(resetting),
        "wrapper": Kind(by(context(keys)), wrapper=True),
        "wrapper expired": Kind(by(context(keys, "expired")), wrapper=True),
        "wrapper text": Kind(saying(b"220 mx.example ESMTP\r\n"), wrapper=True),
    }


class Case(NamedTuple):
    """A server by its name, the service of smtp that goes there, and its entry in the policy table."""

    kind: str
    service: str = "table"
    entry: str = ""
    host: str = "127.0.0.1"


class Outcome(NamedTuple):
    """The log about the delivery, its status, the lines of the client, and its first records inside TLS."""

    log: list[str]
    status: str
    heard: list[str]
    hellos: list[str]


def services(keys: Keys) -> dict[str, str]:
    """Return the services with their parameters; `table` has none."""
    client = f"smtp_tls_cert_file={keys.client.cert} smtp_tls_key_file={keys.client.key}"
    return {
        "table": "",
        **{level: f"smtp_tls_security_level={level}" for level in (*LEVELS, "dane", "dane-only")},
        "quiet": "smtp_tls_security_level=secure smtp_tls_loglevel=0",
        "quiet may": "smtp_tls_security_level=may smtp_tls_loglevel=0",
        "note": "smtp_tls_note_starttls_offer=yes",
        "wrapper": "smtp_tls_wrappermode=yes smtp_tls_security_level=encrypt",
        "wrapper secure": "smtp_tls_wrappermode=yes smtp_tls_security_level=secure",
        "wrapper may": "smtp_tls_wrappermode=yes smtp_tls_security_level=may",
        "client": f"smtp_tls_security_level=secure {client}",
        "helo": "smtp_tls_security_level=encrypt smtp_never_send_ehlo=yes",
        "discard": "smtp_tls_security_level=encrypt smtp_discard_ehlo_keywords=starttls",
        "discard may": "smtp_tls_security_level=may smtp_discard_ehlo_keywords=starttls",
        "old names": "smtp_use_tls=yes",
        "old names verify": "smtp_enforce_tls=yes",
        "old names encrypt": "smtp_enforce_tls=yes smtp_tls_enforce_peername=no",
        "no authority": "smtp_tls_security_level=secure smtp_tls_CAfile=",
        "no authority may": "smtp_tls_security_level=may smtp_tls_CAfile=",
        "sni": "smtp_tls_security_level=encrypt smtp_tls_servername=sni.example",
        **{
            name: f"smtp_tls_security_level=encrypt tls_eecdh_auto_curves={curves}"
            for name, curves in (("curves", "P-521,X448"), ("P-256", "P-256"), ("P-384", "secp384r1"), ("X448", "X448"))
        },
        "grade": "smtp_tls_security_level=encrypt smtp_tls_mandatory_ciphers=high"
        " smtp_tls_mandatory_protocols=>=TLSv1.2",
        "exclude": "smtp_tls_security_level=may smtp_tls_exclude_ciphers=AESGCM,CHACHA20 smtp_tls_protocols=!TLSv1.3",
        "soft": "smtp_tls_security_level=secure soft_bounce=yes",
        "depth": "smtp_tls_security_level=secure smtp_tls_scert_verifydepth=0",
        "impatient": "smtp_tls_security_level=may smtp_starttls_timeout=1s",
    }


def cases(keys: Keys) -> list[Case]:
    """Return all rows."""
    names = list(kinds(keys))
    ordinary = [name for name in names if name not in SPECIAL and not name.startswith("wrapper")]
    digest = fingerprint(keys.servers["right"])
    entries = [
        "none", "may", "encrypt", f"secure match={NAME}", f"verify match={NAME}", "secure match=.example",
        "secure match=nexthop", "verify match=hostname", f"fingerprint match={digest}",
        f"fingerprint match={digest.replace('a', 'b')}|{digest}", f"fingerprint match={digest[:-2]}00",
        "fingerprint", "fingerprint match=xyz",
        "encrypt protocols=>=TLSv1.3", "encrypt exclude=AES", "encrypt bad=attribute", "sometimes",
        "encrypt servername=sni.example", "none servername=x", "may match=x",
        "secure match=", f"secure tafile={keys.authority.cert} match={NAME}", "secure tafile=/nonexistent", "dane",
        "dane-only", "Encrypt",
    ]  # fmt: skip
    return [
        *(Case(kind, level) for level in LEVELS for kind in ordinary),
        *(Case("right", entry=entry) for entry in entries),
        *(Case(kind, entry=entry) for kind in ("without STARTTLS", "refuses 454") for entry in entries[:4]),
        *(Case(kind, entry="encrypt protocols=>=TLSv1.3") for kind in ("1.2", "1.3")),
        *(Case(kind, "verify", host="localhost") for kind in ("right", "wrong name")),
        *(Case("right", service) for service in services(keys) if service not in (*LEVELS, *WRAPPERS)),
        *(
            Case(kind, service)
            for service in ("quiet", "quiet may")
            for kind in ("expired", "text", "closes", "refuses 454")
        ),
        *(Case(kind, service) for service in WRAPPERS for kind in ("wrapper", "wrapper expired", "wrapper text")),
        *(Case(kind, "client") for kind in ("asks", "needs", "1.2 needs")),
        *(Case(kind, "note") for kind in ("without STARTTLS", "refuses 454")),
        *(Case(kind, service) for service in ("curves", "grade", "exclude") for kind in ("1.0", "1.2", "1.3", "rsa")),
        *(Case(kind, "depth") for kind in ("chain", "self-signed")),
        *(Case(kind, service) for service in ("dane", "dane-only") for kind in ("without STARTTLS", "closes")),
        *(Case(kind, "no authority") for kind in ("self-signed", "expired")),
        Case("expired", "soft"),
        Case("silent", "impatient"),
        *(Case(kind, level) for kind in ("refuses 500", "refuses 550") for level in ("none", "may")),
        Case("right", entry="encrypt servername=hostname", host="localhost"),
    ]


REFUSED = "deferred (TLS is required, but host 127.0.0.1[127.0.0.1] refused to start TLS: "
PROBLEM = "4.7.5 deferred (client TLS configuration problem)"
ASKED = ["EHLO mx.example.org", "STARTTLS"]
OTHERS: list[tuple[Case, Outcome]] = [
    # Postfix returns the mail.
    (Case("refuses 500", "encrypt"), Outcome([], f"4.0.0 {REFUSED}500 what?)", [*ASKED, "QUIT"], [])),
    (Case("refuses 550", "secure"), Outcome([], f"4.7.1 {REFUSED}550 5.7.1 never)", [*ASKED, "QUIT"], [])),
    # Postfix connects, says STARTTLS and gives up.
    *(
        (Case("right", entry=entry), Outcome([f"warning: TLS policy for 127.0.0.1: {text}"], PROBLEM, [], []))
        for entry, text in (
            ("may protocols=TLSv9", 'bad TLS version "TLSv9": give versions such as >=TLSv1.2'),
            ("may ciphers=none", 'bad cipher grade "none": give one of high, medium, null, low, export'),
        )
    ),
]
"""Rows that differ, with our outcome; docs/known-issues.md has each."""
ADDRESS = Case("right", entry="encrypt servername=hostname")
"""Another one."""


def fingerprint(certificate: Certificate) -> str:
    """Return the SHA256 digest of a certificate in Postfix's form."""
    octets = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.cert.read_text())).digest()
    return ":".join(f"{octet:02X}" for octet in octets)


def outcomes(directory: Path, keys: Keys, rows: Sequence[Case], program: str, *, rounds: int = 1) -> list[Outcome]:
    """Return the outcome of each row. Each service has one process, which delivers one message after the other.

    `rounds`: the attempts for mail that waits; the outcome has the status of the last one.
    """
    directory.mkdir()
    made, numbers = kinds(keys), {name: number for number, name in enumerate(services(keys))}
    servers = [TlsPeer(made[row.kind]) for row in rows]
    master_cf, routes, entries = "tlsmgr unix - - n 1000? 1 tlsmgr\n", "", ""
    for name, parameters in services(keys).items():
        # Clients count mail of this age as older; the queue manager has another limit.
        words = [f"syslog_name=s{numbers[name]}", f"minimal_backoff_time={OLDER_S}s", *parameters.split()]
        master_cf += f"s{numbers[name]} unix - - n - 1 smtp {''.join(f' -o {{{word}}}' for word in words)}\n"
    for number, (row, server) in enumerate(zip(rows, servers, strict=True)):
        nexthop = f"[{row.host}]:{server.port}"
        routes += f"{{ c{number}.example = s{numbers[row.service]}:{nexthop} }} "
        if row.entry:
            entries += f"{nexthop} {row.entry}\n"
    (directory / "policies").write_text(entries)
    main_cf = {
        "transport_maps": f"inline:{{ {routes} }}",
        "smtp_tls_policy_maps": f"texthash:{directory}/policies",
        "smtp_tls_CAfile": str(keys.authority.cert),
        "smtp_tls_secure_cert_match": NAME,
        "smtp_tls_loglevel": "1",
        # The defaults depend on the release of Postfix.
        "tls_eecdh_auto_curves": "X25519 X448 prime256v1 secp521r1 secp384r1",
        "tls_medium_cipherlist": "aNULL:-aNULL:HIGH:MEDIUM:+RC4:@STRENGTH",
        "tls_high_cipherlist": "aNULL:-aNULL:HIGH:@STRENGTH",
        "smtp_host_lookup": "native",
        "minimal_backoff_time": "1h",
    }
    site = Site(directory / "site", main_cf=main_cf, master_cf=master_cf)
    with running(site, program):
        recipients = [f"r@c{number}.example" for number in range(len(rows))]
        command = [str(commands_of(program) / "sendmail"), "-C", str(site.etc), "-f", "s@example.org", *recipients]
        subprocess.run(command, input=b"Subject: x\n\nhi\n", check=True, timeout=60)
        status = re.compile(r" to=<r@c(\d+)\.example>.* dsn=(\S+), status=(.*)")
        begun = time.monotonic()
        wait_for("every status", lambda: len(set(status.findall(site.log_text()))) >= len(rows))
        if rounds > 1:
            wait_for("an age of the mail", lambda: time.monotonic() > begun + OLDER_S + 1)
            subprocess.run([str(commands_of(program) / "postqueue"), "-c", str(site.etc), "-f"], check=True)
            wait_for("the next round", lambda: not repeats(status.findall(site.log_text()), rounds))
        log = site.log_text()
    found = {int(number): outcome for number, *outcome in status.findall(log)}
    told = lines_by_row(log, rows, numbers)
    for server in servers:
        server.close()
    ports = {server.port: row.host for row, server in zip(rows, servers, strict=True)}
    return [
        Outcome(
            [plain(line, ports) for line in told[number]],
            plain(" ".join(found[number]), ports),
            [plain(line, ports) for line in server.heard],
            server.hellos,
        )
        for number, server in enumerate(servers)
    ]


def repeats(statuses: Sequence[tuple[str, str, str]], rounds: int) -> set[str]:
    """Return the rows whose mail waits, and has not had all attempts."""
    counts = Counter(number for number, _, _ in statuses)
    done = {number for number, _, status in statuses if not status.startswith("deferred")}
    return {number for number, count in counts.items() if count < rounds} - done


def lines_by_row(log: str, rows: Sequence[Case], numbers: Mapping[str, int]) -> list[list[str]]:
    """Return the log lines about each row: those of its service before its status."""
    told: list[list[str]] = [[] for _ in rows]
    waiting: dict[int, list[str]] = {number: [] for number in numbers.values()}
    for service, line in re.findall(r" s(\d+)/smtp\[\d+\]: (.*)", log):
        status = re.match(r"\w+: to=<r@c(\d+)\.example>", line)
        if line.startswith("discarding EHLO keywords: "):
            # docs/known-issues.md: ours has no such line.
            continue
        if status is None:
            waiting[int(service)].append(line)
        else:
            told[int(status[1])], waiting[int(service)] = waiting[int(service)], []
    return told


def plain(text: str, ports: Mapping[int, str]) -> str:
    """Return a text without what differs from run to run."""
    text = re.sub(r":(\d{4,5})\b", lambda found: ":PORT" if int(found[1]) in ports else found[0], text)
    text = re.sub(r" SIZE=\d+", "", text)
    text = re.sub(r"/[^ ]*/(policies)\b", r"\1", text)
    text = re.sub(r"^(?:[0-9A-F]{8,}|[0-9A-Za-z]{10,}): ", "ID: ", text)
    return re.sub(r":[^:]*\.c:\d+:", ":FILE:", text)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Return the certificates."""
    peer("openssl")
    return make_keys(tmp_path_factory.mktemp("keys"))


def test_tls_is_that_of_postfix(tmp_path: Path, keys: Keys) -> None:
    root()
    postfix_home()
    rows = cases(keys)
    expected = outcomes(tmp_path / "postfix", keys, rows, "postfix")
    found = outcomes(tmp_path / "postillion", keys, rows, "postillion")
    for row, theirs, ours in zip(rows, expected, found, strict=True):
        assert ours == theirs, row


def test_rows_that_differ_from_postfix(tmp_path: Path, keys: Keys) -> None:
    """Mail is not lost, and nothing goes out, where Postfix returns it or says STARTTLS in vain."""
    found = outcomes(tmp_path / "site", keys, [*(case for case, _ in OTHERS), ADDRESS], "postillion")
    for (case, expected), outcome in zip(OTHERS, found, strict=False):
        assert outcome == expected, case
    address = found[-1]
    # Postfix asks for the name 127.0.0.1, which RFC 6066 §3 forbids.
    assert address.status == "2.0.0 sent (250 2.0.0 taken)"
    assert all(not re.search(r" 0=", hello) for hello in address.hellos)


def test_older_mail_goes_out_in_the_clear_where_that_of_postfix_does(tmp_path: Path, keys: Keys) -> None:
    root()
    postfix_home()
    kinds_of_failure = ("text", "closes", "alert", "1.2 needs", "needs", "right", "refuses 454")
    rows = [Case(kind, level) for level in ("may", "encrypt") for kind in kinds_of_failure]
    expected = outcomes(tmp_path / "postfix", keys, rows, "postfix", rounds=2)
    found = outcomes(tmp_path / "postillion", keys, rows, "postillion", rounds=2)
    for row, theirs, ours in zip(rows, expected, found, strict=True):
        assert ours == theirs, row
    assert ["sent" in outcome.status for outcome in found] == [True] * 7 + [False] * 5 + [True, False]
