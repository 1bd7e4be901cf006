"""Addresses are rewritten as by Postfix: the cases of tests/rewriting, played on both programs.

A file has the site's parameters, its tables, and its cases. A case has the sender and the recipients, header fields,
and behind `=` the result: the reply, or the sender, the recipients in the queue (`<` stands before the original one)
and the header fields.
"""

import re
import smtplib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.either import PROGRAMS, program
from support.mta import Site, commands_of, delivered, running, submitted
from support.sink import Sink

DIRECTORY = Path(__file__).parent / "rewriting"
OVERRIDES = {
    "local_transport": "smtp:[127.0.0.1]:{port}",
    "default_transport": "smtp:[127.0.0.1]:{port}",
    "transport_maps": "",
    "local_recipient_maps": "",
    "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
    "recipient_delimiter": "+",
}
UNCHECKED = ("Received:", "Message-Id:", "Date:", "Subject:", "Resent-Message-Id:", "Resent-Date:")
DELIVERED = re.compile(r"to=<([^>]*)>,(?: orig_to=<([^>]*)>,)? relay=")


@dataclass
class Case:
    """One message, and its result. `options`: parameters of RCPT."""

    name: str
    sender: str
    recipients: list[str]
    sendmail: bool
    options: list[str] = field(default_factory=list)
    header: list[str] = field(default_factory=list)
    result: str = ""
    expected_header: list[str] = field(default_factory=list)


@dataclass
class Script:
    """A file of cases."""

    main_cf: dict[str, str]
    tables: dict[str, str]
    cases: list[Case]


def read(path: Path) -> Script:
    """Read a file of cases."""
    parts = re.split(r"^\[(.*)\]\n", path.read_text(), flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    main_cf = parameters(sections.pop("main.cf"))
    cases: list[Case] = []
    for line in lines(sections.pop("cases")):
        text = line.strip()
        if not line.startswith(" "):
            cases.append(Case(text, "", [], False))
        elif not cases[-1].recipients:
            sender, _, recipients = text.removeprefix("sendmail ").partition(" > ")
            cases[-1].sendmail = text.startswith("sendmail ")
            cases[-1].sender, cases[-1].recipients = sender.replace("<>", ""), recipients.split(", ")
        elif text.startswith("RCPT "):
            cases[-1].options = text.split()[1:]
        elif text.startswith("= "):
            cases[-1].result = text[2:]
        elif cases[-1].result:
            cases[-1].expected_header.append(text)
        else:
            cases[-1].header.append("\t" + text[2:].strip() if text.startswith("| ") else text)
    return Script(main_cf, sections, cases)


def lines(text: str) -> list[str]:
    """Return the lines of a section without empty ones."""
    return [line for line in text.splitlines() if line]


def parameters(text: str) -> dict[str, str]:
    """Return the parameters in lines `name = value`."""
    settings = (line.partition("=") for line in lines(text))
    return {name.strip(): value.strip() for name, _, value in settings}


SCRIPTS = {path.stem: read(path) for path in sorted(DIRECTORY.glob("*.txt"))}
Runs = tuple[str, str, Site, Sink]


def configured(directory: Path, script: Script) -> Site:
    """Return a site with the parameters and the tables of a file."""
    site = Site(directory)
    values = parameters((site.etc / "main.cf").read_text())
    values |= {name: value.format(port=site.next_port) for name, value in OVERRIDES.items()}
    values |= {name: re.sub(r"\b(hash|pcre):", rf"\1:{site.etc}/", value) for name, value in script.main_cf.items()}
    (site.etc / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in values.items()))
    for name, text in script.tables.items():
        (site.etc / name).write_text(text)
    return site


def index(site: Site, mta: str) -> None:
    """Make the indexes of the tables with the program's own postmap."""
    for source in re.findall(r"hash:(\S+/etc/\w+)", (site.etc / "main.cf").read_text()):
        if not source.endswith("/aliases"):
            subprocess.run([*site.command("postmap", mta), f"hash:{source}"], check=True)


@pytest.fixture(scope="module", params=[(mta, name) for name in SCRIPTS for mta in PROGRAMS], ids="-".join)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Run a site with a sink behind it; yield the program, the file, the site and the sink."""
    mta, name = request.param
    request.param = mta
    program(request)
    site = configured(tmp_path_factory.mktemp(f"{mta}-{name}"), SCRIPTS[name])
    index(site, mta)
    with Sink(site.next_port) as sink, running(site, mta):
        yield mta, name, site, sink


def send(site: Site, mta: str, case: Case) -> tuple[int, str]:
    """Send the message of a case; return the reply, or 250 and the queue ID."""
    header = case.header or ["From: Ann <ann@a.example>", "To: Bob <bob@b.example>, Carl <carl@c.example>"]
    text = "\r\n".join([*header, "", "body", ""]).encode()
    if case.sendmail:
        before = len(site.log_text())
        sendmail = str(commands_of(mta) / "sendmail")
        command = [sendmail, "-C", str(site.etc), "-F", "Ann", "-f", case.sender, *case.recipients]
        subprocess.run(command, input=text.replace(b"\r\n", b"\n"), check=True, timeout=60)
        return 250, submitted(site, before)
    with smtplib.SMTP("127.0.0.1", site.port) as client:
        client.ehlo("client.example")
        client.mail(case.sender)
        for recipient in case.recipients:
            code, reply = client.rcpt(recipient, case.options)
            assert code == 250, reply
        code, reply = client.data(text)
    return code, reply.decode().rsplit(" ", 1)[1] if code == 250 else reply.decode()


def outcome(site: Site, sink: Sink, seen: int, queue_id: str) -> tuple[str, list[str]]:
    """Return sender and recipients as in a case's result, and the header fields of the first copy."""
    log = delivered(site, queue_id)
    sender = re.search(r"from=<([^>]*)>, size=", log)
    assert sender is not None
    recipients = sorted(to + (f"<{original}" if original else "") for to, original in DELIVERED.findall(log))
    header = sink.messages[seen].content.split(b"\r\n\r\n")[0].decode()
    fields = [re.sub(r"\r\n[ \t]+", " ", text) for text in re.split(r"\r\n(?![ \t])", header)]
    kept = [text for text in fields if not text.startswith(UNCHECKED)]
    return f"{sender[1] or '<>'} > {', '.join(recipients)}", kept


def test_there_are_cases() -> None:
    assert sum(len(script.cases) for script in SCRIPTS.values()) >= 50


def test_addresses_are_rewritten(served: Runs) -> None:
    mta, name, site, sink = served
    differences: list[str] = []
    for case in SCRIPTS[name].cases:
        seen = len(sink.messages)
        code, text = send(site, mta, case)
        if code != 250:
            result, header = f"{code} {text}", case.expected_header
        else:
            result, header = outcome(site, sink, seen, text)
        if result != case.result:
            differences.append(f"{case.name}: {result}, not {case.result}")
        if case.expected_header and header != case.expected_header:
            differences.append(f"{case.name}: {header}, not {case.expected_header}")
    assert not differences, "\n".join(differences) + "\n" + site.log_text()[-5000:]
