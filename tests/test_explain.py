"""postillion explain: the steps that decide about an address."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import subprocess
from pathlib import Path

import pytest

from postillion.commands import postillion
from support.peers import peer

MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {directory}/none
myhostname = mx.example.org
myorigin = example.org
mydestination = example.org
mydomain = example.org
mynetworks = 192.0.2.0/28
inet_interfaces = 127.0.0.1
smtpd_peername_lookup = no
recipient_delimiter = +
append_dot_mydomain = yes
relayhost = [198.51.100.9]:587
local_recipient_maps = texthash:{directory}/users
alias_maps = texthash:{directory}/aliases
transport_maps = texthash:{directory}/transport
relocated_maps = inline:{{ {{gone@example.org=there}} {{canary@example.org=hidden}} }}
sender_dependent_relayhost_maps = texthash:{directory}/senders
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_sender_restrictions = reject_non_fqdn_sender
"""
MASTER_CF = """\
smtp inet n - n - - smtpd
 -o smtpd_client_restrictions=permit_mynetworks,reject
smtp unix - - n - - smtp
local unix - n n - - local
error unix - - n - - error
slow unix - - n - - smtp
 -o inet_protocols=ipv4
"""
TABLES = {
    "users": "list x\nuser x\n",
    "aliases": "list: user, far@far.example\n",
    "transport": "slow.example slow:\nlit.example smtp:[192.0.2.77]:2525\nodd.example nowhere:\n",
    "senders": "@a.example [198.51.100.1]\n",
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "main.cf").write_text(MAIN_CF.format(directory=tmp_path))
    (tmp_path / "master.cf").write_text(MASTER_CF)
    for name, text in TABLES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def explained(site: Path, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """Return the lines of `postillion explain`, with DIR for the site's directory."""
    assert postillion.main(["-c", str(site), "explain", *words]) == 0
    return [line.strip().replace(str(site), "DIR") for line in capsys.readouterr().out.splitlines()]


def test_each_step_of_a_local_recipient_is_told(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = explained(site, capsys, "list+x")
    assert lines == [
        "address list+x, sender <>",
        "rewriting",
        "append_at_myorigin = yes",
        "list+x -> list+x@example.org",
        "class",
        "example.org: local, a domain of mydestination",
        "recipient check",
        "local_recipient_maps: texthash:DIR/users: list+x@example.org -> not found",
        "local_recipient_maps: texthash:DIR/users: list@example.org -> not found",
        "local_recipient_maps: texthash:DIR/users: list+x -> not found",
        "local_recipient_maps: texthash:DIR/users: list -> x",
        "the recipient is known, or its class has no list of recipients",
        "aliases",
        "alias_maps: texthash:DIR/aliases: list+x -> not found",
        "alias_maps: texthash:DIR/aliases: list -> user, far@far.example",
        "alias_maps: texthash:DIR/aliases: owner-list -> not found",
        "alias_maps: texthash:DIR/aliases: user -> not found",
        "route",
        "local_transport = local:mx.example.org",
        "transport_maps: texthash:DIR/transport: list+x@example.org -> not found",
        "transport_maps: texthash:DIR/transport: list@example.org -> not found",
        "transport_maps: texthash:DIR/transport: example.org -> not found",
        "transport_maps: texthash:DIR/transport: .org -> not found",
        "transport_maps: texthash:DIR/transport: * -> not found",
        "relocated_maps: inline:...: list+x@example.org -> not found",
        "relocated_maps: inline:...: list@example.org -> not found",
        "relocated_maps: inline:...: list+x -> not found",
        "relocated_maps: inline:...: list -> not found",
        "relocated_maps: inline:...: @example.org -> not found",
        "transport local, next hop mx.example.org",
        "program local (DIR/master.cf, line 4)",
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["u@far.example"],
            ["relayhost = [198.51.100.9]:587", "[198.51.100.9]:587: 198.51.100.9[198.51.100.9] port 587"],
        ),
        (
            ["u@far.example", "--sender", "s@a.example"],
            [
                "sender_dependent_relayhost_maps: texthash:DIR/senders: s@a.example -> not found",
                "sender_dependent_relayhost_maps: texthash:DIR/senders: @a.example -> [198.51.100.1]",
                "transport smtp, next hop [198.51.100.1]",
            ],
        ),
        (
            ["u%lit.example@example.org"],
            [
                "u%lit.example is a local part of this site that names u@lit.example",
                "transport_maps: texthash:DIR/transport: lit.example -> smtp:[192.0.2.77]:2525",
                "recipient u@lit.example",
                "[192.0.2.77]:2525: 192.0.2.77[192.0.2.77] port 2525",
            ],
        ),
        (["u@host"], ["append_dot_mydomain = yes", "u@host -> u@host.example.org"]),
        (
            ["gone@example.org"],
            [
                "smtpd refuses the recipient: 550 5.1.6 User has moved to there",
                "relocated_maps: inline:...: gone@example.org -> there",
                "transport error, next hop 5.1.6 User has moved to there",
            ],
        ),
        (["nosuch@example.org"], ["smtpd refuses the recipient: 550 5.1.1 User unknown in local recipient table"]),
        (["u@"], ["mail bounces: 5.1.3 bad address syntax"]),
        (["u@odd.example"], ["master.cf has no service nowhere: mail waits"]),
        (["u@localhost.slow.example"], ["transport smtp, next hop [198.51.100.9]:587"]),
    ],
)
def test_step_that_decides_is_told(
    words: list[str], expected: list[str], site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = explained(site, capsys, *words)
    assert [line for line in expected if line not in lines] == []
    assert not any("hidden" in line for line in lines)


@pytest.mark.parametrize(
    ("client", "recipient", "expected"),
    [
        ("192.0.2.1", "u@far.example", "rcpt: accepts, by permit_mynetworks (DIR/main.cf, line 18)"),
        (
            "198.51.100.7",
            "u@example.org",
            "rcpt: 554 5.7.1 <unknown[198.51.100.7]>: Client host rejected: Access denied,"
            " by reject (DIR/master.cf, line 1)",
        ),
    ],
)
def test_client_is_told_what_the_lists_answer(
    client: str, recipient: str, expected: str, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = explained(site, capsys, recipient, "--client", client, "--sender", "s@a.example")
    assert f"client unknown[{client}], EHLO [{client}] (smtpd service smtp, DIR/master.cf, line 1)" in lines
    assert expected in lines


def test_client_is_told_what_the_lists_answer_under_stress(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (site / "main.cf").open("a") as file:
        file.write("smtpd_helo_restrictions = ${stress?{reject}}\n")
    client = "client unknown[192.0.2.1], EHLO [192.0.2.1] (smtpd service smtp, DIR/master.cf, line 1"
    lines = explained(site, capsys, "u@far.example", "--client", "192.0.2.1")
    calm, stressed = lines.index(client + ")"), lines.index(client + ", stress = yes)")
    assert "rcpt: accepts, by permit_mynetworks (DIR/main.cf, line 18)" in lines[calm:stressed]
    rejected = "rcpt: 554 5.7.1 <[192.0.2.1]>: Helo command rejected: Access denied, by reject (DIR/main.cf, line 20)"
    assert rejected in lines[stressed:]


def test_failed_lookup_is_told(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "transport").unlink()
    lines = explained(site, capsys, "u@far.example")
    assert any(line.startswith("transport_maps: texthash:DIR/transport: u@far.example -> failed: ") for line in lines)
    assert any(line.startswith("mail waits: 4.3.0") for line in lines)


def test_each_lookup_in_a_remote_table_is_told_once(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.closing(sqlite3.connect(site / "routes.db")) as base:
        base.execute("CREATE TABLE routes (name, way)")
        base.execute("INSERT INTO routes VALUES ('far.example', 'smtp:[192.0.2.33]')")
        base.commit()
    (site / "routes.cf").write_text(f"dbpath = {site}/routes.db\nquery = SELECT way FROM routes WHERE name='%s'\n")
    with (site / "main.cf").open("a") as file:
        file.write(f"transport_maps = sqlite:{site}/routes.cf\n")
    lines = explained(site, capsys, "u@far.example", "--client", "192.0.2.1")
    assert lines.count("transport_maps: sqlite:DIR/routes.cf: far.example -> smtp:[192.0.2.33]") == 2
    assert "transport smtp, next hop [192.0.2.33]" in lines


@pytest.mark.parametrize("words", [[], ["a", "b"], ["a", "--client", "here"], ["a", "--what"], ["--sender", "x"]])
def test_wrong_usage_is_an_error(words: list[str], site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert postillion.main(["-c", str(site), "explain", *words]) == 1
    assert "usage: postillion" in capsys.readouterr().err


MAPS = """virtual_alias_domains = virt.example
virtual_alias_maps = texthash:{directory}/virtual
recipient_canonical_maps = texthash:{directory}/canonical
sender_canonical_maps = inline:{{ s@a.example=canon@b.example }}
sender_bcc_maps = inline:{{ canon@b.example=copy@lit.example }}
masquerade_domains = mask.example
virtual_alias_expansion_limit = 5
"""
VIRTUAL = {
    "all@virt.example": "user, out@lit.example",
    "one@virt.example": "all@virt.example",
    "many@virt.example": ", ".join(f"u{n}@lit.example" for n in range(6)),
}
CANONICAL = {"old": "all@virt.example"}


@pytest.fixture
def mapped(site: Path) -> Path:
    with (site / "main.cf").open("a") as main_cf:
        main_cf.write(MAPS.format(directory=site))
    for name, table in (("virtual", VIRTUAL), ("canonical", CANONICAL)):
        (site / name).write_text("".join(f"{key} {value}\n" for key, value in table.items()))
    return site


def section(lines: list[str], first: str, last: str) -> list[str]:
    """Return the lines between two lines."""
    return lines[lines.index(first) + 1 : lines.index(last)]


def test_maps_of_cleanup_are_followed(mapped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = explained(mapped, capsys, "old@example.org", "--sender", "s@a.example")
    assert section(lines, "maps", "recipient copy@lit.example") == [
        "sender_canonical_maps: inline:...: s@a.example -> canon@b.example",
        "sender_canonical_maps: inline:...: canon@b.example -> not found",
        "sender_canonical_maps: inline:...: @b.example -> not found",
        "sender_bcc_maps: inline:...: canon@b.example -> copy@lit.example",
        "recipient_canonical_maps: texthash:DIR/canonical: copy@lit.example -> not found",
        "recipient_canonical_maps: texthash:DIR/canonical: @lit.example -> not found",
        "virtual_alias_maps: texthash:DIR/virtual: copy@lit.example -> not found",
        "virtual_alias_maps: texthash:DIR/virtual: @lit.example -> not found",
        "recipient_canonical_maps: texthash:DIR/canonical: old@example.org -> not found",
        "recipient_canonical_maps: texthash:DIR/canonical: old -> all@virt.example",
        "recipient_canonical_maps: texthash:DIR/canonical: all@virt.example -> not found",
        "recipient_canonical_maps: texthash:DIR/canonical: @virt.example -> not found",
        "virtual_alias_maps: texthash:DIR/virtual: all@virt.example -> user, out@lit.example",
        "virtual_alias_maps: texthash:DIR/virtual: user@example.org -> not found",
        "virtual_alias_maps: texthash:DIR/virtual: user -> not found",
        "virtual_alias_maps: texthash:DIR/virtual: @example.org -> not found",
        "virtual_alias_maps: texthash:DIR/virtual: out@lit.example -> not found",
        "sender s@a.example -> canon@b.example",
        "recipient old@example.org -> copy@lit.example, user@example.org, out@lit.example",
    ]


def test_each_recipient_of_an_alias_is_routed(mapped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = explained(mapped, capsys, "one@virt.example")
    assert "recipient one@virt.example -> user@example.org, out@lit.example" in lines
    assert "virtual_alias_maps: texthash:DIR/virtual: all@virt.example -> user, out@lit.example" in lines
    assert (
        section(lines, "recipient user@example.org", "aliases")[-1] == "example.org: local, a domain of mydestination"
    )
    assert "program local (DIR/master.cf, line 4)" in lines
    out = lines[lines.index("recipient out@lit.example") :]
    assert out[1].startswith("lit.example: ")
    assert out[-2] == "[192.0.2.77]:2525: 192.0.2.77[192.0.2.77] port 2525"


def test_masquerade_and_always_bcc_are_named(mapped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (mapped / "main.cf").open("a") as main_cf:
        main_cf.write("always_bcc = all@virt.example\n")
    lines = explained(mapped, capsys, "u@lit.example", "--sender", "x@host.mask.example")
    assert "masquerade_domains = mask.example" in lines
    assert "sender x@host.mask.example -> x@mask.example" in lines
    assert "always_bcc = all@virt.example" in lines
    assert "recipient u@lit.example -> u@lit.example, user@example.org, out@lit.example" in lines


def test_too_many_recipients_make_the_mail_wait(mapped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = explained(mapped, capsys, "many@virt.example")
    assert lines[-1] == "mail waits: 4.6.0 Alias expansion error"
    assert any("more than 5" in line or "expansion" in line for line in lines if line.startswith("warning:"))


def test_each_map_in_a_remote_table_is_told_once(mapped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.closing(sqlite3.connect(mapped / "rows")) as rows, rows:
        rows.execute("CREATE TABLE rows (k, v)")
        rows.execute("INSERT INTO rows VALUES ('all@virt.example', 'user@example.org')")
    (mapped / "rows.cf").write_text(f"dbpath = {mapped}/rows\nquery = SELECT v FROM rows WHERE k = '%s'\n")
    with (mapped / "main.cf").open("a") as main_cf:
        main_cf.write(f"virtual_alias_maps = sqlite:{mapped}/rows.cf\n")
    lines = explained(mapped, capsys, "all@virt.example")
    told = [
        line for line in lines if line == "virtual_alias_maps: sqlite:DIR/rows.cf: all@virt.example -> user@example.org"
    ]
    # Once for the check of the recipient, once for the maps.
    assert len(told) == 2
    assert "recipient all@virt.example -> user@example.org" in lines
    (mapped / "rows").unlink()
    lines = explained(mapped, capsys, "u@lit.example")
    assert lines[-1].startswith("mail waits: 4.3.0 ")
    assert any("virtual_alias_maps: sqlite:DIR/rows.cf: u@lit.example -> failed: " in line for line in lines)


def test_maps_find_what_debians_postmap_finds(mapped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    postmap = peer("postmap")
    lines = explained(mapped, capsys, "one@virt.example", "--sender", "s@a.example")
    looked_up = re.findall(r"(?m)^\w+_maps: (texthash:DIR/\w+): (\S+) -> (.*)$", "\n".join(lines))
    assert len(looked_up) > 10
    for table, key, answer in sorted(set(looked_up)):
        command = [postmap, "-q", key, table.replace("DIR", str(mapped))]
        theirs = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (theirs.stdout.strip() or "not found") == answer, (table, key)


DIGEST = "AB:" * 31 + "CD"
TLS = [
    ("", "u@lit.example", ["TLS level none, by smtp_tls_security_level"]),
    (
        "smtp_tls_security_level = may\n",
        "u@lit.example",
        [
            "TLS level may, by smtp_tls_security_level",
            "TLS versions >=TLSv1 (smtp_tls_protocols); ciphers medium (smtp_tls_ciphers)",
            "the server's certificate is not checked",
        ],
    ),
    (
        "smtp_use_tls = yes\nsmtp_tls_exclude_ciphers = RC4\n",
        "u@lit.example",
        ["TLS level may, by smtp_use_tls", "excluded ciphers: RC4 (smtp_tls_exclude_ciphers)"],
    ),
    (
        "smtp_tls_security_level = encrypt\nsmtp_tls_mandatory_exclude_ciphers = MD5\nsmtp_tls_wrappermode = yes\n",
        "u@lit.example",
        [
            "TLS begins with the connection: smtp_tls_wrappermode = yes",
            "TLS versions >=TLSv1 (smtp_tls_mandatory_protocols); ciphers medium (smtp_tls_mandatory_ciphers)",
            "excluded ciphers: MD5 (smtp_tls_mandatory_exclude_ciphers)",
        ],
    ),
    (
        "smtp_tls_policy_maps = inline:{ { [192.0.2.77]:2525 = secure match=a.example:.b.example ciphers=high"
        " protocols=TLSv1.3 exclude=AES servername=sni.example } }\n",
        "u@lit.example",
        [
            "smtp_tls_policy_maps: inline:...: [192.0.2.77]:2525 -> secure match=a.example:.b.example ciphers=high"
            " protocols=TLSv1.3 exclude=AES servername=sni.example",
            "TLS versions TLSv1.3 (the entry); ciphers high (the entry)",
            "excluded ciphers: AES (the entry)",
            "the client asks for the name sni.example",
            "the certificate has the name a.example or .b.example",
        ],
    ),
    (
        f"smtp_tls_policy_maps = texthash:{{directory}}/policies\nsmtp_tls_fingerprint_cert_match = {DIGEST}\n",
        "u@far.example",
        [
            "smtp_tls_policy_maps: texthash:DIR/policies: [198.51.100.9]:587 -> fingerprint",
            'TLS level fingerprint, by smtp_tls_policy_maps: "[198.51.100.9]:587" in texthash:DIR/policies',
            f"the certificate or its key has the sha256 digest {DIGEST.lower().replace(':', '')}",
        ],
    ),
    (
        "smtp_tls_policy_maps = inline:{ { [192.0.2.77]:2525 = encrypt bad=attribute } }\n",
        "u@lit.example",
        [
            'warning: smtp_tls_policy_maps, next-hop destination "[192.0.2.77]:2525": invalid attribute name: "bad"',
            "the host is not tried: 4.7.5 client TLS configuration problem",
        ],
    ),
    (
        "smtp_tls_policy_maps = texthash:{directory}/none\nsmtp_tls_security_level = may\n",
        "u@lit.example",
        ["the host is not tried: 4.7.5 client TLS configuration problem"],
    ),
    (
        "smtp_tls_security_level = dane-only\nsmtp_dns_support_level = dnssec\n",
        "u@lit.example",
        ["the host is not tried: 4.7.5 no TLSA records found"],
    ),
    (
        "smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = texthash:{directory}/passwords\n",
        "u@far.example",
        [
            "smtp_sasl_password_maps: texthash:DIR/passwords: 198.51.100.9 -> not found",
            "smtp_sasl_password_maps: texthash:DIR/passwords: [198.51.100.9]:587 -> [password]",
            "login: with the account of this key, if the server offers AUTH",
        ],
    ),
    (
        "smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = texthash:{directory}/passwords\n",
        "u@lit.example",
        ["login: none, the table has no account for this server"],
    ),
    (
        "smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = texthash:{directory}/none\n",
        "u@lit.example",
        ["login: mail waits if the server offers AUTH: "],
    ),
]


@pytest.mark.parametrize(("parameters", "recipient", "expected"), TLS)
def test_tls_policy_and_login_are_told(
    site: Path, capsys: pytest.CaptureFixture[str], parameters: str, recipient: str, expected: list[str]
) -> None:
    (site / "policies").write_text("[198.51.100.9]:587 fingerprint\n")
    (site / "passwords").write_text("[198.51.100.9]:587 c4n4ry:c4n4ry-Blau\n")
    with (site / "main.cf").open("a") as main_cf:
        main_cf.write(parameters.replace("{directory}", str(site)))
    lines = explained(site, capsys, recipient)
    told = section(lines, "hosts", lines[-1]) + lines[-1:]
    assert [line for line in expected if not any(found.startswith(line) for found in told)] == [], told
    assert not any("c4n4ry" in line for line in lines)


def test_tls_of_a_service_is_that_of_its_line(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (site / "master.cf").read_text()
    (site / "master.cf").write_text(text + " -o smtp_tls_security_level=encrypt\n")
    (site / "transport").write_text("slow.example slow:[192.0.2.78]\n")
    assert "TLS level encrypt, by smtp_tls_security_level" in explained(site, capsys, "u@slow.example")
    assert "TLS level none, by smtp_tls_security_level" in explained(site, capsys, "u@far.example")
