"""TLS sessions of smtpd that are resumed by tickets: which there are, and where they are good."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.certificates import Authority
from support.mta import Site, ended, let_others_pass, processes, running, wait_for
from support.peers import peer, postfix_home, root
from support.ports import free_port
from support.tls import s_client

TLSMGR = "tlsmgr unix - - n 1000? 1 tlsmgr\n"
CASES = {
    "usual": "",
    "no IDs": "smtpd_tls_always_issue_session_ids=no",
    "neither": "tls_ssl_options=NO_TICKET smtpd_tls_always_issue_session_ids=no",
    "no cipher": "tls_session_ticket_cipher=",
    "other cipher": "tls_session_ticket_cipher=aes-128-cbc",
    "bad cipher": "tls_session_ticket_cipher=aes-256-gcm",
    "option": "tls_ssl_options=no_ticket",
    "option as a number": "tls_ssl_options=0x4000",
    "no workarounds": "tls_disable_workarounds=0xFFFFFFFF",
}
"""Services, each with its parameters."""
TIMEOUTS = {
    "smtpd_tls_session_cache_timeout=0": [],
    "smtpd_tls_session_cache_timeout=5": ["240 (seconds)"],
    "smtpd_tls_session_cache_timeout=2h": ["14400 (seconds)"],
}
"""The lifetime of a ticket. Postfix does not look at the service's own timeout, because tlsmgr has the keys."""
OURS = {
    "same": "",
    "authorities": "smtpd_tls_CAfile={ca} smtpd_tls_ask_ccert=yes",
    "ciphers": "smtpd_tls_ciphers=high",
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    peer("openssl")
    return Authority(tmp_path_factory.mktemp("keys"), "authority")


def ticket_site(directory: Path, authority: Authority, services: dict[str, int], parameters: dict[str, str]) -> Site:
    """Return a site with a service for each port, each with its parameters."""
    chain = directory.parent / f"{directory.name}.pem"
    made = authority.sign("/CN=mx.example.org")
    chain.write_text(made.key.read_text() + made.cert.read_text())
    lines = ""
    for name, port in services.items():
        words = (word.partition("=") for word in parameters[name].format(ca=authority.cert).split())
        options = " ".join(f"-o {{ {parameter} = {value} }}" for parameter, _, value in words)
        lines += f"127.0.0.1:{port} inet n - n - - smtpd {options}\n"
    settings = {"smtpd_tls_security_level": "may", "smtpd_tls_chain_files": str(chain), "smtpd_tls_loglevel": "1"}
    return Site(directory, main_cf=settings, master_cf=TLSMGR + lines)


@pytest.fixture(scope="module")
def ports(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, int]]]:
    """The services of Postfix and of Postillion."""
    root()
    postfix_home()
    made = [{name: free_port() for name in CASES} for _ in range(2)]
    sites = [ticket_site(tmp_path_factory.mktemp("site"), authority, services, CASES) for services in made]
    with running(sites[0], "postfix"), running(sites[1]):
        yield made


def resumed(port: int, session: Path, *words: str, other: int = 0) -> tuple[list[int], int, list[str], str]:
    """Return what a client sees: lengths of session IDs, number of tickets, their lifetime, and `New` or `Reused`.

    The client resumes its session at the same port or at the `other` one.
    """
    session.unlink(missing_ok=True)
    first = s_client(port, *words, "-sess_out", str(session))
    second = s_client(other or port, *words, *(["-sess_in", str(session)] if session.exists() else []))
    ids = [len(found) for found in re.findall(r"Session-ID: *(\w*)", first)]
    used = re.search(r"^(New|Reused), ", second, re.MULTILINE)
    assert used is not None, second
    return ids, first.count("TLS session ticket:"), re.findall(r"lifetime hint: (.*)", first), used[1]


@pytest.mark.parametrize("name", CASES)
def test_tickets_and_ids_of_tls_1_2(ports: list[dict[str, int]], tmp_path: Path, name: str) -> None:
    postfix, ours = (resumed(services[name], tmp_path / "session", "-tls1_2") for services in ports)
    assert ours == postfix
    assert (ours[3] == "Reused") == (name in ("usual", "no IDs", "other cipher", "no workarounds"))


