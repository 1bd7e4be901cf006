"""Probes (`sendmail -bv`) of drawn addresses at drawn sites: Postfix and Postillion find the same ways for them.

A probe has many recipients. Their lines in the log and in the report are compared: address, original address, relay,
status and its reason.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from postillion._core.address import quote
from support.differential import Difference, drawn, unexplained
from support.mta import Site, local_user, running
from support.peers import postfix_home, root
from support.ports import free_port
from support.probes import USER, Line, Mta, groups
from support.wire_sink import WireSink

SITES = 3
"""Number of drawn sites; each is started once by both programs."""
RECIPIENTS_MAX = 40
"""Maximum number of recipients of a probe."""
KEYWORDS = ("PIPELINING", "8BITMIME", "SMTPUTF8", "DSN")
DOMAINS = (
    "example.org", "localhost", "EXAMPLE.ORG", "far.example", "relay.example", "sub.relay.example", "box.example",
    "alias.example", "moved.example", "error.example", "retry.example", "discard.example", "next.example", "host", "",
    "[127.0.0.1]", "old.example", "example.org.",
)  # fmt: skip
LOCALS = (
    "u", "U", "u+x", "u-y", "a b", "ü", "one", "one+x", "team", "command", "file", "list", "owner", "loop", "nosuch",
    "virt", "virt+x", "many", "no", "later", "canon", "gone", "postmaster", "a..b", "-x", "user", "User+x",
)  # fmt: skip
ALIASES = """\
postmaster: nobody
one: one@next.example
team: a@next.example, nosuch, one
command: "|/bin/cat >/dev/null"
file: /dev/null
list: :include:{directory}/etc/list
owner: u@far.example, b@next.example
owner-owner: list
loop: loop1
loop1: loop
user: {user}
"""
ANSWERS = {"no": "550 5.1.1 no such user", "later": "450 4.2.1 come again", "U": "250 2.1.5 Come in"}
REPLIES = {f"{local}@{domain}": reply for local, reply in ANSWERS.items() for domain in DOMAINS}
VIRTUAL = (
    "{virt@example.org = virt1@next.example}, {virt = virt2@far.example, user}, {many@alias.example = u@relay.example,"
    " one, nosuch, many@box.example}, {@old.example = @far.example}, {canon2@relay.example = no@relay.example}"
)
CHOICES = {
    "recipient_delimiter": ("", "+", "+-"),
    "append_dot_mydomain": ("yes", "no"),
    "virtual_alias_maps": ("", f"inline:{{ {VIRTUAL} }}", f"inline:{{ {VIRTUAL} }}"),
    "virtual_alias_domains": ("alias.example", "alias.example, old.example"),
    "virtual_mailbox_domains": ("box.example",),
    "virtual_transport": ("discard:box", "smtp:[127.0.0.1]:{port}"),
    "relay_domains": ("relay.example", "relay.example, discard.example"),
    "relay_transport": ("smtp:[127.0.0.1]:{port}", "relay:[127.0.0.1]:{port}"),
    "default_transport": ("error:5.7.1 no way", "smtp:[127.0.0.1]:{port}", "retry:4.7.1 not now"),
    "relayhost": ("", "[127.0.0.1]:{port}"),
    "recipient_canonical_maps": ("", "inline:{ {canon = canon2@relay.example}, {user@localhost = one} }"),
    "relocated_maps": ("", "inline:{ {gone@example.org = new@far.example}, {@moved.example = nowhere} }"),
    "luser_relay": ("", "later@next.example"),
    "propagate_unmatched_extensions": ("canonical, virtual", "", "canonical, virtual, alias, forward, include"),
    "owner_request_special": ("yes", "no"),
    "local_recipient_maps": ("",),
    "recipient_bcc_maps": ("", "inline:{ {u@relay.example = copy@next.example} }"),
    "soft_bounce": ("no", "no", "yes"),
    "resolve_dequoted_address": ("yes", "no"),
}
ROUTES = (
    "{error.example = error:5.7.1 no thanks}, {retry.example = retry:4.7.1 not now},"
    " {discard.example = discard:quietly}, {next.example = smtp:[127.0.0.1]:PORT}, {.relay.example = discard:sub}"
)


class Case(NamedTuple):
    """A recipient of a probe at a site. `address`: with the quotes that it needs."""

    site: int
    address: str


class Asked(NamedTuple):
    """A probe."""

    site: int
    settings: dict[str, str]
    recipients: list[str]


class Answer(NamedTuple):
    """The results of a probe: lines of the log, and groups of fields of the report."""

    lines: list[Line]
    report: list[str]


def draw(rng: random.Random) -> Case:
    """Return a case."""
    local = rng.choice(LOCALS)
    while rng.random() < 0.15:
        domain = rng.choice(DOMAINS)
        local = rng.choice((f"{domain}!{local}", f"{local}%{domain}", f"{local}@{domain}"))
    domain = rng.choice(DOMAINS)
    # Postfix's sendmail takes a quoted local part with an @ and no domain for an address.
    bare = not domain and "@" not in local
    return Case(rng.randrange(SITES), quote(local) if bare else f"{quote(local)}@{domain or 'example.org'}")


def drawn_site(rng: random.Random) -> dict[str, str]:
    """Return the parameters of a site."""
    return {name: rng.choice(values) for name, values in CHOICES.items()}


@contextlib.contextmanager
def site(directory: Path, program: str, settings: dict[str, str]) -> Iterator[Mta]:
    """Run a site, with a sink behind it, during the block."""
    made = Site(directory)
    values = {name: value.replace("{port}", str(made.next_port)) for name, value in settings.items()}
    values["transport_maps"] = f"inline:{{ {ROUTES.replace('PORT', str(made.next_port))} }}"
    with (made.etc / "main.cf").open("a") as main_cf:
        main_cf.write("".join(f"{name} = {value}\n" for name, value in values.items()))
    (made.etc / "aliases").write_text(ALIASES.format(directory=directory, user=local_user()))
    (made.etc / "list").write_text("l1@next.example\none\nnosuch@localhost\n")
    with WireSink(made.next_port, KEYWORDS, REPLIES), running(made, program):
        yield Mta(made, program, free_port())


def probed(mta: Mta, queue_id: str) -> Answer:
    """Return the answer to a probe, once it is over."""
    mta.over(queue_id)
    report = [{name: mta.plain(value) for name, value in group.items()} for group in groups(mta.report(queue_id))]
    # Postfix names the original recipient in the form without quotes, also where it is the final one.
    kept = [sorted(item for item in group.items() if item[0] != "Original-Recipient") for group in report]
    return Answer(mta.lines(queue_id), sorted(map(str, kept)))


def asked(directory: Path, cases: list[Case]) -> Iterator[tuple[Asked, Answer, Answer]]:
    """Yield each probe with our answer and Postfix's."""
    for number, settings in enumerate(drawn(drawn_site, SITES)):
        addresses = [case.address for case in cases if case.site == number]
        batches = [addresses[at : at + RECIPIENTS_MAX] for at in range(0, len(addresses), RECIPIENTS_MAX)]
        with contextlib.ExitStack() as both:
            mtas = [
                both.enter_context(site(directory / f"{program[4:6]}{number}", program, settings))
                for program in ("postillion", "postfix")
            ]
            for batch in batches:
                sent = [mta.sendmail("-bv", "-f", USER, "--", *batch)[0] for mta in mtas]
                ours, theirs = (probed(mta, queue_id) for mta, queue_id in zip(mtas, sent, strict=True))
                yield Asked(number, settings, batch), ours, theirs


