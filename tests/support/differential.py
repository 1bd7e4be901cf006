"""Differential tests: cases drawn from a fixed seed that Postfix and Postillion must answer alike.

A test draws its cases with `drawn`, asks both programs, and gives their answers to `unexplained`. Each known difference
is a row of the test's table, with its reason. `make differential CASES=2000` runs them in their long form.
"""

import os
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

SEED = 10
CASES_VARIABLE = "POSTILLION_CASES"
CASES_IN_CI = 200

Case = TypeVar("Case")
Answer = TypeVar("Answer")


class Difference(NamedTuple, Generic[Case, Answer]):
    """A known difference. `explains`: whether it is the difference between our answer and Postfix's."""

    reason: str
    explains: Callable[[Case, Answer, Answer], bool]


def number_of_cases() -> int:
    """Return how many cases a test draws."""
    return int(os.environ.get(CASES_VARIABLE, CASES_IN_CI))


def drawn(draw: Callable[[random.Random], Case], count: int | None = None, *, seed: int = SEED) -> list[Case]:
    """Return cases; each has a seed of its own, so that a case is the same in a short and in a long run."""
    return [draw(random.Random(f"{seed}/{at}")) for at in range(number_of_cases() if count is None else count)]


def unexplained(
    asked: Iterable[tuple[Case, Answer, Answer]],
    differences: Sequence[Difference[Case, Answer]],
    met: set[str] | None = None,
) -> list[str]:
    """Return a text for each case whose answers (ours, Postfix's) differ for no known reason.

    `met`: collects the reasons of the differences that are known.
    """
    found = []
    for case, ours, theirs in asked:
        if ours == theirs:
            continue
        reason = next((known.reason for known in differences if known.explains(case, ours, theirs)), None)
        if reason is None:
            found.append(f"{case}\n  ours:   {ours}\n  theirs: {theirs}")
        elif met is not None:
            met.add(reason)
    return found
