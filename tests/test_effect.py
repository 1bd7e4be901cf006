"""Parameters without effect: the column in the parameter table matches the parameters that programs read.

A program in Python names a parameter in a string, the Rust core in a line of `settings!`.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import postillion
from postillion.config import effect, expansion, parameters
from postillion.master.programs import BUILT_IN, PROGRAMS

PACKAGE = Path(postillion.__file__).parent
ROOT = Path(__file__).parent.parent
CORE = ROOT / "rust" / "core" / "src"
CLIENTS = tuple(CORE / path for path in ("smtp/client/settings.rs", "delivery/settings.rs", "tls/client_settings.rs"))
"""Here `smtp_` stands for `lmtp_` too."""
NOT_PROGRAMS = {
    PACKAGE / "config" / "effect.py",
    PACKAGE / "commands" / "postconf.py",
    PACKAGE / "commands" / "services.py",
}
NAMED_ONLY = {
    # `postfix tls` copies it into main.cf.
    "tls_random_source",
    # A record of Postfix's queue files has this name.
    "content_filter",
    # Parameters of `tables.sensitive` that no program reads yet.
    "address_verify_sender_dependent_default_transport_maps",
    "address_verify_sender_dependent_relayhost_maps",
    "address_verify_transport_maps",
    "fallback_transport_maps",
    "mailbox_transport_maps",
}
"""Names in the sources that no program reads as parameters."""
FIRST = "(?:smtp|lmtp|local|virtual|relay|default)"
"""The values in the braces of `f"{prefix}_line_length_limit"`."""


def constants() -> Iterator[str]:
    """Yield the string constants of the sources, with `@` for the variable parts of an f-string."""
    for path in PACKAGE.rglob("*.py"):
        if path in NOT_PROGRAMS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "@" for part in node.values)
    for path in CORE.rglob("*.rs"):
        source = path.read_text().partition("#[cfg(test)]")[0]
        if "crate::settings" not in source or path.is_relative_to(CORE / "settings"):
            continue
        for name in re.findall(r'"([A-Za-z0-9_]+)"', source):
            yield name.removeprefix("_")
            if path in CLIENTS and name.startswith("smtp_"):
                yield re.sub("helo|ehlo", "lhlo", name.replace("smtp_", "lmtp_", 1))


def test_parameters_without_the_column_match_sources() -> None:
    texts = set(constants())
    templates = {suffix for suffix in parameters.TEMPLATES if suffix.removeprefix("_") in texts}
    patterns = [
        re.compile(re.escape(text).replace("@", FIRST))
        for text in texts
        if text.startswith("@_") and text.count("@") == 1
    ]
    read = {
        name
        for name in parameters.PARAMETERS
        if name in texts
        or any(pattern.fullmatch(name) for pattern in patterns)
        or any(name.endswith(suffix) for suffix in templates)
    } - NAMED_ONLY
    waiting = list(read)
    while waiting:
        for name in expansion.names(parameters.PARAMETERS[waiting.pop()][2]):
            if name in parameters.PARAMETERS and name not in read | NAMED_ONLY:
                read.add(name)
                waiting.append(name)
    in_effect = {name for name in parameters.PARAMETERS if effect.column(name) is None}
    assert read - in_effect == set(), "a program reads these: remove their column"
    assert in_effect - read == set(), "nothing reads these: give them the column"
    assert templates == {suffix for suffix, row in parameters.TEMPLATES.items() if len(row) == 4}


def test_every_column_has_a_valid_value() -> None:
    programs = {*PROGRAMS, *BUILT_IN}
    for row in (*parameters.PARAMETERS.values(), *parameters.TEMPLATES.values()):
        assert len(row) == 4 or row[4] in ("harmless", "not missed") or row[4].startswith("unsafe "), row
    for rule in effect.rules():
        assert rule.readers, rule
        assert rule.readers <= programs, rule
        assert rule.loss, rule


def test_unknown_names_are_not_reported_as_without_effect() -> None:
    assert not effect.has_no_effect("no_such_parameter")


def test_known_issues_has_a_row_for_every_unsafe_parameter() -> None:
    rows = [line for line in (ROOT / "docs" / "known-issues.md").read_text().splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([A-Za-z0-9_]+)[ `]", row.split("|")[1])}
    assert {rule.name for rule in effect.rules()} - named == set()