MEMBERS = ("u@far.example", "b@next.example")
"""The members of the list that has an owner."""
BAD_ADDRESS = "5.1.3"


def rest(asked: Asked, answer: Answer) -> tuple[int, list[Line], int, list[str]]:
    """Return an answer without what the known differences are about; bad addresses are counted."""
    owned = asked.settings["owner_request_special"] == "yes"
    lines = [
        line._replace(orig_to=None) if owned and line.to in MEMBERS else line
        for line in answer.lines
        if line.dsn != BAD_ADDRESS
    ]
    report = [group for group in answer.report if f"'{BAD_ADDRESS}'" not in group]
    return len(answer.lines), sorted(lines, key=repr), len(answer.report), report


def original_of_a_member(asked: Asked, ours: Answer, theirs: Answer) -> bool:
    owned = asked.settings["owner_request_special"] == "yes" and any(line.to in MEMBERS for line in ours.lines)
    return owned and rest(asked, ours) == rest(asked, theirs)


def bad_address_is_named_as_given(asked: Asked, ours: Answer, theirs: Answer) -> bool:
    return any(line.dsn == BAD_ADDRESS for line in ours.lines) and rest(asked, ours) == rest(asked, theirs)


KNOWN: list[Difference[Asked, Answer]] = [
    Difference("Postfix's log has no original address of the members of a list with an owner", original_of_a_member),
    Difference("a bad address that routes on is named as it was given", bad_address_is_named_as_given),
]


def test_drawn_addresses_have_the_same_report_at_both(tmp_path: Path) -> None:
    root()
    postfix_home()
    found = unexplained(asked(tmp_path, drawn(draw)), KNOWN)
    assert not found, f"{len(found)} differences, the first:\n{found[0]}"
