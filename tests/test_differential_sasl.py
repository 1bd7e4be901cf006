"""Logins of Postfix's client and of ours at the same scripted servers: what they say, and the mail's status."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from support.mta import Site, commands_of, running, wait_for
from support.peers import postfix_home
from support.sasl import AuthServer, Reply, Scram, challenge

LONG = "x" * 366
NO = ["535 5.7.8 no"]
ALL = "AUTH ANONYMOUS EXTERNAL LOGIN PLAIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256 SCRAM-SHA-512"
PROCESSES = 4
"""Of each service: a site with one for each case takes a slow machine a minute to start."""
RANDOM = re.compile(r"(AUTH SCRAM-\S+ ).*")
FIRST = challenge("<1896.697170952@postoffice.reston.mci.net>")


class Case(NamedTuple):
    """A server and the client's parameters. `login`: the entry of the password table."""

    name: str
    keywords: list[str]
    replies: Sequence[Reply] = ()
    parameters: Mapping[str, str] = MappingProxyType({})
    login: str = "user:pass"
    program: str = "smtp"


class Outcome(NamedTuple):
    """The lines of the client, and the status of the mail."""

    said: list[str]
    dsn: str
    status: str


OPTIONS = ("noplaintext", "noactive", "nodictionary", "noanonymous", "mutual_auth", "forward_secrecy")
SAME = [
    Case("no AUTH", ["SIZE"]),
    Case("no mechanisms", ["AUTH"]),
    Case("unknown mechanisms", ["AUTH FOO BAR"]),
    Case("nothing behind the filter", ["AUTH PLAIN"], [], {"smtp_sasl_mechanism_filter": "login"}),
    Case("accepted", ["AUTH PLAIN"], ["235 2.7.0 welcome"]),
    Case("accepted otherwise", ["AUTH PLAIN"], ["250 fine"]),
    Case("refused", ["AUTH PLAIN"], NO),
    Case("refused without a code", ["AUTH PLAIN"], ["535 no"]),
    Case("returned", ["AUTH PLAIN"], NO, {"smtp_sasl_auth_soft_bounce": "no"}),
    Case("returned for another reason", ["AUTH PLAIN"], ["534 no"], {"smtp_sasl_auth_soft_bounce": "no"}),
    Case("returned softly", ["AUTH PLAIN"], NO, {"smtp_sasl_auth_soft_bounce": "no", "soft_bounce": "yes"}),
    Case("later", ["AUTH PLAIN"], ["454 4.7.0 later"], {"smtp_sasl_auth_soft_bounce": "no"}),
    Case("closing", ["AUTH PLAIN"], ["421 4.7.0 bye"]),
    Case("no syntax", ["AUTH PLAIN"], ["500 5.5.1 what"]),
    Case("closed", ["AUTH PLAIN"], [None]),
    Case("login", ["AUTH LOGIN"], [challenge("Username:"), challenge("Password:"), "235 ok"]),
    Case("cram", ["AUTH CRAM-MD5 LOGIN PLAIN"], [FIRST, "235 ok"]),
    Case("cram, refused", ["AUTH CRAM-MD5"], [FIRST, *NO]),
    Case("scram", ["AUTH SCRAM-SHA-256"], [*Scram().replies]),
    Case("scram, another password", ["AUTH SCRAM-SHA-256"], [*Scram().replies], {}, "user:other"),
    Case("all mechanisms", [ALL], NO),
    Case("in small letters", ["auth login plain"], NO),
    Case("two lines", ["AUTH=LOGIN", "AUTH LOGIN PLAIN"], NO),
    Case("a filter", [ALL], NO, {"smtp_sasl_mechanism_filter": "!scram-sha-512, !cram-md5, /dev/null, static:all"}),
    Case("AUTH discarded", ["AUTH PLAIN"], NO, {"smtp_discard_ehlo_keywords": "auth"}),
    Case("HELO", ["AUTH PLAIN"], NO, {"smtp_never_send_ehlo": "yes"}),
    Case("the longest command", ["AUTH PLAIN"], ["235 ok"], {}, f"user:{LONG}"),
    Case("one octet more", ["AUTH PLAIN"], [challenge(""), "235 ok"], {}, f"user:{LONG}x"),
    Case("an identity", ["AUTH PLAIN"], ["235 ok"], {"send_cyrus_sasl_authzid": "yes"}),
    Case("AUTH= of MAIL", ["AUTH PLAIN"], ["235 ok"], {"smtp_send_dummy_mail_auth": "yes"}),
    Case("colons", ["AUTH PLAIN"], ["235 ok"], {}, "user:a:b c"),
    Case("no user", ["AUTH PLAIN"], ["235 ok"], {}, ":pass"),
    Case("blanks", ["AUTH PLAIN"], ["235 ok"], {}, " user : pass "),
    Case("not ASCII", ["AUTH PLAIN"], ["235 ok"], {}, "üser:pässword"),
    Case("lmtp", ["AUTH PLAIN"], NO, {"lmtp_sasl_security_options": "noanonymous"}, program="lmtp"),
    *(
        Case(f"{option} {kind}", [f"AUTH {kind}"], NO, {"smtp_sasl_security_options": option})
        for option in OPTIONS
        for kind in ("SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN")
    ),
]
"""Cases with the same outcome for both programs."""

