"""A site with templates of its own for reports (bounce_template_file): one site, run by Postillion and by Postfix."""

import re
import subprocess
from collections.abc import Iterator

import pytest

from support.either import PROGRAMS, Server, program
from support.mta import Site, commands_of, local_user, running
from support.sink import Sink

REFUSED = {"bad@next.example": "550 5.1.1 no such user"}
TEMPLATES = b"""\
# The words of a site.
failure_template = <<EOF
Charset: iso-8859-1
From: Die Post <mailer>
Subject: nicht zugestellt
Postmaster-Subject: Kopie

Gr\xfc\xdfe von $myhostname, der Rechner $$5.
EOF

delay_template = <<END
Subject: not yet
From: Delays <delays@site.example>

Tried for more than $delay_warning_time_seconds second(s), until $maximal_queue_lifetime_days day(s).
END

success_template = There it is, says $mydomain.

verify_template = <<EOF
Subject: here you are
Charset: utf-8

Gr\xc3\xbc\xc3\x9fe.
EOF
"""


@pytest.fixture(scope="module", params=PROGRAMS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server whose reports have the templates of the site."""
    mta = program(request)
    directory = tmp_path_factory.mktemp(mta)
    settings = {
        "bounce_template_file": f"{directory}/etc/bounce.cf",
        "notify_classes": "bounce, 2bounce",
        "bounce_notice_recipient": f"{local_user()}@example.org",
        "delay_warning_time": "1s",
        "maximal_queue_lifetime": "3d",
        "minimal_backoff_time": "1s",
        "maximal_backoff_time": "2s",
        "queue_run_delay": "1s",
        "transport_retry_time": "1s",
    }
    site = Site(directory, main_cf=settings)
    (site.etc / "bounce.cf").write_bytes(TEMPLATES)
    with running(site, mta):
        yield Server(site, mta)


def introduction(report: str) -> str:
    """Return the first part of a report, up to the first recipient, with its Content-Type."""
    found = re.search(r"\nContent-Description: Notification\nContent-Type: (.*?)\n<", report, re.DOTALL)
    assert found is not None, report
    return re.sub(r"\nContent-Transfer-Encoding: \S+\n\n", "\n", found[1])


def field(report: str, name: str) -> str:
    """Return a header field of a report."""
    found = re.search(rf"(?m)^{name}: (.*)$", report)
    assert found is not None, report
    return found[1]


def test_bounce_has_text_subject_and_charset_of_the_site(server: Server) -> None:
    with Sink(server.site.next_port, refuse=REFUSED):
        server.send(server.user, "bad@next.example", "a bounce")
        report = server.mail("nicht zugestellt", "\nSubject: a bounce\n")
        copy = server.mail("Kopie", "\nSubject: a bounce\n")
    assert field(report, "From").startswith("Die Post <mailer@")
    # `mail` reads the octets of the charset as U+FFFD.
    text = "Gr\ufffd\ufffde von mx.example.org, der Rechner $5.\n"
    assert introduction(report) == f"text/plain; charset=iso-8859-1\n{text}"
    assert "\nContent-Transfer-Encoding: 8bit\n" in report
    assert field(copy, "From").startswith("Die Post <mailer@")
    assert introduction(copy).strip() == "text/plain; charset=iso-8859-1"


def test_octets_of_the_charset_stay_as_they_are(server: Server) -> None:
    with Sink(server.site.next_port, refuse=REFUSED):
        server.send(server.user, "bad@next.example", "its octets")
        server.mail("nicht zugestellt", "\nSubject: its octets\n")
    contents = [path.read_bytes() for path in server.site.maildir(local_user())]
    assert [content for content in contents if b"\nGr\xfc\xdfe von mx.example.org" in content]


def test_delay_warning_has_times_in_their_units(server: Server) -> None:
    queue_id = server.send(server.user, "late@next.example", "a delay")
    report = server.mail("not yet", "\nSubject: a delay\n")
    server.command("postsuper", "-d", queue_id)
    assert field(report, "From") == "Delays <delays@site.example>"
    assert introduction(report).endswith("\nTried for more than 1 second(s), until 3 day(s).\n")


def test_success_has_a_template_on_one_line(server: Server) -> None:
    with Sink(server.site.next_port):
        server.send(server.user, "good@next.example", "a success", "NOTIFY=SUCCESS")
        report = server.mail("Successful Mail Delivery Report", "\nSubject: a success\n")
    assert field(report, "From").startswith("Mail Delivery System <MAILER-DAEMON@")
    assert introduction(report).endswith("\nThere it is, says example.org.\n")


def test_report_of_an_attempt_has_its_template(server: Server) -> None:
    sendmail = commands_of(server.program) / "sendmail"
    command = [str(sendmail), "-C", str(server.site.etc), "-bv", "-f", server.user, server.user]
    subprocess.run(command, stdin=subprocess.DEVNULL, timeout=60, check=True)
    report = server.mail("here you are", f"rfc822; {server.user}")
    assert introduction(report) == "text/plain; charset=utf-8\nGr\u00fc\u00dfe.\n"
