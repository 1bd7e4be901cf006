"""No program imports a module after it dropped its rights: mail_owner may not be able to read the Python library.

Python notes the late imports (`support/late_imports`), so the tests need no unreadable library.
"""

from __future__ import annotations

import os
import smtplib
import sqlite3
import subprocess
import sys
from pathlib import Path

from support.mta import Site, local_user, running, wait_for
from support.sink import Sink

HOOK = Path(__file__).parent / "support" / "late_imports"
PROGRAMS = ("smtpd", "pickup", "qmgr", "local", "smtp", "bounce", "error", "discard", "anvil")


def site_with_notes(directory: Path, notes: Path, **main_cf: str) -> Site:
    """Return a site whose programs write their late imports into `notes`."""
    notes.touch()
    notes.chmod(0o666)
    variables = f"import_environment = PYTHONPATH={HOOK} LATE_IMPORTS={notes}\n"
    site = Site(directory, main_cf=main_cf)
    with (site.etc / "main.cf").open("a") as file:
        file.write(variables)
    return site


def test_hook_notes_late_imports_alone(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    code = "\nimport asyncio, xml\nasync def f(): import wave\nasyncio.run(f())\n"
    environment = {**os.environ, "PYTHONPATH": str(HOOK), "LATE_IMPORTS": str(notes)}
    subprocess.run([sys.executable, "-P", "-c", code], env=environment, check=True)
    modules = {line.split()[0] for line in notes.read_text().splitlines()}
    assert "wave" in modules
    assert "xml" not in modules


def test_resolver_imports_nothing_with_its_questions(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    code = (
        "\nimport asyncio, dns.rdata, socket, test_dns\n"
        # Those of the name server in the test.
        "for kind in (1, 2, 6, 12, 15, 28): dns.rdata.get_rdata_class(1, kind)\n"
        "async def ask():\n"
        "    async with test_dns.serving() as (_, port):\n"
        "        asker = test_dns.resolver(port)\n"
        "        print(await asker.addresses('a.test', (socket.AF_INET, socket.AF_INET6)))\n"
        "        print(await asker.mx('mail.test'), await asker.mx('nosuch.test'), await asker.mx('broken.test'))\n"
        "        print(await asker.name_of('192.0.2.1'))\n"
        "asyncio.run(ask())\n"
    )
    tests = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{HOOK}:{tests}", "LATE_IMPORTS": str(notes)}
    asked = subprocess.run([sys.executable, "-P", "-c", code], env=environment, check=True, capture_output=True)
    for answer in (b"127.0.0.2", b"preference=10", b"NoName(", b"Failed(", b"mx.client.test"):
        assert answer in asked.stdout
    assert notes.read_text() == ""


def test_programs_import_nothing_after_they_dropped_their_rights(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    user = local_user()
    site = site_with_notes(
        tmp_path / "site",
        notes,
        smtpd_peername_lookup="yes",
        smtpd_client_message_rate_limit="1000",
        smtpd_client_event_limit_exceptions="",
        notify_classes="bounce, 2bounce, delay",
        minimal_backoff_time="1s",
        maximal_backoff_time="2s",
        queue_run_delay="1s",
        delay_warning_time="1s",
        relay_domains=f"sqlite:{tmp_path}/rows.cf",
        canonical_maps=f"sqlite:{tmp_path}/rows.cf",
        virtual_alias_maps=f"sqlite:{tmp_path}/rows.cf, inline:{{{{ list@example.org = {user}@example.org }}}}",
    )
    (site.etc / "aliases").write_text(
        f'postmaster: {user}\nfile: {tmp_path}/site/mail/file\ncommand: "|cat >/dev/null"\n'
        f'many: {user}, command\nbroken: "|exit 75"\n'
    )
    with sqlite3.connect(tmp_path / "rows.db") as rows:
        rows.execute("CREATE TABLE rows (key, value)")
        rows.execute(f"INSERT INTO rows VALUES ('alias@example.org', '{user}@example.org')")
    (tmp_path / "rows.cf").write_text(f"dbpath = {tmp_path}/rows.db\nquery = SELECT value FROM rows WHERE key = '%s'\n")
    for file in (tmp_path / "rows.db", tmp_path / "rows.cf"):
        file.chmod(0o644)
    refused = {"bad@next.example": "550 5.1.1 no such user", "later@next.example": "450 4.2.0 not now"}
    with (site.etc / "main.cf").open("a") as main_cf:
        hop = f"[127.0.0.1]:{site.next_port}"
        main_cf.write(
            f"transport_maps = inline:{{{{ next.example = smtp:{hop} }}, {{ gone.example = discard: }},"
            f" {{ error.example = error:no }}, {{ later.example = retry:later }}}}\n"
        )
    names = ("user", "alias", "list", "file", "command", "many", "broken")
    recipients = [f"{user if name == 'user' else name}@example.org" for name in names]
    recipients += ["good@next.example", *refused, "x@gone.example", "x@later.example"]
    with Sink(site.next_port, refuse=refused) as sink, running(site):
        with smtplib.SMTP("127.0.0.1", site.port) as client:
            client.ehlo("client.example")
            for body in ("plain\r\n", "Grüße\r\n"):
                text = f"Subject: x\r\nContent-Type: text/plain\r\n\r\n{body}".encode()
                client.sendmail(f"{user}@example.org", recipients, text, ["body=8bitmime"])
        sendmail = [*site.command("sendmail")[:1], "-C", str(site.etc), "-f", f"{user}@example.org", "x@next.example"]
        subprocess.run(sendmail, input=b"Subject: x\n\nbody\n", check=True)
        sink.wait(3)
        wait_for("reports", lambda: "sender delay notification" in site.log_text())
        wait_for("reports", lambda: "sender non-delivery notification" in site.log_text())
        subprocess.run([*site.command("postqueue"), "-j"], check=True, capture_output=True)
        subprocess.run([*site.command("postqueue"), "-f"], check=True)
        wait_for("another attempt", lambda: site.log_text().count("to=<later@next.example>") >= 4)
        for program in PROGRAMS:
            wait_for(f"a line of {program}", lambda name=program: f"/{name}[" in site.log_text() or name == "anvil")  # type: ignore[misc]
    assert "Error" not in site.log_text()
    assert notes.read_text() == ""
