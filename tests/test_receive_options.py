"""receive_override_options and internal_mail_filter_classes: Postfix and Postillion skip and apply the same parts."""

from __future__ import annotations

import contextlib
import re
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support.either import PROGRAMS, program
from support.mta import Site, commands_of, delivered, running, submitted, wait_for
from support.ports import free_port
from support.sink import Sink

MAIN_CF = {
    "relay_domains": "next.example",
    "relay_recipient_maps": "inline:{ { known@next.example = x } }",
    "canonical_maps": "inline:{ { s@old.example = s@new.example } }",
    "virtual_alias_maps": "inline:{ { alias@next.example = known@next.example } }",
    "always_bcc": "copy@next.example",
    "header_checks": "pcre:DIRECTORY/header",
    "strict_7bit_headers": "yes",
    "transport_maps": "inline:{ { next.example = smtp:[127.0.0.1]:PORT }, { gone.example = error:gone } }",
}
HEADER_CHECKS = "/^X-Mark:/ WARN marked\n/^Subject: Undelivered/ WARN report\n"
UNKNOWN, MAPPED, COPIED, CHECKED = "unknown is refused", "mapped", "copied", "checked"
ALL = {UNKNOWN, MAPPED, COPIED, CHECKED}
ROWS: list[tuple[str, set[str]]] = [
    ("", set()),
    ("no_unknown_recipient_checks", {UNKNOWN}),
    ("no_address_mappings", {MAPPED, COPIED}),
    ("no_header_body_checks", {CHECKED}),
    ("no_milters", set()),
    ("no_address_mappings, no_header_body_checks no_milters,no_unknown_recipient_checks", ALL),
]
"""The value of receive_override_options on one port, and the work that it turns off."""
LISTENER = """
127.0.0.1:{port} inet n - n - - smtpd
    -o {{ receive_override_options = {value} }}
"""
OTHER_CLEANUP = """
127.0.0.1:{port} inet n - n - - smtpd -o cleanup_service_name=other -o receive_override_options=no_header_body_checks
other unix n - n - 0 cleanup -o receive_override_options=no_address_mappings
"""
PICKUP = "pickup -o receive_override_options=no_address_mappings,no_header_body_checks\n"
DELIVERED = re.compile(r" to=<([^>]*)>,(?: orig_to=<[^>]*>,)? relay=")


class Outcome(NamedTuple):
    """The end of a message, as the log has it. `recipients`: those of its deliveries."""

    sender: str
    recipients: set[str]
    warnings: set[str]


class Peer:
    """A running site of one program, with a next hop that keeps its mail."""

    def __init__(self, site: Site, program: str, ports: list[int]) -> None:
        self.site = site
        self.program = program
        self.ports = ports

    def outcome(self, queue_id: str) -> Outcome:
        """Wait until a message is delivered, and return what the log says about it."""
        log = delivered(self.site, queue_id)
        sender = re.search(r"from=<([^>]*)>, size=", log)
        assert sender is not None, log
        warnings = re.findall(r": warning: header .*: (\w+)$", log, re.MULTILINE)
        return Outcome(sender[1], set(DELIVERED.findall(log)), set(warnings))

    def effects(self, port: int) -> set[str]:
        """Return which parts apply to mail at this port."""
        found = set()
        with smtplib.SMTP("127.0.0.1", port) as client:
            client.ehlo("client.example")
            client.mail("s@old.example")
            if client.rcpt("unknown@next.example")[0] == 550:
                found.add(UNKNOWN)
            client.rset()
            client.mail("s@old.example")
            assert client.rcpt("alias@next.example")[0] == 250
            code, text = client.data(b"From: s@old.example\r\nX-Mark: 1\r\n\r\nx\r\n")
            assert code == 250, text
            client.mail("s@old.example")
            client.rcpt("alias@next.example")
            refused, _ = client.data("X-Name: é\r\n\r\nx\r\n".encode())
        outcome = self.outcome(text.decode().rsplit(" ", 1)[1])
        assert (refused == 550) == (outcome.warnings == {"marked"}), "the rules about MIME go with header_checks"
        assert refused in (250, 550)
        return found | parts(outcome)

    def submit(self, sender: str, recipient: str) -> str:
        """Submit a message with sendmail; return its queue ID."""
        before = len(self.site.log_text())
        sendmail = str(commands_of(self.program) / "sendmail")
        command = [sendmail, "-C", str(self.site.etc), "-f", sender, recipient]
        subprocess.run(command, input=f"From: {sender}\nX-Mark: 1\n\nx\n".encode(), check=True, timeout=60)
        return submitted(self.site, before)

    def report(self, recipient: str) -> Outcome:
        """Let a message bounce; return what happened to the report to its sender."""
        queue_id = self.submit(recipient, "r@gone.example")
        pattern = re.compile(rf"{queue_id}: sender non-delivery notification: (\w+)")
        wait_for("a report", lambda: pattern.search(self.site.log_text()))
        found = pattern.search(self.site.log_text())
        assert found is not None
        return self.outcome(found[1])


