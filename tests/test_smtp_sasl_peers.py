"""Logins at Debian's Postfix, whose users Dovecot knows: each mechanism, and a wrong password."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from postillion.delivery.smtp.agent import SmtpAgent
from support.agents import FakeDaemon, Hub, Mail, serving
from support.dovecot import dovecot_auth
from support.mta import Site, local_user, running, until
from support.peers import postfix_home

USERS = {"user": "p,a=s ß", "user@x.example": "pass"}
MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256")


@pytest.fixture(scope="module")
def peer_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run Postfix as a server that takes mail from its users alone."""
    postfix_home()
    directory = tmp_path_factory.mktemp("peers")
    with dovecot_auth(directory / "dovecot", USERS) as socket:
        main_cf = {
            "smtpd_sasl_auth_enable": "yes",
            "smtpd_sasl_type": "dovecot",
            "smtpd_sasl_path": str(socket),
            "mynetworks": "192.0.2.1",
            "smtpd_recipient_restrictions": "permit_sasl_authenticated, reject",
        }
        with running(Site(directory / "site", main_cf=main_cf), "postfix") as site:
            yield site


@asynccontextmanager
async def smtp(directory: Path, login: str, mechanism: str) -> AsyncIterator[Hub]:
    """Run the agent with one account; yield the queue manager's end."""
    (directory / "logins").write_text(f"127.0.0.1 {login}\n")
    more = (
        "smtp_sasl_auth_enable = yes\nsmtp_sasl_security_options = noanonymous\n"
        f"smtp_sasl_mechanism_filter = {mechanism}\nsmtp_sasl_password_maps = texthash:{directory}/logins\n"
    )
    daemon = FakeDaemon(directory, more)
    async with serving(directory, lambda daemon: SmtpAgent(daemon, "smtp", capacity=20), daemon) as hub:
        yield hub


@pytest.mark.parametrize("mechanism", [*MECHANISMS, "static:any"])
@pytest.mark.parametrize("user", list(USERS))
async def test_postfix_accepts_the_login(peer_site: Site, tmp_path: Path, mechanism: str, user: str) -> None:
    before = len(peer_site.log_text())
    async with smtp(tmp_path, f"{user}:{USERS[user]}", mechanism) as hub:
        mail = Mail(0, [f"{local_user()}@example.org"])
        result = await hub.deliver(f"[127.0.0.1]:{peer_site.port}", mail)
    assert result.only.outcome == "sent", result
    best = "SCRAM-SHA-256" if mechanism == "static:any" else mechanism
    # Postfix's log may come after its reply.
    await until(lambda: f"sasl_method={best}, sasl_username={user}" in peer_site.log_text()[before:])


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_postfix_refuses_a_wrong_password(peer_site: Site, tmp_path: Path, mechanism: str) -> None:
    async with smtp(tmp_path, "user:wrong", mechanism) as hub:
        result = await hub.deliver(f"[127.0.0.1]:{peer_site.port}")
    start = "SASL authentication failed; server 127.0.0.1[127.0.0.1] said: 535 5.7.8 Error: authentication failed: "
    assert (result.only.outcome, result.only.dsn) == ("deferred", "4.7.8")
    assert result.only.text.startswith(start)


async def test_postfix_refuses_mail_without_a_login(peer_site: Site, tmp_path: Path) -> None:
    async with smtp(tmp_path, "user:wrong", "none") as hub:
        result = await hub.deliver(f"[127.0.0.1]:{peer_site.port}")
    assert result.only.dsn == "4.7.0"
    assert result.only.text.startswith("SASL authentication failed: server ")
