"""Parameters without effect: no program reads them yet. This module decides which of them a site may set.

The parameter table has a fifth column for them, *without effect*. A parameter without that column has its effect; a
test compares both with what the programs read.

| column | when the parameter is set |
|---|---|
| `harmless` | a warning: the site loses a convenience |
| `not missed` | nothing is said: a place in Postfix's own installation |
| `unsafe PROGRAM,... [unless VALUE ...]: LOSS` | a service that runs one of these programs does not start |

A parameter is unsafe when ignoring it loses mail, relays, skips a check or sends in the clear. A value that is empty,
the default, or one of the VALUEs asks for nothing. The PROGRAMs are Postfix's.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from postillion.config import parameters, secrets
from postillion.config.errors import place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from postillion.config.errors import ConfigError
    from postillion.config.settings import Config

NOT_MISSED = "not missed"
UNSAFE = "unsafe "

WORKS_AS = {
    "bounce": ("bounce", "cleanup"),
    "local": ("local", "cleanup"),
    "pickup": ("pickup", "cleanup"),
    "qmgr": ("qmgr", "trivial-rewrite"),
    "smtpd": ("smtpd", "cleanup", "trivial-rewrite"),
}
"""The programs of Postfix whose work a program does here; the others do their own work alone."""

NONE = "none"
"""The value that asks for nothing in each parameter that knows it, such as smtp_tls_security_level."""
FIX = "remove it, or keep Postfix for this mail system"
VALUE_SHOWN_CHARS = 60


class Rule(NamedTuple):
    """The column of an unsafe parameter, in parts. `loss`: the result of ignoring it."""

    name: str
    readers: frozenset[str]
    allowed: frozenset[str]
    loss: str


def column(name: str) -> str | None:
    """Return the column *without effect* of a parameter; None when a program reads it or no table knows it."""
    row = parameters.row(name)
    return None if row is None or len(row) < 5 else row[4]


def has_no_effect(name: str) -> bool:
    """Return whether no program reads a parameter that a site would miss."""
    return column(name) not in (None, NOT_MISSED)


def rules() -> list[Rule]:
    """Return the rules of all unsafe parameters."""
    return [_rule(row[0], row[4]) for row in parameters.PARAMETERS.values() if len(row) > 4 and _is_unsafe(row[4])]


def refusals(config: "Config", programs: Iterable[str]) -> list["ConfigError"]:
    """Return an error for each unsafe parameter that asks something of these programs, in the order of the files.

    Raises `ConfigError` for a value that cannot be read.
    """
    readers = {reader for program in programs for reader in WORKS_AS.get(program, (program,))}
    found = [rule for rule in rules() if rule.readers & readers and asks(config, rule.name, rule.allowed)]
    return sorted((_refusal(config, rule) for rule in found), key=lambda error: (error.path, error.line or 0))


def asks(config: "Config", name: str, allowed: Collection[str] = ()) -> bool:
    """Return whether a parameter asks for something: its value is neither empty nor the default nor `allowed`."""
    value = _words(config.text(name))
    return bool(value) and value != _words(config.default_text(name)) and " ".join(value) not in allowed


def warnings(config: "Config", names: Iterable[str]) -> list[str]:
    """Return a warning for each of these settings that asks for something and has no effect."""
    found = []
    for name in names:
        setting = config.settings[name]
        words = setting.value.split()
        if has_no_effect(name) and words not in (config.default(name).split(), [NONE]):
            value = secrets.shown(name, setting.value)
            text = f"{name}={value} has no effect: Postillion does not read this parameter yet"
            found.append(f"{place(setting.path, setting.line)}: {text}")
    return found


def _rule(name: str, text: str) -> Rule:
    head, _, loss = text.removeprefix(UNSAFE).partition(": ")
    readers, _, allowed = head.partition(" unless ")
    return Rule(name, frozenset(readers.split(",")), frozenset(allowed.split()), loss)


def _is_unsafe(text: str) -> bool:
    return text.startswith(UNSAFE)


def _refusal(config: "Config", rule: Rule) -> "ConfigError":
    value = secrets.shown(rule.name, config.text(rule.name))
    if len(value) > VALUE_SHOWN_CHARS:
        value = value[:VALUE_SHOWN_CHARS] + "..."
    return config.error(rule.name, f"{rule.name} = {value} is not supported yet, and {rule.loss}", FIX)


def _words(value: str) -> list[str]:
    """Return the words of a value for comparison, in lower case: flags and levels ignore case."""
    return value.lower().replace(",", " ").split()
