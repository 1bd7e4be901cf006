"""Parameters without an effect: the list matches the sources, and a site gets a warning for each one it sets."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import postillion
from postillion.config import effect, expansion, parameters
from postillion.config.effect import IN_EFFECT, TEMPLATES_IN_EFFECT
from postillion.delivery.smtp.agent import STAGES
from postillion.master.plan import Plan

PACKAGE = Path(postillion.__file__).parent
NOT_PROGRAMS = {PACKAGE / "config" / "effect.py", *(PACKAGE / "config" / "table").glob("*.py")}
NAMED_ONLY = {"canonical_maps", "recipient_canonical_maps", "virtual_alias_maps", "virtual_maps", "domain_to_ascii"}
"""smtpd searches these maps for existing users, but nothing rewrites addresses with them. The last one is a language
feature.
"""
NO_TRANSPORTS = {"extract_recipient_limit", "lmtpd_recipient_limit"}
"""Names with the suffix of a transport parameter that belong to no transport."""
FIRST = "(?:smtp|lmtp|local|virtual|relay|default)"
SECOND = f"(?:{'|'.join(STAGES)}|ehlo|lhlo)"
"""The values in the braces of `f"{prefix}_{stage}_timeout"`."""

MAIN_CF = """\
myhostname = mx.example.org
biff = no
smtpd_tls_security_level = encrypt
smtpd_sasl_auth_enable = no
virtual_alias_maps = inline:{a=b}
relay_destination_rate_delay = 1s
relay_delivery_slot_cost = 3
header_checks =
queue_minfree  =  0
bounce_template_file =
"""
MASTER_CF = """\
2525 inet n - n - - smtpd -o smtpd_tls_wrappermode=yes -o content_filter= -o smtpd_banner=hello
qmgr unix n - n 300 1 qmgr
bounce unix - - y - 0 bounce
smtp unix - - y - - smtp
"""


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


def test_list_of_parameters_in_effect_matches_sources() -> None:
    texts = set(constants())
    templates = {suffix for suffix in parameters.TEMPLATES if suffix.removeprefix("_") in texts}
    patterns = [
        re.compile(re.escape(text).replace("@", FIRST, 1).replace("@", SECOND))
        for text in texts
        if text.startswith("@_") and text.count("@") <= 2 and text != "@_@"
    ]
    read = {
        name
        for name in parameters.PARAMETERS
        if name in texts
        or any(pattern.fullmatch(name) for pattern in patterns)
        or any(name.endswith(suffix) for suffix in templates)
    } - (NAMED_ONLY | NO_TRANSPORTS)
    waiting = list(read)
    while waiting:
        for name in expansion.names(parameters.PARAMETERS[waiting.pop()][2]):
            if name in parameters.PARAMETERS and name not in read | NAMED_ONLY:
                read.add(name)
                waiting.append(name)
    assert read - IN_EFFECT == set(), "add these to IN_EFFECT"
    assert IN_EFFECT - read == set(), "nothing reads these parameters any more"
    assert templates == TEMPLATES_IN_EFFECT


def test_site_gets_warning_for_each_parameter_without_effect(tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text(MAIN_CF)
    (tmp_path / "master.cf").write_text(MASTER_CF)
    warnings = Plan(str(tmp_path)).warnings
    reported = [re.sub(r".*/(ma\w+\.cf, line \d+: .*) has no effect: .*", r"\1", warning) for warning in warnings]
    assert 'master.cf: "y" in the chroot field has no effect yet: bounce, smtp' in warnings.pop()
    assert reported[:-1] == [
        "main.cf, line 3: smtpd_tls_security_level=encrypt",
        "main.cf, line 5: virtual_alias_maps=inline:{a=b}",
        "master.cf, line 1: smtpd_tls_wrappermode=yes",
    ]


def test_unknown_names_are_not_reported_as_without_effect() -> None:
    assert not effect.has_no_effect("no_such_parameter")
