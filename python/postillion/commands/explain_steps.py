"""The printed steps of `postillion explain`."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from postillion.tables.deferred import decided, effect

INDENT = "    "
T = TypeVar("T")


class Steps:
    """The listener that prints: headings, and indented lines below them."""

    def __init__(self, write: Callable[[str], None] = print) -> None:
        self._write = write
        self._muted = False
        self._first = ""

    def heading(self, text: str) -> None:
        """Print a heading."""
        self._write(text)

    def note(self, text: str) -> None:
        """Print a step, once the decision that it belongs to has ended: with remote tables it runs many times."""
        effect(partial(self._tell, text))

    def await_first(self, heading: str) -> None:
        """Print this heading before the next step, if there is one; an empty one: none."""
        self._first = heading

    def _tell(self, text: str) -> None:
        if self._muted:
            return
        if self._first:
            self.heading(self._first)
            self._first = ""
        self._write(INDENT + text)

    def lookup(self, parameter: str, table: str, key: str, answer: str | None) -> None:
        """Print a lookup."""
        self.note(f"{parameter}: {_shown(table)}: {key} -> {'not found' if answer is None else answer}")

    def failed(self, parameter: str, table: str, key: str, problem: str) -> None:
        """Print a lookup that failed."""
        self.note(f"{parameter}: {_shown(table)}: {key} -> failed: {problem}")

    async def quietly(self, work: Callable[[], T]) -> T:
        """Return the result of work whose steps are printed in another place."""
        self._muted = True
        try:
            return await decided(work)
        finally:
            self._muted = False


def _shown(table: str) -> str:
    """Return the name of a table, without the contents of an inline table, which may be secret."""
    return table.partition("{")[0] + "..." if "{" in table else table