def parts(outcome: Outcome) -> set[str]:
    """Return which parts applied to a message from s@old.example to alias@next.example."""
    found = set()
    if "known@next.example" in outcome.recipients:
        assert outcome.sender == "s@new.example"
        found.add(MAPPED)
    else:
        assert (outcome.sender, "alias@next.example" in outcome.recipients) == ("s@old.example", True)
    if "copy@next.example" in outcome.recipients:
        found.add(COPIED)
    if outcome.warnings:
        found.add(CHECKED)
    return found


@contextlib.contextmanager
def started(directory: Path, name: str, internal_mail_filter_classes: str, pickup: str) -> Iterator[Peer]:
    """Run a site with a port for each row, and one with another cleanup service."""
    site = Site(directory)
    (directory / "header").write_text(HEADER_CHECKS)
    (directory / "header").chmod(0o644)
    kept = re.sub("^transport_maps = .*\n", "", (site.etc / "main.cf").read_text(), flags=re.MULTILINE)
    values = MAIN_CF | {"internal_mail_filter_classes": internal_mail_filter_classes}
    added = "".join(f"{parameter} = {value}\n" for parameter, value in values.items())
    added = added.replace("DIRECTORY", str(directory)).replace("PORT", str(site.next_port))
    (site.etc / "main.cf").write_text(kept + added)
    ports = [free_port() for _ in range(len(ROWS) + 1)]
    listeners = [LISTENER.format(port=port, value=value) for port, (value, _) in zip(ports, ROWS, strict=False)]
    master_cf = (site.etc / "master.cf").read_text().replace("1       pickup\n", f"1       {pickup}")
    (site.etc / "master.cf").write_text(master_cf + "".join(listeners) + OTHER_CLEANUP.format(port=ports[-1]))
    with Sink(site.next_port), running(site, name):
        yield Peer(site, name, ports)


@pytest.fixture(scope="module", params=PROGRAMS)
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    name = program(request)
    with started(tmp_path_factory.mktemp(name), name, "", PICKUP) as found:
        yield found


@pytest.fixture(scope="module", params=PROGRAMS)
def filtering(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    name = program(request)
    with started(tmp_path_factory.mktemp(f"{name}-filtering"), name, "bounce", "pickup\n") as found:
        yield found


def test_a_listener_skips_what_its_option_names(peer: Peer) -> None:
    found = {value: peer.effects(port) for port, (value, _) in zip(peer.ports, ROWS, strict=False)}
    assert found == {value: ALL - skipped for value, skipped in ROWS}


def test_the_option_of_a_cleanup_line_has_no_effect(peer: Peer) -> None:
    assert peer.effects(peer.ports[-1]) == ALL - {CHECKED}


def test_pickup_has_an_option_of_its_own(peer: Peer) -> None:
    assert parts(peer.outcome(peer.submit("s@old.example", "alias@next.example"))) == set()


def test_reports_are_mapped_and_get_neither_checks_nor_copies(peer: Peer) -> None:
    assert peer.report("alias@next.example") == Outcome("", {"known@next.example"}, set())


def test_reports_are_checked_where_the_site_says_so(filtering: Peer) -> None:
    assert parts(filtering.outcome(filtering.submit("s@old.example", "alias@next.example"))) == {
        MAPPED,
        COPIED,
        CHECKED,
    }
    # nested_header_checks sees the headers of the returned message.
    assert filtering.report("alias@next.example") == Outcome("", {"known@next.example"}, {"report", "marked"})