CANNOT = "SASL authentication failed; cannot authenticate to server 127.0.0.1[127.0.0.1]: "
STARTS = [line.split("|") for line in ("AUTH SCRAM-SHA-256 ...|*", "AUTH SCRAM-SHA-256 ...|...")]
OTHERS = [
    # Postfix says QUIT without an end of the exchange.
    (Case("no base64", ["AUTH LOGIN"], ["334 !!!", "501 end"]), ["AUTH LOGIN", "*"], "bad protocol / cancel"),
    (
        Case("a challenge too many", ["AUTH PLAIN"], ["334 ", "501 end"]),
        ["AUTH PLAIN AHVzZXIAcGFzcw==", "*"],
        "generic failure",
    ),
    (Case("iterations", ["AUTH SCRAM-SHA-256"], [*Scram("65537").replies]), STARTS[0], "bad protocol / cancel"),
    (Case("nonce", ["AUTH SCRAM-SHA-256"], [*Scram(nonce="x").replies]), STARTS[0], "bad protocol / cancel"),
    (
        Case("signature", ["AUTH SCRAM-SHA-256"], [*Scram(signature="v=QUJD").replies[:2], "501 end"]),
        [*STARTS[1], "*"],
        "authentication failure",
    ),
    # Postfix takes 535 words for a fact, and 235 for a signature.
    (
        Case("no signature", ["AUTH SCRAM-SHA-256"], [*Scram(last="235 ok").replies]),
        STARTS[1],
        "authentication failure",
    ),
    # RFC 4616 §2 has no empty password.
    (Case("no password", ["AUTH PLAIN"], ["235 ok"], {}, "user:"), [], "generic failure"),
]
"""Cases that differ, with our outcome: all of them defer the mail."""


def outcomes(directory: Path, cases: list[Case], program: str) -> list[Outcome]:
    """Return the outcome of each case, by one site with a service for each program and its parameters."""
    directory.mkdir()
    servers = [AuthServer(case.keywords, case.replies) for case in cases]
    services: dict[tuple[str, str], str] = {}
    routes, logins = "", ""
    for number, (case, server) in enumerate(zip(cases, servers, strict=True)):
        nexthop = f"[127.0.0.1]:{server.port}"
        options = "".join(f" -o {{{name}={value}}}" for name, value in case.parameters.items())
        service = services.setdefault((case.program, options), f"s{number}")
        routes += f"{{ c{number}.example = {service}:{nexthop} }} "
        logins += f"{nexthop} {case.login}\n"
    master_cf = "".join(
        f"{name} unix - - n - {PROCESSES} {program} -o {program}_sasl_auth_enable=yes{options}\n"
        for (program, options), name in services.items()
    )
    (directory / "logins").write_text(logins)
    main_cf = {
        "transport_maps": f"inline:{{ {routes} }}",
        "smtp_sasl_password_maps": f"texthash:{directory}/logins",
        "lmtp_sasl_password_maps": "$smtp_sasl_password_maps",
        "smtp_sasl_security_options": "noanonymous",
    }
    site = Site(directory / "site", main_cf=main_cf, master_cf=master_cf)
    found = []
    with running(site, program):
        recipients = [f"r@c{number}.example" for number in range(len(cases))]
        command = [str(commands_of(program) / "sendmail"), "-C", str(site.etc), "-f", "s@example.org", *recipients]
        subprocess.run(command, input=b"Subject: x\n\nhi\n", check=True, timeout=60)
        status = re.compile(r" to=<r@c(\d+)\.example>.* dsn=(\S+), status=(.*)")
        wait_for("every status", lambda: len(set(status.findall(site.log_text()))) >= len(cases))
        by_case = {int(number): (dsn, text) for number, dsn, text in status.findall(site.log_text())}
        log = site.log_text()
    for number, server in enumerate(servers):
        server.close()
        said = [line for heard in server.heard for line in heard]
        told = [line for line in said if line.split()[0] not in ("EHLO", "LHLO", "HELO", "RCPT", "DATA", "QUIT")]
        found.append(Outcome([_plain(line, told) for line in told], *by_case[number]))
    assert "pass" not in re.sub("password|passwd", "", log)
    return found


def _plain(line: str, said: list[str]) -> str:
    """Return a line without what is random or depends on it."""
    is_proof = said[0].startswith("AUTH SCRAM") and line in said[1:2] and line != "*"
    return "..." if is_proof else RANDOM.sub(r"\1...", line).partition(" SIZE=")[0]


def test_logins_are_those_of_postfix(tmp_path: Path) -> None:
    postfix_home()
    expected = outcomes(tmp_path / "postfix", SAME, "postfix")
    found = outcomes(tmp_path / "postillion", SAME, "postillion")
    for case, theirs, ours in zip(SAME, expected, found, strict=True):
        assert ours == theirs, case.name


def test_logins_that_differ_from_those_of_postfix(tmp_path: Path) -> None:
    found = outcomes(tmp_path / "site", [case for case, _, _ in OTHERS], "postillion")
    for (case, said, reason), outcome in zip(OTHERS, found, strict=True):
        assert outcome == Outcome(said, "4.7.0", f"deferred ({CANNOT}{reason})"), case.name