@pytest.mark.parametrize("name", CASES)
def test_tickets_of_tls_1_3(ports: list[dict[str, int]], tmp_path: Path, name: str) -> None:
    postfix, ours = (resumed(services[name], tmp_path / "session", "-tls1_3") for services in ports)
    assert ours[3] == postfix[3]
    # Without tickets, Postfix sends two that nobody can use.
    assert ours == (postfix if ours[3] == "Reused" else ([], 0, [], "New"))


def test_client_without_tickets_gets_an_id_if_the_site_wants_it(ports: list[dict[str, int]], tmp_path: Path) -> None:
    for name, length in (("usual", 64), ("no IDs", 0)):
        ids, tickets, _, used = resumed(ports[1][name], tmp_path / "session", "-tls1_2", "-no_ticket")
        assert (ids, tickets, used) == ([length], 0, "New")


def test_lifetime_of_tickets(authority: Authority, tmp_path: Path) -> None:
    services = {name: free_port() for name in TIMEOUTS}
    let_others_pass(tmp_path)
    with running(ticket_site(tmp_path / "site", authority, services, {name: name for name in TIMEOUTS})):
        for name, lifetime in TIMEOUTS.items():
            for version in ("-tls1_2", "-tls1_3"):
                _, tickets, told, used = resumed(services[name], tmp_path / "session", version)
                assert (tickets, told, used) == (len(lifetime), lifetime, "Reused" if lifetime else "New")


@pytest.fixture
def site(authority: Authority, tmp_path: Path) -> Iterator[tuple[Site, dict[str, int]]]:
    """A site of ours, with its services."""
    let_others_pass(tmp_path)
    services = {name: free_port() for name in ("first", *OURS)}
    made = ticket_site(tmp_path / "site", authority, services, {"first": "", **OURS})
    with running(made):
        yield made, services


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_ticket_is_good_in_other_processes_of_the_same_rules(
    site: tuple[Site, dict[str, int]], tmp_path: Path, version: str
) -> None:
    services = site[1]
    used = {name: resumed(services["first"], tmp_path / "session", version, other=services[name])[3] for name in OURS}
    assert used == {"same": "Reused", "authorities": "New", "ciphers": "New"}


def test_ticket_survives_a_reload_and_a_crash(site: tuple[Site, dict[str, int]], tmp_path: Path) -> None:
    mail_system, services = site
    session = tmp_path / "session"
    s_client(services["first"], "-sess_out", str(session))
    before = processes(mail_system, "smtpd")
    assert mail_system.run("postfix", "reload").returncode == 0
    wait_for("the end of the first processes", lambda: all(ended(pid) for pid in before))
    assert "\nReused, " in s_client(services["first"], "-sess_in", str(session), "-sess_out", str(session))
    killed = processes(mail_system, "smtpd")
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_for("their end", lambda: all(ended(pid) for pid in killed))
    wait_for("a new process", lambda: "\nReused, " in s_client(services["first"], "-sess_in", str(session)))


def test_ticket_of_another_mail_system_is_unknown(
    site: tuple[Site, dict[str, int]], authority: Authority, tmp_path: Path
) -> None:
    services = {"first": free_port()}
    session = tmp_path / "session"
    s_client(site[1]["first"], "-sess_out", str(session))
    with running(ticket_site(tmp_path / "other", authority, services, {"first": ""})):
        assert "\nNew, " in s_client(services["first"], "-sess_in", str(session))


def test_process_keeps_nothing_on_its_standard_input(site: tuple[Site, dict[str, int]]) -> None:
    s_client(site[1]["first"])

    def inputs() -> set[Path]:
        return {Path(f"/proc/{pid}/fd/0").readlink() for pid in processes(site[0], "smtpd")}

    # A process that has just begun still reads its secret.
    wait_for("the start of every process", lambda: inputs() == {Path("/dev/null")})
