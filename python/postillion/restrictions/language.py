"""The language of restriction lists: words of main.cf to steps, once, when the program starts.

A word is a row's name, with an argument behind it where the row has one, or a class of smtpd_restriction_classes, which
stands for a list of the site's own. Upper and lower case are the same. A word that nothing can answer is refused with
file and line: to skip it would let in mail that the site refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from postillion.checks.check import Rule, Verdict
from postillion.config import Config, ConfigError
from postillion.restrictions.question import Outcome, Question
from postillion.restrictions.rows import RELAY_CONTROL, ROWS, UNCONDITIONAL, Argument, Reads, Row

CLASSES: Final = "smtpd_restriction_classes"
RELAY_LISTS: Final = ("smtpd_relay_restrictions", "smtpd_recipient_restrictions")
NESTING_MAX: Final = 20
"""Maximum number of restriction classes inside each other."""


class Step(NamedTuple):
    """A restriction of a list, ready to be asked."""

    function: Callable[[Question], Outcome]
    reads: Reads
    rule: Rule
    accepts: Verdict


def steps(config: Config, parameter: str, warn: Callable[[str], None]) -> list[Step]:
    """Return a list's steps. Raises `ConfigError` for a word that nothing can answer."""
    found = []
    ended = ""
    for name, row in _rows(config, parameter):
        if row.function is None:
            raise _refused(config, parameter, name, row)
        if ended:
            warn(f'{parameter}: restriction "{name}" after "{ended}" is ignored')
        elif row.name in UNCONDITIONAL:
            ended = name
        found.append(_step(row, Rule.of(config, parameter, row.name)))
    return found


def step(config: Config, parameter: str, restriction: str) -> Step:
    """Return the step that a yes-or-no parameter stands for, such as smtpd_reject_unlisted_recipient."""
    row = ROWS[restriction]
    return _step(row, Rule.of(config, parameter))


def require_relay_control(config: Config) -> None:
    """Raise `ConfigError` if neither the relay nor the recipient list refuses strangers' mail to other sites."""
    named = [word for name in RELAY_LISTS for _, word in _words(config, name, classes(config), ())]
    if not any(word.lower() in RELAY_CONTROL for word in named):
        problem = "smtpd_relay_restrictions and smtpd_recipient_restrictions would relay mail for everybody"
        written = config.setting("smtpd_relay_restrictions") or not config.setting("smtpd_recipient_restrictions")
        place = "smtpd_relay_restrictions" if written else "smtpd_recipient_restrictions"
        raise config.error(place, problem, f"add one of: {', '.join(RELAY_CONTROL)}")


def _step(row: Row, rule: Rule) -> Step:
    assert row.function is not None
    return Step(row.function, row.reads, rule, Verdict(rule=rule))


def classes(config: Config) -> dict[str, str]:
    """Return the restriction classes of the site: each name in lower case with the name as it is written."""
    return {word.lower(): word for word in config.items(CLASSES)}


def _rows(config: Config, parameter: str) -> Iterator[tuple[str, Row]]:
    """Yield each restriction as it is written, with its row; an argument is passed over."""
    words = _words(config, parameter, classes(config), ())
    for place, word in words:
        row = ROWS.get(word.lower())
        if row is None:
            raise _unknown(config, place, word)
        if row.argument not in (Argument.NONE, Argument.RESTRICTION) and next(words, None) is None:
            problem = f'{place}: "{word}" must be followed by a {row.argument.value}'
            raise config.error(place, problem, f"write {word} {row.argument.value}")
        yield word, row


def _words(config: Config, parameter: str, known: dict[str, str], within: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield the words of a list, each with the parameter that it stands in. A class stands for its own list.

    `known`: the classes. `within`: those around this list. A class without a value is empty, as in Postfix.
    """
    for word in config.items(parameter):
        name = known.get(word.lower())
        if name is None or word.lower() in ROWS:
            yield parameter, word
        elif name in within:
            problem = f'{parameter}: restriction class "{name}" contains itself ({" -> ".join((*within, name))})'
            raise config.error(parameter, problem, "remove it from one of these lists")
        elif len(within) >= NESTING_MAX:
            problem = f"{parameter}: restriction classes are nested more than {NESTING_MAX} deep"
            raise config.error(parameter, problem, "write the restrictions out")
        elif config.setting(name) is not None:
            yield from _words(config, name, known, (*within, name))


def _refused(config: Config, parameter: str, word: str, row: Row) -> ConfigError:
    if row.instead:
        problem, fix = "is a restriction that Postfix has no more", f"use {row.instead}"
    else:
        problem, fix = "is not supported yet", "remove it, or keep Postfix for this service"
    return config.error(parameter, f'{parameter}: "{word}" {problem}', fix)


def _unknown(config: Config, parameter: str, word: str) -> ConfigError:
    if ":" in word:
        problem, fix = "is not supported yet", "remove it, or keep Postfix for this service"
    else:
        known = " ".join(sorted(row.name for row in ROWS.values() if row.function is not None))
        problem, fix = "is no restriction", f"known are: {known}"
    return config.error(parameter, f'{parameter}: "{word}" {problem}', fix)
