"""Drawn addresses have the complete form that Postfix's trivial-rewrite gives them, for local and remote clients."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from postillion._core.address import AddressRules, canonical, quote
from postillion.config import Config
from support.differential import Difference, drawn, unexplained
from support.mta import Site, running
from support.peers import postfix_home, root
from support.trivial_rewrite import TrivialRewrite, services

CONFIGURATIONS_DRAWN = 16
"""Number of drawn configurations; each is a process of trivial-rewrite."""
FLAGS = ("append_at_myorigin", "append_dot_mydomain", "swap_bangpath", "allow_percent_hack")
CHOICES = {
    "myorigin": ("$myhostname", "example.org", "host", "far.example"),
    "mydomain": ("example.org", "far.example", "local"),
    "remote_header_rewrite_domain": ("domain.invalid", "invalid", "example.org"),
    "recipient_delimiter": ("", "+"),
}
LOCALS = (
    "u", "U", "a b", "u+x", "ü", "a..b", ".a", "q\"q", "b\\s", "-x", "a,b", "a(b)", "<a>", "a;b", "[a]", "a:b", "100",
)  # fmt: skip
DOMAINS = (
    "example.org", "EXAMPLE.org", "host", "Host", "a.b", "localhost", "[127.0.0.1]", "127.0.0.1", "[IPv6:::1]", "büro",
    "büro.example", "a-b", "1", "",
)  # fmt: skip
ENDS = ("", "", "", "", "", "", ".", "..")


class Case(NamedTuple):
    """A configuration, and an address in the form with quotes. `rule`: local or remote."""

    number: int
    address: str
    rule: str


def draw(rng: random.Random) -> Case:
    """Return a case."""
    local = rng.choice(LOCALS)
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 3))):
        domain = rng.choice(DOMAINS) + rng.choice(ENDS)
        local = rng.choice((f"{domain}!{local}", f"{local}%{domain}", f"{local}%{domain}", f"{local}@{domain}"))
    address = quote(local) if rng.random() < 0.95 else f'"{local}"'
    if rng.random() < 0.6:
        address += f"@{rng.choice(DOMAINS)}{rng.choice(ENDS)}"
    return Case(rng.randrange(CONFIGURATIONS_DRAWN), address, rng.choice(("local", "local", "remote")))


def drawn_configuration(rng: random.Random) -> dict[str, str]:
    """Return a configuration."""
    flags = {name: rng.choice(("yes", "no")) for name in FLAGS}
    return {**flags, **{name: rng.choice(values) for name, values in CHOICES.items()}}


CONFIGURATIONS = drawn(drawn_configuration, CONFIGURATIONS_DRAWN)


def asked(directory: Path, cases: list[Case]) -> Iterator[tuple[Case, str, str]]:
    """Yield each case with our answer and Postfix's, both in one written form."""
    site = Site(directory, master_cf=services(CONFIGURATIONS))
    with running(site, "postfix"):
        connections = [TrivialRewrite(site.queue, f"rewrite{number}") for number in range(len(CONFIGURATIONS))]
        rules = [AddressRules(Config.load(str(site.etc), values.items())) for values in CONFIGURATIONS]
        for case in cases:
            address = canonical(case.address)
            if address is None:
                continue
            theirs = connections[case.number].rewrite(address, case.rule)
            yield case, rules[case.number].complete(address, remote=case.rule == "remote"), canonical(theirs) or theirs
        for connection in connections:
            connection.close()


def quoted_address(case: Case, ours: str, theirs: str) -> bool:
    """Return whether ours keeps the quotes of a local part that looks like an address, and has no domain."""
    no_origin = CONFIGURATIONS[case.number]["append_at_myorigin"] == "no"
    return no_origin and ours == case.address and ours.endswith('"') and "@" in ours


KNOWN: list[Difference[Case, str]] = [
    Difference("without append_at_myorigin, Postfix takes a quoted local part with an @ for an address", quoted_address)
]


def test_drawn_addresses_are_completed_as_by_trivial_rewrite(tmp_path: Path) -> None:
    root()
    postfix_home()
    found = unexplained(asked(tmp_path, drawn(draw)), KNOWN)
    assert not found, f"{len(found)} differences, the first:\n{found[0]}"
