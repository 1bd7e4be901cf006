"""Reload under load: sessions go on, nobody is refused, nothing is lost, and each new configuration is in force.

Each reload comes with another banner and with tables that postmap wrote anew. `POSTILLION_FAULTS=500` asks for that
many reloads.
"""

import fcntl
import os
import re
import smtplib
import subprocess
from collections.abc import Callable
from pathlib import Path

from support.crash import Faults, check, crash_site, drain, faults_wanted, new_arrivals, new_ledger, routes, verdict
from support.ledger import Route
from support.mta import POSTILLION_COMMANDS, Site, local_user, running, wait_for
from support.sink import Sink

RELOADS = faults_wanted(10)
FLOWING_MAX_S = 120.0
BETWEEN = 5
"""Messages acknowledged between two reloads."""
SETTINGS = """\
virtual_alias_domains = alias.example
virtual_alias_maps = hash:{etc}/virtual
sender_canonical_maps = hash:{etc}/canonical
header_checks = pcre:{etc}/header_checks
smtpd_banner = $myhostname ESMTP configuration 0
"""
ALIASED = [Route("old@canonical.example", ["one@alias.example"], a_session=1), Route("", ["one@alias.example"])]
SHORT = [Route("", ["x@next.example"], a_session=1), Route("", ["x@next.example"], a_session=3)]


def write(path: Path, text: str) -> None:
    """Write a file as one step: a sendmail that meets half of main.cf would use the defaults of the rest."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)


def write_tables(site: Site, number: int) -> None:
    """Write the tables anew: the same answers among other lines."""
    others = "".join(f"other{number}.{line}@alias.example nobody@next.example\n" for line in range(100))
    write(site.etc / "virtual", f"{others}one@alias.example x@next.example\n")
    write(site.etc / "canonical", "old@canonical.example new@canonical.example\n")
    write(site.etc / "header_checks", f"/^X-Never-{number}:/ REJECT\n")
    tables = [f"hash:{site.etc}/virtual", f"hash:{site.etc}/canonical"]
    subprocess.run([*site.command("postmap"), *tables], check=True, timeout=60)


def reload(site: Site, number: int) -> None:
    """Put configuration `number` in force; return when a new client meets it."""
    write_tables(site, number)
    main_cf = site.etc / "main.cf"
    write(main_cf, re.sub(r"ESMTP configuration \d+", f"ESMTP configuration {number}", main_cf.read_text()))
    subprocess.run([*site.command("postillion"), "reload"], check=True, capture_output=True, timeout=60)
    wait_for("the new configuration", lambda: banner(site.port).endswith(f"configuration {number}"))


def banner(port: int) -> str:
    """Return the greeting."""
    with smtplib.SMTP() as client:
        code, text = client.connect("127.0.0.1", port)
        assert code == 220, text
        return text.decode()


def test_reloads_refuse_nobody_and_lose_nothing(tmp_path: Path, summarize: Callable[[str], None]) -> None:
    site = crash_site(tmp_path)
    write_tables(site, 0)
    with (site.etc / "main.cf").open("a") as main_cf:
        main_cf.write(SETTINGS.format(etc=site.etc))
    ledger = new_ledger(site)
    faults = Faults(site, ledger)
    with Sink(site.next_port, refuse={"bad@next.example": "550 5.1.1 no such user"}) as sink, running(site):
        arrivals = new_arrivals(site, sink)
        local = [Route("", ["x@next.example"], pace_s=0.1)]
        with ledger.load([*routes(f"{local_user()}@example.org"), *ALIASED, *SHORT], local=local):
            for number in range(1, RELOADS + 1):
                ledger.wait_for_more(BETWEEN, FLOWING_MAX_S)
                reload(site, number)
                faults.count += 1
        drain(site, ledger, arrivals)
        log = site.log_text()
    summarize(f"reloads: {verdict(faults, ledger, arrivals, 0)}, {len(ledger.broken)} sessions broken")
    check(faults, ledger, arrivals, 0)
    assert not ledger.broken
    assert not ledger.refused
    assert "from=<new@canonical.example>" in log
    assert "from=<old@canonical.example>" not in log
    assert not re.search(r"/\w+\[\d+\]: (fatal|panic|error):", log)


def test_pickup_waits_for_its_predecessor(tmp_path: Path) -> None:
    site = Site(tmp_path)
    maildrop = site.queue / "maildrop"
    with running(site):
        pass
    directory = os.open(maildrop, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # As a pickup that has not ended yet.
        fcntl.flock(directory, fcntl.LOCK_EX)
        waits = re.compile(rf"-> FLOCK .*:{os.stat(maildrop).st_ino} ")
        with Sink(site.next_port) as sink, running(site):
            command = [str(POSTILLION_COMMANDS / "sendmail"), "-C", str(site.etc), "x@next.example"]
            subprocess.run(command, input=b"Subject: once\n\n", check=True, timeout=60)
            wait_for("pickup to wait", lambda: waits.search(Path("/proc/locks").read_text()))
            assert list(maildrop.iterdir())
            fcntl.flock(directory, fcntl.LOCK_UN)
            assert b"Subject: once" in sink.wait(1)[0].content
    finally:
        os.close(directory)
